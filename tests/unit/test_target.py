"""When a target is met."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timetrial.target import Target


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False))
def test_lower_and_higher_agree_only_at_the_target_itself(value: float, measured: float):
    lower, higher = Target("m", value, "lower").met_by(measured), Target("m", value, "higher").met_by(measured)
    assert lower or higher
    assert (lower and higher) == (measured == value)


@pytest.mark.parametrize("better", ["lower", "higher"])
def test_nan_never_meets_a_target(better: str):
    assert not Target("m", 0.5, better).met_by(math.nan)  # pyright: ignore[reportArgumentType]


@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(["lower", "higher"]))
def test_a_target_is_the_same_after_json(value: float, better: str):
    target = Target("m", value, better)  # pyright: ignore[reportArgumentType]
    assert Target.from_json(target.to_json()) == target


@pytest.mark.parametrize(("value", "better"), [(math.nan, "lower"), (math.inf, "lower"), (0.5, "less")])
def test_a_target_that_cannot_be_judged_is_refused(value: float, better: str):
    with pytest.raises(ValueError, match="target of 'm'"):
        Target("m", value, better)  # pyright: ignore[reportArgumentType]


def test_a_target_says_itself_in_words():
    assert str(Target("error_rate", 0.25, "lower")) == "error_rate <= 0.25"
    assert str(Target("bleu", 30, "higher")) == "bleu >= 30"
