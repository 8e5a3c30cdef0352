"""Points lie where the search space says, the same seed draws the same points, and hparams reads like attributes."""

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from timetrial.errors import UserError
from timetrial.tuning import (
    Choice,
    Hparams,
    Integers,
    LogUniform,
    Uniform,
    check_search_space,
    default_point,
    halton_points,
    traced_names,
)


def bounds(values: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, Any]]:
    return st.tuples(values, values).map(lambda pair: (min(pair), max(pair)))


positive = st.floats(1e-12, 1e12)
distributions = (
    bounds(st.floats(-1e12, 1e12)).map(lambda b: Uniform(*b))
    | bounds(positive).map(lambda b: LogUniform(*b))
    | bounds(st.integers(-1000, 1000)).map(lambda b: Integers(*b))
    | st.lists(st.text() | st.booleans(), min_size=1, max_size=5).map(Choice)
)
spaces = st.dictionaries(st.from_regex(r"\A[a-z][a-z_]{0,5}\Z"), distributions, min_size=1, max_size=4)
seeds = st.integers(0, 2**64 - 1)


@given(space=spaces, seed=seeds, n=st.integers(1, 8))
def test_every_drawn_point_lies_within_its_bounds(space: Any, seed: int, n: int):
    points = halton_points(check_search_space(space), n, seed)
    assert len(points) == n
    for point in points:
        assert list(point) == list(space)
        for name, d in space.items():
            value: Any = point[name]
            assert value in d.values if isinstance(d, Choice) else d.low <= value <= d.high


@given(space=spaces, seed=seeds)
def test_one_seed_draws_the_same_points_and_fewer_are_a_prefix_of_more(space: Any, seed: int):
    assert halton_points(space, 5, seed) == halton_points(space, 5, seed)
    assert halton_points(space, 3, seed) == halton_points(space, 5, seed)[:3]


def test_another_seed_draws_other_points():
    space = {"learning_rate": LogUniform(1e-4, 1e-1)}
    assert halton_points(space, 4, seed=1) != halton_points(space, 4, seed=2)


def test_a_log_uniform_is_uniform_in_the_logarithm_and_a_uniform_in_the_value():
    points = halton_points({"lr": LogUniform(1e-6, 1e2), "beta": Uniform(-3, 5)}, 512, seed=7)
    log = [(math.log10(float(p["lr"])) + 6) / 8 for p in points]
    linear = [(float(p["beta"]) + 3) / 8 for p in points]
    assert stats.kstest(log, "uniform").pvalue > 0.5
    assert stats.kstest(linear, "uniform").pvalue > 0.5


def test_integers_and_choices_come_equally_often():
    points = halton_points({"n": Integers(-1, 2), "c": Choice(("a", "b", "c"))}, 1200, seed=0)
    n, c = Counter(p["n"] for p in points), Counter(p["c"] for p in points)
    assert set(n) == {-1, 0, 1, 2}
    assert max(abs(count - 300) for count in n.values()) < 15
    assert max(abs(count - 400) for count in c.values()) < 15


@given(low=positive, u=st.floats(0, 1, exclude_max=True))
def test_bounds_that_are_equal_leave_one_value_despite_rounding(low: float, u: float):
    assert Uniform(low, low).at(u) == LogUniform(low, low).at(u) == low


@pytest.mark.parametrize("d", [Integers(1, 3), Choice((1, 2, 3)), Uniform(1, 3), LogUniform(1e-3, 3)])
def test_the_last_quantile_is_still_within_bounds(d: Any):
    assert d.at(np.nextafter(1.0, 0.0)) <= 3


def test_a_list_of_points_is_used_as_it_stands_and_must_have_the_ruleset_s_number():
    points = [{"lr": 0.1}, {"lr": 0.2}]
    assert halton_points(points, 2, seed=0) == points
    with pytest.raises(UserError, match="lists 2 points, and the ruleset asks for exactly 3"):
        halton_points(points, 3, seed=0)


def test_the_default_point_is_each_default_or_else_the_median():
    space = {
        "a": Uniform(0, 4, default=0.0),
        "b": LogUniform(1e-2, 1),
        "c": Choice((True, False), default=False),
        "d": Integers(1, 3),
    }
    assert default_point(space) == {"a": 0.0, "b": pytest.approx(0.1), "c": False, "d": 2}
    assert default_point([{"lr": 0.1}, {"lr": 0.2}]) == {"lr": 0.1}


def test_an_empty_space_draws_empty_points():
    assert halton_points({}, 2, seed=0) == [{}, {}]


def test_drawn_numbers_are_traced_and_choices_are_not():
    space = {"lr": LogUniform(1e-3, 1), "n": Integers(1, 2), "c": Choice((1.0, 2.0))}
    assert traced_names(space) == {"lr", "n"}
    assert traced_names([{"lr": 0.1, "n": 1, "s": "x"}, {"lr": 0.2, "n": 2, "s": "y"}]) == {"lr"}


@pytest.mark.parametrize(
    ("space", "what"),
    [
        (3, "must be a mapping"),
        ("lr", "must be a mapping"),
        ([], "must be a mapping"),
        ({"lr": 0.1}, r"\['lr'\] must be Uniform"),
        ({"learning rate": Uniform(0, 1)}, "use a Python name"),
        ({"_lr": Uniform(0, 1)}, "use a Python name"),
        ({"lr": Uniform(1, 0)}, "low must not be above high"),
        ({"lr": Uniform(0, math.inf)}, "must be a finite number"),
        ({"lr": Uniform(0, 1, default=np.float32(0.5))}, "must be a finite number"),  # pyright: ignore[reportArgumentType]
        ({"lr": LogUniform(0, 1)}, "needs low above 0"),
        ({"lr": Uniform(0, 1, default=2)}, "lies outside"),
        ({"n": Choice(())}, "at least one value"),
        ({"n": Choice((1, 2), default=3)}, "none of the choices"),
        ({"n": Choice((1.0, math.inf))}, "must be a finite number, a string or a boolean, not inf"),
        ({"n": Choice([None])}, "must be a finite number"),  # pyright: ignore[reportArgumentType]
        ([{"lr": 0.1}, {"wd": 0.1}], "all with the same names"),
        ([{"lr": 0.1}, 0.2], "must be a mapping"),
        ([{"lr": None}], "must be a finite number"),
        ([{"lr": math.nan}], "must be a finite number"),
    ],
)
def test_what_is_no_search_space_is_refused_with_its_name(space: Any, what: str):
    with pytest.raises(UserError, match=what):
        check_search_space(space)


def test_hparams_reads_by_attribute_and_by_key_and_cannot_be_changed():
    values = {"learning_rate": 0.1}
    hparams = Hparams(values)
    values["learning_rate"] = 1.0
    assert hparams.learning_rate == hparams["learning_rate"] == 0.1
    assert dict(hparams) == {"learning_rate": 0.1}
    with pytest.raises(UserError, match=r"hparams\.learning_rate cannot be set"):
        hparams.learning_rate = 0.2


def test_an_unknown_hyperparameter_is_answered_with_the_nearest():
    hparams = Hparams({"learning_rate": 0.1})
    with pytest.raises(UserError, match="no hyperparameter 'learning_rat'; did you mean 'learning_rate'"):
        _ = hparams.learning_rat
    assert not hasattr(hparams, "beta")
    assert hparams.get("beta", 0.9) == 0.9
    assert "beta" not in hparams
