"""What is searched, read from Hydra's grammar."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from ddpm.app import arguments
from ddpm.app.sweeps.space import Parameter, described, parameter
from ddpm.errors import UsageError


def read(word: str) -> Parameter:
    return parameter(OverridesParser.create().parse_override(word), arguments.read([]))


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("++a=tag(log, interval(1e-4, 1e-2))", Parameter("++a", (), 1e-4, 1e-2, log=True)),
        ("a=interval(0,3)", Parameter("a", (), 0.0, 3.0)),
        ("a=int(interval(1,8))", Parameter("a", (), 1, 8, whole=True)),
        ("a=tag(int,interval(1,8))", Parameter("a", (), 1, 8, whole=True)),
        ("a=tag(log,int(interval(1,8)))", Parameter("a", (), 1, 8, log=True, whole=True)),
        ("a=range(1,10,2)", Parameter("a", (), 1, 9, step=2, whole=True)),
        ("a=range(4,0,-1)", Parameter("a", (), 1, 4, step=1, whole=True)),
        ("a=range(0,1,0.25)", Parameter("a", (), 0, 0.75, step=0.25)),
        ("a=tag(log,range(1,101))", Parameter("a", (), 1, 100, log=True, whole=True)),
        ("a=choice(x,y,x)", Parameter("a", ("x", "y"))),
        ("a=1,2", Parameter("a", ("1", "2"))),
        ("a=[1,2],[3]", Parameter("a", ("[1,2]", "[3]"))),
        ("variance=glob(fixed*)", Parameter("variance", ("fixed_large", "fixed_small"))),
    ],
)
def test_the_grammar(word: str, found: Parameter):
    assert read(word) == found


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("a=interval(2,1)", "a=interval(2,1): must lead from a number to a greater one"),
        ("a=interval(1,1)", "to a greater one"),
        ("a=interval(1,inf)", "to a greater one"),
        ("a=interval(nan,1)", "to a greater one"),
        ("a=tag(log,interval(0,1))", "begins above 0"),
        ("a=tag(int,interval(0.5,2))", "whole numbers lie between whole numbers"),
        ("a=range(3,1)", "ends before STOP"),
        ("a=tag(log,range(1,9,2))", "has no steps"),
        ("a=tag(lg,interval(1,2))", "there is no tag lg; there are log, int"),
        ("a=tag(log,choice(1,2))", "choices have no order"),
        ("a=choice(1)", "several values to choose from"),
        ("schedule=glob(lines*)", "no option is called so"),
    ],
)
def test_what_makes_no_sense(word: str, said: str):
    with pytest.raises(UsageError) as error:
        read(word)
    assert said in str(error.value)


def test_a_number_is_short_and_stays_inside():
    rate = read("++a=tag(log,interval(0.000123454,0.01))")
    assert rate.override(0.0031415926535) == "++a=0.0031416"
    assert rate.override(0.000123454) == "++a=0.000123454", "rounded down it would be outside"
    assert read("a=int(interval(1,300000))").override(123457) == "a=123457"


def test_samples_are_its_ends_and_something_between():
    assert read("a=interval(32,64)").samples == ["a=32.0", "a=44.224", "a=64.0"]
    assert read("a=range(0,1,0.25)").samples == ["a=0.0", "a=0.25", "a=0.75"]
    assert read("a=tag(log,interval(1e-4,1e-2))").samples == ["a=0.0001", "a=0.001", "a=0.01"]
    assert read("a=x,y").samples == ["a=x", "a=y"]


def test_what_is_kept_tells_spaces_apart():
    words = ["a=interval(1,2)", "a=int(interval(1,2))", "a=tag(log,interval(1,2))", "a=1,2", "a=range(1,3)"]
    assert len({described([read(word)])["a"] for word in words}) == 5
    assert described([read("++b=1,2"), read("a=1,2")]) == described([read("a=choice(1,2)"), read("b=1,2")])
