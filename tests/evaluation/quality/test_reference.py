"""Features of what samples are compared with: computed once, found again by all that they depend on."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from few_images import Averages, compared, data_set, drawn, features, images, measured

from ddpm.app.measuring.quality import save_reference
from ddpm.data.images import DataSet, ImageSet
from ddpm.data.prepared.cache import Cache, key
from ddpm.errors import UsageError
from ddpm.evaluation import reference_file
from ddpm.evaluation.extractors.extractor import Extractor
from ddpm.evaluation.extractors.pixels import Pixels
from ddpm.evaluation.measures import rows
from ddpm.evaluation.measures.frechet import frechet_distance
from ddpm.evaluation.measures.moments import gaussian
from ddpm.evaluation.quality import reference as module
from ddpm.evaluation.quality.frechet import FID
from ddpm.evaluation.quality.kernel_distance import KID
from ddpm.evaluation.quality.material import Reference
from ddpm.evaluation.quality.reference import Split, images_of, missing, of_data, of_file
from ddpm.runtime.pieces import Pieces
from ddpm.runtime.sharing import Sharing


def referred(
    extractor: Averages, path: Path, data: DataSet | None = None, split: Split = "train"
) -> Reference:
    sharing = Sharing(path / "pieces")
    found = of_data(data or data_set(), split, extractor, sharing, Cache(path / "cache"))
    sharing.end()
    return found


def test_they_are_computed_once(tmp_path: Path):
    first, again = Averages(), Averages()
    one, other = referred(first, tmp_path), referred(again, tmp_path)
    assert (first.computed, again.computed) == (60, 0)
    for found in (one, other):
        assert found.features is not None
        torch.testing.assert_close(found.features, features(data_set().train.images))
        torch.testing.assert_close(found.moments.covariance, gaussian(found.features).covariance)
        assert (found.name, found.n, found.moments.n) == ("train", 60, 60)
        assert found.about == {"data": data_set().fingerprint, "split": "train", "images": 60}


def test_whatever_they_depend_on_is_computed_anew(tmp_path: Path):
    others: list[dict[str, Any]] = [
        {"extractor": Averages()},
        {"extractor": Averages("cd")},
        {"extractor": Averages(bf16=True)},
        {"extractor": Averages(), "split": "validation"},
        {"extractor": Averages(), "data": data_set(index=4)},
    ]
    for other in others:
        referred(path=tmp_path, **other)
    assert [other["extractor"].computed for other in others] == [60, 60, 60, 40, 60]
    assert len(Cache(tmp_path / "cache").entries()) == 5


def _known(extractor: Averages) -> str:
    """What the name of kept features ends with: all that they depend on, in short."""
    settings = {"reference": module.FORMAT, "data": data_set().fingerprint, "split": "train", "images": 60}
    return key({**settings, **extractor.about()}, ())[:8]


def test_how_many_are_missing_is_known_beforehand(tmp_path: Path):
    cache, sharing = Cache(tmp_path / "cache"), Sharing(tmp_path / "pieces")
    asked = (data_set(), "train", Averages(), sharing, cache)
    assert missing(*asked) == 60
    kept = tmp_path / "pieces" / f"reference_averages_train_{_known(Averages())}"
    Pieces(kept, 60).keep(range(60), {"features": np.zeros(60)})
    assert missing(*asked) == 0
    assert missing(data_set(), "train", Averages(bf16=True), sharing, cache) == 60
    Pieces(kept, 60).remove()
    assert missing(*asked) == 60
    referred(Averages(), tmp_path)
    assert missing(*asked) == 0
    assert missing(data_set(), "train", Pixels(), sharing, cache) == 0


def test_of_many_images_all_make_the_moments_and_some_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "MOST_IMAGES", 20)
    every, shown = features(data_set().train.images), data_set().train.images
    for _ in range(2):  # computed, and from the cache
        found = referred(Averages(), tmp_path)
        assert found.features is not None
        assert found.images is not None
        torch.testing.assert_close(found.features, every[::3])
        assert np.array_equal(found.images.images, shown[::3])
        torch.testing.assert_close(found.moments.mean, every.double().mean(0))
        torch.testing.assert_close(found.moments.covariance, gaussian(every).covariance)
        assert found.n == found.moments.n == 60


def test_a_file_measures_as_the_images_that_it_is_of(tmp_path: Path):
    """Saved as for other tools, and read as theirs are."""
    metrics = {"kid": KID(), "fid": FID(replicates=0, points=0)}
    comparison = compared(metrics, tmp_path / "cache")
    config = {"save_reference": str(tmp_path / "mine.npz")}
    save_reference(config, metrics, comparison, Sharing(tmp_path / "pieces"))
    whole = gaussian(features(data_set().train.images))
    saved = reference_file.read(tmp_path / "mine.npz", 8)
    torch.testing.assert_close(saved.mean, whole.mean)
    torch.testing.assert_close(saved.covariance, whole.covariance)
    of_this = replace(comparison, reference=str(tmp_path / "mine.npz"))
    found = measured({"fid": metrics["fid"]}, tmp_path, comparison=of_this)["fid"]
    expected = frechet_distance(gaussian(features(drawn().read(range(50)))), whole)
    assert found["fid50_mine_averages_ema_ddim20"] == pytest.approx(expected)
    assert found["of"]["reference"] == {"file": str(tmp_path / "mine.npz"), "images": 60}
    save_reference({"save_reference": str(tmp_path / "again.npz")}, metrics, of_this, Sharing(tmp_path))
    assert torch.equal(of_file(tmp_path / "again.npz", 8).moments.mean, saved.mean)


def test_pixels_are_the_images_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data, extractor = data_set(), Pixels()
    extractor.prepare(data, "cpu")
    found = of_data(data, "validation", extractor, Sharing(tmp_path), Cache(tmp_path / "cache"))
    assert found.features is not None
    assert np.array_equal(found.features * 255, data.validation.images.reshape(40, 16))
    assert not (tmp_path / "cache").exists()
    monkeypatch.setattr(module, "MOST_BYTES", 40 * 16 * 4 - 1)
    with pytest.raises(UsageError, match=r"extractor=pixels: 40 images .* choose another"):
        of_data(data, "validation", extractor, Sharing(tmp_path), Cache(tmp_path / "cache"))


@pytest.mark.parametrize("extractor", [Averages(), Pixels()])
def test_those_who_wait_hear_how_far_a_reference_is(
    extractor: Extractor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Of a large set moments alone take minutes of the leader."""
    images = data_set().validation.images.repeat(60, 0)
    data, told = replace(data_set(), validation=ImageSet(images)), {}
    extractor.prepare(data, "cpu")
    for most_rows in (2048, 4):
        monkeypatch.setattr(rows, "MOST_ROWS", most_rows)
        said: list[bool] = []
        sharing = Sharing(tmp_path / f"pieces{most_rows}", progressed=said.append)
        of_data(data, "validation", extractor, sharing, Cache(tmp_path / f"cache{most_rows}"))
        told[most_rows] = said.count(False)
    if isinstance(extractor, Pixels):
        assert told[2048] == 3  # once every 1,024
    else:
        assert told[4] - told[2048] >= 2000 / 4 - 100


def test_windows_are_cut_from_the_middle():
    data = replace(data_set(), window=(2, 2))
    assert np.array_equal(images_of(data, "train").images, data.train.images[:, :, 1:3, 1:3])


def test_images_that_nobody_holds_are_refused():
    streamed: Any = replace(data_set(), train=None)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"reference=train: .* streamed, .*reference=validation"):
        images_of(streamed, "train")
    with pytest.raises(UsageError, match=r"reference=validation: there are no such images"):
        images_of(replace(data_set(), validation=ImageSet(images(1, 0))), "validation")
