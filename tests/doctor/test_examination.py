"""All checks together, on every option of conf/."""

import pytest

from ddpm.doctor import examination
from ddpm.doctor.case import Case, judged
from ddpm.doctor.examination import Examined, all_cases

pytest_plugins = ("all_options",)


@pytest.mark.e2e
def test_every_line_is_green(everything: Examined):
    """By one case of each; all of them are examined by the slow test below."""
    lines = judged({(case.check, case.option): case for case in all_cases(everything)}.values())
    assert len(lines) > 90
    assert [line for line in lines if not line.passed] == []
    for group, options in everything.catalogue.items():
        spoken_of = {line.check.split(": ")[1] for line in lines}
        assert all(str(option) in spoken_of for option in options), group


def test_a_room_that_cannot_be_set_up_is_a_line(monkeypatch: pytest.MonkeyPatch):
    def breaks(found: Examined):
        yield one
        raise RuntimeError("a sampler without a chain")

    one = Case("noising", "schedule=linear", "one with the other", "T=40", lambda: 1e-12, 1e-8)
    other = Case("order", "sampler=heun", "how fast", "28 steps", lambda: 0.1, 0.2)
    monkeypatch.setattr(examination, "ROOMS", {"sampling": breaks, "all": lambda found: iter([other])})
    lines = judged(all_cases(None))
    assert [line.check for line in lines if not line.passed] == ["sampling: all options"]
    assert "a sampler without a chain" in lines[1].why
    assert len(lines) == 3
