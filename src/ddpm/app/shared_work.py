"""Work that all devices of a program share, from its check to its end: sampling, measuring."""

import logging
import secrets
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch.distributed import PrefixStore, TCPStore

from ddpm.app import gpus_there, refusal, terminal
from ddpm.app.command_line import Job
from ddpm.app.devices import idle_trainer, is_sharded
from ddpm.app.run_directory import Place, is_leader
from ddpm.app.same_run import machine_identity
from ddpm.app.watch import Watch
from ddpm.errors import UsageError
from ddpm.runtime.peers.meeting import leaders_store
from ddpm.runtime.sharing import Sharing
from ddpm.runtime.writing import WriteError
from ddpm.training.callbacks.same_run import compare
from ddpm.training.ending import Ending, TrainingError, ending
from ddpm.training.module import DDPM
from ddpm.training.torchrun import meet_anew

log = logging.getLogger(__name__)

PIECES = "pieces"
"""In a program's directory, what its work has come to so far."""


@dataclass(frozen=True)
class Work:
    """What a program does on all of its devices.

    Attributes:
        log_file: its name in the directory.
        doing: what it does, in a word.
        module: it does it with; None where it needs none.
        identity: what makes the work, as text by name: must be the same on every rank.
        begin: said and written by the leader, before the other ranks are started.
        share: done by every rank.
    """

    log_file: str
    doing: str
    module: DDPM | None
    identity: Mapping[str, str]
    begin: Callable[[], None]
    share: Callable[[Sharing], None]


Build = Callable[[Trainer], Work | None]
"""Finds what is wrong with a request, and what is to be done; None where all is done already. Writes nothing.
"""


def on_devices(config: Mapping[str, Any], place: Place, build: Build) -> Job:
    """A job that works on all devices that the configuration names.

    Args:
        config: checked, with `trainer`, `strategy` and `timeout`.
        place: of the program.
        build: of its work.

    Raises:
        UsageError: where the devices or the request make no sense.
    """
    watch = Watch(place, config["timeout"])
    watch.begin()
    try:
        terminal.set_up(None, leader=is_leader(), verbose=config["verbose"])
        gpus_there.check(config["trainer"])
        trainer = idle_trainer(config, place.directory)
        work = build(trainer)
    except BaseException:
        watch.close()
        raise

    def job() -> int:
        try:
            return 0 if work is None else _run(trainer, watch, work, place, config["verbose"])
        finally:
            watch.close()

    return job


def _run(trainer: Trainer, watch: Watch, work: Work, place: Place, verbose: str) -> int:
    """Do the work on every rank. Returns the exit code."""
    directory = place.directory
    terminal.set_up(directory / work.log_file, leader=trainer.is_global_zero, verbose=verbose)
    watch.doing = work.doing
    raised: BaseException | None = None
    try:
        if trainer.is_global_zero:
            try:
                work.begin()
            except Exception:
                refusal.tell_ranks()
                raise
        watch.meet(trainer)
        share = partial(_on_rank, trainer, watch, work, directory)
        launcher = trainer.strategy.launcher
        if launcher is None:
            share()
        else:
            launcher.launch(share)
    except Exception as error:
        raised = watch.cause(error)
        if not isinstance(raised, TrainingError | WriteError | UsageError):
            log.exception("%s failed", work.doing)
    except BaseException as error:
        raised = error
        raise
    finally:
        watch.is_over()
        ended = watch.named(_ending(trainer, raised))
        watch.close(ended)
    if trainer.is_global_zero and ended.status == "failed":
        log.error("%s failed: %s", work.doing, ended.why)
        named = "" if place.found_again else f", with hydra.run.dir={shlex.quote(str(directory))}"
        terminal.say(f"the same command goes on{named}: {directory}")
    return ended.exit_code


def _ending(trainer: Trainer, raised: BaseException | None) -> Ending:
    if isinstance(raised, WriteError):
        return Ending("failed", 1, str(raised))
    if isinstance(raised, UsageError):
        return Ending("failed", 2, str(raised))
    return ending(trainer, raised)


def _on_rank(trainer: Trainer, watch: Watch, work: Work, directory: Path) -> None:
    """One rank's part, in the process that computes it."""
    meet_anew(trainer)
    module: Any = work.module
    if is_sharded(trainer):
        trainer.strategy.connect(module)
        module.trainer = trainer
    trainer.strategy.setup_environment()
    if is_sharded(trainer):
        module.configure_model()
        module.to(trainer.strategy.root_device)
    sharing = Sharing(
        directory / PIECES, trainer.global_rank, trainer.world_size, in_step=is_sharded(trainer)
    )
    if trainer.world_size == 1:
        work.share(sharing)
        sharing.end()
        return
    compare(trainer.world_size, {**machine_identity(), **work.identity})
    sharing.store = _store(trainer, watch.timeout)
    if (peers := watch.peers) is not None:
        sharing.progressed = lambda waits: peers.progress(phase=work.doing, step=-1, waiting=waits)
    work.share(sharing)
    sharing.end()
    torch.distributed.destroy_process_group()


def _store(trainer: Trainer, seconds: float) -> PrefixStore:
    """One that all ranks reach, without anything in it: torchrun's keeps what an attempt before has left."""
    name = [secrets.token_hex(8)]
    torch.distributed.broadcast_object_list(name, 0)
    environment: Any = getattr(trainer.strategy, "cluster_environment", None)
    address, port = environment.main_address, environment.main_port
    if trainer.is_global_zero:
        store = leaders_store(address, port, seconds)
    else:
        store = TCPStore(
            address, port, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=seconds)
        )
    return PrefixStore(f"ddpm/shared/{name[0]}", store)
