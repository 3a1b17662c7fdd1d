"""Exported directories sent to the Hugging Face hub, by its own library."""

import shlex
from pathlib import Path

from ddpm.errors import UsageError

FLAG = "--push-to-hub"


def check_name(repository: str) -> None:
    """Refuse what is no name of a repository.

    Raises:
        UsageError: where it is none.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        if "/" not in repository:
            raise HFValidationError("no owner")  # the card says how to load it, by its whole name
        validate_repo_id(repository)
    except HFValidationError as error:
        raise UsageError(f"{FLAG} {repository}: is no name of a repository of the hub, OWNER/NAME") from error


def push(directory: Path, repository: str) -> str:
    """Send a directory to a repository of models, which is made where there is none.

    Args:
        directory: whose files are sent.
        repository: OWNER/NAME.

    Returns:
        its address.

    Raises:
        UsageError: where there is no token, no network, or the hub refuses it. The directory stays.
    """
    import huggingface_hub

    later = f"{directory} holds all files; send them by: hf upload {repository} {shlex.quote(str(directory))}"
    if huggingface_hub.get_token() is None:
        raise UsageError(
            f"{FLAG} {repository}: there is no token of the hub; hf auth login asks for one. {later}"
        )
    api = huggingface_hub.HfApi()
    try:
        address = api.create_repo(repository, exist_ok=True)
        api.upload_folder(repo_id=address.repo_id, folder_path=directory, commit_message="A run of ddpm")
    except Exception as error:  # of whichever HTTP library is in use, and of the hub
        said = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise UsageError(f"{FLAG} {repository}: was not sent ({said}). {later}") from error
    return str(address)
