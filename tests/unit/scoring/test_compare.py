"""The measures beside the score: anchored score, speed-ups, run-time distributions, spread over trials."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from timetrial_scoring import compare
from timetrial_scoring.profiles import Structure, score_from_times
from timetrial_scoring.robustness import eval_grid_ranges
from timetrial_scoring.score import score_folder

from timetrial.ruleset import Ruleset

INF = math.inf
TWO = Structure(("a", "b"), (0, 1))
HELD_OUT = Structure(("a", "a_hard"), (0, 0))
ANCHORS = np.array([10.0, 10.0])


@pytest.mark.parametrize(
    ("time", "credit"), [(2.5, 1.0), (10.0, 0.5), (40.0, 0.0), (1.0, 1.0), (INF, 0.0), (20.0, 0.25)]
)
def test_anchored_credit_is_linear_in_the_logarithm_between_a_quarter_and_four_times_the_anchor(time, credit):
    assert compare.anchored_scores(np.array([[time, time]]), TWO, ANCHORS) == pytest.approx([credit])


def test_the_anchored_score_does_not_move_when_the_pool_does():
    times = np.array([[8.0, 30.0], [1.0, INF]])
    assert compare.anchored_scores(times, TWO, ANCHORS)[0] == compare.anchored_scores(times[:1], TWO, ANCHORS)[0]


def test_a_base_whose_variant_is_not_reached_earns_nothing_against_the_anchor():
    assert compare.anchored_scores(np.array([[10.0, INF], [10.0, 99.0]]), HELD_OUT, ANCHORS[:1]).tolist() == [0.0, 0.5]


def test_anchors_are_none_unless_every_base_workload_has_one(rules):
    assert compare.anchors(Ruleset.from_json(rules)) is None
    rules["workloads"]["digits"]["anchor"] = 5.0
    assert compare.anchors(Ruleset.from_json(rules)) is None
    rules["workloads"]["words"]["anchor"] = 7.0
    anchors = compare.anchors(Ruleset.from_json(rules))
    assert anchors is not None
    assert anchors.tolist() == [5.0, 7.0]


def test_a_speedup_is_a_geometric_mean_in_which_no_workload_counts_for_more_than_four_times():
    times = np.array([[10.0, 40.0, INF], [20.0, 10.0, 5.0], [INF, INF, 1.0]])
    structure = Structure(("a", "b", "c"), (0, 1, 2))
    reference, other, disjoint = compare.speedups(times, structure, reference=0)
    assert (reference.factor, reference.workloads) == (1.0, 2)
    assert other.factor == pytest.approx((0.5 * 4.0 * 4.0) ** (1 / 3))
    assert other[1:] == (2, 1, 0)
    assert disjoint.factor == pytest.approx((0.25 * 0.25 * 4.0) ** (1 / 3))
    assert disjoint[1:] == (0, 1, 2)


@pytest.fixture
def board(log, rules, ruleset_file, tmp_path):
    def score(**digits):
        rules["workloads"]["digits"] |= digits
        rules["external"] = {"studies": 2, "trials": 2}
        return score_folder(tmp_path / "logs", ruleset=ruleset_file(rules)).boards[0]

    log("adam", "digits", [(10.0, 0.5), (20.0, 0.3), (40.0, 0.05)], study=0, trial=1)
    log("adam", "digits", [(10.0, 0.3), (80.0, 0.05)], study=0, trial=2)
    log("adam", "digits", [(10.0, 0.9), (20.0, 0.4)], study=1, trial=1)
    log("adam", "digits", [(10.0, 0.5), (20.0, 0.5)], study=1, trial=2)
    return score


def test_runtime_distributions_follow_the_trial_that_the_main_target_chose_else_the_nearest(board):
    scored = board(milestones=[0.3, 0.4])
    distribution = compare.runtime_distribution(scored.grid, scored.times)
    assert distribution is not None
    # Study 0, trial 1: 0.4 and 0.3 at 20 s, 0.1 at 40 s of 100. Study 1, trial 1: 0.4 at 20 s. `words`: nothing, twice.
    assert distribution["adam"].tolist() == [0.2, 0.2, 0.2, 0.4, INF, INF, INF, INF]


def test_without_milestones_there_is_no_runtime_distribution(board):
    scored = board()
    assert compare.runtime_distribution(scored.grid, scored.times) is None


def test_the_spread_covers_all_trials_of_all_studies(board):
    scored = board()
    assert compare.spread(scored.times, 0, 0) == compare.Spread(4, 2, 40.0, 40.0, 80.0)
    assert compare.spread(scored.times, 0, 1) == compare.Spread(0, 0, INF, INF, INF)


def test_a_study_cannot_have_crossed_before_the_earliest_of_its_trials_intervals(board):
    # Trial 1 crossed between 20 and 40, trial 2 between 10 and 80.
    assert board().times.charge_before[0, 0].tolist() == [10.0, INF]


@given(st.lists(st.tuples(st.floats(1.0, 100.0), st.floats(0.5, 1.0)), min_size=4, max_size=4))
@settings(deadline=None, max_examples=50)
def test_any_crossing_within_the_eval_grid_scores_within_its_range(pairs):
    charge = np.array([time for time, _ in pairs]).reshape(2, 2, 1)
    before = charge * np.array([share for _, share in pairs]).reshape(2, 2, 1)
    ranges = eval_grid_ranges(charge, before, TWO, score_from_times)
    for share in (0.0, 0.3, 1.0):
        scores = score_from_times(before + share * (charge - before), TWO)
        assert all(low - 1e-12 <= score <= high + 1e-12 for score, (low, high) in zip(scores, ranges, strict=True))
