"""How this program was started, for whoever starts it again: ranks, jobs, the commands on a screen."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from hydra._internal.utils import get_args_parser  # there is no public parser of Hydra's own flags

COMMANDS = ("train", "sample", "evaluate", "inspect", "encode")
"""The commands of `ddpm` whose arguments are Hydra's."""


def program() -> list[str]:
    """How this program was started, up to its own arguments: the script, or `-m` and a module.

    A command of `ddpm` (`ddpm train`) belongs to it.
    """
    main = sys.modules["__main__"]
    command = sys.argv[1:2] if sys.argv[1:] and sys.argv[1] in COMMANDS and _is_ddpm(main) else []
    if main.__spec__ is not None:
        return ["-m", main.__spec__.name.removesuffix(".__main__"), *command]
    script = os.path.abspath(sys.argv[0])
    if command and not os.path.isfile(script):  # on Windows it is ddpm.exe, named here without the .exe
        return ["-m", "ddpm", *command]
    return [script, *command]


def _is_ddpm(main: object) -> bool:
    spec = getattr(main, "__spec__", None)
    return spec.name == "ddpm.__main__" if spec is not None else Path(sys.argv[0]).stem == "ddpm"


def config_flags(words: Sequence[str]) -> list[str]:
    """The flags of a command line that say which configuration is composed."""
    given, _ = get_args_parser().parse_known_args(list(words))
    flags = {
        "--config-path": given.config_path,
        "--config-name": given.config_name,
        "--config-dir": given.config_dir,
    }
    return [f"{flag}={value}" for flag, value in flags.items() if value is not None]
