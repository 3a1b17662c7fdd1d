"""A return to a checkpoint of another directory, of a run that has saved nothing itself yet."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ddpm.training.checkpoints import LAST, at_step, load, parts, write
from ddpm.training.nonfinite.rollback import _with_returns

STATE: dict[str, Any] = {
    "state_dict": {"network.weight": torch.arange(6.0).view(3, 2)},
    "config": {}, "data": None, "global_step": 6, "nonfinite": {"returns": [], "skipped": 2},
}  # fmt: skip


def rows(tensor: torch.Tensor, rank: int) -> torch.Tensor:
    return tensor.chunk(2)[rank]


@pytest.mark.parametrize("in_parts", [False, True])
def test_the_return_is_kept_in_the_runs_own_directory(in_parts: bool, tmp_path: Path):
    theirs = tmp_path / "theirs" / "checkpoints" / at_step(6)
    if in_parts:
        reports = []
        for rank in range(2):
            head, part = parts.split(STATE, partial(rows, rank=rank))
            reports.append(parts.Report(file=parts.write_part(part, rank, 2, theirs)))
        parts.conclude(head, reports, theirs, write)
    else:
        write(STATE, theirs)
    trainer: Any = SimpleNamespace(is_global_zero=True, default_root_dir=str(tmp_path / "own"))
    guard = SimpleNamespace(state_dict=lambda: {"returns": [[9, 6]]})
    own = _with_returns(trainer, SimpleNamespace(guard=guard), theirs, 6)
    assert own == tmp_path / "own" / "checkpoints" / at_step(6)
    for path in (own, own.with_name(LAST)):
        found = load(path)
        assert found["nonfinite"] == {"returns": [[9, 6]], "skipped": 2}
        assert torch.equal(found["state_dict"]["network.weight"], STATE["state_dict"]["network.weight"])
    assert (parts.KEY in load(own, whole=False)) == in_parts
    assert load(theirs)["nonfinite"]["returns"] == []
