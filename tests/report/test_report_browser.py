"""The page in a browser: it runs, it can be used, it asks for nothing, and axe-core finds nothing serious."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_report import HOSTILE, film, made

from ddpm.app import report

pytestmark = pytest.mark.slow
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def sweep_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of three runs, with names that would act where they could."""
    root = tmp_path_factory.mktemp("page")
    runs = [
        made(root, f"{i} <img src=x onerror=alert(1)>", optimizer={"lr": i}, note=HOSTILE) for i in (1, 2)
    ]
    runs.append(made(root, "three", optimizer={"lr": 3}, steps=2))
    film(runs[0] / "figures" / "denoising_film.gif")
    for run in runs[:2]:
        text = (run / "metrics.csv").read_text()
        (run / "metrics.csv").write_text(text.replace("train/loss", "train/<img src=x onerror=alert(1)>"))
    report.write(runs, root / "page.html", "en", opens=False)
    return root / "page.html"


@pytest.fixture
def opened(sweep_page: Path) -> Iterator[Any]:
    """The page in headless Chromium; whatever it complains of, asks or loads fails the test."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install 'ddpm[browser]'")
    if BROWSER is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    said: list[str] = []
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_context(viewport={"width": 1200, "height": 900}).new_page()
        page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: (said.append("a dialog"), dialog.dismiss()))
        local = ("file:", "data:", "blob:")
        page.on("request", lambda one: None if one.url.startswith(local) else said.append(one.url))
        page.goto(sweep_page.as_uri())
        yield page
        browser.close()
    assert not said, os.linesep.join(said)


def test_the_page_sorts_filters_toggles_slides_and_draws(opened: Any):
    expect = pytest.importorskip("playwright.sync_api").expect
    rows = opened.locator("#table tbody tr:visible")
    heading = opened.locator(".sort", has_text="optimizer.lr")
    heading.click()
    heading.click()
    assert [row.get_attribute("data-run") for row in rows.all()] == ["2", "1", "0"]
    opened.fill("#filter", "lr<3")
    expect(rows).to_have_count(2)
    opened.fill("#filter", "")
    expect(rows).to_have_count(3)
    chart = opened.locator("[data-chart]").filter(has_not_text="img").last
    chart.scroll_into_view_if_needed()
    traces = chart.locator(".scatterlayer .trace")
    expect(traces).to_have_count(3)
    opened.locator("#table tbody input").first.uncheck()
    chart.scroll_into_view_if_needed()
    expect(traces).to_have_count(2)
    opened.locator("#smoothing").focus()
    opened.keyboard.press("ArrowRight")
    chart.scroll_into_view_if_needed()
    expect(traces).to_have_count(4)  # what is smoothed, and behind it what is not
    opened.locator("#log").check()
    chart.scroll_into_view_if_needed()
    opened.wait_for_timeout(500)
    assert chart.evaluate("chart => chart.layout.yaxis.type") == "log"
    opened.locator("#step").focus()
    opened.keyboard.press("ArrowLeft")
    expect(opened.locator("#grids img[alt*='at step 20']").first).to_be_visible()
    assert opened.text_content("#step-value") == "step 20"
    assert not opened.locator("img[src='x']").count()


def test_an_animation_moves_when_asked_to_and_figures_follow_the_filter(opened: Any):
    expect = pytest.importorskip("playwright.sync_api").expect
    figure = opened.locator("[data-figure]").filter(has=opened.locator(".play"))
    opened.locator("#figures summary").first.click()
    before = figure.locator("img").get_attribute("src")
    figure.locator(".play").click()
    expect(figure.locator(".play")).to_have_text("Stop")
    assert figure.locator("img").get_attribute("src") != before
    figure.locator(".play").click()
    assert figure.locator("img").get_attribute("src") == before
    opened.fill("#filter", "lr>1")
    expect(figure).to_be_hidden()


def test_language_and_theme_switch(opened: Any):
    opened.select_option("#language", "zh")
    assert opened.text_content("#h-summary") == "概要"
    assert opened.evaluate("document.documentElement.lang") == "zh-CN"
    light = opened.evaluate("getComputedStyle(document.body).backgroundColor")
    opened.select_option("#theme", "dark")
    assert opened.evaluate("getComputedStyle(document.body).backgroundColor") != light


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(opened: Any, theme: str):
    axe = pytest.importorskip("axe_core_python", reason="pip install 'ddpm[browser]'")
    (file,) = Path(axe.__file__).parent.rglob("axe.min.js")
    opened.select_option("#theme", theme)
    opened.wait_for_selector("#results-chart .main-svg", state="attached")
    opened.evaluate(file.read_text(encoding="utf-8"))
    violations = opened.evaluate("axe.run().then(found => found.violations)")
    serious = [one for one in violations if one["impact"] in ("serious", "critical")]
    assert not serious, json.dumps(serious, indent=1)[:4000]
