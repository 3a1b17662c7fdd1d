"""Bits per dimension of a data set: sums and means over pictures and steps, whatever the batches."""

import math
import secrets
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

import ddpm
from ddpm.data.augmentation import normalize
from ddpm.data.module import ImageDataModule
from ddpm.data.sources.digits import Digits
from ddpm.diffusion.guidance import NoGuidance
from ddpm.diffusion.likelihood import Bound, bound, some_steps
from ddpm.evaluation import nll
from ddpm.evaluation.nll import NLL
from ddpm.random import Purpose, Stream
from ddpm.run import Run
from ddpm.runtime.sharing import Sharing

N = 12


def alone(directory: Path) -> Sharing:
    """One rank, and nothing kept from before."""
    return Sharing(directory / secrets.token_hex(4))


@pytest.fixture(scope="module")
def run(conditional_run: Path) -> Run:
    return ddpm.load(conditional_run, "cpu")


@pytest.fixture(scope="module")
def data() -> ImageDataModule:
    return ImageDataModule(Digits())


def test_it_is_the_bound_of_each_picture_with_its_label(run: Run, data: ImageDataModule, tmp_path: Path):
    found = NLL(n=N)(run.module, data, seed=3, batch_size=N, directory=tmp_path, sharing=alone(tmp_path))
    held_out = data.data_set.validation.copy(range(N))
    stream = Stream(3, Purpose.LIKELIHOOD)
    expected = bound(
        run.module.denoiser(torch.tensor(held_out.labels), guidance=NoGuidance()),
        run.module.schedule,
        normalize(torch.tensor(held_out.images)),
        noise=lambda place, like: stream.normal(place, range(N), tuple(like.shape[1:])),
    )
    assert found["bits_per_dim"] == pytest.approx(float(expected.total.mean()), rel=1e-6)
    assert found["decoder"] == pytest.approx(float(expected.decoder.mean()), rel=1e-6)
    assert found["by_t"]["bits"] == pytest.approx(
        [float(expected.decoder.mean()), *expected.terms.mean(1).tolist()], rel=1e-5
    )
    rmse = 127.5 * expected.squared_error.mean(1).sqrt()
    assert found["by_t"]["rmse"] == pytest.approx(rmse.tolist(), rel=1e-5)
    spread = float(expected.total.std()) / N**0.5
    assert found["standard_error"] == pytest.approx(spread, rel=1e-5)
    assert Image.open(tmp_path / "nll.png").size[0] > 800


def test_it_does_not_depend_on_the_batch_size(run: Run, data: ImageDataModule, tmp_path: Path):
    for metric in (NLL(n=N), NLL(n=N, num_steps=5)):
        whole, parts = (
            metric(run.module, data, seed=0, batch_size=size, directory=tmp_path, sharing=alone(tmp_path))
            for size in (N, 5)
        )
        assert whole["bits_per_dim"] == pytest.approx(parts["bits_per_dim"], rel=1e-5)
        assert whole["standard_error_of_steps"] == pytest.approx(parts["standard_error_of_steps"], rel=1e-5)


def test_labels_matter_to_a_network_that_knows_them(run: Run, data: ImageDataModule, tmp_path: Path):
    mistaken = ImageDataModule(Digits())
    held_out = mistaken.data_set.validation
    mistaken.data_set = replace(
        mistaken.data_set, validation=replace(held_out, labels=(held_out.labels + 1) % 10)
    )
    right, wrong = (
        NLL(n=N)(run.module, source, seed=0, batch_size=N, directory=tmp_path, sharing=alone(tmp_path))[
            "bits_per_dim"
        ]
        for source in (data, mistaken)
    )
    assert right != wrong


def test_the_network_is_asked_without_guidance(
    run: Run, data: ImageDataModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert run.module.guidance.needs_unconditional
    guided = NLL(n=N)(run.module, data, seed=0, batch_size=N, directory=tmp_path, sharing=alone(tmp_path))
    monkeypatch.setattr(run.module, "guidance", NoGuidance())
    assert (
        NLL(n=N)(run.module, data, seed=0, batch_size=N, directory=tmp_path, sharing=alone(tmp_path))
        == guided
    )


def test_all_steps_by_number_are_all_steps(run: Run, data: ImageDataModule, tmp_path: Path):
    most = run.module.schedule.num_timesteps - 1
    whole, counted = (
        metric(run.module, data, seed=0, batch_size=N, directory=tmp_path, sharing=alone(tmp_path))
        for metric in (NLL(n=2), NLL(n=2, num_steps=most))
    )
    assert whole == counted


def test_the_standard_error_of_steps_is_that_of_a_mean_of_pictures(
    run: Run, data: ImageDataModule, tmp_path: Path
):
    found = NLL(n=N, num_steps=5)(
        run.module, data, seed=3, batch_size=N, directory=tmp_path, sharing=alone(tmp_path)
    )
    held_out = data.data_set.validation.copy(range(N))
    stream = Stream(3, Purpose.LIKELIHOOD)
    u = Stream(3, Purpose.LIKELIHOOD_STEP).uniform(0, range(N), (run.module.schedule.num_timesteps - 1,))
    expected = bound(
        run.module.denoiser(torch.tensor(held_out.labels), guidance=NoGuidance()),
        run.module.schedule,
        normalize(torch.tensor(held_out.images)),
        noise=lambda place, like: stream.normal(place, range(N), tuple(like.shape[1:])),
        steps=some_steps(u.T, 5),
    )
    assert found["bits_per_dim"] == pytest.approx(float(expected.total.mean()), rel=1e-5)
    independent = float(torch.linalg.vector_norm(expected.standard_error / N))
    assert found["standard_error_of_steps"] == pytest.approx(independent, rel=1e-5)


def test_one_picture_has_no_standard_error(run: Run, data: ImageDataModule, tmp_path: Path):
    found = NLL(n=1, num_steps=3)(
        run.module, data, seed=0, batch_size=1, directory=tmp_path, sharing=alone(tmp_path)
    )
    assert found["standard_error"] is None


def test_a_drawing_of_steps_leaves_out_what_it_did_not_draw(run: Run, data: ImageDataModule, tmp_path: Path):
    found = NLL(n=2, num_steps=3)(
        run.module, data, seed=0, batch_size=8, directory=tmp_path, sharing=alone(tmp_path)
    )
    computed = [bits for bits in found["by_t"]["bits"] if bits is not None]
    assert 1 + 3 <= len(computed) <= 1 + 6
    assert found["by_t"]["bits"][0] == pytest.approx(found["decoder"])
    assert Image.open(tmp_path / "nll.png").size[0] > 800


def test_the_title_of_a_picture_fits_into_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    figures: list[Figure] = []

    def save(figure: Figure, path: Path, **_: object) -> None:
        path.touch()
        figures.append(figure)

    monkeypatch.setattr(Figure, "savefig", save)
    n = 10_000
    one = torch.full((n,), 12.345)
    found = Bound(one, one, torch.ones(3, n), one, torch.ones(3, n), torch.ones(3, n), torch.ones(3, n))
    nll.draw_estimate(found, tmp_path / "a.png")
    (figure,) = figures
    box = figure._suptitle.get_window_extent(FigureCanvasAgg(figure).get_renderer())
    assert 0 < box.x0 < box.x1 < figure.bbox.width


def test_the_picture_of_drawn_steps_has_means_with_their_errors(monkeypatch: pytest.MonkeyPatch):
    steps = torch.tensor([[1, 9], [5, 1], [9, 5]])
    terms = torch.tensor([[1.0, 5.0], [4.0, 3.0], [7.0, 4.0]])
    with monkeypatch.context() as patch:
        patch.setattr(nll, "MOST_MARKS", 3)
        t, means, errors = nll.by_range(steps, terms)
    assert (t, means) == ([1, 5, 9], [2, 4, 6])
    assert errors == pytest.approx([1, 0, 1])
    t, means, errors = nll.by_range(steps, terms)
    assert t == [1, 1, 5, 5, 9, 9]
    assert all(math.isnan(error) for error in errors)
