"""The benchmark score: its rules one by one, its invariants, and a second implementation to agree with."""

import math
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from timetrial_scoring import profiles
from timetrial_scoring.profiles import Structure, score_from_times

INF = math.inf
quick = settings(deadline=None, max_examples=50)
ONE = Structure(("a",), (0,))
TWO = Structure(("a", "b"), (0, 1))
HELD_OUT = Structure(("a", "b", "a_hard"), (0, 1, 0))


def score(times: list[list[list[float]]], structure: Structure) -> list[float]:
    return score_from_times(np.array(times, np.float64), structure).tolist()


def single(times: list[list[float]], structure: Structure) -> list[float]:
    """Scores of a board with one study."""
    return score([[[t] for t in row] for row in times], structure)


def naive(times: list[list[list[float]]], base_of: tuple[int, ...]) -> list[float]:
    """The rules (b) to (h), word for word, one number at a time, in exact fractions."""
    submissions, workloads = range(len(times)), range(len(base_of))
    reached: dict[tuple[int, int], Fraction | None] = {}
    for s, w in product(submissions, workloads):
        ordered = sorted(times[s][w])
        middle = ordered[(len(ordered) + 1) // 2 - 1]
        reached[s, w] = None if middle == INF else Fraction(middle)

    def best(w: int) -> Fraction | None:
        finite = [t for s in submissions if (t := reached[s, w]) is not None]
        return min(finite) if finite else None

    for s, w in product(submissions, workloads):
        if w != base_of[w] and reached[s, base_of[w]] is None:
            reached[s, w] = None
    limits = {w: best(w) for w in workloads}
    for s, w in product(submissions, workloads):
        time, limit = reached[s, w], limits[w]
        if time is not None and limit is not None and time > 4 * limit:
            reached[s, w] = None
    for s, w in product(submissions, workloads):
        if w != base_of[w] and reached[s, w] is None:
            reached[s, base_of[w]] = None
    bases = [w for w in workloads if base_of[w] == w]
    final = {w: best(w) for w in bases}
    scores = []
    for s in submissions:
        total = Fraction(0)
        for w in bases:
            time, fastest = reached[s, w], final[w]
            if time is not None and fastest is not None:
                total += min(max((4 - time / fastest) / 3, Fraction(0)), Fraction(1))
        scores.append(float(total / len(bases)))
    return scores


@st.composite
def boards(draw: st.DrawFn, submissions: int | None = None) -> tuple[np.ndarray, Structure]:
    """A random (S, W, K) board; times lie close together, so that ties and the 4 x limit both happen."""
    bases = draw(st.integers(1, 3))
    variant_of = draw(st.lists(st.integers(0, bases - 1), max_size=3))
    structure = Structure(tuple(f"w{w}" for w in range(bases + len(variant_of))), (*range(bases), *variant_of))
    shape = (submissions or draw(st.integers(1, 4)), bases + len(variant_of), draw(st.integers(1, 5)))
    time = st.one_of(st.integers(1, 20).map(float), st.floats(0.5, 100.0), st.just(INF))
    size = shape[0] * shape[1] * shape[2]
    return np.array(draw(st.lists(time, min_size=size, max_size=size))).reshape(shape), structure


def test_the_fastest_on_every_workload_scores_one():
    assert single([[1, 7], [2, 8]], TWO)[0] == 1.0


def test_credit_falls_linearly_from_the_best_time_to_four_times_it():
    assert single([[10], [20], [40], [25]], ONE) == pytest.approx([1.0, 2 / 3, 0.0, 0.5])


def test_a_workload_nobody_finishes_gives_nothing_and_still_counts_in_the_mean():
    assert single([[1, INF], [2, INF]], TWO) == pytest.approx([0.5, 1 / 3])


def test_the_median_over_an_even_number_of_studies_is_the_lower_one():
    assert score([[[1, 2, 3, 4]], [[2, 2, 2, 2]]], ONE) == [1.0, 1.0]


def test_a_study_that_never_reached_counts_as_the_slowest():
    assert score([[[1, INF, INF]], [[3, 3, 3]]], ONE) == [0.0, 1.0]


def test_a_variant_counts_for_nothing_where_its_base_is_not_reached():
    # If the first entry's time on the variant counted, the second's would be over 4 x the best.
    assert single([[INF, 1, 1], [10, 1, 100]], HELD_OUT) == [0.5, 1.0]


def test_a_base_counts_for_nothing_where_its_variant_is_not_reached():
    assert single([[1, 1, INF], [2, 1, 1]], HELD_OUT) == [0.5, 1.0]


def test_a_variant_slower_than_four_times_the_best_disqualifies_its_base():
    assert single([[1, 1, 41], [2, 1, 10]], HELD_OUT) == [0.5, 1.0]


def test_exactly_four_times_the_best_still_qualifies():
    assert single([[1, 1, 40], [2, 1, 10]], HELD_OUT) == [1.0, pytest.approx((2 / 3 + 1) / 2)]


def test_the_best_time_is_found_again_among_what_still_counts():
    # The first entry's time 1 would leave the third no credit; its variant is not reached, so 3 is the best.
    assert single([[1, 1, INF], [3, 1, 1], [4, 1, 1]], HELD_OUT)[2] == pytest.approx(((4 - 4 / 3) / 3 + 1) / 2)


def test_a_time_beyond_the_limit_set_by_a_disqualified_entry_stays_beyond_it():
    assert single([[1, 1, INF], [5, 1, 1]], HELD_OUT) == [0.5, 0.5]


@given(boards())
@quick
def test_a_naive_implementation_in_exact_fractions_agrees(board):
    times, structure = board
    assert score_from_times(times, structure) == pytest.approx(naive(times.tolist(), structure.base_of), abs=1e-12)


@given(boards(submissions=2), st.integers(2, 4))
@quick
def test_draws_on_a_leading_axis_are_scored_independently(board, draws):
    times, structure = board
    stacked = np.stack([times * (1 + d) if d % 2 else times[::-1] for d in range(draws)])
    expected = [score_from_times(one, structure) for one in stacked]
    assert (score_from_times(stacked, structure) == expected).all()


@given(boards())
@quick
def test_scores_lie_between_zero_and_one(board):
    scores = score_from_times(*board)
    assert ((scores >= 0) & (scores <= 1)).all()


@given(boards())
@quick
def test_first_to_every_target_scores_one(board):
    times, structure = board
    times[0] = np.minimum(times, 1e6).min() / 2
    assert score_from_times(times, structure)[0] == 1.0


@given(boards())
@quick
def test_nobody_finishing_gives_zero(board):
    times, structure = board
    assert (score_from_times(np.full_like(times, INF), structure) == 0).all()


@given(boards(), st.sampled_from([0.125, 2.0, 1024.0]))
@quick
def test_scaling_all_times_of_a_workload_changes_nothing(board, factor):
    times, structure = board
    scaled = times.copy()
    scaled[:, -1] *= factor
    assert (score_from_times(scaled, structure) == score_from_times(times, structure)).all()


@given(boards(), st.data())
@quick
def test_a_slower_trial_never_helps(board, data):
    times, structure = board
    s, w, k = (data.draw(st.integers(0, n - 1)) for n in times.shape)
    slower = times.copy()
    slower[s, w, k] *= data.draw(st.sampled_from([1.1, 3.0, INF]))
    assert score_from_times(slower, structure)[s] <= score_from_times(times, structure)[s] + 1e-12


@given(boards())
@quick
def test_a_submission_that_never_finishes_moves_no_one(board):
    times, structure = board
    longer = np.concatenate([times, np.full_like(times[:1], INF)])
    assert (score_from_times(longer, structure)[:-1] == score_from_times(times, structure)).all()


@given(boards(submissions=2))
@quick
def test_equal_times_score_equal(board):
    times, structure = board
    times[1] = times[0]
    first, second = score_from_times(times, structure)
    assert first == second


@given(boards())
@quick
def test_finer_trapezoids_approach_the_exact_score(board):
    times, structure = board
    ratios = profiles.performance_ratios(profiles.qualified_times(profiles.study_median(times), structure))
    exact = score_from_times(times, structure)
    for points in (100, 1000, 10_000):
        assert np.abs(profiles.trapezoid_scores(ratios, points=points) - exact).max() <= 1.0 / (points - 1)


def test_a_profile_is_the_share_of_workloads_within_a_ratio():
    ratios = np.array([[1.0, 2.0], [3.0, INF]])
    assert profiles.profile(ratios, np.array([1.0, 2.0, 3.0])).tolist() == [[0.5, 1.0, 1.0], [0.0, 0.0, 0.5]]


def test_leaving_a_workload_out_takes_its_variants_along():
    rest, kept = HELD_OUT.without("a")
    assert (rest, kept.tolist()) == (Structure(("b",), (0,)), [1])
    rest, kept = HELD_OUT.without("b")
    assert (rest, kept.tolist()) == (Structure(("a", "a_hard"), (0, 0)), [0, 2])
