"""The page of runs: what it reads, what it refuses, and that nothing in a run directory can act in it."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from ddpm.app import report
from ddpm.app.figure_arguments import FIGURES
from ddpm.errors import UsageError
from ddpm.report import differences, grids, pictures
from ddpm.report import document as documents
from ddpm.report.curves import curves
from ddpm.report.document import document, script_json
from ddpm.report.embedding import MB, budget
from ddpm.report.texts import LANGUAGES, of_the_system, texts
from ddpm.sampling import figures
from ddpm.sampling.captions import CAPTION

HOSTILE = "</script><img src=x onerror=alert(1)>\"'&<!--"


@pytest.fixture(autouse=True)
def without_plotly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its five megabytes are in no test but those of the browser."""
    monkeypatch.setattr(documents, "_plotly", lambda: "/* plotly */")


def picture(path: Path, columns: int = 4, rows: int = 3, cell: int = 64) -> None:
    """A grid as training draws it, of noise."""
    rng = np.random.default_rng(0)
    canvas = np.full((2 + rows * (cell + 2), 2 + columns * (cell + 2), 3), 64, np.uint8)
    for i in range(rows):
        for j in range(columns):
            image = rng.integers(0, 256, (8, 8, 3), np.uint8).repeat(cell // 8, 0).repeat(cell // 8, 1)
            canvas[2 + i * (cell + 2) :, 2 + j * (cell + 2) :][:cell, :cell] = image
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(canvas).save(path)


def made(
    directory: Path, name: str = "run", *, steps: int = 3, status: str = "finished", **config: Any
) -> Path:
    """A run directory as training leaves it, as far as a page reads it."""
    run = directory / name
    run.mkdir(parents=True)
    record = {
        "layout": 1,
        "status": status,
        "command": ["train.py", f"note={HOSTILE}"],
        "parameters": 702_625,
    }
    (run / "run.json").write_text(json.dumps(record))
    (run / "config.yaml").write_text(yaml.safe_dump({"seed": 0, "trainer": {"max_steps": 30}, **config}))
    lines = ["step,train/loss,val/loss", *(f"{10 * i},{1 / i},{2 / i}" for i in range(1, steps + 1))]
    (run / "metrics.csv").write_text("\n".join(lines) + "\n")
    for i in range(1, steps + 1):
        picture(run / "samples" / f"step_{10 * i:08d}.png")
    return run


def page(*directories: Path) -> str:
    return document(report.subject_of(directories), language="en", time="now")


def data_of(html: str) -> dict[str, Any]:
    return json.loads(re.search(r'id="data">(.*?)</script>', html, re.DOTALL)[1])


class Elements(HTMLParser):
    """The elements of a page as a browser finds them."""

    def __init__(self, html: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_a_run_has_its_card_curves_grids_and_configuration(tmp_path: Path):
    html = page(made(tmp_path))
    data = data_of(html)
    assert [chart["name"] for chart in data["charts"]] == ["train/loss", "val/loss"]
    assert data["charts"][1]["curves"]["0"] == [[10, 20, 30], [2.0, 1.0, 0.666667]]
    assert data["steps"] == [[10, 20, 30]]
    assert "702,625" in html
    assert "trainer.max_steps" in html
    assert html.count("data:image/webp;base64,") == 3


def test_runs_are_compared_by_what_differs(tmp_path: Path):
    runs = [made(tmp_path, "a", optimizer={"lr": 1e-3}), made(tmp_path, "b", optimizer={"lr": 4e-3}, steps=2)]
    columns = {column["key"]: column["cells"] for column in data_of(page(*runs))["columns"]}
    assert [cell["text"] for cell in columns["optimizer.lr"]] == ["0.001", "0.004"]
    assert [cell["number"] for cell in columns["best val/loss"]] == [0.666667, 1.0]
    assert "seed" not in columns


def test_a_run_of_which_nothing_is_known_sets_no_other_apart(tmp_path: Path):
    runs = [
        made(tmp_path, "a", schedule={"kind": "linear"}),
        made(tmp_path, "b", schedule={"kind": "cosine"}),
    ]
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "metrics.json").write_text(json.dumps({"nll": {"bits_per_dim": 4.2}}))
    found = differences.apart(report.subject_of([*runs, tmp_path / "c"]).entries)
    assert [set(own) for own in found] == [{"schedule.kind"}] * 3
    assert [own["schedule.kind"] for own in found] == ["linear", "cosine", differences.LACKING]


def test_nothing_that_a_run_says_becomes_an_element(tmp_path: Path):
    runs = [made(tmp_path, "a", note=HOSTILE), made(tmp_path, "b <b>&", **{HOSTILE: 1}, note="other")]
    for run in runs:
        (run / "metrics.csv").write_text(f'step,"{HOSTILE.replace(chr(34), chr(34) * 2)}"\n1,2\n2,1\n')
    html = page(*runs)
    elements = Elements(html).found
    assert not [attributes for tag, attributes in elements if tag == "img" and attributes.get("src") == "x"]
    assert not [attributes for _, attributes in elements if any(name.startswith("on") for name in attributes)]
    scripts = [attributes for tag, attributes in elements if tag == "script"]
    assert len(scripts) == 1 + 2 + 1 + 1 + len(documents.SCRIPTS)  # data, grids, films, plotly
    assert not [attributes for attributes in scripts if "src" in attributes]
    assert data_of(html)["charts"][0]["name"] == HOSTILE
    assert HOSTILE not in html


def test_data_ends_no_script():
    written = script_json({HOSTILE: [HOSTILE, "\u2028", "\ud800"]})
    assert not set("<>&\u2028") & set(written)
    assert json.loads(written)[HOSTILE][0] == HOSTILE


def test_the_page_lets_a_browser_load_nothing(tmp_path: Path):
    html = page(made(tmp_path))
    policy = next(a["content"] for tag, a in Elements(html).found if a.get("http-equiv"))
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy.split("style-src")[0]
    for tag, attributes in Elements(html).found:
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), tag


@pytest.mark.parametrize("status", ["running", "interrupted", "failed"])
def test_a_run_that_is_not_over_has_a_page_that_says_so(status: str, tmp_path: Path):
    run = made(tmp_path, status=status, steps=0)
    (run / "metrics.csv").unlink()
    html = page(run)
    key = "no_curves", "no_samples", "is_interrupted"  # one that says it runs, and holds no lock, was killed
    assert all(f'data-text="{name}"' in html for name in key)


def test_a_directory_that_is_no_run_is_refused_by_name(tmp_path: Path):
    run = made(tmp_path / "logs")
    with pytest.raises(UsageError, match=r"holds no run.json .* 1 in it are, such as .*run"):
        page(tmp_path / "logs")
    (tmp_path / "docs" / "images").mkdir(parents=True)
    with pytest.raises(UsageError, match="is no run or sweep"):
        page(tmp_path / "docs")
    with pytest.raises(UsageError, match="there is no such directory"):
        page(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="is a file"):
        page(run / "run.json")
    with pytest.raises(UsageError, match="is a directory"):
        report.write([run], tmp_path, "en", opens=False)


@pytest.mark.parametrize("image_size", [16, [16, 24]])
def test_the_defaults_of_a_run_of_a_folder_are_known(image_size: int | list[int]):
    known, data = {"choices": {"data": "folder"}}, {"path": "/pictures of mine", "image_size": image_size}
    found = report._defaults(known, {"data": data})
    assert found is not None
    assert found["data"]["path"] == "/pictures of mine"
    assert found["data"]["image_size"] == image_size


def test_the_page_is_written_beside_the_run(tmp_path: Path, capsys: pytest.CaptureFixture):
    run = made(tmp_path)
    assert report.write([run], None, "zh", opens=False) == 0
    assert 'lang="zh-CN"' in (run / "report.html").read_text(encoding="utf-8")
    assert "report.html" in capsys.readouterr().out


def test_measurements_in_a_run_and_beside_it_stand_with_their_intervals(tmp_path: Path):
    run = made(tmp_path)
    for directory, value in ((run / "evaluation", 4.2), (tmp_path / "elsewhere", 4.4)):
        directory.mkdir()
        ckpt = str(run / "checkpoints" / "last.ckpt")
        measured = {"ckpt": ckpt, "nll": {"bits_per_dim": value, "standard_error": 0.1}}
        (directory / "metrics.json").write_text(json.dumps(measured))
    (entry,) = report.subject_of([run, tmp_path / "elsewhere"]).entries
    assert [one.value for one in entry.measurements] == [4.2, 4.4]
    assert entry.measurements[0].interval == pytest.approx((4.004, 4.396))
    assert [one.source for one in entry.measurements] == ["evaluation/metrics.json", "elsewhere/metrics.json"]


def test_what_an_evaluation_of_several_runs_measured_belongs_to_each(tmp_path: Path):
    runs = [made(tmp_path, "a"), made(tmp_path, "b")]
    of_both = tmp_path / "both"
    for run, value in zip(runs, (4.2, 4.4), strict=True):
        directory = of_both / "compared" / run.name
        directory.mkdir(parents=True)
        measured = {"ckpt": str(run / "checkpoints" / "last.ckpt"), "nll": {"bits_per_dim": value}}
        (directory / "metrics.json").write_text(json.dumps(measured))
    (of_both / "metrics.json").write_text(json.dumps({"runs": {}, "differences": {}}))
    entries = report.subject_of([*runs, of_both]).entries
    assert [[one.value for one in entry.measurements] for entry in entries] == [[4.2], [4.4]]
    alone = report.subject_of([of_both]).entries
    assert [(entry.name, entry.measurements[0].value) for entry in alone] == [
        ("both/a", 4.2),
        ("both/b", 4.4),
    ]
    of_both.rename(runs[0] / "both")
    assert report.subject_of(runs[:1]).entries[0].measurements == ()


def test_a_page_of_evaluations_alone_speaks_of_no_steps(tmp_path: Path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text(json.dumps({"nll": {"bits_per_dim": 4.2}}))
        picture(tmp_path / name / "nll.png", 1, 1)
    html = page(tmp_path / "a", tmp_path / "b")
    assert 'data-text="figure_nll"' in html
    assert not any(f'id="{part}"' in html for part in ("samples", "curves"))
    assert "steps" not in [column["kind"] for column in data_of(html)["columns"]]
    both = page(made(tmp_path), tmp_path / "a")
    assert 'id="curves"' in both
    assert "steps" in [column["kind"] for column in data_of(both)["columns"]]


def test_damaged_files_are_told_and_the_rest_is_there(tmp_path: Path):
    run = made(tmp_path)
    (run / "config.yaml").write_text("a: [")
    (run / "samples" / "step_00000020.png").write_bytes(b"\x89PNG no")
    (run / "metrics.csv").write_text("step,val/loss\n1,0.5\n2,nan\n3,0.4\n4")
    html = page(run)
    assert "config.yaml: cannot be read" in html
    assert "step_00000020.png: cannot be read" in html
    assert data_of(html)["steps"] == [[10, 30]]
    assert data_of(html)["charts"][0]["curves"]["0"] == [[1, 2, 3], [0.5, None, 0.4]]


def test_thinning_keeps_spikes_and_ends(tmp_path: Path):
    lines = [f"{i},{100 if i == 777 else i / 1e4}" for i in range(5000)]
    (tmp_path / "metrics.csv").write_text("\n".join(["step,train/loss", *lines]) + "\n")
    curve = curves(tmp_path, 200)["train/loss"]
    assert len(curve.steps) <= 200
    assert {0, 777, 4999} <= set(curve.steps)
    assert curve.highest == (777, 100.0)


def test_pictures_outside_of_the_run_and_too_large_ones_are_not_read(tmp_path: Path):
    run = made(tmp_path, steps=1)
    picture(tmp_path / "private.png")
    (run / "samples" / "step_00000099.png").symlink_to(tmp_path / "private.png")
    Image.new("1", (20_000, 20_000)).save(run / "samples" / "step_00000050.png")
    ((found, lost),) = grids.grids([run], MB)
    assert [one.step for one in found] == [10]
    assert "more pixels than a page shows" in lost[0]


def test_the_first_row_of_a_grid_is_found(tmp_path: Path):
    picture(tmp_path / "grid.png")
    assert grids.first_row(np.asarray(Image.open(tmp_path / "grid.png"))) == 68


def test_letters_above_large_images_are_no_row_of_images():
    images = torch.randint(0, 255, (8, 3, 256, 256), dtype=torch.uint8)
    drawn = figures.grid(images, captions=["\u00c5jg|"] * 8, columns=8)
    assert drawn.shape == (2 + 2 * CAPTION + 258, 2 + 8 * 258, 3)
    assert grids.first_row(drawn) == len(drawn)
    assert grids.first_row(np.concatenate([drawn, drawn])) == len(drawn)
    above = drawn[2 : 2 + 2 * CAPTION, 2:258]
    lit = np.flatnonzero((above > 150).any(axis=(1, 2)))
    assert lit[-1] - lit[0] > CAPTION  # letters too are larger


def test_a_grid_of_many_large_images_is_shown_reduced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(grids.embedding, "WIDEST", 160)
    run = made(tmp_path, steps=0)
    (run / "samples").mkdir()
    Image.new("1", (5000, 4000)).save(run / "samples" / "step_00000001.png")
    ((found, lost),) = grids.grids([run], MB)
    assert not lost
    assert [(one.width, one.height, one.is_exact) for one in found] == [(160, 128, False)]


def test_pictures_of_a_page_stay_below_their_budget(tmp_path: Path):
    run = made(tmp_path, steps=3)
    exact = grids.grids([run], MB)[0][0]
    assert all(one.is_exact for one in exact)
    reduced = grids.grids([run], 3 * 3_000)[0][0]
    assert sum(len(one.webp) for one in reduced) <= 3 * 3_000 < sum(len(one.webp) for one in exact)
    assert not any(one.is_exact for one in reduced)


def film(path: Path, n: int = 3) -> None:
    """An animation of n grey frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *others = [Image.new("L", (40, 20), 255 * i // n) for i in range(1, n + 1)]
    first.save(path, save_all=True, append_images=others, duration=[60] * n)


def test_figures_of_a_run_are_shown_with_what_they_show(tmp_path: Path):
    run = made(tmp_path, steps=0)
    picture(run / "figures" / "nearest.png", 1, 1)
    picture(run / "figures" / "drawn" / "mine.png", 1, 1)
    film(run / "figures" / "drawn" / "denoising.gif")
    (run / "figures" / "drawn" / "loss.pdf").write_bytes(b"%PDF")
    (tmp_path / "private.png").write_bytes((run / "figures" / "nearest.png").read_bytes())
    (run / "figures" / "private.png").symlink_to(tmp_path / "private.png")
    html = page(run)
    assert html.count('data-figure data-runs="0"') == 3
    assert all(f'data-text="{key}"' in html for key in ("figure_nearest", "figure_denoising", "unshown"))
    assert "figures/drawn/mine.png" in html
    assert "figures/drawn/loss.pdf" in html
    assert "private.png" not in html
    assert html.count('class="play"') == 1
    assert len(json.loads(re.search(r'id="films">(.*?)</script>', html, re.DOTALL)[1])) == 1


def test_figures_that_runs_have_alike_stand_once_and_others_beside_each_other(tmp_path: Path):
    runs = [made(tmp_path, name, steps=0) for name in "ab"]
    for i, run in enumerate(runs):
        picture(run / "figures" / "images.png", 1, 1)
        picture(run / "figures" / "denoising.png", 1, 1 + i)
    html = page(*runs)
    assert html.count('data-runs="0 1"') == 1
    assert html.count('data-figure data-runs="0"') == html.count('data-figure data-runs="1"') == 1


def test_figures_stay_below_their_budget_and_what_is_left_out_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = made(tmp_path, steps=0)
    for i in range(3):
        picture(run / "figures" / f"{i}.png", 3, 3)
    film(run / "figures" / "film.gif", pictures.embedding.MOST_FRAMES + 1)
    monkeypatch.setattr(pictures, "MOST_OF_A_RUN", 3)
    found = pictures.pictures([(run, ())], None, 12_000)
    assert found.left_out == 1
    assert 'data-text="figures_left_out"' in page(run)
    monkeypatch.undo()
    found = pictures.pictures([(run, ())], None, 12_000)
    films = [one.film for one in found.shown if one.film is not None]
    assert [len(found.shown), len(films)] == [4, 1]
    assert sum(len(one.webp) for one in [*films, *(one.still for one in found.shown)]) <= 12_000


def test_damaged_figures_are_told_and_the_rest_is_there(tmp_path: Path):
    run = made(tmp_path, steps=0)
    picture(run / "figures" / "images.png", 1, 1)
    (run / "figures" / "over_t.png").write_bytes(b"\x89PNG no")
    (run / "figures" / "film.gif").write_bytes(b"GIF89a no")
    html = page(run)
    assert "figures/over_t.png: cannot be read" in html
    assert "figures/film.gif: cannot be read" in html
    assert html.count("data-figure ") == 1


def test_animations_of_one_name_in_two_folders_stand_as_the_page_groups_them(tmp_path: Path):
    """The buttons of a page count animations in the order in which they stand there."""
    runs = [made(tmp_path, name, steps=0) for name in "ab"]
    for i, run in enumerate(runs):
        for k, folder in enumerate(pictures.FOLDERS):
            film(run / folder / "denoising_film.gif", 3 + 2 * i + k)
    found = pictures.pictures([(run, ()) for run in runs], None, MB)
    assert list(found.shown) == [one for own in found.by_file.values() for one in own]
    assert len(found.shown) == 4


def test_figures_may_be_called_as_anybody_likes(tmp_path: Path):
    run = made(tmp_path, steps=0)
    for name in ("of", "file", "a\x1bb", "<script>"):
        picture(run / "figures" / f"{name}.png", 1, 1)
    html = page(run)
    assert html.count("data-figure ") == 4
    assert "\x1b" not in html
    assert "<script>.png" not in html


def test_figures_that_would_take_much_memory_are_reduced_or_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run, embedding = made(tmp_path, steps=0), pictures.embedding
    frames = [Image.new("L", (4, 20_000), grey) for grey in (9, 99)]  # WebP has no room for as many lines
    (run / "figures").mkdir()
    frames[0].save(run / "figures" / "high.gif", save_all=True, append_images=frames[1:], duration=600_000)
    Image.new("1", (1, 100_000)).save(run / "figures" / "lines.png")
    film(run / "figures" / "large.gif")
    monkeypatch.setattr(embedding, "LARGE", 40 * 20 - 1)
    html = page(run)
    assert "lines.png: has 1 x 100000 pixels, more than a page shows" in html
    assert "large.gif: has 40 x 20 pixels, more than a page shows" in html
    monkeypatch.setattr(embedding, "LARGE", 1 << 24)
    high, milliseconds = embedding.frames(run / "figures" / "high.gif")
    assert {frame.size for frame in high} == {(1, embedding.HIGHEST_FRAME)}
    assert milliseconds == [embedding.LONGEST_SHOWN] * 2
    assert page(run).count('class="play"') == 2


def test_frames_of_a_long_animation_are_from_all_over_it(tmp_path: Path):
    n = 3 * pictures.embedding.MOST_FRAMES
    film(tmp_path / "film.gif", n)
    frames, milliseconds = pictures.embedding.frames(tmp_path / "film.gif")
    assert len(frames) == len(milliseconds) <= pictures.embedding.MOST_FRAMES + 1
    assert (
        sum(milliseconds) == 60 * len({255 * i // n for i in range(1, n + 1)}) or sum(milliseconds) == 60 * n
    )


def test_every_figure_that_can_be_drawn_is_captioned():
    for name in FIGURES:
        assert f"figure_{name}" in texts()
    for name in (*pictures.ORDER, *pictures.BESIDE):
        assert f"figure_{name}" in texts()


@pytest.mark.e2e
def test_every_figure_of_training_is_captioned_and_shown(smoke_run: Path):
    found = pictures.pictures([(smoke_run, ())], None, MB).shown
    assert {Path(one.file).stem for one in found} >= {"denoising", "denoising_film", "nearest", "images"}
    assert all(one.caption_key for one in found)


def test_budgets_keep_pages_small():
    plotly = 4_900_000
    assert budget(8) + plotly < 15_000_000
    assert budget(64) + plotly < 40_000_000


def test_every_text_is_in_every_language_with_the_same_values():
    for key, said in texts().items():
        assert set(said) == set(LANGUAGES), key
        assert len({frozenset(re.findall(r"\{\w+\}", own)) for own in said.values()}) == 1, key


def test_texts_that_are_used_are_there_and_no_others():
    used = "".join(path.read_text(encoding="utf-8") for path in documents.ASSETS.iterdir())
    used += (documents.ASSETS.parent / "views.py").read_text(encoding="utf-8")
    for key in texts():
        assert key.startswith(("status_", "section_", "theme_", "figure_")) or re.search(
            rf'["\']{key}["\']', used
        ), key


@pytest.mark.parametrize(("said", "language"), [("zh_CN.UTF-8", "zh"), ("C.UTF-8", "en"), ("de_DE", "en")])
def test_the_language_is_the_systems(said: str, language: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LC_ALL", said)
    assert of_the_system() == language
