"""What `python -m ddpm report` does: find runs, sweeps and evaluations, and write their page."""

import shlex
import sys
import webbrowser
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from ddpm import bounded
from ddpm.app import left_run, request
from ddpm.app.grammar import quoted
from ddpm.app.measuring import figures
from ddpm.app.measuring.measurements import MEASURED
from ddpm.app.next_commands import readable
from ddpm.app.run_configuration import OWN
from ddpm.app.run_directory import COMPARED
from ddpm.app.sweeps import record
from ddpm.app.sweeps.record import Job, Sweep
from ddpm.data.skipped import printable
from ddpm.errors import UsageError
from ddpm.report.document import Subject, document
from ddpm.report.entries import Entry, Measurement
from ddpm.report.texts import of_the_system
from ddpm.report.views import MOST_RUNS
from ddpm.runtime.writing import write_whole

PAGE = "report.html"

KINDS = (
    "run.json of a run",
    "sweep.json of a sweep",
    f"{MEASURED} of an evaluation",
    f"{request.NAME} of samples",
)


def write(paths: Sequence[Path], out: Path | None, language: str | None, *, opens: bool) -> int:
    """Write the page and print where it is; the exit code.

    Args:
        paths: directories of runs, sweeps and evaluations.
        out: the file; by default report.html in the directory, or here where there are several.
        language: in which it opens: en or zh; None for the system's.
        opens: whether a browser shows it.

    Raises:
        UsageError: where a directory holds nothing that has a page.
        WriteError: where the file cannot be written.
    """
    if out is not None and out.is_dir():
        raise UsageError(f"--out {out}: is a directory; name a file, --out {out / PAGE}")
    directories = list(dict.fromkeys(path.absolute() for path in paths))
    subject = subject_of(directories)
    file = out or (directories[0] / PAGE if len(directories) == 1 else Path(PAGE))
    time = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z").strip()
    page = document(subject, language=language or of_the_system(), time=time).encode("utf-8", "replace")
    write_whole(file, page)
    print(readable(file.absolute(), Path.cwd()))
    if opens and not webbrowser.open(file.absolute().as_uri()):
        print("warning: --open: no browser was found; open the file yourself", file=sys.stderr)
    return 0


def subject_of(directories: Sequence[Path]) -> Subject:
    """What a page of these directories is about. An evaluation of a run that is on the page belongs to it.

    Args:
        directories: absolute.

    Raises:
        UsageError: for the first that holds nothing that has a page.
    """
    for directory in directories:
        _check(directory)
    sweeps = {one: record.read(one).looked_at() for one in directories if (one / record.NAME).is_file()}
    entries: list[Entry] = []
    notes: list[str] = []
    for directory in directories:
        if directory in sweeps:
            found, lost = _jobs(sweeps[directory], is_alone=len(directories) == 1)
            entries += found
            notes += lost
        else:
            entries += _entries(directory, _name(directory, directories))
    entries = _brought_together(entries)
    if len(directories) > 1:  # what was typed for a job says nothing of others
        entries = [replace(entry, typed=None) for entry in entries]
    name = " + ".join(printable(directory.name or str(directory)) for directory in directories[:3])
    more = f" + {len(directories) - 3}" if len(directories) > 3 else ""
    sweep = sweeps.get(directories[0]) if len(directories) == 1 else None
    command = f"ddpm {sweep.program} -m {shlex.join(sweep.typed)}" if sweep is not None else ""
    return Subject(
        name + more,
        entries[:MOST_RUNS],
        command,
        max(0, len(entries) - MOST_RUNS),
        tuple(notes),
        None if sweep is None else sweep.directory,
    )


def _check(directory: Path) -> None:
    """Refuse what is no run, sweep or evaluation."""
    if not directory.exists():
        raise UsageError(f"{directory}: there is no such directory")
    if not directory.is_dir():
        raise UsageError(f"{directory}: is a file; name the directory of a run or sweep")
    if _is_known(directory) or (directory / record.NAME).is_file():
        return
    inside = [child for child in _children(directory) if _is_known(child) or (child / record.NAME).is_file()]
    try_ = ""
    if inside:
        try_ = f". {len(inside)} in it are, such as {shlex.quote(readable(sorted(inside)[-1], Path.cwd()))}"
    raise UsageError(f"{directory}: is no run or sweep, it holds no {', '.join(KINDS)}{try_}")


def _is_known(directory: Path) -> bool:
    """Whether it is a run, or holds what sample.py or evaluate.py has left."""
    is_run = (directory / left_run.RECORD).is_file() or (
        (directory / OWN).is_file() and (directory / "checkpoints").is_dir()
    )
    # a folder `images` alone says nothing: sample.py leaves its request beside it
    return is_run or any((directory / name).is_file() for name in (request.NAME, MEASURED, "samples.npz"))


def _children(directory: Path) -> list[Path]:
    try:
        return [child for child in directory.iterdir() if child.is_dir()]
    except OSError:
        return []


def _jobs(sweep: Sweep, *, is_alone: bool) -> tuple[list[Entry], list[str]]:
    """The jobs of a sweep, the best first, and what is left out of them."""
    apart = record.differing(sweep.jobs)
    root = sweep.directory.resolve()
    entries, notes = [], []
    for job in sweep.ranked:
        if not job.directory.resolve().is_relative_to(root):
            notes.append(f"job {job.number}: {job.directory} lies outside of the sweep; name it beside it")
            continue
        own = ", ".join(f"{key.rpartition('.')[2]}={value}" for key, value in apart[job.number].items())
        number = str(job.number) if is_alone else f"{sweep.directory.name}/{job.number}"
        entry = _entry(job, printable(f"{number}: {own}" if own else number))
        entries.append(replace(entry, typed=apart[job.number], short=printable(number)))
    return entries, notes


def _name(directory: Path, among: Sequence[Path]) -> str:
    """The end of its path, as long as it takes to tell it from the others."""
    parts = directory.parts
    for n in range(1, len(parts)):
        end = parts[-n:]
        if sum(other.parts[-n:] == end for other in among) == 1:
            return printable("/".join(end))
    return printable(str(directory))


def _entries(directory: Path, name: str) -> list[Entry]:
    """Of a run or an evaluation; of an evaluation that compares runs, one for each of them."""
    root = directory.resolve()
    compared = [
        child
        for child in sorted(_children(directory / COMPARED))
        if (child / MEASURED).is_file() and child.resolve().is_relative_to(root)
    ]
    if (directory / left_run.RECORD).exists() or not compared:
        return [_entry(Job(0, directory), name)]
    return [_entry(Job(0, child), printable(f"{name}/{child.name}")) for child in compared]


def _entry(job: Job, name: str) -> Entry:
    """What the directory of a run says, or of an evaluation; the rest of it is read for the page."""
    directory = job.directory
    known: dict[str, Any] = {}
    notes: list[str] = []
    is_run = (directory / left_run.RECORD).exists()
    job = record.look(job)
    if is_run:
        try:
            known = left_run.read_record(directory)
        except UsageError as error:
            notes.append(str(error))
    config = _configuration(directory, notes)
    trainer = config.get("trainer")
    max_steps = trainer.get("max_steps") if isinstance(trainer, Mapping) else job.max_steps
    status = job.status
    if not is_run and directory.exists() and job.exit_code is None and status == "failed":
        status = "unknown"  # one that was imported, or whose record was lost
    return Entry(
        name,
        directory,
        status,
        why=job.why,
        step=job.step,
        max_steps=max_steps if isinstance(max_steps, int) else None,
        seconds=job.seconds or None,
        record=known,
        config=config,
        defaults=_defaults(known, config),
        measurements=tuple(_measurements(directory)),
        beside=tuple(file.parent for file in figures.files_in(directory)),
        notes=tuple(notes),
    )


def _configuration(directory: Path, notes: list[str]) -> dict[str, Any]:
    """Of a run, or what an evaluation was asked for."""
    try:
        if (directory / OWN).exists():
            return bounded.yaml_values(directory / OWN)
        if (directory / request.NAME).exists():
            asked = bounded.json_values(directory / request.NAME, request.MOST_BYTES).get("config")
            return asked if isinstance(asked, dict) else {}
    except UsageError as error:
        notes.append(str(error))
    return {}


def _measurements(directory: Path) -> Iterator[Measurement]:
    """What was measured there, and in directories in it."""
    for file in figures.files_in(directory):
        yield from _measured(file.parent, str(file.relative_to(directory)))


def _measured(directory: Path, source: str) -> Iterator[Measurement]:
    for name, one in figures.left_in(directory).items():
        yield Measurement(
            name, one.value, one.interval, printable(source), one.nfe, higher_is_better=one.higher_is_better
        )


def _brought_together(entries: Sequence[Entry]) -> list[Entry]:
    """Entries, with each evaluation of a run that is among them as a part of that run."""
    runs = {entry.directory.resolve(): i for i, entry in enumerate(entries) if entry.record}
    kept = dict(enumerate(entries))
    for i, entry in enumerate(entries):
        measured = _run_measured(entry)
        if measured is None or not entry.measurements:
            continue
        at = next((runs[one] for one in (measured, *measured.parents) if one in runs), None)
        if at is None or at == i:
            continue
        own = tuple(replace(one, source=f"{entry.directory.name}/{one.source}") for one in entry.measurements)
        kept[at] = replace(kept[at], measurements=(*kept[at].measurements, *own))
        del kept[i]
    return list(kept.values())


def _run_measured(entry: Entry) -> Path | None:
    """The checkpoint that an evaluation is of."""
    if entry.record or not (entry.directory / MEASURED).is_file():
        return None
    try:
        ckpt = bounded.json_values(entry.directory / MEASURED, figures.MOST_BYTES).get("ckpt")
        return Path(ckpt).resolve() if isinstance(ckpt, str) else None
    except (UsageError, OSError, ValueError):
        return None


def _defaults(known: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The configuration that `train.py data=OPTION` has, for the option that a run has chosen."""
    choices, data = known.get("choices"), config.get("data")
    option = choices.get("data") if isinstance(choices, Mapping) else None
    if not isinstance(option, str) or not isinstance(data, Mapping):
        return None
    needed = tuple(
        (key, _typed(data[key]))
        for key in ("path", "image_size")
        if isinstance(data.get(key), str | int | list)
    )
    return _composed(option, needed)


def _typed(value: Any) -> str:
    """A value in Hydra's grammar, in which a number in quotes is text."""
    if isinstance(value, list):
        return f"[{','.join(map(_typed, value))}]"
    return quoted(value) if isinstance(value, str) else str(value)


@cache
def _composed(option: str, needed: tuple[tuple[str, str], ...]) -> dict[str, Any] | None:
    """The same, with the keys of the data that have no default; None where there is no such option."""
    from ddpm.app import arguments, compose

    words: tuple[str, ...] = ()
    for words in ((), tuple(f"data.{key}={value}" for key, value in needed)):
        try:
            read = arguments.read([f"data={option}", *words], "train")
            if option not in read.options("data"):
                return None
            return compose.composed(read, "train").values
        except UsageError:
            continue
    return None
