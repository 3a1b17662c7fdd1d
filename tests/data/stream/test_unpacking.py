"""What would unpack to very much more than it is goes no further than it has to."""

import gzip
import io

import pytest

from ddpm.data import bounds
from ddpm.data.stream.unpacking import Unzipped, check_unpacked

LIMIT = 1 << 16


@pytest.fixture(autouse=True)
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MOST_BYTES", LIMIT)


def test_both_much_and_many_times_as_much_is_too_much():
    check_unpacked("a", LIMIT, 1)
    check_unpacked("a", 200 * LIMIT, LIMIT)
    with pytest.raises(ValueError, match=r"^data\.path: a of 326 bytes unpacks to 65,537 or more"):
        check_unpacked("a", LIMIT + 1, 326)


@pytest.mark.parametrize("way", ["read at once", "read in pieces", "passed over"])
def test_what_is_refused_is_not_unpacked(way: str):
    bomb = io.BytesIO(gzip.compress(bytes(100 * LIMIT)))
    assert len(bomb.getbuffer()) < LIMIT // 4
    unzipped = Unzipped("a", bomb)

    def use() -> None:
        if way == "read at once":
            unzipped.read(100 * LIMIT)
        elif way == "passed over":
            unzipped.seek(99 * LIMIT)
        while True:
            assert len(unzipped.read(LIMIT // 4))

    with pytest.raises(ValueError, match=r"^data\.path: .*a.* unpacks to "):
        use()
    assert unzipped.tell() <= (0 if way != "read in pieces" else 200 * len(bomb.getbuffer()) + LIMIT)


def test_what_is_not_refused_is_what_gzip_says():
    contents = bytes(range(256)) * 64
    unzipped = Unzipped("a", io.BytesIO(gzip.compress(contents)))
    assert unzipped.read(100) == contents[:100]
    assert unzipped.seek(1000) == unzipped.tell() == 1000
    assert unzipped.read(20_000) == contents[1000:]
