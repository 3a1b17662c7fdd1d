"""Figures of runs: what is in them agrees with closed forms, and is where it should be."""

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from models import make_module
from PIL import Image
from torch import nn

from ddpm.data.images import ImageSet
from ddpm.diffusion import NoiseSchedule, Parametrization
from ddpm.diffusion.objectives import X0, Epsilon, V
from ddpm.diffusion.samplers import Trajectory
from ddpm.diffusion.schedules import cosine, linear
from ddpm.diffusion.variances import FixedLarge, FixedSmall, LearnedRange, Variance
from ddpm.diffusion.weighting import SNR, Hybrid, MinSNR, Simple, VariationalBound, Weighting
from ddpm.errors import UsageError
from ddpm.evaluation import neighbours_figure as neighbours
from ddpm.random import Purpose, Stream
from ddpm.report.figures import legend, loss, path
from ddpm.sampling.captions import font_for
from ddpm.sampling.figures import denoising, files, forward, schedule
from ddpm.sampling.figures.film import Film, Moment
from ddpm.sampling.figures.layout import Group, decimal, shortened, table
from ddpm.sampling.figures.style import styled

SIZE = {"width": 4.0, "dpi": 60}


def images(n: int, *shape: int) -> torch.Tensor:
    return torch.rand(n, *(shape or (1, 8, 8)), generator=torch.Generator().manual_seed(n)) * 2 - 1


def trajectory_of(timesteps: list[int], x_0: torch.Tensor) -> Trajectory:
    kept = Trajectory()
    for t in timesteps:
        kept(t, x_0 + 0.01 * t, x_0)
    return kept


# The forward process


def test_forward_noise_is_keyed_by_seed_and_image():
    chain, x_0 = linear(100), images(5)
    drawn = forward.noised(chain, x_0, [0, 50, 99], seed=3)
    assert torch.equal(drawn, forward.noised(chain, x_0, [0, 50, 99], seed=3))
    assert torch.equal(drawn[:, :2], forward.noised(chain, x_0[:2], [0, 50, 99], seed=3))
    assert not torch.equal(drawn, forward.noised(chain, x_0, [0, 50, 99], seed=4))


def test_forward_images_are_what_the_closed_form_says():
    chain, x_0 = linear(100), images(3)
    eps = Stream(3, Purpose.FIGURE).normal(0, range(3), (1, 8, 8))
    alpha_bar = (1 - torch.linspace(1e-3, 0.2, 100, dtype=torch.float64)).cumprod(0)
    for t, x_t in zip((0, 99), forward.noised(chain, x_0, [0, 99], seed=3), strict=True):
        expected = alpha_bar[t].sqrt() * x_0.double() + (1 - alpha_bar[t]).sqrt() * eps.double()
        assert torch.allclose(x_t.double(), expected, atol=1e-6)


def test_forward_has_a_row_an_image_and_a_column_a_timestep():
    figure = forward.draw(linear(100), images(3), ["a", "b", "c"], steps=4, seed=0, **SIZE)
    (axes,) = figure.axes
    assert len(axes.images) == 12
    texts = [text.get_text() for text in axes.texts]
    assert texts[:5] == ["$t$", "0", "33", "66", "99"]
    assert [text for text in texts if text in ("a", "b", "c")] == ["a", "b", "c"]
    assert figure.get_figwidth() <= 4.0 + 1e-6


def test_a_chain_shorter_than_the_columns_is_shown_whole():
    assert forward.shown_timesteps(linear(30), 8)[::7] == [0, 29]
    assert forward.shown_timesteps(linear(30), 60) == list(range(30))


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.0, "1"), (0.99991, "0.9999"), (0.426, "0.43"), (4.2e-5, r"$4\cdot 10^{-5}$"), (0.0, "0")],
)
def test_alpha_bar_is_written_as_people_read_it(value: float, text: str):
    assert decimal(value) == text


# Images on a sheet


def test_each_pixel_of_an_image_is_a_whole_number_of_pixels_of_the_file():
    image = (images(1)[0] * 127 + 128).to(torch.uint8)
    with styled():
        sheet = table([Group("", [("", image[None].repeat(3, 1, 1, 1))])], [], width=3.0, dpi=100)
        canvas = FigureCanvasAgg(sheet.figure)
        canvas.draw()
    drawn = np.asarray(canvas.buffer_rgba())[..., 0]
    for placed in sheet.images:
        left, right, bottom, top = (round(100 * inches) for inches in placed.get_extent())
        cell = drawn[top:bottom, left:right]
        factor = cell.shape[0] // 8
        assert cell.shape == (8 * factor, 8 * factor)
        # the hairline around it is on its outermost pixels
        blocks = cell.reshape(8, factor, 8, factor)[:, 1:-1, :, 1:-1]
        assert (blocks == image[0].numpy()[:, None, :, None]).all()


def test_a_long_name_is_shortened_and_no_mathematics():
    assert shortened("US$") == r"US\$"
    assert len(shortened("a name that is much too long for it")) == 20
    assert shortened("猫") == "猫"


def test_letters_of_other_scripts_have_a_font_of_the_system():
    font = getattr(font_for("猫"), "path", None)
    if not isinstance(font, str | Path):
        pytest.skip("this system has no font with Chinese letters")
    import matplotlib

    with styled(texts=["cat", "猫"]):
        assert len(matplotlib.rcParams["font.family"]) == 3
        assert matplotlib.rcParams["pdf.fonttype"] == 3
    with styled(texts=["cat", "Käfer"]):
        assert len(matplotlib.rcParams["font.family"]) == 2
        assert matplotlib.rcParams["pdf.fonttype"] == 42


# Denoising, and films


def test_denoising_has_x_t_and_the_prediction_beneath_for_each_sample():
    kept, x_0 = trajectory_of([99, 50, 0], images(2)), images(2)
    (axes,) = denoising.draw(kept, x_0, ["", ""], **SIZE).axes
    assert len(axes.images) == 2 * (4 + 3)
    assert [text.get_text() for text in axes.texts][:5] == ["$t$", "99", "50", "0", "$x_0$"]


def test_a_film_has_a_frame_a_step_and_one_for_the_samples():
    kept, x_0 = trajectory_of([99, 50, 0], images(12)), images(12)
    film = denoising.film(kept, x_0, **SIZE)
    frames = list(film.frames())
    assert len(film) == len(frames) == 4
    assert {frame.shape for frame in frames} == {frames[0].shape}
    assert all(side % 2 == 0 for side in frames[0].shape[:2])
    assert not (frames[0] == frames[1]).all()
    assert len(forward.film(linear(100), images(2), steps=7, seed=0, **SIZE)) == 7


@pytest.mark.parametrize(("colours", "dark"), [(1, False), (3, False), (1, True)])
def test_a_gif_stays_on_its_last_frame_and_begins_again(colours: int, dark: bool, tmp_path: Path):
    done: list[int] = []
    with styled(dark=dark):
        film = denoising.film(
            trajectory_of([9, 5, 0], images(2, colours, 4, 6)), images(2, colours, 4, 6), **SIZE
        )
        files.write_film(film, tmp_path / "film.gif", done.append)
    assert done == [1, 2, 3, 4]
    with Image.open(tmp_path / "film.gif") as gif:
        assert gif.n_frames == 4
        assert gif.info["loop"] == 0
        shown = []
        for i in range(4):
            gif.seek(i)
            shown.append(gif.info["duration"])
    assert shown == [files.FIRST, files.MILLISECONDS, files.MILLISECONDS, files.LAST]


def test_a_film_of_one_frame_is_a_gif_too(tmp_path: Path):
    moment = Moment("$t = 0$", "", [torch.zeros(1, 1, 8, 8, dtype=torch.uint8)])
    files.write_film(Film([moment], ["$x_t$"], **SIZE), tmp_path / "one.gif")
    with Image.open(tmp_path / "one.gif") as gif:
        assert gif.n_frames == 1


def test_an_mp4_without_anything_that_encodes_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(files.shutil, "which", lambda name: None)
    monkeypatch.setattr(files, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install av, or write a \.gif"):
        files.encoder()


def test_ffmpeg_that_fails_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    program = tmp_path / "bin" / "ffmpeg"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho no such codec >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    film = forward.film(linear(30), images(2), steps=3, seed=0, **SIZE)
    with pytest.raises(UsageError, match="ffmpeg has failed: no such codec"):
        files.write_film(film, tmp_path / "out" / "film.mp4")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_the_same_figure_is_the_same_file(ending: str, tmp_path: Path):
    for name in ("one", "two"):
        with styled():
            figure = forward.draw(linear(100), images(1), ["a"], steps=2, seed=0, **SIZE)
            files.write_figure(figure, tmp_path / f"{name}.{ending}", 60)
    assert (tmp_path / f"one.{ending}").read_bytes() == (tmp_path / f"two.{ending}").read_bytes()


# The schedule


def process(chain: NoiseSchedule, label: str = "", weighting: Weighting | None = None) -> schedule.Process:
    return schedule.Process(label, chain, Parametrization(Epsilon(), FixedLarge()), weighting or Simple())


def test_curves_of_a_schedule_are_its_closed_forms():
    figure = schedule.draw([process(linear(100))], width=4)
    panels = [axes.get_lines()[0].get_ydata() for axes in figure.axes]
    betas = np.linspace(1e-3, 0.2, 100)
    alpha_bar = np.cumprod(1 - betas)
    expected = [alpha_bar, np.log(alpha_bar / (1 - alpha_bar)), betas, np.ones(100)]
    for found, curve in zip(panels, expected, strict=True):
        assert np.allclose(found, curve, rtol=1e-9)


def test_schedules_of_several_runs_lie_over_each_other_with_a_legend():
    figure = schedule.draw([process(linear(100), "linear"), process(cosine(50), "cosine")], width=4)
    assert [len(axes.get_lines()) for axes in figure.axes] == [2, 2, 2, 2]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["linear", "cosine"]
    assert figure.axes[2].get_xlabel() == r"$t\,/\,(T-1)$"
    styles = [(line.get_color(), line.get_linestyle()) for line in figure.axes[0].get_lines()]
    assert styles[0][0] != styles[1][0]
    assert styles[0][1] != styles[1][1]


def test_a_schedule_that_ends_without_signal_is_drawn():
    chain = linear(100, zero_terminal_snr=True)
    of = schedule.Process("", chain, Parametrization(V(), FixedLarge()), Simple())
    weight = schedule.draw([of], width=4).axes[3].get_lines()[0].get_ydata()
    assert np.isnan(weight[-1])
    assert np.isfinite(weight[:-1]).all()


SNR_OF = linear(100).snr.numpy()


@pytest.mark.parametrize(
    ("objective", "variance", "weighting", "expected"),
    [
        (Epsilon(), FixedLarge(), Simple(), np.ones(100)),
        (Epsilon(), LearnedRange(), Hybrid(), np.ones(100)),
        (X0(), FixedLarge(), SNR(), np.ones(100)),
        (X0(), FixedLarge(), Simple(), 1 / SNR_OF),
        (V(), FixedLarge(), Simple(), (1 + SNR_OF) / SNR_OF),
        (V(), FixedLarge(), MinSNR(5), np.minimum(SNR_OF, 5) / SNR_OF),
    ],
)
def test_weights_are_those_of_the_papers(
    objective: object, variance: Variance, weighting: Weighting, expected: np.ndarray
):
    found = schedule.weights(linear(100), Parametrization(objective, variance), weighting)
    assert np.allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("variance", [FixedLarge(), FixedSmall(), LearnedRange()])
def test_the_weight_of_the_bound_is_that_of_equation_12(variance: Variance):
    chain = linear(100)
    found = schedule.weights(chain, Parametrization(Epsilon(), variance), VariationalBound())
    sigma2 = chain.posterior_variance if isinstance(variance, FixedSmall) else chain.betas
    expected = chain.betas**2 / (2 * sigma2 * chain.alphas * (1 - chain.alphas_cumprod))
    in_bits = 100 * expected / np.log(2)
    assert np.allclose(found[1:], in_bits[1:].numpy(), rtol=1e-6)


# The loss


def test_a_curve_has_the_finite_values_by_step():
    rows = {50: {loss.TRAINING: "0.5"}, 10: {loss.TRAINING: "1"}, 20: {loss.TRAINING: "", "x": "3"}}
    rows |= {30: {loss.TRAINING: "nan"}, 40: {}}
    assert loss.curve(rows, loss.TRAINING).tolist() == [[10, 50], [1, 0.5]]
    assert loss.curve(rows, loss.VALIDATION).shape == (2, 0)


def test_smoothing_keeps_lines_and_evens_out_noise():
    steps = np.arange(0, 10_000, 10.0)
    assert np.allclose(loss.smoothed(steps, np.full(1000, 2.0)), 2.0)
    line = 3 - steps / 5000
    assert np.allclose(loss.smoothed(steps, line)[100:-100], line[100:-100])
    noise = np.random.default_rng(0).normal(size=1000)
    assert loss.smoothed(steps, noise).std() < 0.3
    assert loss.smoothed(steps[:1], noise[:1]).tolist() == noise[:1].tolist()


def test_the_loss_over_t_is_that_of_the_keyed_noise():
    class Nothing(nn.Module):
        def forward(self, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return torch.zeros_like(x_t)

    module = make_module(Nothing())
    found = loss.by_t(module, images(6), None, seed=2, points=3)
    assert found.t.tolist() == [0, 50, 99]
    for i, mean in enumerate(found.mean):
        eps = Stream(2, Purpose.FIGURE).normal(i, range(6), (1, 8, 8))
        each = eps.square().flatten(1).mean(1)
        assert mean == pytest.approx(each.mean().item(), rel=1e-5)
        assert found.error[i] == pytest.approx(each.std().item() / 6**0.5, rel=1e-4)


def test_curves_of_the_loss_are_raw_smoothed_and_held_out():
    training, validation = np.array([[1.0, 2, 3, 4], [4, 3, 2, 1]]), np.array([[2.0, 4], [3, 2]])
    one = loss.Curves("one", training, validation)
    (axes,) = loss.draw([one], scale="log", width=4).axes
    raw, smoothed, held_out = axes.get_lines()
    assert raw.get_ydata().tolist() == [4, 3, 2, 1]
    assert smoothed.get_linewidth() > raw.get_linewidth()
    assert held_out.get_xydata().tolist() == [[2, 3], [4, 2]]
    assert axes.get_yscale() == "log"
    by_t = loss.ByT(np.array([0, 9]), np.array([1.0, 0.1]), np.array([0.1, 0.1]))
    figure = loss.draw([one, one._replace(label="two", by_t=by_t)], scale="linear", width=4)
    assert len(figure.axes) == 2
    assert figure.axes[1].get_lines()[0].get_ydata().tolist() == [1, 0.1]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["one", "two"]
    below = one._replace(by_t=by_t._replace(mean=np.array([1.0, -0.1])))
    assert {axes.get_yscale() for axes in loss.draw([one, below], scale="log", width=4).axes} == {"linear"}
    only_held_out = one._replace(label="two", training=np.empty((2, 0)))
    figure = loss.draw([one, only_held_out], scale="log", width=4)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["one", "two"]


# Ways in the plane of the data


def test_ways_lead_to_where_the_samples_lie_in_the_plane_of_the_data():
    generator = torch.Generator().manual_seed(0)
    along = torch.zeros(2, 64)
    along[0, 3], along[1, 40] = 1, 1
    data = torch.randn(5000, 2, generator=generator) * torch.tensor([3.0, 1.0]) @ along
    data = data.view(5000, 1, 8, 8)
    x_0 = torch.zeros(3, 1, 8, 8)
    x_0[0, 0, 0, 3], x_0[1, 0, 5, 0] = 1, 1
    figure = path.draw(trajectory_of([99, 50, 25, 0], x_0), x_0, data, [""] * 3, steps=3, **SIZE)
    film, panel = figure.axes
    assert len(film.images) == 3 * 3
    assert [text.get_text() for text in film.texts] == ["$t=99$", "0", "$x_0$"]
    ways = [line.get_xydata() for line in panel.get_lines() if len(line.get_xydata()) == 5]
    assert len(ways) == 3
    first, second, origin = (way[-1] for way in ways)
    assert abs(first - origin) == pytest.approx([1, 0], abs=0.02)
    assert abs(second - origin) == pytest.approx([0, 1], abs=0.02)


# Neighbours


def test_neighbours_are_nearest_by_pixels():
    training = (images(20) * 127 + 128).to(torch.uint8)
    samples = training[[7, 3]].clone()
    samples[1, 0, 0, 0] = 255 - samples[1, 0, 0, 0]
    distances, which = neighbours.found(samples, training, 2)
    assert which[:, 0].tolist() == [7, 3]
    assert distances[0, 0] == 0
    off = abs(2 * int(training[3, 0, 0, 0]) - 255) / 255
    assert distances[1, 0].item() == pytest.approx(off)
    held = ImageSet(training.numpy())
    figure = neighbours.draw(samples, held, held, k=2, **SIZE)
    (axes,) = figure.axes
    assert len(axes.images) == 2 * 3
    texts = [text.get_text() for text in axes.texts]
    assert "0.00" in texts
    assert f"{off:.2f}" in texts
    assert texts[-1].endswith("of held-out images to the nearest: 0.00 (median)")
    alone = neighbours.draw(samples[:1], held, None, k=2, **SIZE)
    assert len(alone.axes[0].images) == 3
    assert "held-out" not in alone.axes[0].texts[-1].get_text()


# Legends


def config(schedule: str = "linear", seed: int = 0, **data: object) -> dict[str, object]:
    return {
        "seed": seed,
        "schedule": {"_target_": f"ddpm.diffusion.schedules.{schedule}", "num_timesteps": 50},
        "data": {"_target_": "ddpm.data.sources.digits.Digits", **data},
        "trainer": {"devices": seed, "max_steps": 5},
    }


def test_runs_are_called_by_what_they_differ_in():
    assert legend.labels([config(), config("cosine")], ["a", "b"]) == ["schedule=linear", "schedule=cosine"]
    several = [config(), config(seed=1), config(seed=1, batch_size=8)]
    assert legend.labels(several, ["a", "b", "c"]) == [
        "batch_size=None seed=0",
        "batch_size=None seed=1",
        "batch_size=8 seed=1",
    ]
    assert legend.labels([config(), config()], ["a", "b"]) == ["a", "b"]
    assert legend.labels([config(), config(), config(seed=1)], ["a", "b", "c"]) == [
        "seed=0 (a)",
        "seed=0 (b)",
        "seed=1",
    ]
    assert legend.labels([{}], ["a"]) == ["a"]


def test_a_legend_names_the_number_of_steps_where_it_differs():
    configs = [
        {"schedule": {"_target_": f"ddpm.diffusion.schedules.{name}", "num_timesteps": steps, "s": steps}}
        for name, steps in (("linear", 1000), ("cosine", 250))
    ]
    assert legend.labels(configs, ["a", "b"]) == [
        "schedule=linear num_timesteps=1000",
        "schedule=cosine num_timesteps=250",
    ]


def test_an_encoder_gets_the_last_frame_as_long_as_it_is_shown():
    film = forward.film(linear(30), images(1), steps=3, seed=0, **SIZE)
    frames = list(files._lasting(film, lambda done: None))
    assert len(frames) == round((files.FIRST + files.MILLISECONDS + files.LAST) / files.MILLISECONDS)


def test_an_objective_that_says_nothing_of_its_error_has_no_weights():
    class Own(Epsilon):
        def x_0_error(self, *_: object) -> torch.Tensor:
            raise NotImplementedError

    found = schedule.weights(linear(100), Parametrization(Own(), FixedLarge()), Simple())
    assert found.shape == (100,)
    assert np.isnan(found).all()
