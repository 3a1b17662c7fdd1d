"""Prepared once, by one process, and whole or not at all."""

import atexit
import errno
import json
import logging
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import next_line
from PIL import Image

from ddpm.data.prepared import cache
from ddpm.data.prepared.cache import Cache, Entry
from ddpm.data.sources.folder import Folder


def build(contents: bytes = b"words", **about: Any) -> Any:
    def write(directory: Path) -> Mapping[str, Any]:
        (directory / "file").write_bytes(contents)
        return {"note": "mine", **about}

    return write


def refuse(directory: Path) -> Mapping[str, Any]:
    raise AssertionError("built again")


def folder(path: Path, n: int = 12) -> Path:
    for i in range(n):
        (path / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), (i, 0, 200)).save(path / "ab"[i % 2] / f"{i}.png")
    return path


def files(directory: Path) -> list[str]:
    """What is in a cache, besides locks."""
    return sorted(path.name for path in directory.iterdir() if path.name != "locks")


def kept(
    name: str,
    *,
    size: int = 1000,
    age: float = 0.0,
    about: Mapping[str, Any] | None = None,
    limit: float | None = None,
) -> Entry:
    """An entry that was used so many seconds ago, and is no longer."""
    entry = Cache(limit=limit).get(name, key_of(name), build(bytes(size), **(about or {})))
    entry.release()
    then = time.time() - age
    if (entry.path / "about.json").exists():
        os.utime(entry.path / "about.json", (then, then))
    return entry


def key_of(name: str) -> str:
    return cache.key({"name": name}, [])


def folder_of(name: str) -> str:
    return f"{name}-{key_of(name)[:16]}"


def left() -> list[str]:
    """The names of the entries, the last used first."""
    return [entry.path.name.rsplit("-", 1)[0] for entry in Cache().entries()]


def program(code: str, *arguments: str, cache_dir: Path) -> subprocess.Popen:
    """Another process. `ready()` says so on its output, so that nobody need wait by the clock."""
    head = """
        import sys, time
        from ddpm.data.prepared.cache import Cache
        def ready(): print("ready", flush=True)
        """
    command = [sys.executable, "-c", textwrap.dedent(head) + textwrap.dedent(code), *arguments]
    environment = {**os.environ, "DDPM_CACHE": str(cache_dir)}
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(command, env=environment, text=True, **pipes)


def test_an_entry_is_built_once(own_cache: Path):
    first = Cache().get("My Pictures!", "ab" * 32, build())
    second = Cache().get("My Pictures!", "ab" * 32, refuse)
    assert first == second
    assert first.path == own_cache / f"my-pictures-{'ab' * 8}"
    assert (first.path / "file").read_bytes() == b"words"
    assert first.about["note"] == "mine"
    assert first.size == 5
    assert Cache().get("My Pictures!", "cd" * 32, build()).path != first.path


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Cache("~/x").directory == tmp_path / "x"
    assert Cache().directory == Path(os.environ["DDPM_CACHE"])
    monkeypatch.delenv("DDPM_CACHE")
    assert Cache().directory == tmp_path / ".cache" / "ddpm"


@pytest.mark.parametrize("damage", ["short", "gone", "about"])
def test_an_entry_that_is_not_whole_is_built_again(damage: str):
    entry = Cache().get("x", "ab" * 32, build())
    match damage:
        case "short":
            (entry.path / "file").write_bytes(b"wor")
        case "gone":
            (entry.path / "file").unlink()
        case "about":
            (entry.path / "about.json").write_text("{")
    assert Cache().get("x", "ab" * 32, build(b"other")).size == 5
    assert (entry.path / "file").read_bytes() == b"other"


def test_one_flipped_bit_or_a_torn_file_is_noticed_wherever_it_is(caplog: pytest.LogCaptureFixture):
    """50 damages of a prepared folder of pictures: it is named and prepared anew."""
    random = np.random.default_rng(0)
    key = "ab" * 32

    def whole(directory: Path) -> Mapping[str, Any]:
        for name, size in (
            ("images.u8", 4000),
            ("labels.npy", 300),
            ("records.npy", 900),
            ("captions.json", 90),
        ):
            (directory / name).write_bytes(np.random.default_rng(size).bytes(size))
        return {"shape": [10, 1, 20, 20], "facts": {"mean": [0.123456], "contents": "ab" * 32}}

    entry = Cache().get("x", key, whole)
    before = {file.name: file.read_bytes() for file in entry.path.iterdir()}
    names = sorted(before)
    for damage in range(50):
        name = names[damage % len(names)]
        written = bytearray(before[name])
        at = int(random.integers(len(written)))
        if damage % 5 == 4:
            written = written[:at]
        else:
            written[at] ^= 1 << int(random.integers(8))
        (entry.path / name).write_bytes(written)
        caplog.clear()
        again = Cache().get("x", key, whole)
        assert again.path == entry.path
        if "is damaged" not in caplog.text:  # 1e5 and 1E5
            assert name == "about.json"
            assert json.loads(written) == entry.about
            continue
        assert "is damaged, and is prepared anew" in caplog.text, (damage, name, at)
        assert {name: (entry.path / name).read_bytes() for name in names if name != "about.json"} == {
            name: text for name, text in before.items() if name != "about.json"
        }
        before["about.json"] = (entry.path / "about.json").read_bytes()


def test_a_damaged_entry_of_the_state_before_is_not_taken_over():
    entry = kept("one", about={"family": "x"})
    assert Cache().latest("x") is not None
    (entry.path / "file").write_bytes(b"\1" + bytes(999))
    assert Cache().latest("x") is None


def test_an_entry_without_checksums_is_listed_and_not_opened():
    """As earlier versions wrote them."""
    entry = kept("one", about={"family": "x"})
    about = {name: value for name, value in entry.about.items() if "checksum" not in name}
    (entry.path / "about.json").write_text(json.dumps(about))
    assert left() == ["one"]
    assert Cache().latest("x") is None


@pytest.mark.parametrize("error", [ValueError("bad image"), KeyboardInterrupt()])
def test_a_build_that_fails_leaves_nothing(own_cache: Path, error: BaseException):
    def fail(directory: Path) -> Mapping[str, Any]:
        (directory / "file").write_bytes(b"words")
        raise error

    with pytest.raises(type(error)):
        Cache().get("x", "ab" * 32, fail)
    assert files(own_cache) == []


def test_a_full_disk_leaves_nothing_and_is_told(tmp_path: Path):
    """The limit on the size of a file stands for the disk: the error comes from the same writes."""
    code = """
        import resource, signal
        import numpy as np
        from ddpm.data.pixels.decoding import Decoded
        from ddpm.data.prepared.preparation import Found, prepared
        from ddpm.data.settings import ImageSettings
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        image = Decoded(np.zeros((3, 32, 32), np.uint8), "RGB", (32, 32))
        found = Found(
            ["x"] * 20, lambda chosen: (image for _ in chosen), np.arange(20), lambda kept: (None, None), ""
        )
        for limit in (5_000, -1):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, -1))
            try:
                data_set = prepared(ImageSettings(validation_fraction=0), "x", {}, [], lambda _: found)
                print(len(data_set.train))
            except ValueError as error:
                print(error)
                print([path.name for path in Cache().directory.iterdir()])
        """
    pytest.importorskip("resource")
    said, errors = program(code, cache_dir=tmp_path / "cache").communicate(timeout=300)
    message, left, then = said.splitlines() or errors
    assert message.startswith(f"data.cache_dir={tmp_path / 'cache'}: prepared data could not be written")
    assert "make room" in message
    assert left == "['locks']"
    assert then == "20"


def test_a_directory_that_cannot_be_written_to_is_told(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"data\.cache_dir=.*file/cache: prepared data could not be written"):
        Cache(tmp_path / "file" / "cache").get("x", "ab" * 32, build())


def test_a_file_that_cannot_be_read_is_not_blamed_on_the_cache(tmp_path: Path, own_cache: Path):
    def read(directory: Path) -> Mapping[str, Any]:
        return {"note": (tmp_path / "gone").read_text()}

    with pytest.raises(FileNotFoundError, match="gone"):
        Cache().get("x", "ab" * 32, read)
    assert files(own_cache) == []


def test_what_a_full_cache_cannot_keep_is_kept_elsewhere_while_it_is_used(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    handlers: list[tuple[Any, ...]] = []
    monkeypatch.setattr(cache, "ELSEWHERE", (tmp_path / "gone", tmp_path))
    monkeypatch.setattr(atexit, "register", lambda *call: handlers.append(call))

    def build_here(directory: Path) -> Mapping[str, Any]:
        if directory.is_relative_to(own_cache):
            raise OSError(errno.ENOSPC, "No space left on device")
        return build()(directory)

    entry = Cache().get("x", "ab" * 32, build_here)
    again = Cache().get("x", "ab" * 32, build_here)  # as another process of the run finds it
    assert again.path == entry.path
    assert entry.path.is_relative_to(tmp_path)
    assert entry.path.parent.stat().st_mode & 0o077 == 0
    (line, _) = caplog.messages
    assert line == (
        f"data.cache_dir={own_cache}: prepared data could not be written there ([Errno 28] No space left on "
        f"device); it is kept in {tmp_path} while this runs, and prepared anew then"
    )
    for let_go, *given in handlers:
        assert entry.path.exists()
        let_go(*given)
    assert not entry.path.exists()
    assert files(own_cache) == []


def test_nothing_is_kept_where_somebody_else_may_write(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cache, "ELSEWHERE", (tmp_path,))
    folder = tmp_path / f"ddpm-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    (tmp_path / "file").touch()
    with pytest.raises(cache.NoRoomError):
        Cache(tmp_path / "file" / "cache").get("x", "ab" * 32, build())


@pytest.mark.e2e
def test_two_runs_at_once_build_it_once(tmp_path: Path):
    code = """
        def build(directory):
            print("building", flush=True)
            time.sleep(0.5)
            (directory / "file").write_text("words")
            return {}
        entry = Cache().get("x", "ab" * 32, build)
        print((entry.path / "file").read_text())
        """
    processes = [program(code, cache_dir=tmp_path) for _ in range(3)]
    said = [process.communicate(timeout=300) for process in processes]
    assert all(process.returncode == 0 for process in processes), said
    assert sorted("".join(out for out, _ in said).split()) == ["building", "words", "words", "words"]
    assert files(tmp_path) == ["x-" + "ab" * 8]


def test_a_killed_build_is_never_used_and_the_next_one_waits_for_nobody(tmp_path: Path):
    code = """
        def build(directory):
            (directory / "file").write_text("half")
            ready()
            time.sleep(60)
        Cache().get("x", "ab" * 32, build)
        """
    process = program(code, cache_dir=tmp_path)
    assert next_line(process) == "ready\n"
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=300)
    assert len(files(tmp_path)) == 1
    start = time.monotonic()
    entry = Cache(tmp_path).get("x", "ab" * 32, build())
    assert time.monotonic() - start < 5
    assert (entry.path / "file").read_bytes() == b"words"
    assert files(tmp_path) == [entry.path.name]


def test_clearing_spares_what_is_being_built_and_what_is_not_ours(tmp_path: Path):
    code = """
        def build(directory):
            (directory / "file").write_text("words")
            ready()
            sys.stdin.readline()
            return {}
        Cache().get("x", "cd" * 32, build)
        """
    Cache(tmp_path).get("y", "ab" * 32, build())
    for mine in ("letters", "y-0123456789abcdef"):
        (tmp_path / mine).mkdir()
        (tmp_path / mine / "a").touch()
    dead = tmp_path / f"y-{'ab' * 8}.12345678.building"
    dead.mkdir()
    (dead / "file").write_bytes(b"123")
    process = program(code, cache_dir=tmp_path)
    assert next_line(process) == "ready\n"
    freed = Cache(tmp_path).clear()
    process.communicate("\n", timeout=300)
    assert files(tmp_path) == ["letters", "x-" + "cd" * 8, "y-0123456789abcdef"]
    assert freed == 8


def test_entries_are_listed_the_last_used_first():
    for name, age in (("old", 300), ("new", 100), ("older", 500)):
        entry = Cache().get(name, "ab" * 32, build())
        then = time.time() - age
        os.utime(entry.path / "about.json", (then, then))
    assert [entry.path.name.split("-")[0] for entry in Cache().entries()] == ["new", "old", "older"]
    Cache().get("older", "ab" * 32, refuse)
    assert Cache().entries()[0].path.name.startswith("older")


def test_what_changes_the_key():
    files = [("a.png", 10, 5), ("b.png", 20, 6)]
    keys = [
        cache.key({"size": 8}, files),
        cache.key({"size": 9}, files),
        cache.key({"size": 8}, files[:1]),
        cache.key({"size": 8}, [("a.png", 11, 5), files[1]]),
        cache.key({"size": 8}, [("a.png", 10, 6), files[1]]),
        cache.key({"size": 8}, [("c.png", 10, 5), files[1]]),
    ]
    assert len(set(keys)) == len(keys)
    assert cache.key({"size": 8}, iter(files)) == keys[0]


def test_a_changed_file_rebuilds_and_an_unchanged_one_does_not(tmp_path: Path, own_cache: Path):
    path = folder(tmp_path / "images")
    before = Folder(path, image_size=8).read().fingerprint
    assert Folder(path, image_size=8, validation_fraction=0.3).read().fingerprint != before
    assert len(files(own_cache)) == 1
    Image.new("RGB", (9, 9), (77, 0, 200)).save(path / "a" / "0.png")
    os.utime(path / "a" / "0.png", ns=(0, 0))
    assert Folder(path, image_size=8).read().fingerprint != before
    assert len(files(own_cache)) == 1


def test_a_folder_that_grew_reads_what_is_new(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    path = folder(tmp_path / "images")
    Folder(path, image_size=8).read()
    for i in range(12, 15):
        Image.new("RGB", (9, 9), (i, 0, 200)).save(path / "ab"[i % 2] / f"{i}.png")
    os.utime(path / "b" / "3.png", ns=(0, 0))
    (path / "a" / "4.png").unlink()
    mine = Folder(path, image_size=8).read()
    assert sum(m.startswith("prepared 4 new images, 10 as they were, in ") for m in caplog.messages) == 1
    assert len(Cache().entries()) == 1
    fresh = Folder(path, image_size=8, cache_dir=tmp_path / "other").read()
    assert mine.fingerprint == fresh.fingerprint
    assert mine.facts == fresh.facts


def test_the_identity_does_not_depend_on_where_the_images_are(tmp_path: Path):
    prints = {Folder(folder(tmp_path / name), image_size=8).read().fingerprint for name in ("here", "there")}
    assert len(prints) == 1


def test_other_processes_map_the_file_and_copy_nothing(tmp_path: Path):
    data_set = Folder(folder(tmp_path / "images"), image_size=8, validation_fraction=0.3).read()
    for part in (data_set.train, data_set.validation):
        sent = pickle.dumps(part.subset(slice(1, None)))
        assert len(sent) < 1000
        received = pickle.loads(sent)
        assert isinstance(received.images, np.memmap)
        np.testing.assert_array_equal(received.images, part.images[1:])
        np.testing.assert_array_equal(received.labels, part.labels[1:])


def test_about_is_plain_json(own_cache: Path, tmp_path: Path):
    Folder(folder(tmp_path / "images"), image_size=8).read()
    [entry] = Cache().entries()
    assert isinstance(entry, Entry)
    about = json.loads((entry.path / "about.json").read_text())
    assert about["shape"] == [12, 3, 8, 8]
    assert about["classes"] == ["a", "b"]
    assert about["facts"]["sizes"] == {"9x9": 12}


KB = 1e-6
"""As GB, the unit of limits."""


def test_the_least_recently_used_goes_when_the_limit_is_reached(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    for name, age in (("a", 300), ("b", 500), ("c", 100), ("d", 400)):
        kept(name, age=age)
    kept("e", limit=5 * KB)
    assert left() == ["e", "c", "a", "d", "b"]
    assert caplog.messages == []
    kept("f", size=1001, limit=4 * KB)
    assert left() == ["f", "e", "c"]
    (line,) = caplog.messages
    for name in ("a", "b", "d"):
        assert f"{folder_of(name)} (1.0 kB, the least recently used)" in line
    assert line.endswith("; data.cache_limit=4e-06 (GB)")
    kept("g", limit=None)
    assert left() == ["g", "f", "e", "c"]


def test_an_entry_that_is_used_stays_whoever_uses_it(own_cache: Path, caplog: pytest.LogCaptureFixture):
    """By this process, by another, or by a child of another that was killed."""
    code = """
        import os
        entry = Cache().get("theirs", sys.argv[1], None)
        if os.fork() == 0:
            ready()
            sys.stdin.readline()
            os._exit(0)
        time.sleep(60)
        """
    mine = Cache().get("mine", key_of("mine"), build(bytes(1000)))
    kept("theirs")
    process = program(code, key_of("theirs"), cache_dir=own_cache)
    assert next_line(process) == "ready\n"
    process.kill()
    process.wait(timeout=300)
    for entry in Cache().entries():
        os.utime(entry.path / "about.json", (0, 0))
    kept("unused")
    kept("new", limit=KB)
    assert sorted(left()) == ["mine", "new", "theirs"]
    (line,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert (
        line
        == f"data.cache_limit=1e-06 (GB): 3.0 kB in {own_cache} is in use, or not ours to remove, and stays"
    )
    assert {e.path.name.split("-")[0]: Cache().is_used(e) for e in Cache().entries()} == {
        "mine": True,
        "theirs": True,
        "new": False,
    }
    process.communicate("\n", timeout=300)
    mine.release()
    deadline = time.monotonic() + 300
    while Cache().spare() < 3000:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    kept("last", limit=KB)
    assert left() == ["last"]


def test_an_entry_is_used_as_long_as_its_images_are_mapped(tmp_path: Path):
    data_set = Folder(folder(tmp_path / "images"), image_size=8).read()
    (entry,) = Cache().entries()
    part = data_set.train.images[2:4]
    del data_set
    assert Cache().is_used(entry)
    assert Cache().prune(0) == ([], 0)
    del part
    assert not Cache().is_used(entry)
    assert len(Cache().prune(0)[0]) == 1


def test_an_entry_larger_than_the_limit_stays_and_is_told(caplog: pytest.LogCaptureFixture):
    kept("a")
    kept("b", size=5000, limit=2 * KB)
    assert left() == ["b"]
    (line,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert line == f"data.cache_limit=2e-06 (GB): {folder_of('b')} alone takes 5.0 kB and stays"


def test_what_no_source_needs_goes_first(tmp_path: Path):
    source = tmp_path / "source.zip"
    source.write_bytes(b"123")
    state = list(cache.state(source)[1:])
    kept("needed", age=900, about={"source": str(source), "source_state": state})
    kept("changed", about={"source": str(source), "source_state": [4, state[1]]})
    kept("gone", about={"source": str(tmp_path / "gone")})
    kept("elsewhere", age=800)
    kept("old", about={"format": 1})
    kept("state1", about={"family": "x", "source": str(source)})
    superseded = kept("state2", about={"family": "y", "source": str(source)})
    about = {**superseded.about, "family": "x"}
    about["checksum"] = cache._said(about)
    (superseded.path / "about.json").write_text(json.dumps(about))
    found = {path.name.split("-")[0]: why for path, why in cache.needless(Cache().entries()).items()}
    assert found == {
        "changed": "older than its source",
        "gone": "without a source",
        "old": "of an older version",
        "state1": "older than its source",
    }
    kept("new", limit=7 * KB)
    assert set(left()) >= {"needed", "elsewhere", "state2", "new"}
    assert len(left()) == 7
    removed, _ = Cache().prune(None)
    assert len(removed) == 3
    assert left() == ["new", "state2", "elsewhere", "needed"]
    removed, _ = Cache().prune(3 * KB)
    assert [one.entry.path.name.split("-")[0] for one in removed] == ["needed"]


def test_the_next_state_of_a_source_replaces_the_one_before(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    used = Cache().get("used", key_of("used"), build(family="x"))
    kept("other", about={"family": "y"})
    kept("first", about={"family": "x"})
    assert left() == ["first", "other", "used"]
    kept("second", about={"family": "x"})
    assert left() == ["second", "other", "used"]
    assert f"{folder_of('first')} (1.0 kB, older than its source)" in caplog.messages[-1]
    assert "cache_limit" not in caplog.messages[-1]
    used.release()
    kept("third", about={"family": "x"})
    assert left() == ["third", "other"]


def test_the_latest_of_a_family():
    assert Cache().latest("x") is None
    entries = [Cache().get(name, key_of(name), build(family="x")) for name in ("a", "b")]
    os.utime(entries[1].path / "about.json", (0, 0))
    latest = Cache().latest("x")
    assert latest == entries[1]
    for entry in entries:
        entry.release()
    assert Cache().is_used(latest)
    assert Cache().latest("y") is None


def test_leftovers_go_with_the_next_build(own_cache: Path):
    kept("a")
    for leftover in (f"{'b' * 5}-{'0' * 16}.abcdefgh.building", f"c-{'0' * 16}.0123abcd.removed"):
        (own_cache / leftover).mkdir()
        (own_cache / leftover / "file").write_bytes(bytes(10))
    damaged = kept("damaged")
    (damaged.path / "file").write_bytes(b"1")
    kept("d")
    assert left() == ["d", "a"]
    assert files(own_cache) == [folder_of("a"), folder_of("d")]


def test_a_removal_that_is_killed_leaves_no_entry(own_cache: Path, monkeypatch: pytest.MonkeyPatch):
    kept("a")
    monkeypatch.setattr(cache.shutil, "rmtree", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        Cache().prune(0)
    monkeypatch.undo()
    (half,) = own_cache.glob("*.removed")
    size = 1000 + (half / "about.json").stat().st_size
    assert Cache(own_cache).entries() == []
    assert Cache(own_cache).prune(None) == ([], size)
    assert files(own_cache) == []


@pytest.mark.filterwarnings("ignore:flock not supported")
@pytest.mark.parametrize("error", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_where_the_file_system_knows_no_locks_it_is_careful(
    error: int, own_cache: Path, monkeypatch: pytest.MonkeyPatch
):
    """What was used within a week may be in use; a person who clears the cache knows."""
    fcntl = pytest.importorskip("fcntl")

    def flock(*_: Any) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(fcntl, "flock", flock)
    kept("a", age=8 * 86_400)
    kept("b", age=6 * 86_400)
    assert Cache().get("b", key_of("b"), refuse).size == 1000
    os.utime(own_cache / folder_of("b") / "about.json", (time.time() - 6 * 86_400,) * 2)
    leftover = own_cache / f"x-{'0' * 16}.abcdefgh.building"
    leftover.mkdir()
    kept("c", limit=KB)
    assert left() == ["c", "b"]
    assert leftover.exists() == (error != errno.ENOSYS)  # filelock then makes do with the file itself
    assert [Cache().is_used(entry) for entry in Cache().entries()] == [True, True]
    Cache().clear()
    assert files(own_cache) == []


def test_a_cache_that_cannot_be_written_to_is_read(own_cache: Path, monkeypatch: pytest.MonkeyPatch):
    kept("a")

    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "read-only", str(own_cache))

    for name in ("utime", "mkdir", "rename"):
        monkeypatch.setattr(os, name, refused)
    monkeypatch.setattr(os, "access", lambda *_: False)
    entry = Cache(limit=0).get("a", key_of("a"), refuse)
    assert Cache().is_used(entry)
    entry.release()
    assert Cache().prune(0) == ([], 0)
    assert left() == ["a"]
    with pytest.raises(ValueError, match=r"data\.cache_dir=.*could not be written there"):
        Cache().get("b", key_of("b"), build())


@pytest.mark.e2e
def test_many_processes_prepare_use_and_prune_at_once(tmp_path: Path):
    """Whoever has an entry reads all of it, however hard the others prune."""
    code = """
        import random
        random.seed(int(sys.argv[1]) if len(sys.argv) > 1 else None)
        for _ in range(150):
            which = random.choice("abcd")
            def build(directory):
                (directory / "file").write_bytes(which.encode() * 1000)
                return {"family": random.choice("xy")}
            entry = Cache(limit=random.choice([0, 2e-6, None])).get(which, which * 64, build)
            if random.random() < 0.3:
                Cache().prune(0)
            if random.random() < 0.1:
                Cache().clear()
            assert (entry.path / "file").read_bytes() == which.encode() * 1000
            entry.release()
        """
    processes = [program(code, cache_dir=tmp_path) for _ in range(4)]
    said = [process.communicate(timeout=300) for process in processes]
    assert all(process.returncode == 0 for process in processes), said
    Cache(tmp_path).clear()
    assert files(tmp_path) == []


def test_an_entry_is_found_only_where_it_is_there_and_whole():
    assert Cache().find("x", "ab" * 32) is None
    entry = Cache().get("x", "ab" * 32, build())
    entry.release()
    found = Cache().find("x", "ab" * 32)
    assert found is not None
    assert found.path == entry.path
    assert Cache().is_used(found)
    found.release()
    assert Cache().find("x", "cd" * 32) is None
    file = next(path for path in entry.path.iterdir() if path.name != "about.json")
    file.write_bytes(bytes(len(file.read_bytes())))
    assert Cache().find("x", "ab" * 32) is None
