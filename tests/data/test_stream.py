"""Shards: every image once in a pass, the same stream however it is shared out, and from any step on."""

import io
import tarfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.distributed as dist
from conftest import first_everyday
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ddpm.app.build import build_data
from ddpm.data.module import ImageDataModule
from ddpm.data.sources.shard_stream import ShardStream
from ddpm.data.stream.loader import StreamLoader
from ddpm.data.stream.order import ShardOrder
from ddpm.errors import UsageError

COUNTS = np.random.RandomState(0).randint(1, 21, 100).tolist()


def png(number: int) -> bytes:
    """An image that tells which one it is."""
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (number % 256, number // 256, 7)).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path: Path, numbers: range, *, labels: bool = True) -> None:
    with tarfile.open(path, "w") as archive:
        for number in numbers:
            parts = {"png": png(number), "json": b"{}"} | (
                {"cls": str(number % 3).encode()} if labels else {}
            )
            for extension, contents in parts.items():
                member = tarfile.TarInfo(f"{number:06}.{extension}")
                member.size = len(contents)
                archive.addfile(member, io.BytesIO(contents))


def write_parquet(path: Path, numbers: range, **columns: list) -> None:
    images = [{"bytes": png(number), "path": None} for number in numbers]
    table = pa.table({"n": list(numbers), "image": images, "label": [n % 3 for n in numbers], **columns})
    pq.write_table(table, path, row_group_size=7)


def write(folder: Path, kind: str, counts: list[int]) -> Path:
    folder.mkdir(parents=True)
    first = 0
    for shard, count in enumerate(counts):
        numbers = range(first, first + count)
        if kind == "tar":
            write_tar(folder / f"s-{shard:03}.tar", numbers)
        else:
            write_parquet(folder / f"s-{shard:03}.parquet", numbers)
        first += count
    return folder


@pytest.fixture(scope="module")
def hundred(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same 100 shards of unequal size, as tar and as parquet."""
    root = tmp_path_factory.mktemp("shards")
    return {kind: write(root / kind, kind, COUNTS) for kind in ("tar", "parquet")}


def source(path: Path, **changed: Any) -> ShardStream:
    return ShardStream(path, image_size=4, **{"lanes": 12, "buffer": 96, "validation_size": 0, **changed})


LOADING = ("batch_size", "num_workers", "seed")


def stream(path: Path, **changed: Any) -> ImageDataModule:
    loading = {name: changed.pop(name) for name in LOADING if name in changed}
    return ImageDataModule(
        source(path, **changed), **{"batch_size": 24, "num_workers": 0, "seed": 3, **loading}
    )


def loader(
    data: ImageDataModule, *, step: int, rank: int = 0, world_size: int = 1, accumulation: int = 1
) -> StreamLoader:
    return StreamLoader(
        data.data_set.train,
        batch_size=data.batch_size,
        seed=data.seed,
        rank=rank,
        world_size=world_size,
        accumulation=accumulation,
        step=step,
        num_workers=data.num_workers,
    )


def numbers(images: torch.Tensor) -> list[int]:
    return (images[:, 0, 0, 0].long() + 256 * images[:, 1, 0, 0].long()).tolist()


def shown(data: ImageDataModule, steps: range, *, world_size: int = 1, accumulation: int = 1) -> list[int]:
    """What all devices together show, index after index."""
    found = {}
    for rank in range(world_size):
        batches = loader(data, rank=rank, world_size=world_size, accumulation=accumulation, step=steps.start)
        for batch, _ in zip(batches, range(len(steps) * accumulation), strict=False):
            assert len(batch.x_0) == data.batch_size // world_size // accumulation
            for index, number in zip(batch.indices, numbers(batch.x_0), strict=True):
                found[batch.step, index] = number
            if batch.labels is not None:
                assert batch.labels.tolist() == [number % 3 for number in numbers(batch.x_0)]
    assert len(found) == len(steps) * data.batch_size
    return [found[step, index] for step in steps for index in range(data.batch_size)]


@pytest.fixture(scope="module")
def whole(hundred: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[int]:
    """Two passes and a half on one device, read by its own process."""
    data = stream(hundred["tar"], cache_dir=tmp_path_factory.mktemp("cache"))
    return shown(data, range(sum(COUNTS) * 5 // 2 // 24))


def test_every_pass_shows_every_image_once(whole: list[int]):
    n = sum(COUNTS)
    assert sorted(whole[:n]) == sorted(whole[n : 2 * n]) == list(range(n))
    assert whole[:n] != whole[n : 2 * n]
    assert max(Counter(whole[2 * n :]).values()) == 1


@pytest.mark.parametrize("num_workers", first_everyday([1, 0, 3]))
@pytest.mark.parametrize("world_size", first_everyday([2, 1, 3]))
def test_it_is_the_same_however_it_is_shared_out(
    hundred: dict[str, Path], whole: list[int], world_size: int, num_workers: int
):
    data = stream(hundred["tar"], num_workers=num_workers)
    steps = range(sum(COUNTS) // 24 + 3)  # into the second pass
    assert shown(data, steps, world_size=world_size) == whole[: len(steps) * 24]


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("world_size", "num_workers", "accumulation"), [(1, 0, 1), (3, 2, 1), (1, 2, 4), (2, 0, 2)]
)
def test_a_restart_continues_with_the_images_of_an_uninterrupted_run(
    hundred: dict[str, Path], whole: list[int], world_size: int, num_workers: int, accumulation: int
):
    data = stream(hundred["tar"], num_workers=num_workers)
    rest = shown(data, range(37, 50), world_size=world_size, accumulation=accumulation)
    assert rest == whole[37 * 24 : 50 * 24]


@pytest.mark.parametrize("buffer", [24, 240])
def test_reading_is_spread_evenly_and_nothing_is_read_twice(
    hundred: dict[str, Path], monkeypatch: pytest.MonkeyPatch, buffer: int
):
    opened, read = [], []
    data = stream(hundred["parquet"], buffer=buffer)
    shards = type(data.data_set.train.shards)
    original = shards.read

    def counting(self: object, shard: int, first: int) -> object:
        opened.append(shard)
        for sample in original(self, shard, first):
            read.append(sample.name)
            yield sample

    monkeypatch.setattr(shards, "read", counting)
    counts = []
    for _ in zip(loader(data, step=10), range(18), strict=False):
        counts.append(len(read))
    assert counts[0] <= buffer + 2 * 24  # a restart reads a buffer, not what was shown before
    assert max(np.diff(counts)) <= 3 * 24  # and no step waits for a whole one
    assert max(Counter(read).values()) == 1
    assert len(opened) <= len(COUNTS) + 12


def test_parquet_and_tar_of_the_same_images_are_the_same_stream(hundred: dict[str, Path], whole: list[int]):
    data = stream(hundred["parquet"])
    assert shown(data, range(30)) == whole[: 30 * 24]
    assert data.data_set.classes == ["0", "1", "2"]
    assert len(data.data_set.train) == sum(COUNTS)


def test_seed_lanes_and_buffer_change_the_order(hundred: dict[str, Path], whole: list[int]):
    for changed in ({"seed": 4}, {"lanes": 6}, {"buffer": 48}, {"batch_size": 12}):
        assert shown(stream(hundred["tar"], **changed), range(4)) != whole[: 4 * 24]


def test_neighbours_are_mixed(whole: list[int]):
    steps = np.abs(np.diff(whole[: sum(COUNTS)]))
    assert np.median(steps) > 20


def test_held_out_images_are_never_trained_on(hundred: dict[str, Path]):
    data = stream(hundred["parquet"], validation_size=40)
    held_out = numbers(torch.from_numpy(data.data_set.validation.images))
    assert 20 <= len(held_out) <= 40
    assert len(set(np.searchsorted(np.cumsum(COUNTS), held_out, "right"))) == 10  # shards
    n = len(data.data_set.train)
    seen = shown(data, range(n // 24 + 1))[:n]
    assert sorted([*seen, *held_out]) == list(range(sum(COUNTS)))
    assert data.data_set.validation.labels.tolist() == [number % 3 for number in held_out]


@given(
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(sum),
    per_lane=st.integers(1, 3),
    lanes=st.integers(1, 6),
    block=st.integers(1, 9),
    step=st.integers(0, 9),
    seed=st.integers(0, 3),
)
@settings(max_examples=150, deadline=None)
def test_the_order_shows_every_row_once_in_any_pass(
    counts: list[int], per_lane: int, lanes: int, block: int, step: int, seed: int
):
    """Also where a pass is shorter than a batch."""
    batch_size, total = per_lane * lanes, sum(counts)
    order = ShardOrder(np.array(counts), batch_size=batch_size, lanes=lanes, buffer=block * lanes, seed=seed)
    steps = 2 * total // batch_size + 2

    def rows(start: int) -> np.ndarray:
        """[lanes, images]: pass and row before shards are shuffled, from a step on."""
        found = []
        for lane in range(lanes):
            mine = []
            for block in order.blocks(lane, start):
                mine += [(block.number, block.first + i) for i in block.order[block.shown :].tolist()]
                if len(mine) >= (steps - start) * per_lane:
                    break
            found.append(mine[: (steps - start) * per_lane])
        return np.array(found)

    whole = rows(0)
    stream = whole.reshape(lanes, steps, per_lane, 2).swapaxes(0, 1).reshape(-1, 2)
    for number in (0, 1):
        part = stream[number * total : (number + 1) * total]
        assert part[:, 0].tolist() == [number] * total
        assert sorted(part[:, 1].tolist()) == list(range(total))
    start = min(step, steps - 1)
    np.testing.assert_array_equal(rows(start), whole[:, start * per_lane :])


def test_devices_that_lanes_cannot_be_shared_by(hundred: dict[str, Path]):
    data = stream(hundred["tar"], batch_size=40, lanes=4)
    with pytest.raises(ValueError, match=r"data\.lanes=4: 5 devices x 1 micro-batches.*data\.lanes=5"):
        loader(data, world_size=5, step=0)


def test_settings_that_cannot_be_are_refused_at_once(tmp_path: Path):
    for changed, message in (
        ({"lanes": 0}, r"data\.lanes=0"),
        ({"buffer": 3}, r"data\.buffer=3 must be at least data\.lanes=12"),
        ({"channels": None}, r"data\.channels"),
        ({"validation_size": -1}, r"data\.validation_size=-1"),
    ):
        with pytest.raises(ValueError, match=message):
            source(tmp_path, **changed)
    write_tar(tmp_path / "a.tar", range(9))
    for changed, message in (
        ({"lanes": 5}, r"data\.lanes=5 must divide data\.batch_size=24"),
        ({"lanes": None, "buffer": 23}, r"data\.buffer=23 must be at least data\.lanes=24"),
    ):
        with pytest.raises(ValueError, match=message):
            _ = stream(tmp_path, **changed).data_set
    chosen = stream(tmp_path, batch_size=64, lanes=None)
    assert chosen.data_set.train.order(chosen.batch_size, seed=0).lanes == 16


def test_unreadable_rows_are_replaced_and_listed(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    numbers_ = range(60)
    images = [{"bytes": png(n), "path": None} for n in numbers_]
    images[5], images[17], images[40] = (
        {"bytes": b"words", "path": None},
        None,
        {"bytes": None, "path": "x"},
    )
    write_parquet(tmp_path / "a.parquet", numbers_, image=images)
    data = stream(tmp_path, batch_size=12, lanes=4, buffer=60, num_workers=1)
    seen = Counter(shown(data, range(5)))
    assert set(seen) == set(numbers_) - {5, 17, 40}
    assert sum(seen.values()) == 60
    assert max(seen.values()) <= 4
    assert {name for name, _ in data.skipped} == {f"row {n} of {tmp_path}/a.parquet" for n in (5, 17, 40)}
    assert dict(data.skipped)[f"row 17 of {tmp_path}/a.parquet"] == "there is no image in this row"
    assert f"skipped row 5 of {tmp_path}/a.parquet: not an image" in caplog.text
    with pytest.raises(ValueError, match=r"data\.on_error=fail: row \d+ of .*a\.parquet cannot be read"):
        shown(stream(tmp_path, on_error="fail"), range(5))


def test_in_the_end_the_list_holds_what_every_device_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    images = [{"bytes": b"words" if n % 5 == 0 else png(n), "path": None} for n in range(60)]
    write_parquet(tmp_path / "a.parquet", range(60), image=images)
    ranks = [stream(tmp_path, batch_size=12, lanes=4, buffer=60) for _ in range(2)]
    for rank, data in enumerate(ranks):
        for _ in zip(loader(data, rank=rank, world_size=2, step=0), range(5), strict=False):
            pass
    found = [dict(data.skipped) for data in ranks]
    assert min(map(len, found)) > 0
    assert found[0].keys() != found[1].keys()

    def gather(everyone: list, mine: list) -> None:
        everyone[:] = [list(skipped.items()) for skipped in found]

    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "all_gather_object", gather)
    ranks[0].teardown("fit")
    ranks[0].write_skipped(tmp_path)
    assert len((tmp_path / "skipped.txt").read_text().splitlines()) == len(ranks[0].skipped) == 12
    assert "skipped 12 images in all" in caplog.text


def test_what_no_stream_can_be_made_of(tmp_path: Path):
    def refused(message: str, **changed: Any) -> None:
        with pytest.raises(ValueError, match=message):
            _ = stream(tmp_path / "set", **changed).data_set

    refused(r"data\.path=.*set: there are no shards")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "notes.txt").touch()
    refused(r"data\.path=.*set: there are no shards")
    write_tar(tmp_path / "set" / "a.tar", range(3))
    write_parquet(tmp_path / "set" / "b.parquet", range(3))
    refused("parquet and tar shards; name one kind")
    (tmp_path / "set" / "a.tar").unlink()
    refused(
        r"data\.image_column=foto: .*b\.parquet has no such column; it has n, image, label",
        image_column="foto",
    )
    pq.write_table(pa.table({"words": ["a"]}), tmp_path / "set" / "b.parquet")
    refused(r"data\.image_column=null: .*b\.parquet has no column of images; it has words")
    (tmp_path / "set" / "b.parquet").write_bytes(b"words")
    refused(r"b\.parquet is damaged")


@pytest.mark.parametrize("length", [0, 100, 700, 1024, 3 * 1024])
def test_tar_shards_that_break_off_are_named(tmp_path: Path, length: int):
    write_tar(tmp_path / "a.tar", range(9))
    whole = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[:length])
    with pytest.raises(ValueError, match=r"a\.tar (breaks off|is damaged)"):
        _ = stream(tmp_path).data_set


def test_samples_with_and_without_a_label(tmp_path: Path):
    write_tar(tmp_path / "a.tar", range(30), labels=False)
    assert stream(tmp_path).data_set.classes is None
    assert shown(stream(tmp_path), range(1))
    write_tar(tmp_path / "b.tar", range(30, 60))
    with pytest.raises(ValueError, match="some samples of the shards have a label and some have none"):
        _ = stream(tmp_path).data_set


def test_labels_that_are_none_of_the_classes_are_refused(tmp_path: Path):
    import datasets

    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["cat", "dog"]))
    rows = {"image": [{"bytes": png(n), "path": None} for n in range(3)], "label": [0, -1, 1]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"data\.label_column=label: some images are of none of the 2"):
        _ = stream(tmp_path).data_set


def test_patterns_and_classes_of_the_hub(tmp_path: Path):
    import datasets

    features = datasets.Features(
        image=datasets.Image(), label=datasets.ClassLabel(names=["cat", "dog", "owl"])
    )
    rows = {
        "image": [{"bytes": png(n), "path": None} for n in range(40)],
        "label": [n % 3 for n in range(40)],
    }
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "train-0.parquet")
    write_parquet(tmp_path / "test-0.parquet", range(100, 109))
    data = stream(tmp_path / "train-*.parquet")
    assert data.data_set.classes == ["cat", "dog", "owl"]
    assert len(data.data_set.train) == 40
    assert shown(data, range(2))
    assert data.image_shape == (3, 4, 4)


def test_identity(hundred: dict[str, Path], tmp_path: Path):
    same = {stream(write(tmp_path / str(i) / "s", "tar", [3, 4])).fingerprint for i in range(2)}
    assert len(same) == 1
    assert stream(write(tmp_path / "other", "tar", [3, 5])).fingerprint not in same


def test_counting_happens_once(hundred: dict[str, Path], monkeypatch: pytest.MonkeyPatch):
    counts = stream(hundred["tar"]).data_set.train.shards.counts
    monkeypatch.setattr("ddpm.data.stream.shards.counted", None)
    assert stream(hundred["tar"]).data_set.train.shards.counts.tolist() == counts.tolist() == COUNTS


def test_it_starts_at_the_trainers_step(hundred: dict[str, Path], whole: list[int]):
    data = stream(hundred["tar"])
    data.trainer = SimpleNamespace(
        global_rank=1,
        world_size=2,
        num_nodes=1,
        accumulate_grad_batches=2,
        global_step=9,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
    )
    batch = next(iter(data.train_dataloader()))
    assert (batch.step, batch.first) == (9, 6)
    assert numbers(batch.x_0) == whole[9 * 24 + 6 : 9 * 24 + 12]


@pytest.mark.parametrize("validation_size", [0, 20])
@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_shards_that_hold_no_image_are_refused_before_a_run_begins(
    tmp_path: Path, kind: str, validation_size: int
):
    (tmp_path / "set").mkdir()
    if kind == "tar":
        with tarfile.open(tmp_path / "set" / "a.tar", "w") as archive:
            for number in range(30):
                member = tarfile.TarInfo(f"{number}.txt")
                member.size = 5
                archive.addfile(member, io.BytesIO(b"words"))
    else:
        rows = [{"bytes": b"words", "path": None}] * 30
        write_parquet(tmp_path / "set" / "a.parquet", range(30), image=rows)
    target = "ddpm.data.sources.shard_stream.ShardStream"
    settings = {"_target_": target, "path": str(tmp_path / "set"), "image_size": 8, "batch_size": 8}
    config = {"seed": 0, "data": {**settings, "validation_size": validation_size}}
    with pytest.raises(UsageError, match=r"^data\.path=.*set: none of the \d+ rows .*is an image") as refusal:
        build_data(config)
    assert refusal.value.args[0].count("\n") == 0


def test_a_few_unreadable_rows_at_the_beginning_are_no_reason(tmp_path: Path):
    images = [{"bytes": b"words" if n < 7 else png(n), "path": None} for n in range(30)]
    write_parquet(tmp_path / "a.parquet", range(30), image=images)
    assert len(stream(tmp_path).data_set.train) == 30


def test_parts_of_its_images_are_shown_the_same_however_it_is_shared_out(tmp_path: Path):
    """Whole images leave the readers; which part the network sees depends on seed, step and index alone."""
    (tmp_path / "shards").mkdir()
    random = np.random.RandomState(0)
    rows = []
    for _ in range(40):
        buffer = io.BytesIO()
        Image.fromarray(random.randint(0, 256, (10, 12, 3)).astype(np.uint8)).save(buffer, "PNG")
        rows.append({"bytes": buffer.getvalue(), "path": None})
    pq.write_table(pa.table({"image": rows}), tmp_path / "shards" / "a.parquet")

    def shown(step: int, *, rank: int = 0, world_size: int = 1) -> dict[tuple[int, int], bytes]:
        settings: dict[str, Any] = {"lanes": 12, "buffer": 96, "validation_size": 8, "crop": "random"}
        data = ImageDataModule(
            ShardStream(tmp_path / "shards", image_size=8, **settings), 24, num_workers=0, seed=3
        )
        data.trainer = SimpleNamespace(
            training=True, global_step=step, global_rank=rank, world_size=world_size, num_nodes=1,
            accumulate_grad_batches=1, strategy=SimpleNamespace(root_device=torch.device("cpu")),
        )  # fmt: skip
        found = {}
        for batch, _ in zip(data.train_dataloader(), range(5 - step), strict=False):
            assert batch.x_0.shape[1:] == (3, 10, 10)
            batch = data.on_after_batch_transfer(batch, 0)
            assert batch.x_0.shape[1:] == data.image_shape == (3, 8, 8)
            pairs = zip(batch.indices, batch.x_0, strict=True)
            found |= {(batch.step, index): image.numpy().tobytes() for index, image in pairs}
        assert data.data_set.validation.image_shape == (3, 8, 8)
        return found

    whole = shown(0)
    assert len(whole) == 5 * 24
    assert shown(0, world_size=2) | shown(0, rank=1, world_size=2) == whole
    assert shown(3) == {place: image for place, image in whole.items() if place[0] >= 3}
