"""Errors of Hydra and OmegaConf, each as one message that names the way out."""

import difflib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml
from hydra.errors import HydraException, MissingConfigException
from omegaconf.errors import OmegaConfBaseException

from ddpm import options
from ddpm.app.groups import WITHIN
from ddpm.errors import UsageError
from ddpm.options import CONF


@contextmanager
def told_in_one_message(directories: Sequence[Path] = (CONF,)) -> Iterator[None]:
    """Hydra's and OmegaConf's errors as `UsageError`, each a single line that names the way out."""
    try:
        yield
    except UsageError:
        raise
    except MissingConfigException as error:
        raise UsageError(_missing_option(error, directories)) from error
    except RecursionError as error:
        raise UsageError("an option leads back to itself, by its defaults list or an alias (*)") from error
    except yaml.MarkedYAMLError as error:
        mark, said = error.problem_mark or error.context_mark, error.problem or error.context
        where = "" if mark is None else f"{mark.name}, line {mark.line + 1}: "
        raise UsageError(f"{where}is no yaml: {said}") from error
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        if group := re.match(r"Could not override '([^']+)'\. No match in the defaults list", str(error)):
            raise UsageError(f"{group[1]}: there is no such group here; see --help") from error
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, UsageError):  # raised within a resolver
                raise cause from error
            cause = cause.__cause__ or cause.__context__
        raise UsageError(first_lines(error)) from error


def _missing_option(error: MissingConfigException, directories: Sequence[Path]) -> str:
    group, _, option = (error.missing_cfg_file or "").rpartition("/")
    known = sorted(error.options or options.options(group, *directories[1:]))
    if not group and option:
        return (
            f"--config-name {option}: there is no {option}.yaml in {' or '.join(map(str, directories))}; "
            "a run's own configuration is repeated by --config-dir RUN_DIR --config-name config"
        )
    if not known:
        return first_lines(error)
    own = "; options of your own need --config-dir DIR" if list(directories) == [CONF] else ""
    return no_such_option(group, option, known) + own


def no_such_option(group: str, option: str, options: Sequence[str]) -> str:
    """The message for an option that a group has not, with the nearest that it has."""
    near = difflib.get_close_matches(option, options, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]}? There" if near else "there"
    typed = next((short for short, within in WITHIN.items() if within == group), group)
    return f"{typed}={option}: there is no such option; {hint} are {', '.join(options)}"


def first_lines(error: BaseException) -> str:
    """What an error says, without the pages behind it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if error.__cause__ is not None:
        lines += str(error.__cause__).splitlines()[:1]
    return " ".join(lines[:2]) or type(error).__name__
