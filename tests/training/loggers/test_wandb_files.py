"""W&B's offline files are whole up to their end, whenever their process was killed."""

import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from ddpm.training.loggers.wandb_files import (
    BLOCK,
    HEADER,
    end_of_records,
    first_step,
    is_whole,
    last_step,
    mend,
)


def written(sizes: list[int]) -> tuple[bytes, list[int]]:
    """A file with records of these sizes, as LevelDB lays them out, and where each ends."""
    content, ends = bytearray(b":W&B\xe1\xbe\x00"), []
    for size in sizes:
        left, first = size, True
        while left or first:
            if (room := BLOCK - len(content) % BLOCK) < HEADER:
                content += bytes(room)
                room = BLOCK
            piece = min(left, room - HEADER)
            left -= piece
            kind = {(True, True): 1, (True, False): 2, (False, False): 3, (False, True): 4}[first, left == 0]
            content += struct.pack("<IHB", 0, piece, kind) + b"x" * piece
            first = False
        ends.append(len(content))
    return bytes(content), ends


def test_a_torn_record_is_cut_off_and_no_other(tmp_path: Path):
    sizes = [100, 3 * BLOCK, 0, BLOCK - 200, 50, 2, 70, 1000]
    content, ends = written(sizes)
    file = tmp_path / "run-x.wandb"
    near = {end + step for end in (0, HEADER, *ends) for step in range(-9, 10)}
    for size in sorted({size for size in near if 0 <= size <= len(content)} | {2 * BLOCK, 3 * BLOCK + 5}):
        file.write_bytes(content[:size])
        expected = max([min(size, HEADER), *(end for end in ends if end <= size)])
        assert end_of_records(file) == expected, size
        assert is_whole(tmp_path) == (size == expected > HEADER)
        mend(tmp_path)
        assert is_whole(tmp_path) == (expected > HEADER)
        assert file.read_bytes() == content[:expected]
    file.write_bytes(content + bytes(500))  # as after a machine that went down
    assert end_of_records(file) == len(content)


@pytest.mark.e2e
def test_what_wandb_wrote_is_whole_and_what_is_mended_is_read(smoke_run: Path, tmp_path: Path):
    (directory,) = smoke_run.glob("wandb/offline-run-*")
    (file,) = directory.glob("run-*.wandb")
    assert end_of_records(file) == file.stat().st_size
    assert last_step(directory) == 20
    assert last_step(tmp_path) is None

    def inspected() -> str:
        command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(torn)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
        return done.stdout + done.stderr

    torn = Path(shutil.copy(file, tmp_path))
    with torn.open("r+b") as opened:
        opened.truncate(file.stat().st_size - 40)
    assert "incomplete" in inspected()
    mend(tmp_path)
    assert "incomplete" not in inspected()
    assert (first_step(tmp_path), last_step(tmp_path)) == (0, 20)
    mend(tmp_path, until=12)
    assert (first_step(tmp_path), last_step(tmp_path)) == (0, 11)
    assert "incomplete" not in inspected()
    mend(tmp_path, until=0)
    assert first_step(tmp_path) is None
