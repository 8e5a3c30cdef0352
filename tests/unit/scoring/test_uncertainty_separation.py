import itertools
from typing import Any

import numpy as np
import pytest
from scipy.stats import wilcoxon
from timetrial_scoring import separation
from timetrial_scoring.bootstrap import study_bootstrap
from timetrial_scoring.profiles import Structure
from timetrial_scoring.separation import (
    block_differences,
    holm,
    rank_intervals,
    separate,
    sign_flip_p_values,
    tied_groups,
)

TWO_FAMILIES = Structure(("a", "b", "a_held_out"), (0, 1, 0))
PLAIN = Structure(tuple("abcd"), (0, 1, 2, 3))
INF = np.inf


def test_one_pair_is_tested_by_wilcoxons_signed_ranks():
    rng = np.random.default_rng(0)
    times = np.exp(0.3 * rng.standard_normal((2, 4, 4)) + [[[0.0]], [[0.2]]])
    separation = separate(times, PLAIN, rng)
    tested: Any = wilcoxon(np.log(times[1] / times[0]).ravel(), method="exact")
    reference = float(tested.pvalue)
    assert separation is not None
    assert separation.p_value[0, 1] == pytest.approx(reference, abs=4 * np.sqrt(reference * (1 - reference) / 4999))


def test_p_values_are_those_of_enumerating_every_flip():
    rng = np.random.default_rng(1)
    numbers = rng.normal(0.5, 1.0, (4, 8))
    flips = np.array(list(itertools.product((-1, 1), repeat=8)))
    exact = (np.abs(flips @ numbers.T) >= np.abs(numbers.sum(axis=1)) - 1e-9).mean(axis=0)
    np.testing.assert_allclose(sign_flip_p_values(numbers, rng), exact, atol=0.03)


def test_holm_multiplies_by_the_hypotheses_left_and_keeps_the_order():
    np.testing.assert_allclose(holm(np.array([0.04, 0.01, 0.03, 0.5])), [0.09, 0.04, 0.09, 0.5])


def test_a_run_that_never_finishes_loses_to_one_that_does_and_ties_with_another():
    one = np.array([[[1.0, INF], [INF, 2.0], [1.0, 1.0]]])
    other = np.array([[[INF, INF], [3.0, 4.0], [1.0, 1.0]]])
    differences = block_differences(one, other, TWO_FAMILIES)
    np.testing.assert_allclose(differences, [[np.log(4) / 2, 0, -np.log(4), np.log(2)]])


def test_a_base_and_its_variant_are_one_block():
    assert block_differences(np.ones((1, 3, 5)), np.ones((1, 3, 5)), TWO_FAMILIES).shape == (1, 10)


def test_one_workload_cannot_decide_an_order():
    times = np.ones((2, 4, 4))
    times[1] = [0.9, 1.1, 0.95, 1.05]
    times[1, 0] = INF
    separation = separate(times, PLAIN, np.random.default_rng(0))
    assert separation is not None
    assert not separation.faster.any()


def test_swapping_two_submissions_swaps_the_claim():
    rng = np.random.default_rng(0)
    times = np.exp(0.05 * rng.standard_normal((2, 4, 5)) + [[[0.0]], [[0.3]]])
    claims = [separate(board, PLAIN, np.random.default_rng(5)) for board in (times, times[::-1])]
    assert claims[0] is not None
    assert claims[1] is not None
    assert claims[0].faster.tolist() == [[False, True], [False, False]]
    assert claims[1].faster.tolist() == [[False, False], [True, False]]


def test_ranks_are_open_between_submissions_that_are_not_separated():
    faster = np.zeros((4, 4), bool)
    faster[0, 2:] = faster[1, 3] = True
    scores = np.array([0.9, 0.8, 0.7, 0.2])
    assert rank_intervals(faster, scores).tolist() == [[1, 2], [1, 3], [2, 4], [3, 4]]
    assert tied_groups(faster, scores) == [(0, 1), (1, 2), (2, 3)]


def test_a_claim_against_the_order_of_the_scores_bounds_no_rank():
    faster = np.array([[False, True], [False, False]])
    assert rank_intervals(faster, np.array([0.3, 0.6])).tolist() == [[1, 2], [1, 2]]


def test_the_study_bootstrap_resamples_a_variant_with_its_base():
    rng = np.random.default_rng(0)
    base = np.exp(rng.standard_normal((3, 2, 5)))
    base[rng.random(base.shape) < 0.4] = INF
    plain = study_bootstrap(base, Structure(("a", "b"), (0, 1)), np.random.default_rng(1), 200)
    copied = study_bootstrap(base[:, [0, 1, 0]], TWO_FAMILIES, np.random.default_rng(1), 200)
    np.testing.assert_array_equal(plain, copied)


def test_p_values_do_not_depend_on_how_many_flips_are_held_at_once(monkeypatch):
    signed = np.random.default_rng(0).standard_normal((6, 15))
    whole = sign_flip_p_values(signed, np.random.default_rng(1))
    monkeypatch.setattr(separation, "AT_ONCE", 1000)
    assert sign_flip_p_values(signed, np.random.default_rng(1)).tolist() == whole.tolist()
