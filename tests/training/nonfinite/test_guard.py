"""A step that is not finite: noticed in it, named, and left out, gone back from or the end."""

import json
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import ROOT, first_everyday
from lightning.pytorch import Callback, LightningModule, Trainer
from models import make_module, make_trainer, small_unet
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW
from torch.utils.data import DataLoader, TensorDataset

from ddpm.data.batches import Batch
from ddpm.data.module import ImageDataModule
from ddpm.data.sources.digits import Digits
from ddpm.training.callbacks.checkpoints import Checkpoints
from ddpm.training.checkpoints import find
from ddpm.training.metrics import RunningMean
from ddpm.training.module import DDPM
from ddpm.training.nonfinite import guard
from ddpm.training.nonfinite.diagnosis import Found, Seen
from ddpm.training.nonfinite.guard import Guard, NonFiniteError, Policy, Rollback
from ddpm.training.nonfinite.rollback import fit

sys.path.insert(0, str(ROOT / "tests/extensions"))
from plants import Plant

NAMES = [name for name, _ in small_unet().named_parameters()]

PLACES = {
    "image": r"step 4: image 8 of the batch \(t=\d+\) holds 5 of 64 numbers that are not finite",
    "weight": rf"step 4: the weight {NAMES[5]} holds 1 of \d+ numbers that are not finite",
    "loss": r"step 4: the loss of image 1 of the batch \(t=\d+\) is nan, and the network's output finite",
    "gradient": rf"step 4: the gradient of {NAMES[5]} is not finite",
}
"""What is said of a thing that is planted in the fourth step."""


@pytest.fixture(params=first_everyday(["at once", "late"]))
def when(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether the norm is read in its step, or, as on CUDA, in the next one."""
    monkeypatch.setattr(guard, "reads_late", lambda device: request.param == "late")
    return str(request.param)


def module_of(policy: Policy, **settings: Any) -> DDPM:
    torch.manual_seed(0)
    module = make_module(small_unet(dropout=0.2), **settings)
    module.guard = Guard(policy)
    return module


def data_of(what: str) -> dict[str, Any]:
    if what != "image":
        return {"datamodule": ImageDataModule(Digits(), batch_size=16, horizontal_flip=True, seed=0)}
    images = torch.rand(80, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    images[56, 0, 3, 3] = torch.nan
    images[56, 0, 4, :4] = torch.inf
    return {"train_dataloaders": DataLoader(TensorDataset(images), batch_size=16)}


def trained(
    directory: Path, policy: Policy, what: str, steps: int = 9, *, ckpt: Path | None = None, **settings: Any
) -> DDPM:
    module = module_of(policy, **settings)
    trainer = make_trainer(directory, steps, Checkpoints(every_n_steps=2), Plant(what, step=3))
    fit(trainer, module, ckpt_path=ckpt, **data_of(what))
    return module


def assert_same(a: dict[str, Any], b: dict[str, Any]) -> None:
    for part in ("state_dict", "ema", "optimizer_states", "lr_schedulers", "nonfinite", "timesteps"):
        left, right = torch.utils._pytree.tree_leaves(a[part]), torch.utils._pytree.tree_leaves(b[part])
        for x, y in zip(left, right, strict=True):
            assert torch.equal(x, y) if isinstance(x, Tensor) else x == y


@pytest.mark.parametrize("what", PLACES)
def test_it_stops_in_the_step_and_says_where(what: str, when: str, tmp_path: Path):
    with pytest.raises(NonFiniteError, match=PLACES[what]) as raised:
        trained(tmp_path, "stop", what)
    saved = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert saved == {"step_00000002.ckpt", "last.ckpt"}
    assert all(weight.isfinite().all() for weight in find(tmp_path)[1]["state_dict"].values())
    if what == "gradient":  # late, what was planted in one step alone is not found a second time
        assert ("the first on the way back" in str(raised.value)) == (when == "at once")
    report = tmp_path / "nonfinite/step_00000004"
    assert f"{report} holds the report" in str(raised.value)
    assert json.loads((report / "report.json").read_text())["step"] == 4


@pytest.mark.parametrize("what", first_everyday(["loss", "gradient", "image"]))
def test_a_step_is_left_out_by_the_optimizer_or_before_it(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    found = {}
    for late in (False, True):
        monkeypatch.setattr(guard, "reads_late", lambda device, late=late: late)
        weights = Weights()
        module = module_of("skip")
        trainer = make_trainer(
            tmp_path / str(late), 6, Checkpoints(every_n_steps=2), Plant(what, step=3), weights
        )
        trainer.fit(module, **data_of(what))
        assert [torch.equal(*pair) for pair in zip(weights.seen, weights.seen[1:], strict=False)] == [
            False, False, False, True, False, False,
        ]  # fmt: skip
        assert module.guard.skipped == 1
        found[late] = find(tmp_path / str(late))[1]
        steps = {float(state["step"]) for state in found[late]["optimizer_states"][0]["state"].values()}
        assert steps == {5.0}
        assert found[late]["global_step"] == found[late]["ema"]["num_updates"] == 6
    assert_same(found[False], found[True])


class Weights(Callback):
    """The network's weights before the first step and after each."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._see(pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *arguments: Any) -> None:
        self._see(pl_module)

    def _see(self, module: Any) -> None:
        self.seen.append(torch.cat([weight.detach().flatten() for weight in module.network.parameters()]))


@pytest.mark.usefixtures("when")
def test_a_run_that_left_a_step_out_is_continued_bit_for_bit(tmp_path: Path):
    trained(tmp_path / "whole", "skip", "loss", 9)
    trained(tmp_path / "first", "skip", "loss", 6)
    trained(tmp_path / "rest", "skip", "loss", 9, ckpt=tmp_path / "first/checkpoints/last.ckpt")
    assert_same(find(tmp_path / "whole")[1], find(tmp_path / "rest")[1])


def test_what_is_left_out_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(guard, "MOST_IN_A_ROW", 2)
    module = module_of("skip")
    own = module.losses
    module.losses = lambda *arguments: own(*arguments) * torch.nan
    with pytest.raises(NonFiniteError, match=r"step 3: .*2 steps before it were left out one after another"):
        make_trainer(tmp_path, 9).fit(module, **data_of("loss"))
    assert module.guard.skipped == 3


def test_a_weight_that_is_not_finite_is_not_left_out(tmp_path: Path):
    with pytest.raises(NonFiniteError, match=r"on_nonfinite=skip\) would mend nothing"):
        trained(tmp_path, "skip", "weight")


@pytest.mark.usefixtures("when")
@pytest.mark.parametrize("what", first_everyday(["weight", "loss", "gradient"]))
def test_it_goes_back_and_draws_other_numbers_at_half_the_rate(what: str, tmp_path: Path):
    module = trained(tmp_path, "rollback", what)
    assert module.guard.rollbacks == 1
    _, checkpoint = find(tmp_path)
    assert checkpoint["global_step"] == checkpoint["ema"]["num_updates"] == 9
    assert all(weight.isfinite().all() for weight in checkpoint["state_dict"].values())
    assert module.learning_rate == 1e-3
    assert checkpoint["optimizer_states"][0]["param_groups"][0]["lr"] == 2e-3  # of which schedules go on
    undisturbed = trained(tmp_path / "good", "rollback", "nothing")
    assert undisturbed.guard.rollbacks == 0
    assert undisturbed._draws_from == undisturbed.seed != module._draws_from


@pytest.mark.parametrize("data", first_everyday(["datamodule", "train_dataloaders"]))
def test_a_run_that_went_back_is_continued_bit_for_bit(data: str, tmp_path: Path):
    """In a new process, which learns of the other key from the checkpoint."""
    trained(tmp_path / "whole", "rollback", "loss", 9)
    trained(tmp_path / "first", "rollback", "loss", 6)
    rest = trained(tmp_path / "rest", "rollback", "loss", 9, ckpt=tmp_path / "first/checkpoints/last.ckpt")
    assert rest.guard.rollbacks == 1
    assert_same(find(tmp_path / "whole")[1], find(tmp_path / "rest")[1])


def test_the_checkpoint_that_is_gone_back_to_says_so_at_once(tmp_path: Path):
    """A run that is killed before its next one does not meet the same numbers again."""
    found: list[Any] = []

    class Looks(Callback):
        def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            if trainer.global_step:
                found.append(find(tmp_path)[1])

    trainer = make_trainer(tmp_path, 4, Checkpoints(every_n_steps=2), Plant("loss", step=3), Looks())
    fit(trainer, module_of("rollback"), **data_of("loss"))
    assert [(one["global_step"], one["nonfinite"]["returns"]) for one in found] == [(2, [[4, 2]])]
    last = tmp_path / "checkpoints/last.ckpt"
    assert last.samefile(tmp_path / "checkpoints/step_00000004.ckpt")


def test_the_key_of_a_run_that_went_back_is_for_everything(tmp_path: Path):
    seen: dict[int, list[Any]] = {0: [], 1: []}

    class Sees(Callback):
        def on_train_batch_start(
            self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
        ) -> None:
            module: Any = pl_module
            if trainer.global_step == 2:
                seen[module.guard.rollbacks] = [batch.x_0, module._draws_from, trainer.datamodule.seed]

    module = module_of("rollback")
    trainer = make_trainer(tmp_path, 4, Checkpoints(every_n_steps=2), Plant("loss", step=3), Sees())
    fit(trainer, module, **data_of("loss"))
    assert not torch.equal(seen[0][0], seen[1][0])
    assert seen[0][1:] == [0, 0]
    assert seen[1][1] == seen[1][2] != 0


def test_it_goes_back_so_often_and_no_more_and_each_time_further(tmp_path: Path):
    module = module_of("rollback")
    own = module.losses

    def losses(*arguments: Any) -> Tensor:
        found: Tensor = own(*arguments)
        return found * torch.nan if module.trainer.global_step == 3 else found

    module.losses = losses
    trainer = make_trainer(tmp_path, 9, Checkpoints(every_n_steps=1))
    steps = []
    with pytest.raises(NonFiniteError, match="gone back to a checkpoint 3 times already"):
        fit(trainer, module, on_rollback=lambda path, step, asked: steps.append(step), **data_of("loss"))
    assert steps == [3, 2, 1]
    reports = sorted(path.name for path in (tmp_path / "nonfinite").iterdir())
    assert reports == ["step_00000004", *(f"step_00000004_rollback_{i}" for i in (1, 2, 3))]


def test_without_a_checkpoint_there_is_nothing_to_go_back_to(tmp_path: Path):
    with pytest.raises(NonFiniteError, match=r"There is no checkpoint yet to go back to") as raised:
        fit(make_trainer(tmp_path, 9, Plant("loss", step=0)), module_of("rollback"), **data_of("loss"))
    assert not isinstance(raised.value, Rollback)


def test_the_means_of_a_row_are_of_good_steps(tmp_path: Path):
    found = {}
    for what in ("loss", "nothing"):
        trainer = make_trainer(tmp_path / what, 4, Plant(what, step=3))
        trainer.fit(module_of("skip"), **data_of(what))
        found[what] = trainer.callback_metrics
    assert found["loss"]["diagnostics/skipped_steps"] == 1
    assert "diagnostics/skipped_steps" not in found["nothing"]
    for name in ("train/loss", "train/gradient_norm"):
        assert found["loss"][name] == pytest.approx(float(found["nothing"][name]), rel=0.3)
        assert found["loss"][name] != found["nothing"][name]


def test_an_unknown_word_is_refused():
    with pytest.raises(ValueError, match="on_nonfinite=undo: must be stop or skip or rollback"):
        Guard("undo")


# What a test without a GPU can see of one


def test_a_good_step_is_read_when_the_next_one_is_about_to_be_applied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    events: list[str] = []

    class Noted(guard.Reading):
        def __init__(self, values: Tensor):
            super().__init__(values)
            events.append("sent")

        def get(self) -> list[float]:
            events.append("read")
            return super().get()

    monkeypatch.setattr(guard, "Reading", Noted)
    monkeypatch.setattr(guard, "reads_late", lambda device: True)
    make_trainer(tmp_path, 3).fit(module_of("stop"), **data_of("loss"))
    assert events == ["sent", "read", "sent", "read", "sent", "read"]
    events.clear()
    module = module_of("stop")
    module.optimizer = partial(SGD, lr=0.1, momentum=0.9, fused=True)
    make_trainer(tmp_path, 2).fit(module, **data_of("loss"))
    assert events == ["sent", "read", "sent", "read"]


@pytest.mark.parametrize(
    ("make", "leaves_out"),
    [
        (partial(Adam, fused=True), True),
        (partial(AdamW, fused=True), True),
        (Adam, False),
        (partial(SGD, lr=0.1, momentum=0.9, fused=True), False),
    ],
)
def test_who_leaves_a_step_out_by_itself(make: Any, leaves_out: bool):
    assert guard._leaves_out(make([nn.Parameter(torch.zeros(1))])) == leaves_out


@pytest.mark.parametrize(
    ("norm", "loss", "scale", "bad"),
    [
        (1.0, 1.0, 2.0**16, False),
        (torch.inf, 1.0, 2.0**16, False),  # an overflow like any: the scaler leaves the step out
        (torch.nan, torch.nan, 2.0**16, True),
        (torch.inf, 1.0, 2.0**-11, True),
    ],
)
def test_with_a_scaler_only_what_scaling_cannot_mend_is_bad(
    norm: float, loss: float, scale: float, bad: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(guard, "found_by_all", lambda *arguments, **settings: Found("found"))
    module = SimpleNamespace(
        train_loss=RunningMean(), gradient_norm=RunningMean(), trainer=SimpleNamespace(world_size=1)
    )
    watching = Guard("stop")
    batch = Batch(torch.zeros(1, 1, 8, 8), None, 0, 0)
    watching.guarded(torch.tensor(loss), Seen(batch, 0, 0, torch.zeros(1), torch.ones(1), torch.tensor(loss)))
    scaler = SimpleNamespace(scale=lambda ones: ones * scale)
    optimizer = Adam([nn.Parameter(torch.zeros(1))])
    arguments = (module, torch.tensor(norm), torch.tensor([norm]), [0], optimizer, scaler)
    if bad:
        with pytest.raises(NonFiniteError, match="step 1: found"):
            watching.check(*arguments)
        return
    watching.check(*arguments)
    assert module.train_loss.count == 1
    assert module.gradient_norm.count == (1 if norm == 1 else 0)


def test_a_finite_loss_goes_through_unchanged():
    watching = Guard()
    weight = torch.tensor(0.1, requires_grad=True)
    loss = weight * 3
    batch = Batch(torch.zeros(1, 1, 8, 8), None, 0, 0)
    guarded = watching.guarded(loss, Seen(batch, 0, 0, torch.zeros(1), torch.ones(1), loss.detach()))
    guarded.backward()
    assert torch.equal(guarded, loss)
    assert weight.grad == 3
