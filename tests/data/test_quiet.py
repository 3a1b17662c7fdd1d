"""Nothing but what this program says reaches the terminal."""

import logging
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
from PIL import Image

from ddpm.data.quiet import quietly

DAMAGED = """
import io, logging, sys, warnings
import numpy as np
from PIL import Image
from ddpm.data.pixels.decoding import decode_all
from ddpm.data.pixels.shaping import Shaping
Image.MAX_IMAGE_PIXELS = 3000
noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
files = []
for compression in ("tiff_lzw", "tiff_adobe_deflate"):
    buffer = io.BytesIO()
    noise.save(buffer, "TIFF", compression=compression)
    contents = bytearray(buffer.getvalue())
    contents[40:80] = bytes(40)
    files += [bytes(contents), buffer.getvalue()[:-2000], buffer.getvalue()]
buffer = io.BytesIO()
noise.save(buffer, "JPEG", exif=b"Exif\\0\\0II*\\0\\x08\\0\\0\\0\\xff\\xff")
files.append(buffer.getvalue())
warnings.simplefilter("always")
logging.basicConfig(level=logging.DEBUG, handlers=[logging.StreamHandler(sys.stderr)])
found = list(decode_all(files * 5, Shaping((8, 8))))
print(len([one for one in found if not isinstance(one, str)]))
"""


def test_damaged_files_say_nothing_by_themselves():
    """Bombs below the limit, broken EXIF, and what libtiff writes past Python."""
    done = subprocess.run(
        [sys.executable, "-c", DAMAGED], capture_output=True, text=True, check=True, timeout=300
    )
    assert done.stderr == ""
    assert int(done.stdout) >= 15


def warn(times: int = 1) -> None:
    for _ in range(times):
        Image._decompression_bomb_check((10, 10))


def test_what_others_set_stays(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60)
    log = logging.getLogger("PIL.x")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        with quietly():
            with quietly():
                warn()
            warn()
            log.error("one")
            warnings.warn("of ours", UserWarning, stacklevel=1)
        assert list(warnings.filters) == before
        warn()
        log.error("two")
    assert [warning.category for warning in caught] == [UserWarning, Image.DecompressionBombWarning]
    assert [record.message for record in caplog.records] == ["two"]


def test_many_threads_leave_it_as_it_was(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before = list(warnings.filters)

        def work() -> None:
            for _ in range(200):
                with quietly():
                    warn()

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert list(warnings.filters) == before
    assert not caught


def test_someone_else_may_restore_their_filters_meanwhile():
    with warnings.catch_warnings():
        guard = quietly()
        guard.__enter__()
        warnings.resetwarnings()
        guard.__exit__(None, None, None)
        assert not warnings.filters


def test_an_error_inside_leaves_nothing_behind(tmp_path: Path):
    before = list(warnings.filters)
    with pytest.raises(FileNotFoundError), quietly():
        Image.open(tmp_path / "nothing")
    assert list(warnings.filters) == before
    assert logging.getLogger("PIL").level == logging.NOTSET
