"""The page to play with a run: it draws what sample.py draws, shows how, and says what it cannot do."""

import io
import re
import shlex
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import first_everyday, run_command, run_here
from PIL import Image

import ddpm
from ddpm.app import demo, pictures_given
from ddpm.app.asked_rows import asked_rows
from ddpm.app.reverse_process import sampler_and_guidance
from ddpm.diffusion.objectives import V
from ddpm.errors import UsageError
from ddpm.options import option
from ddpm.report.demo import acting, asked, brush, language, live, shown
from ddpm.report.demo.asked import Settings
from ddpm.report.demo.choices import choices
from ddpm.report.texts import LANGUAGES, texts
from ddpm.run import Run
from ddpm.sampling.figures import to_uint8
from ddpm.targets import build

TURNED = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
"""That a picture is to be turned by a quarter."""

RUN = str(Path(__file__).parents[1] / "fixtures" / "run_0_1")

FEW = ("ddim", 4, 3, 5, (), None)
"""Sampler, steps, seed, images, classes and guidance, as typed."""


@pytest.fixture
def conditional(conditional_run: Path) -> Run:
    return ddpm.load(conditional_run, "cpu")


@pytest.fixture
def unconditional(unconditional_run: Path) -> Run:
    return ddpm.load(unconditional_run, "cpu")


@pytest.fixture
def page(conditional: Run) -> acting.Page:
    return acting.Page([acting.Opened("<run>", conditional, "python -m ddpm sample ckpt=run")])


def file_of(picture: Image.Image, kind: str = "PNG", **settings: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **settings)
    return file.getvalue()


def some_picture(size: tuple[int, int] = (30, 20), mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


def last(items: Iterator[acting.Shown]) -> acting.Shown:
    *_, end = items
    assert end.is_over
    return end


def by_sample_py(run: Run, **keys: Any) -> np.ndarray:
    """The images of `sample.py` with these keys, uint8 [n, H, W, C], as its own parts draw them."""
    config: dict[str, Any] = dict.fromkeys(
        ("start", "start_t", "end", "mask", "progressive", "shared_t", "labels", "guidance")
    )
    config |= {"same_noise": False, "allow_targets": [], **keys}
    sampler, guidance = sampler_and_guidance(run, config)
    given = pictures_given.read(config, run)
    labels = run.numbered(config["labels"])
    if labels is None and given.sources and run.label_drop:
        labels = [-1]
    rows = asked_rows(
        config, run.module, given, seed=config["seed"], sampler=sampler, weights="ema", labels=labels,
        guidance=guidance,
    ).rows  # fmt: skip
    return rows[0].draw(range(config["n"]), lambda: None)["images"]


@pytest.mark.e2e
def test_the_page_draws_what_its_command_draws(
    page: acting.Page, conditional_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    end = last(page.draw("en", "ddim", 3, 7, 4, ("4", "2"), 3.0))
    assert end.outcome is not None
    command = page._command(acting.Asked(page.settings("ddim", 3, 7, 4, ("4", "2"), 3.0), None))  # type: ignore[arg-type]
    words = shlex.split(command)[3:]
    assert words == [
        "sample", "ckpt=run", "n=4", "seed=7", "sampler=ddim", "sampler.num_steps=3",
        "labels=[number:4,number:2]", "guidance.scale=3",
    ]  # fmt: skip
    code = run_here(monkeypatch, "sample", f"ckpt={conditional_run}", *words[2:], "out=out")
    assert code == 0
    with np.load(tmp_path / "out" / "samples.npz") as archive:
        assert np.array_equal(archive[archive.files[0]], end.outcome.drawn[0].images)
    assert end.outcome.captions == (("4", "2", "4", "2"),)


@pytest.mark.parametrize("name", first_everyday(["ddim", "ancestral", "heun"]))
def test_from_a_picture_as_sample_py(conditional: Run, tmp_path: Path, name: str):
    (tmp_path / "a.png").write_bytes(file_of(some_picture()))
    settings = Settings(name, 4, 2, 3)
    keys = {
        "n": 3, "seed": 2, "sampler": {**option("sampler", name), "num_steps": 4},
        "start": str(tmp_path / "a.png"), "start_t": 20,
    }  # fmt: skip
    picture = asked.prepared(conditional, (tmp_path / "a.png").read_bytes())
    drawn = asked.from_picture(conditional, settings, picture, 20)(range(3))
    assert np.array_equal(_bytes(drawn), by_sample_py(conditional, **keys))


def test_inpainting_and_what_lies_between_as_sample_py(unconditional: Run, tmp_path: Path):
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(file_of(some_picture((8, 8)).rotate(90 * "ab".index(name))))
    first, end = (asked.prepared(unconditional, (tmp_path / f"{name}.png").read_bytes()) for name in "ab")
    mask = brush.mask("left", None, (8, 8))
    Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "mask.png")
    settings = Settings("ddim", 4, 2, 3)
    keys = {"n": 3, "seed": 2, "sampler": option("sampler", "ddim") | {"num_steps": 4}}
    keys["start"] = str(tmp_path / "a.png")
    drawn = asked.inpainted(unconditional, settings, first, mask)(range(3))
    assert np.array_equal(_bytes(drawn), by_sample_py(unconditional, **keys, mask=str(tmp_path / "mask.png")))
    keys |= {"end": str(tmp_path / "b.png"), "start_t": 30, "same_noise": True}
    drawn = asked.between(unconditional, settings, first, end, 30, same_noise=True)(range(3))
    assert np.array_equal(_bytes(drawn), by_sample_py(unconditional, **keys))


def _bytes(drawn: torch.Tensor) -> np.ndarray:
    return to_uint8(drawn).movedim(1, -1).numpy()


def test_samplers_that_a_schedule_cannot_use_are_not_offered(unconditional: Run):
    assert list(choices([unconditional]).samplers) == [
        "ancestral", "ddim", "deis", "dpm_solver", "dpm_solver_sde", "flow_heun", "heun", "heun_churn",
    ]  # fmt: skip
    module = unconditional.module
    schedule = {**option("schedule", "linear"), "num_timesteps": 50, "zero_terminal_snr": True}
    module.schedule, module.objective = build("schedule", schedule), V()
    assert list(choices([unconditional]).samplers) == ["ancestral", "ddim", "flow_heun"]


def test_a_page_begins_with_few_steps_and_never_with_more_than_there_are(unconditional: Run):
    there = choices([unconditional])
    assert there.sampler == "ddim"
    assert there.samplers["ddim"] == there.samplers["ancestral"] == there.num_timesteps == 50
    assert there.samplers["heun"] == 20


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ({"num_steps": 0}, "Steps: 0 is no whole number from 1 to 50."),
        ({"num_steps": 51}, "Steps: 51 is no whole number from 1 to 50."),
        ({"num_steps": 2.5}, "Steps: 2.5 is no whole number"),
        ({"num_steps": None}, "Steps: - is no whole number"),
        ({"num_steps": float("nan")}, "Steps: nan is no whole number"),
        ({"seed": -1}, "Seed: -1 is no whole number from 0"),
        ({"seed": 2**53}, "Seed: 9007199254740992 is no whole number"),
        ({"n": 0}, "Images: 0 is no whole number from 1 to 64."),
        ({"n": True}, "Images: True is no whole number"),
        ({"scale": -1}, "Guidance must be a number of at least 0."),
        ({"scale": float("inf")}, "Guidance must be"),
        ({"classes": ("cat",)}, "this run has no class cat"),
        ({"sampler": "euler"}, "Sampler: must be one of ancestral, ddim"),
    ],
)
def test_numbers_that_make_no_sense_are_told_in_a_sentence(
    page: acting.Page, typed: dict[str, Any], said: str
):
    names = ("sampler", "num_steps", "seed", "n", "classes", "scale")
    values = dict(zip(names, FEW, strict=True)) | typed
    end = last(page.draw("en", *values.values()))
    assert said in end.status
    assert 'role="alert"' in end.status
    assert end.results is end.outcome is None
    assert last(page.draw("en", *FEW)).outcome is not None


def test_what_is_missing_or_too_little_is_told_in_the_language_of_the_page(page: acting.Page):
    picture = file_of(some_picture())
    told = {
        "Choose a picture first.": page.vary("en", None, 9, *FEW),
        "请先选择图片。": page.inpaint("zh", None, None, "left", *FEW),
        "From t = 2 down to 0 there are 3 steps, and 4 are asked for": page.vary("en", picture, 2, *FEW),
        "Noise, t: 50 is no whole number from 0 to 49.": page.vary("en", picture, 50, *FEW),
        "Nothing is painted over": page.inpaint("en", picture, {"layers": []}, "painted", *FEW),
        "至少需要 2 幅": page.between("zh", (picture, picture), (0, 1), ("0", "1"), 9, True, *FEW[:3], 1),
        "Seed: -2": page.between("en", (None, None), (0, -2), ("0", "1"), 9, True, *FEW),
    }
    for said, items in told.items():
        assert said in last(items).status


@pytest.mark.parametrize(
    "contents",
    [
        file_of(some_picture(mode="L")),
        file_of(some_picture(mode="RGBA")),
        file_of(some_picture(mode="P")),
        file_of(some_picture(mode="1")),
        file_of(some_picture((8, 8))),
        file_of(some_picture(), "JPEG", exif=TURNED),
        file_of(Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30) * 100)),
        file_of(some_picture((3000, 2))),
    ],
    ids=["grey", "RGBA", "palette", "bits", "as large", "turned", "16 bits", "long"],
)  # fmt: skip
def test_pictures_of_all_kinds_are_prepared_as_by_sample_py(
    unconditional: Run, tmp_path: Path, contents: bytes
):
    (tmp_path / "a").write_bytes(contents)
    config = {"start": str(tmp_path / "a"), "start_t": 3, "end": None, "mask": None}
    source = pictures_given.read(config, unconditional).sources["start"]
    assert np.array_equal(asked.prepared(unconditional, contents), to_uint8(source).numpy())


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        (b"", "it is empty"),
        (b"hello", "not an image"),
        (file_of(some_picture((200, 200)))[:2000], "truncated"),
        (b"P5 30000 30000 255\n", "exceeds limit"),
    ],
    ids=["empty", "text", "broken", "huge"],
)
def test_a_file_that_is_no_picture_is_told_in_a_sentence(page: acting.Page, contents: bytes, said: str):
    problem, picture = page.prepared(contents, "en")
    assert picture is None
    assert "This file cannot be read as a picture: " in problem
    assert said in problem
    assert not problem.endswith("..</p>")
    assert said in last(page.vary("zh", contents, 9, *FEW)).status
    assert "无法将该文件读作图片" in last(page.vary("zh", contents, 9, *FEW)).status


def test_a_brush_marks_the_pixels_that_it_covers():
    layer = np.zeros((80, 80, 4), np.uint8)
    layer[10:20, 30:40, 3] = 255  # pixel (1, 3)
    layer[70:73, 0:10, 3] = 255  # less than a third of (7, 0)
    found = brush.mask("painted", {"layers": [layer]}, (8, 8))
    assert np.argwhere(found).tolist() == [[1, 3]]
    other = np.zeros((100, 60, 4), np.uint8)  # of another size
    other[:, 30:] = 255
    assert np.array_equal(
        brush.mask("painted", {"layers": [None, other]}, (8, 8)), brush.mask("right", None, (8, 8))
    )
    assert not brush.mask("painted", None, (8, 8)).any()


def test_each_half_is_half_and_the_middle_a_quarter():
    shares = {region: brush.mask(region, None, (8, 8)).mean() for region in brush.REGIONS}
    assert shares == {"painted": 0, "left": 0.5, "right": 0.5, "upper": 0.5, "lower": 0.5, "middle": 0.25}
    assert brush.mask("upper", None, (8, 8))[0].all()
    assert brush.mask("left", None, (8, 8))[:, 0].all()


def test_what_is_painted_on_is_enlarged_by_a_whole_factor():
    picture = np.arange(64, dtype=np.uint8).reshape(1, 8, 8)
    large = brush.canvas(picture)
    assert large.shape == (448, 448, 3)
    assert np.array_equal(large[::56, ::56, 0], picture[0])
    assert brush.canvas(np.zeros((3, 600, 500), np.uint8)).shape == (600, 500, 3)


def test_the_page_shows_the_way_while_it_draws_and_afterwards(
    unconditional: Run, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(live, "MOST_POINTS", 4)
    settings = Settings("ancestral", 10, 1, 2)
    drawing = asked.from_noise(unconditional, settings)
    *seen, drawn = live.watched([lambda _: drawing], 2, live.Turns(), every=0)
    assert isinstance(drawn, list)
    views = [one.view for one in seen if isinstance(one, live.Progress) and one.view is not None]
    assert [view.t for view in views] == drawing.timesteps
    trajectory, images = unconditional.trajectory(2, points=4, sampler="ancestral", num_steps=10, seed=1)
    assert np.array_equal(drawn[0].images, _bytes(images))
    assert [view.t for view in drawn[0].way] == list(trajectory.x_t)
    for view in drawn[0].way:
        assert np.array_equal(view.x_t, _bytes(trajectory.x_t[view.t]))
        assert np.array_equal(view.x_0, _bytes(trajectory.x_0[view.t]))
    steps = [one for one in seen if isinstance(one, live.Progress) and one.seconds_left is not None]
    assert (steps[-1].done, steps[-1].total, steps[-1].seconds_left) == (10, 10, 0)


def test_images_that_do_not_fit_at_once_come_in_batches_and_are_the_same(
    unconditional: Run, monkeypatch: pytest.MonkeyPatch
):
    drawing = asked.from_noise(unconditional, Settings("ddim", 4, 0, 5))
    whole = drawing(range(5))
    monkeypatch.setattr(live, "images_at_once", lambda model: 2)
    *seen, drawn = live.watched([lambda _: drawing], 5, live.Turns(), every=0)
    assert isinstance(drawn, list)
    assert np.abs(drawn[0].images.astype(int) - _bytes(whole)).max() <= 1
    assert seen[-1].total == 12  # type: ignore[union-attr]
    first = next(one.view for one in seen if isinstance(one, live.Progress) and one.view is not None)
    assert (first.x_t[2:] == live.WAITING).all()


def test_the_way_of_large_images_is_kept_at_fewer_points(unconditional: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(live, "MOST_BYTES", 2 * 2 * 64 * 5)
    drawing = asked.from_noise(unconditional, Settings("ddim", 20, 0, 2))
    *_, drawn = live.watched([lambda _: drawing], 2, live.Turns())
    assert isinstance(drawn, list)
    assert len(drawn[0].way) == 5


class Slow:
    """A drawing that counts its steps and goes on when it is let."""

    def __init__(self, run: Run):
        self.steps = 0
        self.go_on = threading.Semaphore(0)
        run.module.network.register_forward_pre_hook(self._count)

    def _count(self, *_: Any) -> None:
        assert self.go_on.acquire(timeout=30)
        self.steps += 1


def test_a_drawing_ends_when_nobody_watches_it_any_more_and_the_next_one_begins(unconditional: Run):
    slow = Slow(unconditional)
    turns = live.Turns()
    drawing = asked.from_noise(unconditional, Settings("ddim", 50, 0, 1))
    left = live.watched([lambda _: drawing], 1, turns, every=0)
    slow.go_on.release()
    assert any(isinstance(item, live.Progress) and item.done for item in left)  # up to the first step
    left.close()
    slow.go_on.release(100)
    other = asked.from_noise(unconditional, Settings("ddim", 4, 0, 1))
    *_, drawn = live.watched([lambda _: other], 1, turns)
    assert isinstance(drawn, list)
    assert slow.steps <= 2 + 1 + 4


def test_who_waits_for_a_turn_is_told_and_can_leave(unconditional: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(live, "BEAT", 0.05)
    slow = Slow(unconditional)
    turns = live.Turns()
    drawing = asked.from_noise(unconditional, Settings("ddim", 4, 0, 1))
    first = live.watched([lambda _: drawing], 1, turns, every=0)
    slow.go_on.release()
    assert any(isinstance(item, live.Progress) and item.done for item in first)
    waits = live.watched([lambda _: drawing], 1, turns)
    beat = next(waits)
    assert isinstance(beat, live.Progress)
    assert beat.is_waiting
    assert "Somebody else" in shown.progress(beat, "en")
    waits.close()
    slow.go_on.release(3)
    assert isinstance(list(first)[-1], list)


def test_two_people_at_once_get_what_each_asked_for(page: acting.Page):
    alone = {seed: last(page.draw("en", "ddim", 4, seed, 3, (), None)).outcome for seed in (1, 2)}
    found: dict[int, Any] = {}

    def person(seed: int) -> None:
        found[seed] = last(page.draw("en", "ddim", 4, seed, 3, (), None)).outcome

    people = [threading.Thread(target=person, args=(seed,)) for seed in (1, 2)]
    for one in people:
        one.start()
    for one in people:
        one.join(60)
    for seed, outcome in alone.items():
        assert outcome is not None
        assert np.array_equal(found[seed].drawn[0].images, outcome.drawn[0].images)
    assert not np.array_equal(found[1].drawn[0].images, found[2].drawn[0].images)


def test_an_error_in_a_drawing_is_told_and_the_page_lives_on(
    page: acting.Page, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    network = page.opened[0].run.module.network

    def fail(*_: Any) -> None:
        raise error

    hook = network.register_forward_pre_hook(fail)
    error: Exception = RuntimeError("a layer")
    assert "the terminal of the server says why" in last(page.draw("en", *FEW)).status
    assert "a layer" in caplog.text
    error = torch.OutOfMemoryError("CUDA out of memory")
    assert "not enough memory" in last(page.draw("en", *FEW)).status
    hook.remove()
    assert last(page.draw("en", *FEW)).outcome is not None


def test_two_runs_draw_from_the_same_noise_side_by_side(conditional: Run, unconditional: Run):
    page = acting.Page([acting.Opened("one", conditional, "a"), acting.Opened("two", unconditional, "b")])
    end = last(page.draw("en", *FEW[:4], ("7",), 2.0))
    assert end.outcome is not None
    first, second = end.outcome.drawn
    assert np.array_equal(first.way[0].x_t, second.way[0].x_t)
    assert not np.array_equal(first.images, second.images)
    assert end.outcome.captions == (("7",) * 5, (acting.NOTHING,) * 5)
    assert end.results is not None
    assert re.findall("<h3>(.*?)</h3>", end.results) == ["one", "two"]
    assert end.command is not None
    assert "b n=5 seed=3 sampler=ddim sampler.num_steps=4<" in end.command


def test_runs_that_share_no_noise_are_refused_side_by_side(conditional: Run, unconditional: Run):
    unconditional.module.image_shape = (1, 16, 16)
    with pytest.raises(UsageError, match=r"\[1, 8, 8\] and \[1, 16, 16\] .* open each alone"):
        choices([conditional, unconditional])


def test_between_images_of_seeds_the_ends_are_what_each_seed_draws(page: acting.Page, conditional: Run):
    end = last(page.between("en", (None, None), (4, 9), ("3", "8"), 10, True, *FEW))
    assert end.outcome is not None
    ends = dict(end.outcome.sources[0])
    sampler = {"sampler": "ddim", "num_steps": 4}
    for key, seed, label in (("from_this", 4, "3"), ("to_this", 9, "8")):
        alone = conditional.sample(1, seed=seed, labels=f"name:{label}", **sampler)
        assert np.array_equal(ends[key], to_uint8(alone[0]).numpy())


def test_names_of_classes_and_runs_are_escaped(conditional: Run):
    conditional.module.classes = ["<img src=x>", *map(str, range(1, 9)), "猫"]
    page = acting.Page([acting.Opened("<b>", conditional, "a <i>")])
    end = last(page.draw("en", *FEW[:4], ("<img src=x>", "猫"), None))
    assert end.results is not None
    assert end.command is not None
    assert "<img src=x>" not in end.results
    assert "&lt;img src=x&gt;</figcaption>" in end.results
    assert "猫</figcaption>" in end.results
    assert "<b>" not in end.results
    assert "<i>" not in end.command


def test_a_point_of_the_way_shows_x_t_and_what_is_predicted(page: acting.Page):
    outcome = last(page.draw("en", *FEW)).outcome
    assert outcome is not None
    assert "x_t at t = 49" in page.point(outcome, 0, "en")
    assert "此处预测的 x_0" in page.point(outcome, 1, "zh")
    assert "x_t" not in page.point(outcome, outcome.points, "en")
    assert page.point(outcome, 0, "en").count("<img") == 10
    assert "Nothing is drawn yet" in page.point(None, 0, "en")


def test_what_passes_by_is_small_and_what_stays_is_exact():
    large = np.random.default_rng(0).integers(0, 256, (1, 300, 300, 3), np.uint8)
    assert len(shown.images(large, [""], "en", passing=True)) < len(shown.images(large, [""], "en")) / 3


def test_every_text_of_the_page_is_in_every_language_and_used():
    sources = [*Path(language.FILE.parent).glob("*.py")]
    used = "".join(path.read_text(encoding="utf-8") for path in sources)
    for key, said in texts(language.FILE).items():
        assert set(said) == set(LANGUAGES), key
        assert len({frozenset(re.findall(r"\{\w+\}", own)) for own in said.values()}) == 1, key
        built = ("theme_", "region_", "first_", "last_")
        assert key.startswith(built) or re.search(rf'["\']{key}["\']', used), key


def command(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """The exit code of `ddpm demo`."""
    return run_command(monkeypatch, "demo", *words)


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logging and surroundings stay as they were."""
    monkeypatch.setattr(demo.terminal, "set_up", lambda *_, **__: None)
    monkeypatch.setattr("os.environ", dict(demo.os.environ))


@pytest.mark.usefixtures("quiet")
def test_a_port_in_use_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert command(monkeypatch, RUN, "--port", str(port)) == 2
    assert f"error: --port {port}: cannot be had on 127.0.0.1" in capsys.readouterr().err


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere", "--port", "0"], "nowhere: there is no such run directory or checkpoint file"),
        (["a", "b", "c", "--port", "0"], "3 runs are named; a page shows one, or two side by side"),
        ([RUN, "--port", "70000"], "--port 70000: must be 0"),
        (
            [RUN, "--port", "0", "--host", "nowhere.invalid"],
            "nowhere.invalid: there is no such address",
        ),
        (["a", "--port", "many"], "--port"),
    ],
)
def test_mistakes_end_with_one_message(
    words: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setattr(demo, "_check_gradio", lambda: None)
    assert command(monkeypatch, *words) == 2
    assert said in capsys.readouterr().err


@pytest.mark.usefixtures("quiet")
def test_a_missing_gradio_is_told_with_what_to_type(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert command(monkeypatch, RUN, "--port", "0") == 2
    assert "pip install 'ddpm[demo]'" in capsys.readouterr().err


def test_other_machines_are_let_in_only_where_a_host_is_named(capsys: pytest.CaptureFixture):
    demo._listening("127.0.0.1", 0).close()
    assert capsys.readouterr().err == ""
    demo._listening("0.0.0.0", 0).close()
    assert capsys.readouterr().err.startswith("warning: --host 0.0.0.0: whoever reaches this machine")


def test_a_guidance_that_is_the_runs_own_is_not_typed(conditional: Run):
    settings = Settings("ddim", 4, 0, 2, scale=2.0)
    assert "guidance" not in asked.words(conditional, settings)
    assert asked.words(conditional, replace(settings, scale=1.0)).endswith("guidance.scale=1")
