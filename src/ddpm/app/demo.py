"""What `python -m ddpm demo` does: loads one run or two, and serves a page to play with them."""

import argparse
import logging
import os
import shlex
import signal
import socket
import sys
import tempfile
import webbrowser
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import torch

from ddpm.app import next_commands, terminal
from ddpm.app.named_run import check_run
from ddpm.errors import UsageError
from ddpm.report.demo import acting, shown
from ddpm.report.texts import of_the_system
from ddpm.run import load
from ddpm.runtime.memory import keep_freed_memory

if TYPE_CHECKING:
    from fastapi import FastAPI

MOST_UPLOADED = "64mb"

POLICY = (
    "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; object-src 'none'; form-action 'self'; "
    "frame-ancestors 'self'"
)
"""What a browser may fetch: from this server alone."""

GRACE = 2
"""Seconds that connections have to close once the program is to end."""


def serve(arguments: argparse.Namespace) -> int:
    """Serve the page until the program is told to end; the exit code.

    Args:
        arguments: `runs`, `host`, `port`, `open`, `lang` and `allow_targets`.

    Raises:
        UsageError: where gradio is missing, a run cannot be loaded, or there is no such address, or it is in
            use.
    """
    if len(arguments.runs) > 2:
        raise UsageError(f"{len(arguments.runs)} runs are named; a page shows one, or two side by side")
    for run in arguments.runs:
        check_run(run)
    terminal.set_up(None, leader=True)
    logging.getLogger("uvicorn.error").addFilter(_is_no_farewell)
    listening = _listening(arguments.host, arguments.port)
    with _ended_by_signals(), listening, tempfile.TemporaryDirectory(prefix="ddpm-demo-") as folder:
        os.environ |= {
            "GRADIO_ANALYTICS_ENABLED": "False",
            "GRADIO_TEMP_DIR": folder,  # what is uploaded, gone with the program
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_OFFLINE": "1",
        }
        _check_gradio()
        torch.set_float32_matmul_precision("high")  # as in sampling: TF32 on GPUs
        page = acting.Page(_opened(arguments.runs, arguments.allow_targets))
        if page.opened[0].run.module.device.type == "cpu":
            keep_freed_memory()
        application = _application(page, arguments.lang or of_the_system())
        return _until_told(application, listening, opens=arguments.open)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Within the block Ctrl-C and SIGTERM leave it, with exit code 128 and the signal's number; uvicorn hands
    them on once it has closed.
    """

    def end(signum: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + signum)

    before = {one: signal.signal(one, end) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _is_no_farewell(record: logging.LogRecord) -> bool:
    """Whether it is more than that a browser has gone in the middle of something."""
    kind = record.exc_info[0] if record.exc_info else None
    return kind is None or kind.__name__ not in ("ClientDisconnect", "CancelledError")


def _check_gradio() -> None:
    try:
        import gradio  # noqa: F401 - whether it can be
    except ImportError as error:
        raise UsageError(f"demo: gradio cannot be imported ({error}); pip install 'ddpm[demo]'") from error


def _listening(host: str, port: int) -> socket.socket:
    """The socket that the page is served at.

    Raises:
        UsageError: where there is no such address, or its port is in use.
    """
    if not 0 <= port < 65536:
        raise UsageError(f"--port {port}: must be 0, for any that is free, to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise UsageError(f"--host {host}: there is no such address ({error})") from error
    try:
        if os.name != "nt":  # where it would let two programs share a port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()
    except OSError as error:
        listening.close()
        why = error.strerror or str(error)
        raise UsageError(
            f"--port {port}: cannot be had on {host} ({why}); name another, or --port 0 for one that is free"
        ) from error
    if not ip_address(listening.getsockname()[0].partition("%")[0]).is_loopback:
        print(
            f"warning: --host {host}: whoever reaches this machine over the network can use the page, "
            "without a password",
            file=sys.stderr,
        )
    return listening


def _opened(paths: Sequence[Path], allow_targets: Sequence[str]) -> list[acting.Opened]:
    """The runs, with the names that tell them apart."""
    # In a thread that ends, as each drawing's does: threads of OpenMP that loading left idle in this one
    # would make drawing on a CPU more than twice as slow (see `AtomicCheckpointIO`). Ctrl-C waits for it.
    with ThreadPoolExecutor(1) as pool:
        runs = list(pool.map(lambda path: load(os.path.expanduser(path), allow_targets=allow_targets), paths))
    if latents := next((run for run in runs if run.module.draws_latents), None):
        raise UsageError(
            f"{latents.directory}: draws latents, and the page shows images; sample.py draws them"
        )
    if conditioned := next((run for run in runs if run.module.is_conditioned), None):
        raise UsageError(
            f"{conditioned.directory}: is conditioned on more than the class, and the page has no place for "
            "that; sample.py condition=... draws from it"
        )
    names = [run.directory.name or str(run.directory) for run in runs]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    return [
        acting.Opened(name, run, _command(path, allow_targets))
        for name, run, path in zip(names, runs, paths, strict=True)
    ]


def _command(path: Path, allow_targets: Sequence[str]) -> str:
    """What draws from a run on the command line."""
    words = [f"ckpt={path}"]
    if allow_targets:
        words.append(f"allow_targets=[{','.join(allow_targets)}]")
    return f"{next_commands.command()} sample {shlex.join(words)}"


def _application(page: acting.Page, language: str) -> "FastAPI":
    """The page as a web application that fetches nothing from elsewhere."""
    import gradio
    from fastapi import FastAPI

    from ddpm.report.demo.page import build, theme

    blocks = build(page, language)
    blocks.queue(api_open=False)
    application = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    gradio.mount_gradio_app(
        application,
        blocks,
        path="/",
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        show_error=False,
        max_file_size=MOST_UPLOADED,
        theme=theme(),
        css=shown.CSS.read_text(encoding="utf-8"),
    )
    application.add_middleware(_Confined)
    return application


class _Confined:
    """Adds to each response what the browser may fetch."""

    def __init__(self, app: Any):
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    (b"content-security-policy", POLICY.encode()),
                    (b"referrer-policy", b"no-referrer"),
                ]
            await send(message)

        await self.app(scope, receive, sending)


def _until_told(application: "FastAPI", listening: socket.socket, *, opens: bool) -> int:
    """Serve until a signal comes, which leaves by `SystemExit`; the exit code."""
    import uvicorn

    host, port = listening.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}/"

    class Server(uvicorn.Server):  # type: ignore[misc, unused-ignore]  # untyped without the extra
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            terminal.say(address)
            if opens and not webbrowser.open(address):
                print("warning: --open: no browser was found; open the address yourself", file=sys.stderr)

    Server(
        uvicorn.Config(application, log_level="warning", timeout_graceful_shutdown=GRACE, lifespan="on")
    ).run(sockets=[listening])
    return 0
