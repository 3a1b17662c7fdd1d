"""The table, its verdicts and the exit code."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ddpm.__main__ import main
from ddpm.doctor import environment, examination
from ddpm.doctor.case import Case, judged
from ddpm.doctor.examination import Examined, all_cases, doctor

pytest_plugins = ("all_options",)


def test_every_line_is_green(everything: Examined):
    """By one case of each; all of them are examined by the slow test below."""
    lines = judged({(case.check, case.option): case for case in all_cases(everything)}.values())
    assert len(lines) > 90
    assert [line for line in lines if not line.passed] == []
    for group, options in everything.catalogue.items():
        spoken_of = {line.check.split(": ")[1] for line in lines}
        assert all(str(option) in spoken_of for option in options), group


@pytest.fixture
def two_lines(everything: Examined, monkeypatch: pytest.MonkeyPatch) -> list[Case]:
    """The doctor with two lines on mathematics, and none that takes the time of an import."""

    @contextmanager
    def found(*arguments: object) -> Iterator[Examined]:
        yield everything

    cases = [
        Case("noising", "schedule=linear", "one with the other", "T=40", lambda: (1e-12, 1e-8)),
        Case("noising", "schedule=linear", "", "T=1000", lambda: (1e-11, 1e-8)),
        Case("order", "sampler=heun", "how fast", "28 steps", lambda: (0.1, 0.2)),
    ]
    monkeypatch.setattr(environment, "IMPORTED", ())
    monkeypatch.setattr(examination, "examined", found)
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
    def raises() -> tuple[float, float]:
        raise RuntimeError("no such table")

    two_lines.insert(1, Case("noising", "schedule=linear", "", "the worst combination", lambda: (0.3, 1e-8)))
    two_lines.insert(0, Case("bound", "variance=learned", "terms", "which raises", raises))
    two_lines.append(Case("loss", "weighting=p2", "value", "not a number", lambda: (float("nan"), 1e-8)))
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


def test_a_room_that_cannot_be_set_up_is_a_line(two_lines: list[Case], monkeypatch: pytest.MonkeyPatch):
    def breaks(found: Examined):
        yield two_lines[0]
        raise RuntimeError("a sampler without a chain")

    monkeypatch.setattr(examination, "ROOMS", {"sampling": breaks, "all": lambda found: iter(two_lines)})
    lines = judged(all_cases(None))
    assert [line.check for line in lines if not line.passed] == ["sampling: all options"]
    assert "a sampler without a chain" in lines[1].why
    assert len(lines) == 3


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
