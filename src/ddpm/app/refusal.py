"""What a leader that cannot begin tells the ranks that SLURM has started beside it."""

import os
from contextlib import suppress

from ddpm.app.run_directory import is_leader, number_of_processes

STAYS = 30.0
"""Seconds that the leader waits for ranks that are still starting."""


def tell_ranks() -> None:
    """Have the other ranks end, which would wait for this one as long as the timeout: srun ends them only
    where `--kill-on-bad-exit` is set. torchrun ends them by itself; what Lightning starts has not begun.
    """
    if number_of_processes() == 1 or not is_leader() or "TORCHELASTIC_RUN_ID" in os.environ:
        return
    from lightning.fabric.plugins.environments import SLURMEnvironment

    from ddpm.runtime.peers import Failure, Peers

    with suppress(OSError, RuntimeError):  # what made it refuse is to be told, not this
        where = SLURMEnvironment()
        peers = Peers(0, number_of_processes(), STAYS, on_signal=lambda _: None, on_failure=lambda _: None)
        peers.fail(Failure(f"{peers.state.name} cannot begin", (0,), raised=True))
        alone = os.environ.get("SLURM_NNODES", "1") == "1"
        peers.begin(where.main_address, where.main_port, on_this_machine=alone)
        peers.leave(STAYS)
