"""Short names for runs that are compared, no two alike: of folders, and for a person."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from ddpm.app.grammar import absolute
from ddpm.app.run_directory import numbered

LONGEST = 60
"""Letters of a name."""


def names_of(checkpoints: Sequence[Path]) -> list[str]:
    """A name for each run: that of its directory, and where others are called so, with its checkpoint's or
    with that of the folder that it is in.

    Args:
        checkpoints: files.
    """
    files = [absolute(str(file)) for file in checkpoints]
    found = [_own(file) for file in files]
    further: tuple[Callable[[Path], str], ...] = (
        lambda file: f"{_own(file)}-{file.stem}",
        lambda file: f"{_directory(file).parent.name}-{_own(file)}",
        lambda file: f"{_directory(file).parent.name}-{_own(file)}-{file.stem}",
    )
    for longer in further:
        alike = _alike(found)
        if not alike:
            break
        other = [
            longer(file) if name.casefold() in alike else name
            for file, name in zip(files, found, strict=True)
        ]
        if len(set(map(str.casefold, other))) > len(set(map(str.casefold, found))):
            found = other
    return _told_apart([name[:LONGEST] for name in found])


def _told_apart(names: Sequence[str]) -> list[str]:
    taken: set[str] = set()
    found = []
    for name in names:
        free = next(path.name for path in numbered(Path(name)) if path.name.casefold() not in taken)
        taken.add(free.casefold())  # some file systems know no other
        found.append(free)
    return found


def _alike(names: Sequence[str]) -> set[str]:
    return {name for name, count in Counter(map(str.casefold, names)).items() if count > 1}


def _directory(file: Path) -> Path:
    """Of the run; the folder of a file that is in none."""
    return file.parents[1] if file.parent.name == "checkpoints" else file.parent


def _own(file: Path) -> str:
    """The name of the run directory, job-3 of a sweep's; that of a file that is in none."""
    name = _directory(file).name if file.parent.name == "checkpoints" else file.stem
    return f"job-{name}" if name.isdigit() else name or "run"
