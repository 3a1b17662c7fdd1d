"""The predicted x_0 on the way to a sample: what is measured at each point is what the sampler saw there."""

import secrets
from pathlib import Path

import pytest
import torch
from PIL import Image

import ddpm
from ddpm.data.module import ImageDataModule
from ddpm.data.sources.digits import Digits
from ddpm.evaluation import progressive
from ddpm.evaluation.extractors.pixels import Pixels
from ddpm.evaluation.measures.frechet import FrechetTo
from ddpm.evaluation.measures.moments import gaussian
from ddpm.evaluation.progressive import Progressive
from ddpm.evaluation.quality.drawn import classes_of
from ddpm.run import Run
from ddpm.runtime.sharing import Sharing
from ddpm.sampling import batches
from ddpm.sampling.drawing import Drawing
from ddpm.sampling.figures import to_uint8

N = 20


@pytest.fixture(scope="module")
def run(conditional_run: Path) -> Run:
    return ddpm.load(conditional_run, "cpu")


def test_distances_and_errors_are_those_of_the_predictions(run: Run, tmp_path: Path):
    data = ImageDataModule(Digits())
    metric = Progressive(Pixels(), n=N, points=3)
    metric.check(run.module, data)
    found = {
        size: metric(
            run.module,
            data,
            seed=5,
            batch_size=size,
            directory=tmp_path,
            sharing=Sharing(tmp_path / secrets.token_hex(4)),
        )
        for size in (N, 16)
    }
    assert found[N].keys() == found[16].keys()
    # a level of 256 may be rounded otherwise in another batch
    rounded = {"distances", "rmse_to_sample", f"fd_pixels{N}_train_ddim4_guided2"}
    for name, value in found[16].items():
        assert found[N][name] == (pytest.approx(value, rel=1e-3) if name in rounded else value)
    seen: dict[int, torch.Tensor] = {}
    labels = torch.from_numpy(classes_of(run.module, data.data_set, N))
    drawing = Drawing(run.module, seed=5)
    drawn = drawing(range(N), labels=labels, on_step=lambda t, _, x_0: seen.update({t: to_uint8(x_0)}))
    assert found[N]["t"] == [max(seen), sorted(seen)[1], min(seen)]
    assert found[N]["steps_before"] == [0, 2, 3]
    train = torch.from_numpy(data.data_set.train.images).flatten(1) / 255
    to_reference = FrechetTo(gaussian(train))
    points = [*(seen[t] for t in found[N]["t"]), to_uint8(drawn)]
    expected = [to_reference(gaussian(images.flatten(1) / 255)) for images in points]
    assert found[N]["distances"] == pytest.approx(expected, rel=1e-6)
    assert found[N][f"fd_pixels{N}_train_ddim4_guided2"] == found[N]["distances"][-1]
    errors = [(images.double() - points[-1].double()).square().mean().sqrt().item() for images in points]
    assert found[N]["rmse_to_sample"] == pytest.approx(errors, rel=1e-9)
    assert errors[0] > 5
    assert Image.open(tmp_path / "progressive.png").size[0] > 1000


def test_how_long_it_will_take_is_told_without_what_is_there(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """4 steps, whose guidance takes 8 evaluations of the network; samples and 3 points on their way."""
    monkeypatch.setattr(batches, "seconds_a_use", lambda model, n: 2.0 * n)
    monkeypatch.setattr(progressive, "seconds_an_image", lambda extractor, image_shape: 100.0)
    data, sharing = ImageDataModule(Digits()), Sharing(tmp_path / "pieces")
    metric = Progressive(Pixels(), n=N, points=3)
    metric.check(run.module, data)
    assert metric.seconds(run.module, data, batch_size=16, sharing=sharing) == N * (8 * 2 + 4 * 100)
    of_two = Sharing(tmp_path / "pieces", world_size=2)
    assert metric.seconds(run.module, data, batch_size=16, sharing=of_two) == N * (8 * 2 + 4 * 100) / 2
    metric(run.module, data, seed=5, batch_size=16, directory=tmp_path, sharing=sharing)
    again = Sharing(tmp_path / "pieces")
    assert metric.seconds(run.module, data, batch_size=16, sharing=again) == 0


@pytest.mark.parametrize("setting", [{"n": 1}, {"points": 1}])
def test_settings_below_two_are_refused(setting: dict[str, int]):
    with pytest.raises(ValueError, match=r"metrics\.progressive\.\w+=1 must be at least 2"):
        Progressive(Pixels(), **setting)
