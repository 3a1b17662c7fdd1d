"""What surrounds the mathematics: versions, devices, packages that cannot be imported, W&B, files."""

import json
import netrc
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from ddpm.diffusion import Parametrization
from ddpm.diffusion.objectives import Epsilon
from ddpm.diffusion.schedules import cosine
from ddpm.diffusion.variances import LearnedRange
from ddpm.diffusion.weighting import Hybrid, VariationalBound
from ddpm.doctor.case import Case, Line, judged
from ddpm.doctor.precision_checks import allowed, loss_error

TO_IMPORT = 300.0
"""Seconds for the imports of a process of its own; a network file system may need minutes for the first."""

TF32 = 1e-2
"""Allowed of a product of matrices: some devices keep ten bits of the factors."""

ENOUGH_DISK = 2 * 2**30
"""Bytes: room for three checkpoints of the paper's CIFAR-10 network, with its average and optimizer."""

IMPORTED = ("torchvision", "lightning.pytorch", "wandb")
"""Imported in a process of their own, for an installed torchvision of another build than torch's ends the one
that imports it, or whatever imports it in turn.
"""

TRY = """
import importlib, json, sys
said = {}
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
        said[name] = ""
    except BaseException as error:
        said[name] = f"{type(error).__name__}: {error}"
    print(json.dumps(said), flush=True)
"""


def lines(importing: subprocess.Popen[str]) -> Iterator[Line]:
    """Everything there is to say, a line each; waits for what `start_importing` began."""
    yield from versions()
    yield from device_lines(devices())
    yield weights_and_biases()
    yield logs(Path.cwd())
    yield disk(Path.cwd())
    yield from imports(importing)


def versions() -> Iterator[Line]:
    """Of Python and every package that this one requires, against what it requires."""
    try:
        about = metadata.metadata("ddpm")
        needs = [Requirement(text) for text in metadata.requires("ddpm") or ()]
    except metadata.PackageNotFoundError:
        yield Line("ddpm", "", "", "", False, "is not installed: pip install -e . in its directory")
        return
    python = SpecifierSet(about["Requires-Python"])
    yield _version("python", platform.python_version(), python)
    for need in needs:
        if need.marker is not None and not need.marker.evaluate({"extra": ""}):
            continue
        try:
            yield _version(need.name, metadata.version(need.name), need.specifier)
        except metadata.PackageNotFoundError:
            yield Line(need.name, "", "", str(need.specifier), False, "is not installed")


def _version(name: str, found: str, needed: SpecifierSet) -> Line:
    right = needed.contains(found, prereleases=True)
    return Line(name, "version", found, str(needed), right, "" if right else "another version is needed")


def devices() -> dict[str, str]:
    """Name -> what it is, of each device there is."""
    found = {"cpu": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"}
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        found[f"cuda:{index}"] = f"{about.name}, {about.total_memory / 2**30:.0f} GiB"
    if torch.backends.mps.is_available():
        found["mps"] = "Apple GPU"
    return found


def device_lines(found: Mapping[str, str]) -> Iterator[Line]:
    """Each device, with a product of matrices and with the losses of training against the CPU's in double
    precision; and whether it has double precision, which nothing may ask of it.
    """
    for name, described in found.items():
        product = Case("device", name, described, "a product of matrices", partial(product_error, name), TF32)
        compared = f"losses of training with those in double precision; {_double(name)}"
        losses = Case(
            "losses on", name, compared, "bound, hybrid", partial(losses_error, name), allowed(cosine(1000))
        )
        yield from judged([product, losses])


def product_error(device: str) -> float:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(256, 256, generator=generator, dtype=torch.float64) for _ in range(2))
    product = (a.float().to(device) @ b.float().to(device)).cpu().double()
    return float((product - a @ b).abs().max() / (a @ b).abs().max())


def losses_error(device: str) -> float:
    """Of the losses with the most operators, and their gradients."""
    parametrization, schedule = Parametrization(Epsilon(), LearnedRange()), cosine(1000)
    return max(
        loss_error(schedule, parametrization, weighting, torch.device(device))
        for weighting in (Hybrid(), VariationalBound())
    )


def _double(device: str) -> str:
    try:
        torch.zeros(1, device=device).double()
    except (RuntimeError, TypeError):
        return "float64 on the CPU only"
    return "float64 there too"


def start_importing() -> subprocess.Popen[str]:
    """Begin to import what could end a process, in one of its own."""
    there = []
    for name in IMPORTED:
        with suppress(metadata.PackageNotFoundError):
            metadata.version(name.split(".")[0])
            there.append(name)
    return subprocess.Popen(
        [sys.executable, "-c", TRY, *there],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def imports(importing: subprocess.Popen[str]) -> Iterator[Line]:
    """What `start_importing` found out; waits for it, but not for ever."""
    ended = True
    try:
        printed, _ = importing.communicate(timeout=TO_IMPORT)
    except subprocess.TimeoutExpired:
        ended = False
        importing.kill()
        printed, _ = importing.communicate()
    started: Any = importing.args
    said = json.loads(printed.splitlines()[-1]) if printed.strip() else {}
    for name in IMPORTED:
        asked_for = name in started
        compared = f"import {name}"
        if not asked_for:
            needless = name == "torchvision"
            what = "not installed, and not needed" if needless else compared
            yield Line(name, what, "", "", needless, "" if needless else "is not installed")
            continue
        problem = said.get(
            name,
            f"ends the process that imports it (exit code {importing.returncode})"
            if ended
            else f"is not imported within {TO_IMPORT:g} s; try again, or install it anew",
        )
        if problem and ended and name == "torchvision":
            theirs, ours = metadata.version("torchvision"), metadata.version("torch")
            problem += (
                f"; torchvision {theirs} does not match torch {ours}: uninstall it, or install its match"
            )
        yield Line(name, compared, "", "", not problem, problem)


def wandb_server() -> str:
    """Where W&B's runs would be sent."""
    return os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")


def has_wandb_key() -> bool:
    """Whether there is a key of W&B's server; no more of it is read."""
    host = urlsplit(wandb_server()).hostname or ""
    file = os.environ.get("NETRC", str(Path.home() / ".netrc"))
    if os.environ.get("WANDB_API_KEY"):
        return True
    with suppress(OSError, netrc.NetrcParseError):
        return netrc.netrc(file).authenticators(host) is not None
    return False


def weights_and_biases() -> Line:
    """Whether runs could be sent; asks no network, and reads no more of a key than that there is one."""
    key = has_wandb_key()
    online = "logger.wandb.mode=online"
    way = f"{online} sends them" if key else f"wandb login, then {online}, sends them"
    stated = os.environ.get("WANDB_MODE")
    said = f"runs are kept offline; {'an' if key else 'no'} API key; {way}"
    return Line("W&B", said + (f"; WANDB_MODE={stated}" if stated else ""), "", "", True)


def logs(directory: Path) -> Line:
    """Whether runs can write `logs/` there; leaves nothing behind."""
    logs_directory = directory / "logs"
    there = logs_directory if logs_directory.exists() else directory
    try:
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=there) as made:
            (Path(made) / "written").write_text("written\n", encoding="utf-8")
    except OSError as error:
        why = (
            f"cannot be written: {error.strerror}; start from a directory of your own, or name hydra.run.dir"
        )
        return Line("logs/", f"write access to {logs_directory}", "", "", False, why)
    return Line("logs/", f"write access to {logs_directory}", "", "", True)


def disk(directory: Path) -> Line:
    """Room for checkpoints."""
    free = shutil.disk_usage(directory).free
    enough = free >= ENOUGH_DISK
    allowed = f"{ENOUGH_DISK / 2**30:.0f} GiB"
    why = "" if enough else "less than three checkpoints of the paper's network need"
    return Line("disk", "free space", f"{free / 2**30:.1f} GiB", allowed, enough, why)
