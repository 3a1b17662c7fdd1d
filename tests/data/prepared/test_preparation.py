"""Images stored once: what is kept, what is left out, and what is said about it."""

import io
import logging
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import strategies as st
from PIL import Image
from properties import short_and_long

from ddpm.data import classes, skipped
from ddpm.data.holdout import scattered
from ddpm.data.images import DataSet
from ddpm.data.pixels.decoding import Decoded, decode_all
from ddpm.data.prepared import cache, preparation, records
from ddpm.data.prepared.preparation import Found, prepared
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


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    """All warnings but those about the range of the numbers, which these small images do not fill."""
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    return [line for line in said if "of these images" not in line]


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
    assert Path(data_set.train.images.filename).stat().st_size == len(expected) * 16
    assert reds(data_set.train.images) == expected
    assert data_set.train.labels.tolist() == expected
    assert [name for name, _ in data_set.skipped] == [f"file {i}" for i in bad]
    assert all("not an image" in reason for _, reason in data_set.skipped)
    messages = warned(caplog)
    assert messages[:-1] == [f"skipped {name}: {reason}" for name, reason in data_set.skipped]
    assert messages[-1] == f"skipped {len(bad)} of 4 files"


def test_a_part_of_its_own_for_validation_stays_its_own():
    sources = [(str(i), b"words" if i == 1 else flat(i)) for i in range(5)]
    data_set = store(sources, cut=3)
    assert (reds(data_set.train.images), reds(data_set.validation.images)) == ([0, 2], [3, 4])


def test_a_part_of_which_nothing_can_be_read_is_refused_with_the_first_reason():
    good, empty = ("good", flat(1)), ("bad", b"")
    with pytest.raises(ValueError, match=r"data\.split: none of .* the first, bad: it is empty"):
        store([empty, good], cut=1)
    with pytest.raises(ValueError, match=r"validation_split: none of .* bad: it is empty; .*_split=none"):
        store([good, empty], cut=1)


def test_where_nothing_can_be_read_the_reason_is_told_that_says_what_to_do():
    numbers = Image.fromarray(np.full((4, 4), 0.5, np.float32))
    numbers.save(buffer := io.BytesIO(), "TIFF")
    with pytest.raises(ValueError, match=r"nothing here; the first, b: .*data\.value_range"):
        store([("a", b"words"), ("b", buffer.getvalue())])
    with pytest.raises(ValueError, match=r"^nothing here$"):
        store([("a", b"words"), ("b", b"")])


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
    messages = warned(caplog)
    assert len(messages) == skipped.NAMED + 1
    assert messages[-1] == "skipped 1,000 of 1,001 files"


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


def test_sizes_and_modes_stand_in_the_order_of_how_many_there_are_and_then_of_the_images():
    sides = (9, 5, 5, 7, 9, 5, 7, 6)  # in the order of their positions 7x7 comes before 9x9
    data_set = store([(str(i), flat(i, side)) for i, side in enumerate(sides)], positions=range(7, -1, -1))
    assert list(data_set.facts["sizes"].items()) == [("5x5", 3), ("9x9", 2), ("7x7", 2), ("6x6", 1)]
    sides = range(records.LISTED_SIZES + 3, 0, -1)
    data_set = store([(str(side), flat(side, side)) for side in sides])
    assert list(data_set.facts["sizes"]) == [f"{side}x{side}" for side in sides][: records.LISTED_SIZES]
    assert data_set.facts["other_sizes"] == 3


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


def test_what_is_there_and_is_no_image_of_the_set_is_told_and_listed(caplog: pytest.LogCaptureFixture):
    others = [(f"stray {i}", "it lies beside the classes") for i in range(30)]
    for on_error in ("fail", "skip"):
        caplog.clear()
        data_set = store([("x", flat(0))], left_out=others, on_error=on_error)
        assert list(data_set.skipped) == others
    caplog.clear()
    data_set = store([("x", flat(0)), ("bad", b"words")], left_out=others)
    assert list(data_set.skipped) == [("bad", next(iter(data_set.skipped))[1]), *others]
    messages = warned(caplog)
    assert messages[0] == "left out stray 0: it lies beside the classes"
    assert sum(line.startswith("left out stray") for line in messages) == skipped.NAMED
    assert messages[-2:] == ["skipped 1 of 2 files", "left out 30 beside the 2 images"]


def numbers(low: float, high: float, limits: tuple[float, float] = (0.0, 255.0), side: int = 4) -> Decoded:
    """An image that held these numbers."""
    return Decoded(np.zeros((1, side, side), np.uint8), "I;16", (side, side), (low, high), limits)


def told(*images: Decoded, caplog: pytest.LogCaptureFixture) -> list[str]:
    """What is said about the range of a set, the first time and the second, which must be the same."""
    found = Found(
        [str(i) for i in range(len(images))],
        lambda chosen: (images[i] for i in chosen),
        np.arange(len(images)),
        lambda kept: (None, None),
        "nothing",
    )
    said = []
    for _ in range(2):
        caplog.clear()
        data_set = prepared(
            ImageSettings(validation_fraction=0), "mine", {"test": repr(images)}, [], lambda _: found
        )
        said.append([record.getMessage() for record in caplog.records if record.levelno == logging.WARNING])
    assert data_set.facts["values"] == [min(i.values[0] for i in images), max(i.values[1] for i in images)]
    assert said[0] == said[1]
    return said[0]


def test_numbers_that_fill_little_of_their_range_are_told_with_the_key(caplog: pytest.LogCaptureFixture):
    (line,) = told(numbers(0, 9), numbers(3, 16), caplog=caplog)
    assert line == (
        "mine: the numbers of these images reach from 0 to 16, in a range from 0 to 255: little can be "
        "seen of them; data.value_range=[0,16] takes what is there for the range"
    )
    (line,) = told(numbers(-1000, 3071, (-32768, 32767)), caplog=caplog)
    assert "data.value_range=[-1000,3071] " in line
    (line,) = told(numbers(0.00123456, 0.0456789, (0.0, 1.0)), caplog=caplog)
    assert "data.value_range=[0.00123,0.0457] " in line
    (line,) = told(numbers(-1000.5, 3000.25, (-1e5, 1e5)), caplog=caplog)
    assert "data.value_range=[-1001,3001] " in line


def test_what_is_typed_can_be_read_back():
    for low, high in ((0.00123456, 0.0456789), (-1.5, 7.25), (1e-9, 2e-9), (0.0, 1e9), (-0.0, 0.1)):
        facts = {"filled": 0.01, "values": [low, high], "limits": [-1e12, 1e12]}
        typed = preparation._unused_range(facts).split("data.value_range=")[1].split()[0]
        assert "-0," not in typed
        found = yaml.safe_load(typed.replace("e-", ".0e-"))
        assert found[0] <= low < high <= found[1]
        assert found[1] - found[0] < 1.02 * (high - low)


@pytest.mark.parametrize(
    "images",
    [
        [numbers(0, 25.5)],
        [numbers(0, 255)],
        [numbers(0, 5), numbers(100, 105)],
        [numbers(0, 1, (0.0, 1.0)), numbers(0, 16)],
        [numbers(5, 5, (5.0, 5.0)), numbers(0, 255)],
    ],
    ids=["a tenth", "all", "far apart", "limits of their own", "no limits"],
)
def test_numbers_that_fill_their_range_are_not_told(images: list[Decoded], caplog: pytest.LogCaptureFixture):
    assert told(*images, caplog=caplog) == []


def test_a_set_of_one_colour_is_told_without_a_range(caplog: pytest.LogCaptureFixture):
    (line,) = told(numbers(0, 0), numbers(0, 0), caplog=caplog)
    assert line == (
        "mine: every number of these images is 0, in a range from 0 to 255: they are all of one colour"
    )


def test_no_work_is_begun_that_there_is_no_room_for(monkeypatch: pytest.MonkeyPatch, own_cache: Path):
    """Half of the files hold no image, and need none."""
    store([("other", flat(0))])
    sources = [(str(i), flat(i % 256) if i % 2 else b"") for i in range(400)]
    needed = 150 * 3 * 16
    for free, fits in ((needed - 1, False), (needed, True)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: (10**9, 0, free))
        if fits:
            assert len(store(sources).train) == 200
            continue
        with pytest.raises(ValueError, match="more there") as error:
            store(sources)
        (other,) = cache.Cache().entries()
        assert str(error.value) == (
            f"data.cache_dir={own_cache}: the prepared images need 7.2 kB more there, and 7.2 kB are "
            f"free; make room (python -m ddpm cache prune 0 frees {other.size} bytes), or name "
            "another folder with data.cache_dir= or DDPM_CACHE"
        )
    monkeypatch.setattr(shutil, "disk_usage", lambda _: (0, 0, 0))
    assert len(store([*sources, ("more", flat(1))]).train) == 201


class Kept:
    """A set whose files come and go, and what was read of it."""

    def __init__(self):
        self.files: dict[str, tuple[int, bytes]] = {}
        self.read: list[str] = []
        self.moves = 0

    def change(self, edit: tuple[str, int, int]) -> None:
        """Add, remove, rename or change a file, or leave it; the second number says what it holds then."""
        what, which, holds = edit
        self.moves += 1
        names = sorted(self.files)
        if what == "add" or not names:
            self.files[f"{'abc'[which % 3]}/{self.moves}"] = (self.moves, CONTENTS[holds])
            return
        name = names[which % len(names)]
        state, contents = self.files[name]
        match what:
            case "remove":
                del self.files[name]
            case "rename":
                del self.files[name]
                self.files[f"{name}.{self.moves}"] = state, contents
            case "change":
                self.files[name] = (self.moves, CONTENTS[holds])
            case "swap":
                other = names[holds % len(names)]
                self.files[name], self.files[other] = self.files[other], self.files[name]

    def prepare(self, cache_dir: Path, channels: int | None) -> DataSet:
        names = sorted(self.files)
        self.read = []
        settings = ImageSettings(
            image_size=4, channels=channels, cache_dir=cache_dir, validation_fraction=0.25
        )

        def read(chosen: Sequence[int]) -> Iterator[Decoded | str]:
            assert list(chosen) == sorted(chosen)
            self.read += [names[index] for index in chosen]
            for image in decode_all((self.files[names[index]][1] for index in chosen), settings.shaping):
                if isinstance(image, str):
                    yield image
                else:  # as a decoder says that knows more number types
                    level = float(image.pixels.min())
                    yield image._replace(values=(level, level + 1), limits=(0.0, 255.0 + level))

        found = Found(
            names,
            read,
            scattered(len(names)),
            lambda kept: classes.labelled([names[index][0] for index in kept]),
            "nothing",
            states=[str(self.files[name][0]) for name in names],
            captions=[name.upper() for name in names],
        )
        files = [(name, len(contents), state) for name, (state, contents) in sorted(self.files.items())]
        return prepared(settings, "kept", {"kept": "here"}, files, lambda _: found)


CONTENTS = [flat(10), flat(200), flat(90, 7), png(noise()), png(noise(9)), b"words", b""]
EDITS = st.tuples(
    st.sampled_from(["add", "add", "remove", "rename", "change", "swap"]),
    st.integers(0, 100),
    st.integers(0, len(CONTENTS) - 1),
)


def check_what_is_taken_over_is_as_if_prepared_from_nothing(
    channels: int | None, states: list[list[tuple[str, int, int]]]
):
    with tempfile.TemporaryDirectory() as directory:
        kept = Kept()
        for which in range(3):
            kept.change(("add", which, which))
        before: dict[str, tuple[int, bytes]] = {}
        for number, edits in enumerate(states):
            for edit in edits:
                kept.change(edit)
            if all(contents in (b"words", b"") for _, contents in kept.files.values()):
                kept.change(("add", 0, 0))
            mine = kept.prepare(Path(directory, "grown"), channels)
            unread = {name for name in kept.files if name not in kept.read}
            good = {name for name, (_, contents) in before.items() if contents not in (b"words", b"")}
            unchanged = {name for name in good if kept.files.get(name) == before[name]}
            assert unread == (set(kept.files) if kept.files == before else unchanged)
            fresh = kept.prepare(Path(directory, f"fresh {number}"), channels)
            assert_equal(mine, fresh)
            before = dict(kept.files)
            entries = cache.Cache(Path(directory, "grown")).entries()
            del mine
            assert len(entries) <= 2
        assert_same_entry(Path(directory))


test_what_is_taken_over_is_as_if_prepared_from_nothing, test_what_is_taken_over_of_many = short_and_long(
    check_what_is_taken_over_is_as_if_prepared_from_nothing,
    st.sampled_from([None, None, 1, 3]),
    st.lists(st.lists(EDITS, max_size=6), min_size=2, max_size=6),
    everyday=10,
    long=60,
)


def test_how_many_were_taken_over_is_told(caplog: pytest.LogCaptureFixture, tmp_path: Path):
    caplog.set_level(logging.INFO)
    kept = Kept()
    for which in range(7):
        kept.change(("add", which, 0))
    for expected in ("prepared 7 images in ", "prepared 2 new images, 7 as they were, in "):
        kept.prepare(tmp_path, None)
        assert sum(message.startswith(expected) for message in caplog.messages) == 1
        for which in range(2):
            kept.change(("add", which, 0))


def test_what_is_there_twice_is_read_and_not_taken_over():
    """Names and states need not tell all images apart."""
    old = records.hashed(["a", "b", "b", "c"], ["1", "1", "1", "1"])
    new = records.hashed(["c", "b", "a", "a", "d"], ["1", "1", "1", "2", "1"])
    assert records.same(new, old).tolist() == [3, -1, 0, -1, -1]
    assert records.same(np.concatenate([new, new[:1]]), old).tolist() == [-1, -1, 0, -1, -1, -1]
    assert records.same(new[:0], old).tolist() == []
    assert records.same(new, old[:0]).tolist() == [-1] * 5


def test_a_name_and_a_state_cannot_be_mistaken_for_others():
    pairs = [("a", "bc"), ("ab", "c"), ("", "abc"), ("\udcff", "1"), ("\ud800", "1")]
    assert len(set(records.hashed(*zip(*pairs, strict=True)).tolist())) == len(pairs)


def assert_equal(mine: DataSet, other: DataSet) -> None:
    for part in ("train", "validation"):
        np.testing.assert_array_equal(getattr(mine, part).images, getattr(other, part).images)
        np.testing.assert_array_equal(getattr(mine, part).labels, getattr(other, part).labels)
    for name in ("classes", "skipped", "captions", "facts", "fingerprint", "understood"):
        assert getattr(mine, name) == getattr(other, name), name
    for name in ("sizes", "modes"):  # the order counts too
        assert list(mine.facts[name].items()) == list(other.facts[name].items())


def assert_same_entry(directory: Path) -> None:
    """The last entries have the same files, byte for byte, but for when they were built."""
    grown = max(cache.Cache(directory / "grown").entries(), key=lambda entry: entry.about["built"])
    fresh_cache = max(directory.glob("fresh *"))
    (fresh,) = cache.Cache(fresh_cache).entries()
    for name in fresh.about["files"]:
        assert (grown.path / name).read_bytes() == (fresh.path / name).read_bytes(), name
    when = {"built": "", "checksum": ""}
    assert {**grown.about, **when} == {**fresh.about, **when}
