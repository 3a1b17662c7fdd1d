"""Images are drawn by their indices, by one way for every caller."""

from typing import Any

import pytest
import torch
from models import make_module
from torch import Tensor, nn

from ddpm.diffusion import validity
from ddpm.diffusion.guidance import ClassifierFree
from ddpm.diffusion.samplers import DDIM, Ancestral, DPMSolver, Heun, Trajectory
from ddpm.diffusion.start import Between, FromImage
from ddpm.sampling import drawing
from ddpm.sampling.batches import announced_sampling
from ddpm.sampling.drawing import Drawing, labels_of
from ddpm.training.module import DDPM


def awake() -> DDPM:
    module = make_module()
    for parameter in module.network.parameters():
        nn.init.normal_(parameter, std=0.1)
    module.ema.reset()
    return module


@pytest.mark.parametrize("sampler", [DDIM(4), Ancestral(6)])
@pytest.mark.parametrize("indices", [[3], [5, 4], [0, 40, 17, 41], range(1, 30, 7), range(30, 40)])
def test_any_indices_give_the_images_that_all_of_them_give(sampler: Any, indices: Any):
    draw = Drawing(awake(), sampler=sampler)
    torch.testing.assert_close(draw(indices), draw(range(42))[list(indices)], atol=1e-5, rtol=0)


def test_a_request_is_checked_once_for_all_batches(monkeypatch: pytest.MonkeyPatch):
    asked: list[Any] = []

    def check(**request: Any) -> None:
        asked.append(request)
        validity.check_request(**request)

    monkeypatch.setattr(drawing, "check_request", check)
    drawn = announced_sampling(Drawing(make_module()), range(6), batch_size=2)
    assert drawn is not None
    assert len(asked) == 1


def test_every_step_of_every_batch_is_seen():
    seen: list[int] = []
    draw = Drawing(make_module(), sampler=DDIM(3))
    announced_sampling(draw, range(4), batch_size=2, on_step=lambda t, x_t, x_0: seen.append(t))
    assert seen == seen[:3] * 2
    assert seen[:3] == sorted(seen[:3], reverse=True)


def test_a_request_that_does_not_fit_is_refused_before_anything_is_drawn():
    module = make_module()
    with pytest.raises(ValueError, match="without classes"):
        Drawing(module, labels=[0])


@pytest.mark.parametrize("sampler", [DDIM(7, eta=1.0), Ancestral(9), DPMSolver(6, stochastic=True)])
def test_images_share_the_x_t_of_image_0_and_have_noise_of_their_own_below(sampler: Any):
    module = awake()
    plain, visited = Drawing(module, sampler=sampler), Drawing(module, sampler=sampler).timesteps
    own = Trajectory()
    plain(range(3), on_step=own)
    t, below = visited[2], visited[3]
    together = Trajectory()
    images = Drawing(module, sampler=sampler, shared_t=t)(range(3), on_step=together)
    for step in visited[:3]:
        torch.testing.assert_close(together.x_t[step], own.x_t[step][:1].expand(3, -1, -1, -1))
    assert (together.x_t[below][1] - together.x_t[below][0]).abs().max() > 0.01
    torch.testing.assert_close(together.x_t[below][0], own.x_t[below][0])
    torch.testing.assert_close(images[2:], Drawing(module, sampler=sampler, shared_t=t)([2]))


@pytest.mark.parametrize(
    ("spacing", "first"),
    [
        ("leading", 80),
        ("trailing", 99),
        ("log_snr", 99),
        ("karras", 99),
        ("ddim10", 90),
        ([3, 1], 50),
    ],
)
def test_any_spacing_starts_from_noise_or_from_a_picture(spacing: Any, first: int):
    module = awake()
    for sampler in (DDIM(6, spacing=spacing), Heun(6, spacing=spacing, churn=2.0)):
        for start, top in ((None, first), (FromImage(torch.zeros(1, 8, 8), 37), 37)):
            drawing, seen = Drawing(module, sampler=sampler, start=start), []
            images = drawing(range(2), on_step=lambda t, x_t, x_0, seen=seen: seen.append((t, x_t)))
            assert drawing.timesteps[0] == seen[0][0] == top
            assert {t for t, _ in seen} == set(drawing.timesteps)
            assert len(seen) == drawing.steps == drawing.nfe
            if start is None:
                assert torch.equal(seen[0][1], first_noise(module))
            assert images.isfinite().all()


class Asked(nn.Module):
    """A network that keeps the timesteps that it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.t = nn.Parameter(torch.ones(())), list[int]()

    def forward(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        self.t.append(int(t[0]))
        return self.weight * x_t


def test_evaluations_of_the_network_are_counted_within_the_interval_of_guidance_alone():
    network = Asked()
    module = make_module(network, classes=["cat", "dog"])
    for sampler in (DDIM(9), Heun(5), Heun(4, churn=2.0)):
        for interval in (None, [30, 70], [0, 0]):
            drawing = Drawing(module, sampler=sampler, guidance=ClassifierFree(1.5, interval=interval))
            network.t.clear()
            drawing(range(2))
            assert drawing.nfe == len(network.t)


def first_noise(module: Any) -> torch.Tensor:
    """What images 0 and 1 begin with, wherever that is."""
    seen: list[torch.Tensor] = []
    Drawing(module, sampler=DDIM(1))(range(2), on_step=lambda t, x_t, x_0: seen.append(x_t))
    return seen[0]


def test_churn_is_an_images_own_in_any_batch():
    drawing = Drawing(awake(), sampler=Heun(6, churn=5.0), seed=3)
    whole = drawing(range(5))
    split = torch.cat([drawing([4]), drawing(range(3)), drawing([3])])[[1, 2, 3, 4, 0]]
    torch.testing.assert_close(split, whole)
    assert (whole - Drawing(awake(), sampler=Heun(6), seed=3)(range(5))).abs().max() > 0.01


def test_images_that_share_x_t_may_start_from_a_picture():
    module, start = awake(), FromImage(torch.zeros(1, 8, 8), 60)
    plain = Drawing(module, sampler=Ancestral(), start=start)
    shared = Drawing(module, sampler=Ancestral(), start=start, shared_t=60)
    torch.testing.assert_close(shared(range(2))[0], plain(range(2))[0])
    seen = Trajectory([60])
    shared(range(2), on_step=seen)
    assert torch.equal(seen.x_t[60][0], seen.x_t[60][1])


@pytest.mark.parametrize(
    ("sampler", "t", "said"),
    [
        (DDIM(5), 50, "shared_t=50: DDIM as it is set draws no noise"),
        (Heun(5), 50, "shared_t=50: Heun as it is set draws no noise"),
        (DPMSolver(5), 50, "shared_t=50: DPMSolver as it is set draws no noise"),
        (Ancestral(), 0, "below t = 1"),
        (Ancestral(), 100, "from t = 99 down to 0"),
        (Ancestral(), -1, "from t = 99 down to 0"),
        (DDIM(10, eta=0.5), 10, "below t = 11"),
    ],
)
def test_what_could_not_be_shared_is_refused(sampler: Any, t: int, said: str):
    with pytest.raises(ValueError, match=said):
        Drawing(make_module(), sampler=sampler, shared_t=t)


def test_a_row_is_smooth_where_its_images_take_one_noise_on_their_way():
    """From one picture to another at a high t, where nearly all comes from the noise."""
    module = awake()
    start = Between(torch.zeros(1, 8, 8), 0.1 * torch.ones(1, 8, 8), 80, 9)
    own, same = (
        Drawing(module, sampler=Ancestral(), start=start, same_noise=same)(range(9)) for same in (False, True)
    )
    torch.testing.assert_close(same[0], own[0])
    apart, near = ((row[1:] - row[:-1]).flatten(1).norm(dim=1).mean() for row in (own, same))
    assert 0 < near < apart / 3
    some = Drawing(module, sampler=Ancestral(), start=start, same_noise=True)(range(7, 9))
    torch.testing.assert_close(some, same[7:])
    with pytest.raises(ValueError, match=r"shared_t=50: .* are one image; leave same_noise out"):
        Drawing(module, sampler=Ancestral(), shared_t=50, same_noise=True)


def test_images_of_several_classes_share_no_x_t():
    module = make_module(nn.Linear(1, 1), classes=["cat", "dog"])
    for labels in (None, [0, 1]):
        with pytest.raises(ValueError, match=r"of one class; name it, as in labels=\[0\]"):
            Drawing(module, sampler=Ancestral(), shared_t=50, labels=labels)
    Drawing(module, sampler=Ancestral(), shared_t=50, labels=[1])


def test_classes_come_in_turn():
    module = make_module(nn.Linear(1, 1), classes=["cat", "dog", "owl"])
    assert labels_of(module, range(2, 7)) == [2, 0, 1, 2, 0]
    assert labels_of(module, [9, 1], [2, -1]) == [-1, -1]
    assert labels_of(make_module(), range(3)) is None
