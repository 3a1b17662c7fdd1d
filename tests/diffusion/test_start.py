"""Where a reverse process starts, and pixels that are known beforehand."""

import pytest
import torch
from torch import Tensor

from ddpm.diffusion import Denoiser, Known, Parametrization, q_sample
from ddpm.diffusion.objectives import V
from ddpm.diffusion.samplers import DDIM, DEIS, Ancestral, DPMSolver, Heun, Sampler
from ddpm.diffusion.samplers.trajectory import Trajectory
from ddpm.diffusion.schedules import linear
from ddpm.diffusion.start import Between, FromImage, FromNoise
from ddpm.diffusion.variances import FixedSmall

SCHEDULE = linear(100)
SHAPE = (1, 3, 5)
FIRST, LAST = (torch.rand(SHAPE, generator=torch.Generator().manual_seed(i)) * 2 - 1 for i in range(2))


def draw(indices: range) -> Tensor:
    keyed = (torch.randn(SHAPE, generator=torch.Generator().manual_seed(100 + i)) for i in indices)
    return torch.stack(list(keyed))


def noised(x_0: Tensor, t: int, index: int) -> Tensor:
    return q_sample(SCHEDULE, x_0[None], torch.tensor([t]), draw(range(index, index + 1)))[0]


def test_noise_is_taken_as_it_is():
    assert torch.equal(FromNoise().x_t(SCHEDULE, range(3, 5), draw), draw(range(3, 5)))
    assert FromNoise().t is None


def test_an_image_is_noised_for_each_image_by_itself():
    x_t = FromImage(FIRST, 40).x_t(SCHEDULE, range(2, 6), draw)
    torch.testing.assert_close(x_t, torch.stack([noised(FIRST, 40, i) for i in range(2, 6)]))


def test_the_way_between_two_images_ends_in_both():
    x_t = Between(FIRST, LAST, 40, 5).x_t(SCHEDULE, range(5), draw)
    torch.testing.assert_close(x_t[0], noised(FIRST, 40, 0))
    torch.testing.assert_close(x_t[4], noised(LAST, 40, 1))


def test_points_between_have_as_much_noise_as_the_ends():
    t, n = 40, 9
    eps_first, eps_last = draw(range(2))
    alpha_bar = float(SCHEDULE.alphas_cumprod[t])
    x_t = Between(FIRST, LAST, t, n).x_t(SCHEDULE, range(n), draw)
    for i in range(n):
        a, b = 1 - i / (n - 1), i / (n - 1)
        eps = (x_t[i] - alpha_bar**0.5 * (a * FIRST + b * LAST)) / (1 - alpha_bar) ** 0.5
        weights = torch.linalg.lstsq(
            torch.stack([eps_first.flatten(), eps_last.flatten()], dim=1), eps.flatten()[:, None]
        ).solution
        assert float(weights.square().sum()) == pytest.approx(1, abs=1e-4)  # of two independent unit noises
        assert float(weights[0] * b) == pytest.approx(float(weights[1] * a), abs=1e-5)


def test_points_do_not_depend_on_the_batch():
    between = Between(FIRST, LAST, 40, 6)
    parts = [between.x_t(SCHEDULE, images, draw) for images in (range(2), range(2, 6))]
    torch.testing.assert_close(torch.cat(parts), between.x_t(SCHEDULE, range(6), draw))


def test_beyond_the_ends_there_is_nothing():
    with pytest.raises(ValueError, match="n=5: there is no image 5"):
        Between(FIRST, LAST, 40, 5).x_t(SCHEDULE, range(6), draw)


def test_a_way_needs_two_ends():
    with pytest.raises(ValueError, match="n=1: "):
        Between(FIRST, LAST, 40, 1)


def network(x: Tensor, t: Tensor) -> Tensor:
    return torch.tanh(1.3 * x.roll(1, -1) + t.view(-1, 1, 1, 1) / 100)


def noise_at(t: int, like: Tensor) -> Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(t))


MASK = torch.tensor([[[1, 0, 0, 1, 0]] * 3], dtype=torch.bool)


@pytest.mark.parametrize(
    "sampler",
    [
        Ancestral(),
        Ancestral(10),
        DDIM(10),
        DDIM(10, 1.0),
        DPMSolver(10),
        Heun(10),
        Heun(10, churn=5.0),
        DEIS(10),
    ],
)
def test_known_pixels_end_as_they_are_and_the_others_are_drawn(sampler: Sampler):
    x_t = draw(range(4))
    ends = [
        sampler(
            Denoiser(network, Parametrization(V(), FixedSmall()), known=known), SCHEDULE, x_t, noise=noise_at
        )
        for known in (None, Known(FIRST, MASK))
    ]
    known = ~MASK.expand(4, *SHAPE)
    torch.testing.assert_close(ends[1][known], FIRST.expand(4, *SHAPE)[known])
    assert not torch.allclose(ends[0][known], ends[1][known])
    assert not torch.allclose(ends[0][~known], ends[1][~known])  # they answer to what is known


def test_known_pixels_are_drawn_from_the_posterior_on_the_way():
    """With x_0 known, ancestral steps with the small variance have the marginals q(x_t | x_0), exactly: the
    variance that the noise of all steps adds up to is 1 - alpha-bar."""
    denoiser = Denoiser(
        network,
        Parametrization(V(), FixedSmall()),
        known=Known(torch.zeros(SHAPE), torch.zeros(1, 1, 1, dtype=torch.bool)),
    )
    zero = torch.zeros(1, *SHAPE, dtype=torch.float64)
    variance = {t: 0.0 for t in range(99)}
    for source in range(99, 0, -1):  # a unit of noise in one step only, its share seen in all later ones
        path = Trajectory()

        def noise(t: int, like: Tensor, source: int = source) -> Tensor:
            return torch.ones_like(like) * (t == source)

        Ancestral()(denoiser, SCHEDULE, zero, noise=noise, on_step=path)
        for t in range(source):
            variance[t] += float(path.x_t[t].mean()) ** 2
    path = Trajectory()
    Ancestral()(denoiser, SCHEDULE, zero + 1, noise=lambda t, like: 0 * like, on_step=path)
    for t in (0, 10, 50, 98):
        start = float(path.x_t[t].mean()) ** 2 * (1 - float(SCHEDULE.alphas_cumprod[99]))
        assert variance[t] + start == pytest.approx(1 - float(SCHEDULE.alphas_cumprod[t]), rel=1e-6)
