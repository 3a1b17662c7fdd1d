"""How large the page of a sweep is, and how fast in a browser: python benchmarks/report.py RUN_DIR [--runs 8]

    python train.py trainer.max_steps=200 callbacks.samples.every_n_steps=10 \
        sampler=ddim sampler.num_steps=10 hydra.run.dir=logs/grids
    python benchmarks/report.py logs/grids --runs 8
    python benchmarks/report.py logs/grids --runs 64

The run is there as many times as asked, each with a learning rate, curves and grids of its own: rows of the
metrics are made larger by a few percent, the grids brighter or darker. Prints the size of the page; in
headless Chromium the time until it can be read (first contentful paint), is loaded, and can draw its charts,
beside that of a page with nothing but the same chart library; and how long after the slider moves the next
grids on the screen and near it are decoded, the median and the 95th percentile, of steps that are seen for
the first time. Needs the extra `browser` and a Chromium.
"""

import argparse
import csv
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from playwright.sync_api import Page, sync_playwright
from plotly.offline import get_plotlyjs

from ddpm.app import report
from ddpm.report.grids import BACKGROUND

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

ROUNDS = 5
"""Of opening; the median counts."""

READY = "typeof Plotly !== 'undefined' && performance.getEntriesByType('paint').length > 1"

OPENED = """
() => {
  const [paint] = performance.getEntriesByName('first-contentful-paint');
  const [navigation] = performance.getEntriesByType('navigation');
  return {read: paint.startTime, loaded: navigation.loadEventEnd, now: performance.now()};
}
"""

KINDS = ("read", "loaded", "now")

TURN = """
async (at) => {
  const images = [...document.querySelectorAll('#grids img')];
  const before = images.map((image) => image.src);
  const began = performance.now();
  const step = document.getElementById('step');
  step.value = at;
  step.dispatchEvent(new Event('input', {bubbles: true}));
  await new Promise(requestAnimationFrame);
  const changed = images.filter((image, index) => image.src !== before[index]);
  if (!changed.length) throw new Error('no grid has changed');
  await Promise.all(changed.map((image) => image.decode()));
  await new Promise(requestAnimationFrame);
  return performance.now() - began;
}
"""


def copied(run: Path, place: Path, number: int) -> Path:
    """The run once more, with other numbers and pictures."""
    shutil.copytree(run, place, ignore=shutil.ignore_patterns("checkpoints", "wandb", "*.log"))
    config: Any = yaml.safe_load((place / "config.yaml").read_text())
    config["seed"], config["optimizer"]["lr"] = number, round(1e-3 * 1.1**number, 6)
    (place / "config.yaml").write_text(yaml.safe_dump(config))
    rng = np.random.default_rng(number)
    with (place / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        for name, value in row.items():
            if name != "step" and value:
                row[name] = str(float(value) * (1 + 0.05 * rng.random()))
    with (place / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for path in (place / "samples").rglob("*.png"):
        pixels = np.asarray(Image.open(path)).astype(np.float64)
        brighter = 255 * (pixels / 255) ** (1.02 ** (number % 20 - 10))
        kept = pixels == BACKGROUND  # the page finds the rows of a grid by it
        Image.fromarray(np.where(kept, pixels, brighter).round().astype(np.uint8)).save(path)
    return place


def opened(browser: Any, page: Path) -> tuple[Page, dict[str, float]]:
    """The page when its charts can be drawn, the last to come, and the milliseconds that it took."""
    tab = browser.new_context(viewport={"width": 1200, "height": 900}).new_page()
    tab.goto(page.as_uri(), wait_until="load")
    while not tab.evaluate(READY):  # what waits within the page evaluates text, which it forbids
        time.sleep(0.01)
    return tab, tab.evaluate(OPENED)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--runs", type=int, default=8)
    arguments = parser.parse_args()
    if CHROMIUM is None:
        parser.error("Chromium is not installed: apt-get install chromium")
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        runs = [copied(arguments.run, root / f"run_{i:02d}", i) for i in range(arguments.runs)]
        page, empty = root / "page.html", root / "empty.html"
        began = time.perf_counter()
        report.write(runs, page, "en", opens=False)
        written = time.perf_counter() - began
        empty.write_text(f"<!doctype html><script>{get_plotlyjs()}</script><p>nothing</p>")
        print(f"{arguments.runs} runs: {page.stat().st_size / 1e6:.1f} MB, written in {written:.1f} s")
        with sync_playwright() as started:
            browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            took: dict[str, list[dict[str, float]]] = {"alone": [], "page": []}
            for _ in range(ROUNDS):
                for name, file in (("alone", empty), ("page", page)):
                    tab, times = opened(browser, file)
                    took[name].append(times)
                    tab.context.close()
            read, loaded, drawn = (statistics.median(t[k] for t in took["page"]) / 1000 for k in KINDS)
            alone = statistics.median(times["now"] for times in took["alone"]) / 1000
            print(
                f"can be read after {read:.2f} s, is loaded after {loaded:.2f} s, draws after {drawn:.2f} s"
            )
            print(f"a page with the chart library alone: {alone:.2f} s, {drawn / alone:.1f} times")
            tab, _ = opened(browser, page)
            tab.locator("#grids").scroll_into_view_if_needed()
            tab.wait_for_timeout(2000)
            steps = int(tab.evaluate("Number(document.getElementById('step').max) + 1"))
            if steps < 2:
                parser.error(f"{arguments.run}: has grids at {steps} step; the slider needs two")
            turns = sorted(tab.evaluate(TURN, at) for at in reversed(range(steps - 1)))
            late = turns[min(len(turns) - 1, int(0.95 * len(turns)))]
            print(
                f"next grids, {steps} steps: {statistics.median(turns):.0f} ms, 95th percentile {late:.0f} ms"
            )
            browser.close()


if __name__ == "__main__":
    main()
