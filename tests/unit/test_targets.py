"""What runs with fresh seeds say of a target."""

import itertools
import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timetrial.errors import UserError
from timetrial.target import Target
from timetrial.targets import Run, conclusions, log_time_moved, order_statistic_interval, proportion, time_to


def run(best: float, *, curve: tuple[tuple[int, float], ...] = (), test: float = 0.5) -> Run:
    curve = curve or ((100, best + 0.2), (200, best + 0.1), (300, best))
    return Run(
        submission="adamw",
        hparams={"learning_rate": 0.1},
        study=2,
        trial=0,
        status="budget",
        workload_sha256="0" * 64,
        best=best,
        best_examples=300,
        curve=curve,
        test=dict.fromkeys((examples for examples, _ in curve), test),
    )


def test_the_target_is_the_median_of_the_best_values_and_the_test_target_the_worst_among_those_that_meet_it():
    fresh = [run(best, test=best + 0.01) for best in (0.31, 0.30, 0.35, 0.29, 0.40)]
    found = conclusions("error_rate", "lower", fresh)
    assert found["target"] == {"metric": "error_rate", "value": 0.31, "better": "lower"}
    assert found["test_target"]["value"] == 0.32
    assert found["reach_probability"]["share"] == 0.6
    assert (found["median_interval"]["low"], found["median_interval"]["high"]) == (0.29, 0.40)
    assert found["standard_deviation"] == pytest.approx(statistics.stdev((0.31, 0.30, 0.35, 0.29, 0.40)))


def test_where_more_is_better_the_target_is_rounded_down_and_the_worst_test_value_is_the_smallest():
    curves = [tuple((n, best * n / 300) for n in (100, 200, 300)) for best in (30.12347, 31.0, 29.0)]
    fresh = [run(c[-1][1], curve=c, test=t) for c, t in zip(curves, (25.0, 26.0, 27.0), strict=True)]
    found = conclusions("bleu", "higher", fresh)
    assert found["target"]["value"] == 30.12
    assert found["test_target"]["value"] == 25.0


def test_a_run_that_did_not_come_to_its_horizon_counts_as_one_that_misses():
    lost = run(math.inf, curve=((100, 0.9),))
    found = conclusions("error_rate", "lower", [run(0.3), run(0.31), run(0.32), lost])
    assert found["target"]["value"] == 0.32  # of an even number, the worse of the middle two
    assert found["reach_probability"] == pytest.approx(proportion(3, 4))


def test_too_few_runs_give_no_target():
    with pytest.raises(UserError, match="2 of 4 fresh seeds came to the horizon; a target needs 3"):
        conclusions("error_rate", "lower", [run(0.3), run(0.3), *[run(math.inf, curve=((1, 0.9),))] * 2])


def test_a_target_on_a_plateau_is_not_usable():
    flat = ((100, 0.5), (1000, 0.301), (10_000, 0.3))
    spread = [run(0.3 + d, curve=tuple((n, v + d) for n, v in flat)) for d in (-0.001, 0.0, 0.001)]
    steep = [run(0.3 + d, curve=((100, 0.5 + d), (200, 0.4 + d), (300, 0.3 + d))) for d in (-0.001, 0.0, 0.001)]
    assert not conclusions("error_rate", "lower", spread)["usable"]
    assert conclusions("error_rate", "lower", steep)["usable"]


def test_the_time_to_a_target_lies_between_the_evals_around_it_and_follows_the_best_so_far():
    curve = ((100, 1.0), (200, 0.5), (300, 0.8), (400, 0.4))
    assert time_to(Target("loss", 1.0, "lower"), curve) == 100
    assert time_to(Target("loss", 0.5, "lower"), curve) == 200
    assert time_to(Target("loss", 0.75, "lower"), curve) == pytest.approx(math.sqrt(100 * 200))
    assert time_to(Target("loss", 0.45, "lower"), curve) == pytest.approx(math.sqrt(300 * 400))
    assert time_to(Target("loss", 0.3, "lower"), curve) == math.inf


@given(st.floats(0.05, 0.9), st.floats(0.001, 0.09), st.floats(0.2, 3.0))
def test_on_a_power_law_the_log_time_moved_is_that_of_the_power_law(value: float, by: float, power: float):
    curve = tuple((n, n**-power) for n in (int(1.02**k * 50) for k in range(900)))
    target = Target("loss", value, "lower")
    if time_to(Target("loss", value + by, "lower"), curve) > 60 and time_to(target, curve) < math.inf:
        assert log_time_moved(target, by, [curve]) == pytest.approx(
            math.log((value + by) / value) / power, rel=0.02, abs=1e-3
        )


@pytest.mark.parametrize("n", [3, 5, 6, 8, 10])
def test_the_median_s_interval_covers_it_as_often_as_it_says(n: int):
    interval = order_statistic_interval(list(range(n)))
    below = [sum(signs) for signs in itertools.product((0, 1), repeat=n)]  # how many of n draws lie below the median
    low, high = int(interval["low"]), int(interval["high"])
    assert interval["coverage"] == statistics.fmean(low < count <= high for count in below)
    assert interval["coverage"] >= 0.95 or (low, high) == (0, n - 1)


def test_the_interval_of_a_share_covers_it_in_95_of_100_samples():
    draws = random.Random(0)
    for share in (0.1, 0.5, 0.8):
        intervals = [proportion(sum(draws.random() < share for _ in range(10)), 10) for _ in range(400)]
        assert statistics.fmean(i["low"] <= share <= i["high"] for i in intervals) >= 0.95
