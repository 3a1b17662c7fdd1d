"""What other ranks warn of stands in the run's one log, by rank, and once."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, run_program

from ddpm.app import one_log
from ddpm.app.one_log import MOST_KEPT, FromRanks, ToLeader, named


@pytest.fixture
def other(request: pytest.FixtureRequest) -> Iterator[tuple[logging.Logger, ToLeader]]:
    """The logger of a rank that is not the leader."""
    logger, handler = logging.getLogger(request.node.name), ToLeader()
    logger.addHandler(handler)
    yield logger, handler
    logger.removeHandler(handler)


def test_warnings_wait_for_the_leader_and_errors_do_not(other: tuple[logging.Logger, ToLeader]):
    logger, handler = other
    told: list[str] = []
    logger.warning("before %s", "all")
    logger.error("an error")
    logger.info("nothing")
    assert told == []
    handler.tell(told.append)
    logger.warning("x" * 10_000)
    assert told == ["before all", "x" * one_log.LONGEST]


def test_what_nobody_asks_for_is_not_kept_for_ever(other: tuple[logging.Logger, ToLeader]):
    logger, handler = other
    for number in range(MOST_KEPT + 5):
        logger.warning("%d", number)
    told: list[str] = []
    handler.tell(told.append)
    assert told == [str(number) for number in range(5, MOST_KEPT + 5)]


def test_the_leader_says_once_what_several_ranks_have_warned_of(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    leader = FromRanks()
    monkeypatch.setattr(one_log.log, "handlers", [leader])
    for rank, text in [(2, "slow disk"), (1, "slow disk"), (1, "slow disk"), (3, "the leader's own")]:
        leader.hear(rank, text)
    leader.say()
    assert caplog.messages == [], "it may say the same in a moment"
    one_log.log.warning("the leader's own")
    leader.say(all_of_it=True)
    assert caplog.messages == ["the leader's own", "ranks 1, 2: slow disk"]
    leader.hear(1, "slow disk")
    leader.say(all_of_it=True)
    assert len(caplog.messages) == 2


@pytest.mark.parametrize(
    ("ranks", "words"),
    [([3], "rank 3"), ([2, 1], "ranks 1, 2"), (list(range(1, 64)), "ranks 1, 2, 3, ... 63")],
)
def test_ranks_in_words(ranks: list[int], words: str):
    assert named(ranks) == words


@pytest.mark.e2e
@pytest.mark.slow
def test_the_log_of_two_devices_holds_what_both_say(tmp_path: Path):
    outcome = run_program(
        "train.py", "experiment=smoke", "trainer.accelerator=cpu", "trainer.devices=2", "logger=none",
        "trainer.max_steps=3", "callbacks.samples=null", "callbacks.warns._target_=warns.Warns",
        "allow_targets=[warns]", "hydra.run.dir=run", cwd=tmp_path,
        env={"PYTHONPATH": f"{ROOT / 'tests' / 'extensions'}:{ROOT / 'src'}"},
    )  # fmt: skip
    assert outcome.returncode == 0, outcome.said
    log = [line.split(maxsplit=2)[2] for line in (tmp_path / "run" / "train.log").read_text().splitlines()
           if line.count(" by ") or "an error" in line]  # fmt: skip
    assert sorted(log) == [
        "ERROR an error of 0", "ERROR rank 1: an error of 1",
        "WARNING logged by 0", "WARNING rank 1: logged by 1", "WARNING seen by all",
    ]  # fmt: skip
    for line in log:
        assert line.partition(" ")[2] in outcome.said
