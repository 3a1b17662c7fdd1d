"""Images stored once: what is kept, what is left out, and what is said about it."""

import io
import logging
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from ddpm.data import preparation, skipped
from ddpm.data.decoding import decode_all
from ddpm.data.images import DataSet
from ddpm.data.preparation import Found, prepared
from ddpm.data.settings import ImageSettings
from ddpm.runtime import progress


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def flat(level: int, side: int = 4) -> bytes:
    return png(np.full((side, side), level, np.uint8))


def noise(side: int = 4) -> np.ndarray:
    return np.random.RandomState(0).randint(0, 256, (side, side, 3)).astype(np.uint8)


def store(
    sources: Sequence[tuple[str, bytes]],
    size: tuple[int, int] | None = (4, 4),
    channels: int | None = None,
    *,
    positions: Sequence[int] | None = None,
    cut: int | None = None,
    on_error: str = "skip",
    validation_fraction: float = 0.0,
    left_out: Sequence[tuple[str, str]] = (),
) -> DataSet:
    """Labels are the numbers of the sources."""
    settings = ImageSettings(
        image_size=size, channels=channels, on_error=on_error, validation_fraction=validation_fraction
    )
    found = Found(
        [name for name, _ in sources],
        lambda chosen: decode_all((sources[index][1] for index in chosen), settings.shaping),
        np.arange(len(sources)) if positions is None else np.array(positions),
        lambda kept: (kept, [str(i) for i in range(len(sources))]),
        "nothing here",
        cut,
        channels,
        left_out=left_out,
    )
    identity = {"test": repr((list(sources), positions, cut, left_out))}
    return prepared(settings, "x", identity, [], lambda _: found)


def reds(images: np.ndarray) -> list[int]:
    return images[:, 0, 0, 0].tolist()


def test_each_image_goes_to_its_place_with_its_label():
    sources = [(str(level), flat(level)) for level in (10, 11, 12, 13)]
    data_set = store(sources, positions=[2, 0, 3, 1])
    assert reds(data_set.train.images) == [11, 13, 10, 12]
    assert data_set.train.labels.tolist() == [1, 3, 0, 2]


@pytest.mark.parametrize("bad", [[0], [3], [1, 2], [0, 1, 2]])
def test_what_cannot_be_read_leaves_no_gap(bad: list[int], caplog: pytest.LogCaptureFixture):
    sources = [(f"file {i}", b"words" if i in bad else flat(i)) for i in range(4)]
    positions = [2, 0, 3, 1]
    data_set = store(sources, positions=positions)
    expected = [i for i in np.argsort(positions).tolist() if i not in bad]
    assert reds(data_set.train.images) == expected
    assert data_set.train.labels.tolist() == expected
    assert [name for name, _ in data_set.skipped] == [f"file {i}" for i in bad]
    assert all("not an image" in reason for _, reason in data_set.skipped)
    messages = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert messages[:-1] == [f"skipped {name}: {reason}" for name, reason in data_set.skipped]
    assert messages[-1] == f"skipped {len(bad)} of 4 files"


def test_a_part_of_its_own_for_validation_stays_its_own():
    sources = [(str(i), b"words" if i == 1 else flat(i)) for i in range(5)]
    data_set = store(sources, cut=3)
    assert (reds(data_set.train.images), reds(data_set.validation.images)) == ([0, 2], [3, 4])
    with pytest.raises(ValueError, match="nothing here"):
        store([("a", b""), ("b", flat(1))], cut=1)


def test_a_share_is_held_out_of_what_could_be_read():
    sources = [(str(i), b"" if i < 8 else flat(i)) for i in range(10)]
    data_set = store(sources, validation_fraction=0.5)
    assert (len(data_set.train), len(data_set.validation)) == (1, 1)


def test_failing_names_the_file_the_first_time_and_the_second():
    sources = [("good", flat(0)), ("bad", b"words")]
    for _ in range(2):
        with pytest.raises(ValueError, match=r"data\.on_error=fail: bad cannot be read \(not an image.*skip"):
            store(sources, on_error="fail")
        store(sources, on_error="skip")


def test_nothing_at_all():
    for sources in ([], [("a", b"words")]):
        with pytest.raises(ValueError, match="nothing here"):
            store(sources)


def test_many_bad_files_do_not_flood_the_log(caplog: pytest.LogCaptureFixture):
    data_set = store([("good", flat(0)), *((str(i), b"") for i in range(1000))])
    assert len(data_set.skipped) == 1000
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warned) == skipped.NAMED + 1
    assert warned[-1] == "skipped 1,000 of 1,001 files"


def test_names_that_are_no_text_can_be_printed(caplog: pytest.LogCaptureFixture):
    data_set = store([("good", flat(0)), ("a\udcff", b"")])
    caplog.text.encode()
    assert r"a\udcff" in caplog.text
    assert list(data_set.skipped) == [("a\udcff", "it is empty")]


@pytest.mark.parametrize("coloured", [0, 5, 9])
def test_one_coloured_image_makes_all_coloured(coloured: int):
    sources = [(str(i), png(noise()) if i == coloured else flat(i)) for i in range(10)]
    images = store(sources).train.images
    assert images.shape == (10, 3, 4, 4)
    np.testing.assert_array_equal(images[coloured], noise().transpose(2, 0, 1))
    for i in set(range(10)) - {coloured}:
        assert np.unique(images[i]).tolist() == [i]
    assert store(sources, channels=1).train.images.shape == (10, 1, 4, 4)


def test_all_grey_is_one_channel_unless_three_are_asked_for():
    for channels, expected in ((None, 1), (1, 1), (3, 3)):
        images = store([("x", flat(7)), ("y", b""), ("z", flat(8))], channels=channels).train.images
        assert images.shape == (2, expected, 4, 4)
        assert reds(images) == [7, 8]


def test_without_a_size_all_must_agree():
    with pytest.raises(ValueError, match=r"data\.image_size is not set.*b is 5x5.*data\.image_size=4"):
        store([("a", flat(0, 4)), ("b", flat(0, 5))], size=None)


def test_what_is_known_about_the_images():
    ramp = np.arange(16, dtype=np.uint8).reshape(4, 4) * 17
    sources = [("a", png(ramp)), ("b", flat(0, 8)), ("c", png(ramp)), ("d", b"words"), ("e", png(noise(8)))]
    data_set = store(sources, size=(4, 4))
    facts = data_set.facts
    assert facts["duplicates"] == 1
    assert facts["sizes"] == {"4x4": 2, "8x8": 2}
    assert facts["modes"] == {"L": 3, "RGB": 1}
    pixels = data_set.train.images / 255
    np.testing.assert_allclose(facts["mean"], pixels.mean((0, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(facts["std"], pixels.std((0, 2, 3)), atol=1e-6)


def test_the_fingerprint_is_that_of_the_same_images_in_memory():
    sources = [(str(i), flat(i)) for i in range(20)]
    stored = store(sources, validation_fraction=0.25)
    copied = [
        type(part)(np.array(part.images), np.array(part.labels)) for part in (stored.train, stored.validation)
    ]
    assert isinstance(stored.train.images, np.memmap)
    assert DataSet(*copied, stored.classes).fingerprint == stored.fingerprint
    assert store(sources, validation_fraction=0.5).fingerprint != stored.fingerprint
    assert store(sources[::-1], validation_fraction=0.25).fingerprint != stored.fingerprint


def test_progress_is_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    caplog.set_level(logging.INFO)
    store([("x", flat(0))] * 40)
    assert [message.split("  ")[0] for message in caplog.messages[:3]] == [
        "preparing images 1/40",
        "preparing images 17/40",
        "preparing images 33/40",
    ]
    assert caplog.messages[3].startswith("prepared 40 images in ")


def test_a_second_run_decodes_nothing(monkeypatch: pytest.MonkeyPatch):
    first = store([("x", flat(3))])
    monkeypatch.setattr(preparation, "_store", None)
    second = store([("x", flat(3))])
    assert reds(second.train.images) == reds(first.train.images) == [3]
