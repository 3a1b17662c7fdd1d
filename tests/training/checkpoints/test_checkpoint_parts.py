"""Checkpoints in parts: written by any number of processes, read by any other, and noticed where damaged."""

import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from content import differences
from torch import Tensor
from torch.distributed import HashStore

from ddpm.training.checkpoints import AtomicCheckpointIO, CheckpointError, find, load, load_rows, parts, write
from ddpm.training.checkpoints.parts import Report, Together, rows, writing
from ddpm.training.ending import TrainingError


def save(directory: Path, whole: dict[str, Any], ranks: int, name: str = "step_00000010.ckpt") -> Path:
    """A checkpoint as that many processes write it, each of which has its rows."""
    reports, path = [], directory / name
    for rank in range(ranks):
        head, part = parts.split(whole, partial(own, rank=rank, ranks=ranks))
        reports.append(Report(file=parts.write_part(part, rank, ranks, path)))
    parts.conclude(head, reports, path, write)
    return path


def left(directory: Path) -> list[str]:
    return [path.name for path in directory.rglob("*") if path.is_file()]


def own(tensor: Tensor, rank: int, ranks: int) -> Tensor | None:
    """FSDP2's rule, by torch's own function; what has no rows is everybody's."""
    if not tensor.ndim:
        return None
    chunks = tensor.chunk(ranks)
    return chunks[rank] if rank < len(chunks) else tensor[:0]


def content(step: int) -> dict[str, Any]:
    """Of a training, with tensors of fewer rows than processes, of none, and of other types."""
    generator = torch.Generator().manual_seed(step)
    weights = {
        "network.weight": torch.rand(3, 2, generator=generator),
        "network.bias": torch.rand(7, generator=generator),
        "network.kernel": torch.rand(8, 4, 3, 3, generator=generator),
        "network.half": torch.rand(5, 2, generator=generator).bfloat16(),
        "network.nothing": torch.rand(0, 3, generator=generator),
    }
    moments = {name: {"exp_avg": value * 2, "step": torch.tensor(3.0)} for name, value in weights.items()}
    return {
        "state_dict": weights,
        "ema": {"parameters": {name: value / 2 for name, value in weights.items()}, "num_updates": step},
        "optimizer_states": [{"state": dict(enumerate(moments.values())), "param_groups": [{"lr": 0.1}]}],
        "config": {"seed": 0},
        "data": None,
        "global_step": step,
    }


def assert_same(one: Any, other: Any) -> None:
    assert list(differences(one, other)) == []


@pytest.mark.parametrize("n", [0, 1, 2, 3, 7, 8, 64])
@pytest.mark.parametrize("of", [1, 2, 3, 5, 8])
def test_rows_are_those_of_torchs_chunks(n: int, of: int):
    chunks = [chunk.tolist() for chunk in torch.arange(n).chunk(of)] if n else []
    chunks += [[]] * (of - len(chunks))
    assert [list(rows(part, of, n)) for part in range(of)] == chunks


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_what_was_parted_is_whole_again(ranks: int, tmp_path: Path):
    whole = content(10)
    path = save(tmp_path, whole, ranks)
    read = load(path)
    assert read.pop("layout") == 2
    assert_same(read, whole)


@pytest.mark.parametrize(("before", "now"), [(1, 3), (2, 3), (3, 2), (5, 2), (3, 3), (2, 5), (4, 1)])
def test_any_number_of_processes_takes_up_its_rows(before: int, now: int, tmp_path: Path):
    whole = content(10)
    path = save(tmp_path, whole, before)
    read = [load_rows(path, rank, now, lambda rows, _: rows) for rank in range(now)]
    weights = [one["state_dict"] for one in read]
    for name, tensor in whole["state_dict"].items():
        assert torch.equal(torch.cat([state[name] for state in weights]), tensor)
        for rank in range(now):
            assert_same(weights[rank][name], own(tensor, rank, now))


def test_no_process_reads_more_than_the_parts_it_needs(tmp_path: Path):
    path = save(tmp_path, content(10), 4)
    files = parts.listed(torch.load(path, weights_only=True)).files
    (tmp_path / "parts" / files[3]).unlink()
    load_rows(path, 0, 2, lambda rows, _: rows)
    with pytest.raises(CheckpointError, match=f"parts/{files[3]}, a part of it, is not beside it"):
        load_rows(path, 1, 2, lambda rows, _: rows)


def test_a_part_is_as_small_as_what_it_holds(tmp_path: Path):
    whole = content(10)
    whole["state_dict"]["network.large"] = torch.zeros(4, 100_000)
    path = save(tmp_path, whole, 4)
    files = parts.listed(torch.load(path, weights_only=True)).files
    assert all((tmp_path / "parts" / name).stat().st_size < 600_000 for name in files)
    assert path.stat().st_size < 100_000


@pytest.mark.parametrize("damage", ["flipped", "cut", "missing", "swapped", "another run's"])
def test_what_is_damaged_is_noticed_and_the_one_before_is_taken(damage: str, tmp_path: Path):
    directory = tmp_path / "checkpoints"
    before = save(directory, content(5), 2, "step_00000005.ckpt")
    newest = save(directory, content(10), 2)
    one, two = (directory / "parts" / name for name in parts.listed(torch.load(newest)).files)
    if damage == "flipped":
        changed = bytearray(two.read_bytes())
        changed[len(changed) // 2] ^= 1
        two.write_bytes(changed)
    elif damage == "cut":
        two.write_bytes(two.read_bytes()[:-100])
    elif damage == "missing":
        two.unlink()
    elif damage == "swapped":
        two.write_bytes(one.read_bytes())
    else:
        other = save(tmp_path / "other", content(7), 2)
        two.write_bytes((other.parent / "parts" / parts.listed(torch.load(other)).files[1]).read_bytes())
    for whole in (True, False):
        with pytest.raises(CheckpointError, match=f"parts/{two.name}"):
            load(newest, whole=whole)
        assert find(tmp_path, whole=whole)[0] == before


def test_nan_in_a_part_is_neither_written_nor_taken(tmp_path: Path):
    whole = content(10)
    whole["state_dict"]["network.weight"] = torch.full((3, 2), float("nan"))
    with pytest.raises(CheckpointError, match=r"state_dict\.network\.weight holds NaN"):
        save(tmp_path, whole, 2)


@pytest.mark.parametrize(
    "listing",
    [
        {"files": [], "shapes": {}},
        {"files": ["../step.0123456789abcdef.ckpt"], "shapes": {}},
        {"files": ["step.0123456789abcdef.ckpt"], "shapes": {"state_dict.network.weight": [-1]}},
        {"files": ["step.0123456789abcdef.ckpt"], "shapes": {"state_dict.network.weight": 3}},
        {"files": ["step.0123456789abcdef.ckpt"], "shapes": {"state_dict.network.weight": [1 << 63]}},
        {"files": [f"{'a' * 240}.0123456789abcdef.ckpt"], "shapes": {}},
        {"files": ["\udcff.0123456789abcdef.ckpt"], "shapes": {}},
        {"files": "all", "shapes": {}},
        ["step.0123456789abcdef.ckpt"],
        None,
    ],
)
def test_a_list_of_parts_that_is_none_is_refused(listing: Any, tmp_path: Path):
    torch.save({**content(10), "parts": listing, "layout": 2}, tmp_path / "hostile.ckpt")
    with pytest.raises(CheckpointError, match="list of parts is damaged"):
        load(tmp_path / "hostile.ckpt")


def test_shapes_beyond_the_files_take_no_memory(tmp_path: Path):
    path = save(tmp_path, content(10), 2)
    head = torch.load(path, weights_only=True)
    head["parts"]["shapes"]["state_dict.network.weight"] = [1 << 60, 2]
    torch.save(head, path)
    with pytest.raises(CheckpointError, match="of another checkpoint"):
        load(path)


def test_a_type_that_parts_do_not_share_is_refused(tmp_path: Path):
    path = save(tmp_path, content(10), 2)
    head = torch.load(path, weights_only=True)
    name = next(iter(head["state_dict"]))
    head["state_dict"][name] = head["state_dict"][name].double()
    torch.save(head, path)
    with pytest.raises(CheckpointError, match="of another checkpoint"):
        load(path)


def test_two_tensors_of_one_name_are_refused():
    whole = {"a.b": torch.ones(1), "a": {"b": torch.ones(1)}}
    with pytest.raises(CheckpointError, match=r"two tensors are called a\.b"):
        parts.split(whole, lambda tensor: tensor)


def test_removing_leaves_what_another_one_lists(tmp_path: Path):
    ten = save(tmp_path, content(10), 2)
    kept = tmp_path / "mine.ckpt"
    kept.write_bytes(ten.read_bytes())
    parts.remove(ten)
    assert not ten.exists()
    load(kept)
    parts.remove(kept)
    assert left(tmp_path) == []


def test_parts_that_none_lists_are_known(tmp_path: Path):
    ten = save(tmp_path, content(10), 2)
    ten.rename(tmp_path / "step_00000010.ckpt.passed_over")
    save(tmp_path, content(20), 2, "step_00000020.ckpt").unlink()
    (tmp_path / "parts" / "mine.txt").write_text("of a person")
    assert {path.name.split(".")[0] for path in parts.unlisted(tmp_path)} == {"step_00000020"}
    assert len(parts.unlisted(tmp_path)) == 2
    (tmp_path / "step_00000020.ckpt.passed_over").write_bytes(b"damaged: of which parts, nobody knows")
    (tmp_path / "notes.txt").write_text("of a person")
    assert parts.unlisted(tmp_path) == []


def test_a_name_that_is_written_again_keeps_its_new_parts_only(tmp_path: Path):
    save(tmp_path, content(5), 3, "best.ckpt")
    path = save(tmp_path, content(10), 2, "best.ckpt")
    assert load(path)["global_step"] == 10
    assert len(list((tmp_path / "parts").iterdir())) == 2


# Processes, here as threads


def together(
    path: Path, whole: dict[str, Any], writers: list[AtomicCheckpointIO], seconds: float = 60
) -> list[BaseException | None]:
    """Save by several writers, each in a thread; what each raised."""
    store, ranks = HashStore(), len(writers)
    raised: list[BaseException | None] = [None] * ranks

    def one(rank: int) -> None:
        head, part = parts.split(whole, lambda tensor: own(tensor, rank, ranks))
        try:
            writers[rank].save_part(head, part, path, Together(rank, ranks, store, seconds))
            writers[rank].wait()
        except BaseException as error:
            raised[rank] = error

    threads = [threading.Thread(target=one, args=[rank]) for rank in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return raised


@pytest.mark.parametrize("background", [True, False])
def test_all_write_and_the_first_says_what_there_is(background: bool, tmp_path: Path):
    writers = [AtomicCheckpointIO(background) for _ in range(3)]
    whole, path = content(10), tmp_path / "checkpoints" / "step_00000010.ckpt"
    assert together(path, whole, writers) == [None] * 3
    assert [writer.error for writer in writers] == [None] * 3
    read = load(path)
    del read["layout"]
    assert_same(read, whole)
    for writer in writers:
        writer.teardown()


def test_a_disk_that_is_full_for_one_leaves_nothing_and_the_first_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    written = parts.write_part

    def full(part: Any, rank: int, ranks: int, path: Path) -> str:
        if rank == 1:
            raise OSError(28, "No space left on device")
        return written(part, rank, ranks, path)

    monkeypatch.setattr(parts, "write_part", full)
    writers = [AtomicCheckpointIO(background=True) for _ in range(2)]
    path = tmp_path / "step_00000010.ckpt"
    assert together(path, content(10), writers) == [None, None]
    assert "rank 1: " in (writers[0].error or "")
    assert "No space left on device" in (writers[0].error or "")
    assert left(tmp_path) == []
    monkeypatch.undo()
    assert together(path, content(10), writers) == [None, None]
    assert writers[0].error is None
    load(path)
    for writer in writers:
        writer.teardown()


def test_nan_in_the_part_of_another_process_ends_the_training(tmp_path: Path):
    whole = content(10)
    whole["state_dict"]["network.weight"] = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, float("nan")]])
    writers = [AtomicCheckpointIO(background=True) for _ in range(2)]
    together(tmp_path / "step_00000010.ckpt", whole, writers)
    with pytest.raises(TrainingError, match=r"network\.weight holds NaN"):
        writers[0].check()
    assert not list(tmp_path.glob("*.ckpt"))
    for writer in writers:
        writer.teardown()


def test_one_that_says_nothing_is_named(tmp_path: Path):
    head, part = parts.split(content(10), lambda tensor: own(tensor, 0, 2))
    writer = AtomicCheckpointIO(background=True)
    writer.save_part(head, part, tmp_path / "step_00000010.ckpt", Together(0, 2, HashStore(), 0.2))
    writer.wait()
    assert "rank 1: it has not said that its part is written" in (writer.error or "")
    assert not list(tmp_path.rglob("*.ckpt"))
    writer.teardown()


def test_a_directory_that_not_every_machine_sees_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(writing, "UNSEEN", 0.1)
    path = tmp_path / "step_00000010.ckpt"
    reports = []
    for rank, directory in enumerate([tmp_path, tmp_path / "another machine"]):
        head, part = parts.split(content(10), partial(own, rank=rank, ranks=2))
        reports.append(Report(file=parts.write_part(part, rank, 2, directory / path.name)))
    with pytest.raises(OSError, match=r"the part of rank 1 is not in .*that every machine sees"):
        parts.conclude(head, reports, path, write)
    assert not list(tmp_path.glob("*.ckpt"))


def test_a_head_that_does_not_fit_its_list_is_refused(tmp_path: Path):
    path = save(tmp_path, content(10), 2)
    head = torch.load(path, weights_only=True)
    shapes = head["parts"]["shapes"]
    twice = {**head, "state_dict.network": {"weight": torch.empty(0)}}
    absent = {**head, "parts": {**head["parts"], "shapes": {**shapes, "nowhere": [3]}}}
    for hostile, reason in ((twice, "two tensors are called"), (absent, "no place for nowhere")):
        torch.save(hostile, path)
        for whole in (True, False):
            with pytest.raises(CheckpointError, match=reason):
                load(path, whole=whole)
        with pytest.raises(CheckpointError, match=reason):
            load_rows(path, 0, 2, lambda rows, _: rows)


@pytest.mark.parametrize("name", ["model.pt", "epoch=1-loss=0.52.ckpt", "图.ckpt", f"{'long ' * 40}.ckpt"])
def test_any_name_may_be_written_twice(name: str, tmp_path: Path):
    for _ in range(2):
        path = save(tmp_path, content(10), 2, name)
        assert load(path)["global_step"] == 10
        assert parts.unlisted(tmp_path) == []


def test_a_link_to_a_head_is_read(tmp_path: Path):
    path = save(tmp_path / "checkpoints", content(10), 2)
    (tmp_path / "newest.ckpt").symlink_to(path)
    assert load(tmp_path / "newest.ckpt")["global_step"] == 10


def test_a_whole_one_in_the_place_of_one_in_parts_leaves_none_of_them(tmp_path: Path):
    path = save(tmp_path, content(5), 2, "best.ckpt")
    AtomicCheckpointIO().save_checkpoint(content(10), path)
    assert left(tmp_path) == ["best.ckpt"]


def test_parts_are_brought_to_another_directory(tmp_path: Path):
    path = save(tmp_path / "one", content(10), 2)
    other = tmp_path / "other"
    other.mkdir()
    parts.bring(path, other)
    write(load(path, whole=False), other / path.name)
    parts.remove(path)
    assert load(other / path.name)["global_step"] == 10
