import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from timetrial_scoring.profiles import Structure
from timetrial_scoring.uncertainty import Assessment, assess

ONE = Structure(("a",), (0,))
FOUR = Structure(("a", "b", "a_held_out", "c"), (0, 1, 0, 3))
BUDGETS = np.full(4, 100.0)


def board(submissions=3, workloads=4, studies=3, seed=0, sd=0.08):
    rng = np.random.default_rng(seed)
    factors = 1.3 ** np.arange(submissions)[:, None, None]
    return np.asarray(10.0 * factors * np.exp(sd * rng.standard_normal((submissions, workloads, studies))), np.float64)


def arrays(value):
    """All arrays in an assessment, by name."""
    fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if value.separation is not None:
        fields["p_value"] = value.separation.p_value
    return {name: field for name, field in fields.items() if isinstance(field, np.ndarray)}


def test_one_study_makes_no_claim_at_all():
    value = assess(board(studies=1), BUDGETS, FOUR, seed=0, reference=0)
    assert value.separation is value.rank_ci is value.tied is None
    assert value.score_ci is value.speedup_ci is value.p_first is value.p_adjacent is value.study_bootstrap_ci is None
    assert set(value.reasons) == {"separation", "score_ci", "study_bootstrap_ci"}


def test_the_study_bootstrap_needs_five_studies():
    assert assess(board(studies=4), BUDGETS, FOUR, seed=0).study_bootstrap_ci is None
    assert assess(board(studies=5), BUDGETS, FOUR, seed=0).study_bootstrap_ci is not None


def test_the_same_seed_gives_the_same_assessment():
    one, two, other = (arrays(assess(board(studies=5), BUDGETS, FOUR, seed=seed)) for seed in (3, 3, 4))
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])
    assert (one["score_ci"] != other["score_ci"]).any()


@settings(deadline=None, max_examples=60)
@given(data=st.data(), submissions=st.integers(1, 4), studies=st.integers(1, 5), structure=st.sampled_from([ONE, FOUR]))
def test_no_board_makes_a_nan_or_an_interval_without_its_score(data, submissions, studies, structure):
    shape = (submissions, len(structure.workloads), studies)
    times = data.draw(hnp.arrays(np.float64, shape, elements=st.sampled_from([1.0, 1.1, 2.0, 7.0, 99.0, np.inf])))
    value = assess(times, BUDGETS[: shape[1]], structure, seed=0, draws=50, reference=0)
    for name, array in arrays(value).items():
        assert np.isfinite(array).all(), name
    for interval in (value.score_ci, value.study_bootstrap_ci, value.workload_bootstrap_ci):
        if interval is not None:
            assert ((interval >= 0) & (interval <= 1)).all()
            assert (interval[:, 0] <= interval[:, 1]).all()
    if value.score_ci is not None and value.p_first is not None:
        assert ((value.score_ci[:, 0] <= value.scores) & (value.scores <= value.score_ci[:, 1])).all()
        assert value.p_first.sum() == pytest.approx(1)
    if value.rank_ci is not None:
        rank = 1 + (value.scores[:, None] < value.scores).sum(axis=1)
        assert ((value.rank_ci[:, 0] <= rank) & (rank <= value.rank_ci[:, 1])).all()


def test_a_board_on_which_nobody_finishes_has_no_interval():
    value = assess(np.full((3, 4, 3), np.inf), BUDGETS, FOUR, seed=0, reference=0)
    assert value.score_ci is None
    assert "no submission finished" in value.reasons["score_ci"]
    assert value.separation is not None
    assert not value.separation.faster.any()


def test_a_submission_that_never_finishes_scores_exactly_zero_and_moves_no_claim():
    times = board()
    without = assess(times, BUDGETS, FOUR, seed=0)
    value = assess(np.concatenate([times, np.full((1, 4, 3), np.inf)]), BUDGETS, FOUR, seed=0)
    assert value.score_ci is not None
    assert value.p_first is not None
    assert value.score_ci[3].tolist() == [0, 0]
    assert value.p_first[3] == 0
    np.testing.assert_array_equal(value.scores[:3], without.scores)


def test_the_unit_of_time_changes_nothing():
    one = arrays(assess(board(), BUDGETS, FOUR, seed=0, reference=0))
    for name, array in arrays(assess(60 * board(), 60 * BUDGETS, FOUR, seed=0, reference=0)).items():
        np.testing.assert_allclose(array, one[name], rtol=1e-6, err_msg=name)


def test_ties_share_the_probability_of_being_first():
    value = assess(np.full((4, 4, 3), 5.0), BUDGETS, FOUR, seed=0)
    assert value.p_first is not None
    assert value.tied == [(0, 1, 2, 3)]
    np.testing.assert_allclose(value.p_first, 0.25)


def test_the_speedup_over_oneself_is_exactly_one():
    value = assess(board(), BUDGETS, FOUR, seed=0, reference=1)
    assert value.speedups is not None
    assert value.speedup_ci is not None
    assert value.speedup_ci[1].tolist() == [1, 1]
    assert value.speedup_ci[0, 0] < 1.3 < value.speedup_ci[0, 1]
    assert value.speedups[1] == 1


def test_a_clear_order_is_claimed_and_a_bare_one_is_not():
    clear = assess(board(workloads=4, sd=0.02, studies=5), BUDGETS, FOUR, seed=0)
    assert clear.separation is not None
    assert clear.rank_ci is not None
    assert clear.separation.faster.tolist() == [[False, True, True], [False, False, True], [False, False, False]]
    assert clear.rank_ci.tolist() == [[1, 1], [2, 2], [3, 3]]
    assert clear.tied == []
    bare = assess(board(workloads=1, studies=5), BUDGETS[:1], ONE, seed=0)
    assert bare.separation is not None
    assert not bare.separation.faster.any(), "five blocks cannot reach 5 %"


def test_a_partly_censored_cell_can_turn_out_either_way():
    times = board(submissions=2, sd=0.02)
    times[1, 1] = [97.0, 99.0, np.inf]
    times[0, 1] = [50.0, 51.0, 52.0]
    value: Assessment = assess(times, BUDGETS, FOUR, seed=0)
    assert value.score_ci is not None
    # Never on workload b costs a third of all credits less what 99 / 51 leaves of it.
    low, high = value.score_ci[1]
    assert high - low > 0.15


def test_assess_handles_every_pair_of_small_boards():
    for submissions, studies in itertools.product((1, 2), (1, 2)):
        value = assess(board(submissions, 1, studies), BUDGETS[:1], ONE, seed=0, draws=20)
        assert value.order.tolist() == list(range(submissions))
