"""Which differences mean something, in numbers and in words."""

from typing import Any

import numpy as np
import pytest

from ddpm.app.measuring.differences import WITHOUT, Pair, compared, lines
from ddpm.evaluation.kept import Evidence, Kept
from ddpm.evaluation.measures.paired import Difference

BITS = np.random.default_rng(3).normal(4.0, 0.5, 40)
ABOUT = {"of": {"nfe": 4}}


def run_of(bits: np.ndarray, right: np.ndarray) -> tuple[dict[str, Any], Kept]:
    kept = Kept()
    kept.keep("nll", "bits_per_dim", Evidence("mean", float(bits.mean()), (bits,)))
    kept.keep("pr", "precision", Evidence("share", float(right.mean()), (right,)))
    values = {
        "settings": {"metrics": {"nll": {}, "pr": {}, "mifid": {}, "own": {}}},
        "nll": {"bits_per_dim": float(bits.mean()), "standard_error": 0.08},
        "pr": {
            "precision40_train_pixels_ema_ddim4": float(right.mean()),
            "recall40_train_pixels_ema_ddim4": 0.5,
            "precision_interval": [0.1, 0.9],
            **ABOUT,
        },
        "mifid": {"mifid40_train_pixels_ema_ddim4": 3.0, **ABOUT},
        "own": {"mean_distance": [1, 2, 3]},
    }
    return values, kept


def runs(**bits: np.ndarray) -> tuple[dict[str, Any], dict[str, Kept]]:
    found = {name: run_of(values, values > 4) for name, values in bits.items()}
    return {name: one[0] for name, one in found.items()}, {name: one[1] for name, one in found.items()}


def test_every_pair_is_compared_by_every_value_that_can_be():
    found = compared(*runs(a=BITS, b=BITS + 0.2 + 0.01 * BITS, c=BITS))
    assert list(found) == ["nll", "precision", "recall", "mifid", "own"]
    assert [(pair.one, pair.other) for pair in found["nll"].pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    first, second, third = found["nll"].pairs
    assert first.better == "a"
    assert third.better == "c"
    assert (second.better, second.difference.value, second.adjusted) == (None, 0, 1)
    assert first.adjusted == pytest.approx(3 * first.difference.p_value)
    assert found["nll"].values()["pairs"][0] == {
        "one": "a",
        "other": "b",
        "difference": pytest.approx(-0.2 - 0.01 * BITS.mean()),
        "interval": [first.difference.low, first.difference.high],
        "p_value": first.difference.p_value,
        "p_value_adjusted": first.adjusted,
        "meaningful": True,
        "better": "a",
    }
    for name in ("recall", "mifid", "own"):
        assert found[name].values() == {"pairs": [], "why": WITHOUT}
    assert not found["own"].figures


def test_a_value_that_one_run_lacks_is_not_compared():
    values, kept = runs(a=BITS, b=BITS + 1)
    del kept["b"].evidence["nll", "bits_per_dim"]
    assert not compared(values, kept)["nll"].pairs
    assert compared(values, kept)["precision"].pairs


@pytest.mark.parametrize(
    ("difference", "higher_is_better", "sentence"),
    [
        (Difference(-1.2, -1.6, -0.8, 0.001), False, "A is better than B by 1.2 [0.8, 1.6] in x"),
        (Difference(-1.2, -1.6, -0.8, 0.001), True, "B is better than A by 1.2 [0.8, 1.6] in x"),
        (Difference(1.2, 0.8, 1.6, 0.001), False, "B is better than A by 1.2 [0.8, 1.6] in x"),
        (Difference(0.5, -0.5, 1.5, 0.4), False, "A and B do not differ in x beyond chance: 0.5 [-0.5, 1.5]"),
        (
            Difference(0.5, 0.1, 0.9, 0.06),
            False,
            "A and B do not differ in x beyond chance, as several pairs are compared: 0.5 [0.1, 0.9]",
        ),
        (
            Difference(0.5, float("nan"), float("nan"), float("nan")),
            False,
            "A and B cannot be told apart in x: too few images",
        ),
    ],
)
def test_a_pair_is_told_in_plain_words(difference: Difference, higher_is_better: bool, sentence: str):
    pair = Pair("A", "B", difference, difference.p_value, higher_is_better)
    assert pair.sentence("x") == sentence


def test_the_table_has_a_row_for_each_run_and_a_column_for_each_value():
    found = compared(*runs(a=BITS, bb=BITS))
    told = lines(found, ["a", "bb"])
    assert told[0].split() == ["run", "nll", "precision", "recall", "mifid"]
    assert [line.split()[0] for line in told[1:3]] == ["a", "bb"]
    assert all(line.index("0.5") == told[0].index("recall") for line in told[1:3])
    assert told[3].startswith("a and bb do not differ in nll beyond chance: 0 [")
    assert told[-1] == f"own: {WITHOUT}"
