"""The page to play with a run, in a browser: it works, it asks nobody else, and axe-core is content."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, next_line
from PIL import Image

import ddpm
from ddpm.app import demo
from ddpm.report.demo import acting

pytestmark = [pytest.mark.slow, pytest.mark.e2e]
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")

BACKGROUND = "getComputedStyle(document.querySelector('gradio-app')).backgroundColor"


class Served:
    """Two runs side by side on a page; how often their networks were used, and how long that takes."""

    def __init__(self, runs: list[Path]):
        self.uses, self.seconds = 0, 0.0
        loaded = [ddpm.load(run, "cpu") for run in runs]
        for run in loaded:
            run.module.network.register_forward_pre_hook(self._use)
        opened = [acting.Opened(name, run, name) for name, run in zip(("one", "two"), loaded, strict=True)]
        self.page = acting.Page(opened)
        self.address = ""

    def _use(self, *_: Any) -> None:
        self.uses += 1
        time.sleep(self.seconds)

    def is_idle(self) -> bool:
        return not self.page.turns._waiting


@pytest.fixture(scope="module")
def served(
    conditional_run: Path, unconditional_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    pytest.importorskip("gradio", reason="pip install 'ddpm[demo]'")
    import uvicorn

    made = Served([conditional_run, unconditional_run])
    with pytest.MonkeyPatch.context() as patch, demo._listening("127.0.0.1", 0) as listening:
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("uploaded")))
        made.address = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        application = demo._application(made.page, "en")
        server = uvicorn.Server(uvicorn.Config(application, log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        yield made
        server.should_exit = True
        thread.join(30)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install 'ddpm[browser]'")
    if BROWSER is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(served: Served, browser: Any) -> Iterator[Callable[[], Any]]:
    """Opens the page; whatever it complains of, or asks of anybody but its server, fails the test."""
    said: list[str] = []
    contexts = []

    def look(request: Any) -> None:
        if not request.url.startswith((served.address, "data:", "blob:")):
            said.append(request.url)

    def open_() -> Any:
        context = browser.new_context(viewport={"width": 1200, "height": 900})
        context.set_default_timeout(60_000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", look)
        page.goto(served.address)
        page.get_by_role("button", name="Draw images").wait_for()
        return page

    yield open_
    served.seconds = 0.0
    for context in contexts:
        context.close()
    assert not said, os.linesep.join(said)


def typed(page: Any, label: str, value: object) -> None:
    field = page.get_by_label(label).first
    field.fill(str(value))
    field.blur()


def begin(page: Any) -> None:
    page.get_by_role("button", name="Draw images").click()


def drawn(page: Any) -> list[str]:
    """The sources of the images once they are there."""
    page.locator("#status", has_text="images in").wait_for()
    return [one.get_attribute("src") for one in page.locator("#results img").all()]


def until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_it_draws_shows_the_way_speaks_chinese_and_turns_dark(opened: Callable[[], Any]):
    page = opened()
    typed(page, "Steps", 20)
    begin(page)
    assert len(drawn(page)) == 20
    captions = page.locator("#results figcaption").all_inner_texts()
    assert captions == [*"0123456789", *10 * [acting.NOTHING]]
    page.locator("#point input[type=range]").focus()
    page.keyboard.press("Home")
    page.locator("#results h4", has_text="x_t at t = 49").first.wait_for()
    assert page.locator("#results img").count() == 40
    typed(page, "Steps", 0)
    begin(page)
    assert page.get_by_role("alert").inner_text() == "Steps: 0 is no whole number from 1 to 50."
    page.get_by_label("Language").click()
    page.get_by_role("option", name="中文").click()
    page.get_by_role("button", name="生成图像").wait_for()
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    light = page.evaluate(BACKGROUND)
    page.get_by_label("主题").click()
    page.get_by_role("option", name="深色").click()
    page.wait_for_function("document.body.classList.contains('dark')")
    assert page.evaluate(BACKGROUND) != light


def test_a_picture_is_painted_over_and_a_bad_file_told(opened: Callable[[], Any], tmp_path: Path):
    page = opened()
    Image.fromarray(np.arange(600, dtype=np.uint8).reshape(20, 30)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_text("no picture")
    page.get_by_role("tab", name="Inpaint").click()
    tab = page.locator("[role=tabpanel]:visible")
    tab.locator("input[type=file]").set_input_files(tmp_path / "bad.png")
    assert "cannot be read as a picture: not an image" in tab.get_by_role("alert").inner_text()
    tab.get_by_role("button", name=re.compile("clear|remove", re.IGNORECASE)).first.click()
    tab.locator("input[type=file]").set_input_files(tmp_path / "good.png")
    canvas = tab.locator("canvas").first
    canvas.scroll_into_view_if_needed()
    page.wait_for_timeout(1500)  # the editor lays its picture out
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] * 0.4)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] * 0.6, steps=5)
    page.mouse.up()
    page.wait_for_timeout(1000)
    page.get_by_role("button", name="Draw it anew").click()
    drawn(page)
    assert page.locator("#results figcaption", has_text="Drawn anew").count() == 2


def test_two_people_draw_at_once_and_who_leaves_or_stops_ends_a_drawing(
    opened: Callable[[], Any], served: Served
):
    first, second = opened(), opened()
    typed(first, "Seed", 5)
    typed(second, "Seed", 6)
    for page in (first, second):
        typed(page, "Steps", 10)
    served.seconds = 0.03
    begin(first)
    begin(second)
    own = drawn(first), drawn(second)
    assert own[0] != own[1]
    typed(second, "Seed", 5)
    begin(second)
    until(lambda: drawn(second) == own[0])
    typed(first, "Steps", 50)
    served.seconds, served.uses = 0.3, 0  # 45 s to the end
    begin(first)
    first.locator("#status", has_text="left.").wait_for()
    first.close()
    until(served.is_idle)
    begin(second)
    second.locator("#status", has_text="left.").wait_for()
    second.get_by_role("button", name="Stop").click()
    second.locator("#status", has_text="Stopped.").wait_for()
    until(served.is_idle)
    assert served.uses < 100  # of 150 and 30
    served.seconds = 0.0
    begin(second)
    assert drawn(second) == own[0]


def test_axe_finds_nothing_serious(opened: Callable[[], Any]):
    axe = pytest.importorskip("axe_core_python", reason="pip install 'ddpm[browser]'")
    (file,) = Path(axe.__file__).parent.rglob("axe.min.js")
    page = opened()
    begin(page)
    drawn(page)
    page.evaluate(file.read_text(encoding="utf-8"))
    for theme, tab in (("light", "Draw"), ("light", "Inpaint"), ("dark", "Between two"), ("dark", "Draw")):
        page.evaluate(f"document.body.classList.toggle('dark', {str(theme == 'dark').lower()})")
        page.get_by_role("tab", name=tab, exact=True).click()
        page.wait_for_timeout(300)  # colours fade
        violations = page.evaluate("axe.run().then(found => found.violations)")
        serious = [one for one in violations if one["impact"] in ("serious", "critical")]
        assert not serious, json.dumps(serious, indent=1)[:4000]


def test_the_program_says_where_it_is_and_ends_with_ctrl_c(conditional_run: Path, tmp_path: Path):
    pytest.importorskip("gradio", reason="pip install 'ddpm[demo]'")
    process = subprocess.Popen(
        [sys.executable, "-m", "ddpm", "demo", str(conditional_run), "--port", "0"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\n", next_line(process, 120))
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=300) == ("", "")
    assert process.returncode == 128 + signal.SIGINT
    assert not list(tmp_path.glob("ddpm-demo-*"))
