"""`python -m ddpm doctor`: the options it finds, the table, its verdicts and the exit code."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import ROOT

from ddpm.__main__ import main
from ddpm.app import doctor as app
from ddpm.app.doctor import Found, doctor, found_options
from ddpm.diffusion.schedules import linear
from ddpm.doctor import environment, examination
from ddpm.doctor.case import Case, judged
from ddpm.doctor.combinations import GROUPS
from ddpm.doctor.examination import ROOMS, Examined, examined

pytest_plugins = ("all_options",)


@pytest.mark.e2e
def test_every_yaml_of_the_groups_is_an_option(everything: Examined):
    for group in GROUPS:
        there = sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))
        assert [option.name for option in everything.catalogue[group]] == there


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of someone's own options, built from their own package."""
    (tmp_path / "someones.py").write_text(
        "import torch\n"
        "from ddpm.diffusion import NoiseSchedule\n"
        "def steep(num_timesteps=1000, last=0.5):\n"
        "    return NoiseSchedule(torch.linspace(1e-3, last, num_timesteps, dtype=torch.float64))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    conf = tmp_path / "my_conf"
    (conf / "schedule").mkdir(parents=True)
    (conf / "schedule" / "steep.yaml").write_text("_target_: someones.steep\nlast: 0.3\n")
    (conf / "sampler").mkdir()
    (conf / "sampler" / "heun.yaml").write_text("_target_: ddpm.diffusion.samplers.Heun\nnum_steps: 7\n")
    (conf / "objective").mkdir()
    (conf / "objective" / "foreign.yaml").write_text("_target_: someoneelses.Objective\n")
    (conf / "variance").mkdir()
    (conf / "variance" / "mistyped.yaml").write_text("_target_: ddpm.diffusion.variances.FixedLarger\n")
    (conf / "weighting").mkdir()
    (conf / "weighting" / "nested.yaml").write_text(
        f"_target_: ddpm.diffusion.weighting.MinSNR\ngamma: {{_target_: os.mkdir, path: {conf}/made}}\n"
    )
    return conf


@pytest.mark.e2e
def test_an_option_of_ones_own_is_found_covered_and_examined(own: Path):
    with found_options(own, ["someones"]) as options:
        found = examined(options.catalogue)
        names = [option.name for option in found.catalogue["schedule"]]
        assert "steep" in names
        assert "linear" in names
        assert sum(combination["schedule"].name == "steep" for combination in found.cover.combinations) >= 5
        (heun,) = (option for option in found.catalogue["sampler"] if option.name == "heun")
        assert heun.build().nfe(linear(40)) == 13, "one's own comes before the project's"
        assert list(options.broken) == ["objective=foreign", "variance=mistyped", "weighting=nested"]
        assert "weighting.gamma._target_=os.mkdir: is not in an allowed" in str(
            options.broken["weighting=nested"]
        )
        assert not (own / "made").exists()
        assert "allowed package" in str(options.broken["objective=foreign"])
        assert "FixedLarger" in str(options.broken["variance=mistyped"])
        cases = (case for case in ROOMS["forward process"](found) if "steep" in case.option)
        lines = judged(cases)
        assert [line.passed for line in lines] == [True] * 3


def test_it_cannot_pass_with_nothing_examined(
    capsys: pytest.CaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As where `conf/` was not installed."""
    monkeypatch.setattr(environment, "IMPORTED", ())
    monkeypatch.setattr(app, "CONF", tmp_path / "conf")
    assert doctor() == 1
    said = capsys.readouterr().out
    assert "0 combinations of 0 options" in said
    (line,) = (line for line in said.splitlines() if line.startswith("options"))
    assert line.rstrip().endswith("FAILED")
    assert "no options of schedule, objective" in said


def test_a_group_without_options_is_missed(everything: Examined):
    (line,) = app.lines_on_options(Found({**everything.catalogue, "weighting": []}, {}))
    assert not line.passed
    assert "no options of weighting were found" in line.why


@pytest.fixture
def two_lines(everything: Examined, monkeypatch: pytest.MonkeyPatch) -> list[Case]:
    """The doctor with two lines on mathematics, and none that takes the time of an import."""

    @contextmanager
    def found(*arguments: object) -> Iterator[Found]:
        yield Found(everything.catalogue, {})

    cases = [
        Case("noising", "schedule=linear", "one with the other", "T=40", lambda: 1e-12, 1e-8),
        Case("noising", "schedule=linear", "", "T=1000", lambda: 1e-11, 1e-8),
        Case("order", "sampler=heun", "how fast", "28 steps", lambda: 0.1, 0.2),
    ]
    monkeypatch.setattr(environment, "IMPORTED", ())
    monkeypatch.setattr(app, "found_options", found)
    monkeypatch.setattr(app, "examined", lambda catalogue: everything)
    monkeypatch.setattr(examination, "ROOMS", {"all": lambda found: iter(cases)})
    return cases


def test_the_table_is_whole_without_a_terminal(
    everything: Examined,
    two_lines: list[Case],
    capsys: pytest.CaptureFixture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    assert doctor() == 0
    said = capsys.readouterr().out
    (line,) = (line for line in said.splitlines() if "noising: schedule=linear" in line)
    assert [part.strip() for part in line.split("│")] == [
        "noising: schedule=linear", "one with the other", "1.0e-11", "1e-08", "ok",
    ]  # fmt: skip
    assert "\x1b" not in said
    assert f"cover all {everything.cover.pairs} pairs" in said
    assert "schedule=jsd with objective=epsilon" in said
    assert "none failed" in said
    assert list(tmp_path.iterdir()) == []


def test_a_line_that_fails_names_its_combination_and_ends_with_1(
    two_lines: list[Case], capsys: pytest.CaptureFixture
):
    def raises() -> float:
        raise RuntimeError("no such table")

    two_lines.insert(1, Case("noising", "schedule=linear", "", "the worst combination", lambda: 0.3, 1e-8))
    two_lines.insert(0, Case("bound", "variance=learned", "terms", "which raises", raises, 1e-8))
    two_lines.append(Case("loss", "weighting=p2", "value", "not a number", lambda: float("nan"), 1e-8))
    assert doctor() == 1
    said = capsys.readouterr().out
    for expected in (
        "the worst combination", "which raises: RuntimeError: no such table", "not a number", "3 failed"
    ):  # fmt: skip
        assert expected in said
    (green,) = (line for line in said.splitlines() if "order: sampler=heun" in line)
    assert green.rstrip().endswith("ok")


def test_an_environment_that_is_wrong_ends_with_1(
    two_lines: list[Case], capsys: pytest.CaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "logs").write_text("")
    monkeypatch.chdir(tmp_path)
    assert doctor() == 1
    assert "FAILED" in capsys.readouterr().out


def test_a_directory_that_is_not_there_ends_with_2(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sys.argv", ["ddpm", "doctor", "--config-dir", "nowhere"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "--config-dir nowhere: there is no such directory" in capsys.readouterr().err


@pytest.mark.slow
def test_the_whole_doctor_is_green(
    capsys: pytest.CaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert doctor() == 0, capsys.readouterr().out
