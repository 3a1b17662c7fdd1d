"""Which rank keeps the others waiting."""

import pytest

from ddpm.runtime.peers.states import STARTING, Seen, State, behind, listed, read, told


def seen(
    rank: int,
    step: int = 5,
    within: tuple[int, int] = (3, 0),
    idle: float = 0.0,
    ago: float = 0.5,
    phase: str = "training",
    waiting: bool = False,
) -> Seen:
    state = State(
        rank, f"node{rank}", 100 + rank, phase=phase, step=step, within=list(within), idle=idle,
        waiting=waiting,
    )  # fmt: skip
    return Seen(state, ago)


def ranks(found: list[Seen]) -> list[int]:
    return [one.state.rank for one in found]


def test_nobody_is_behind_while_all_get_further():
    assert behind([seen(0), seen(1, idle=9), seen(2, step=6)], 10) == []


def test_in_a_step_that_nobody_ends_the_least_far_is_behind():
    everyone = [seen(0, within=(3, 2), idle=40), seen(1, within=(3, 1), idle=41), seen(2, idle=40)]
    assert ranks(behind(everyone, 30)) == [2]
    everyone[2] = seen(2, within=(3, 2), idle=40)
    assert ranks(behind(everyone, 30)) == [1]
    assert behind(everyone, 50) == []


def test_an_earlier_step_is_behind_a_later_one_however_far_within():
    assert ranks(behind([seen(0, step=6, within=(0, 0), idle=40), seen(1, within=(3, 2), idle=40)], 30)) == [
        1
    ]


def test_one_that_says_nothing_is_behind_those_that_wait_for_it():
    stopped = seen(1, step=7, ago=35)
    assert ranks(behind([seen(0, idle=34), stopped], 30)) == [1]
    assert ranks(behind([seen(0, idle=34), seen(1, ago=12)], 30)) == [1], "and soon for long enough"


def test_the_leader_alone_may_take_its_time_and_must_get_further():
    drawing, waits = seen(0, phase="grid"), seen(1, idle=4000, waiting=True)
    assert behind([drawing, waits], 30) == []
    assert ranks(behind([seen(0, phase="grid", idle=31), waits], 30)) == [0]
    assert ranks(behind([drawing, seen(1, waiting=True, ago=31)], 30)) == [1]


def test_start_up_takes_as_long_as_it_takes_while_all_speak():
    assert behind([seen(0, phase=STARTING, idle=4000), seen(1, phase=STARTING, idle=4000)], 30) == []
    assert ranks(behind([seen(0, phase=STARTING), seen(1, phase=STARTING, ago=31)], 30)) == [1]


def test_it_is_told_who_where_and_for_how_long():
    assert told([seen(1, idle=70.4, ago=0.6)]) == (
        "rank 1 on node1 (pid 101) has got no further for 1 min 11 s: at step 5, training"
    )
    assert told([seen(1, ago=90)]) == (
        "rank 1 on node1 (pid 101) has said nothing for 1 min 30 s: at step 5, training"
    )
    assert told([seen(i) for i in range(9)]).endswith("; and 5 more")
    assert listed([3]) == "rank 3"
    assert listed([1, 2]) == "ranks 1, 2"
    assert listed(list(range(1, 8))) == "ranks 1, 2, 3, 4 and 3 more"


@pytest.mark.parametrize(
    "values",
    [None, [], {}, {**vars(State(1)), "pid": "1; rm"}, {**vars(State(1)), "within": 3},
     {**vars(State(1)), "idle": "long"}, {**vars(State(1)), "host": 7}],
)  # fmt: skip
def test_what_is_no_state_is_not_taken_for_one(values: object):
    with pytest.raises(ValueError, match="no state"):
        read(values)
    assert read(vars(State(3, "a"))) == State(3, "a")
