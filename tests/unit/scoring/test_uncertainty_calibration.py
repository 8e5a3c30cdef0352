"""A small slice, of fixed seed, of benchmarks/calibration.py: it fails where claims or intervals stop being honest."""

import numpy as np
import pytest
from scipy.stats import binom
from timetrial_scoring.intervals import drawn_scores, geometric_speedups, score_intervals
from timetrial_scoring.log_times import draw_medians, fit
from timetrial_scoring.profiles import Structure, score_from_medians
from timetrial_scoring.separation import separate

STRUCTURE = Structure(tuple("abcdefgh"), tuple(range(8)))


def identical(_):
    return np.zeros((5, 8))


def draws_of(times, rng, budget=np.inf):
    model = fit(times, np.full(8, budget))
    assert model is not None
    return draw_medians(model, rng, 400)


def claims_of(times, rng):
    separation = separate(times, STRUCTURE, rng)
    assert separation is not None
    return separation.faster


def simulate(log_medians, boards, studies=3, study_sd=0.08, budget=np.inf, seed=0):
    for rng in np.random.default_rng(seed).spawn(boards):
        medians = np.asarray(log_medians(rng))
        residuals = 0.08 * rng.standard_normal((*medians.shape, studies))
        times = np.exp(medians[..., None] + study_sd * rng.standard_normal((8, studies)) + residuals)
        times[times > budget] = np.inf
        yield medians, times, rng


@pytest.mark.parametrize(("studies", "budget"), [(3, np.inf), (5, np.inf), (3, 1.1)])
def test_identical_submissions_are_rarely_separated(studies, budget):
    boards = 250
    claims = (claims_of(times, rng) for _, times, rng in simulate(identical, boards, studies, budget=budget))
    wrong = sum(claim.any() for claim in claims)
    assert wrong <= binom.ppf(0.99, boards, 0.05)


def test_submissions_fifteen_per_cent_apart_are_usually_separated():
    medians = np.repeat(np.log(1.15) * np.arange(5)[:, None], 8, axis=1)
    claims = [claims_of(times, rng) for _, times, rng in simulate(lambda _: medians, 60)]
    assert np.mean([claim[0, 1] for claim in claims]) > 0.8


@pytest.mark.parametrize("spread", [0.0, 0.05, 0.5])
def test_score_intervals_hold_the_true_score(spread):
    held = []
    for medians, times, rng in simulate(lambda rng: spread * rng.standard_normal((5, 8)), 100):
        low, high = score_intervals(draws_of(times, rng), STRUCTURE).T
        truth = score_from_medians(np.exp(medians), STRUCTURE)
        held.append((low <= truth + 1e-9) & (truth - 1e-9 <= high))
    assert np.mean(held) >= 0.93


def test_plain_percentiles_of_the_draws_would_not_hold_it():
    held = []
    for _, times, rng in simulate(identical, 40):
        high = np.quantile(drawn_scores(draws_of(times, rng).log_dsw(), STRUCTURE), 0.975, axis=0)
        held.append(high >= 1 - 1e-9)
    assert np.mean(held) < 0.5


def test_score_intervals_hold_the_true_score_where_budgets_cut():
    held = []
    for medians, times, rng in simulate(lambda rng: 0.3 * rng.standard_normal((5, 8)), 100, budget=1.25):
        low, high = score_intervals(draws_of(times, rng, budget=1.25), STRUCTURE).T
        truth = score_from_medians(np.where(medians > np.log(1.25), np.inf, np.exp(medians)), STRUCTURE)
        held.append((low <= truth + 1e-9) & (truth - 1e-9 <= high))
    assert np.mean(held) >= 0.93


def test_speedup_intervals_hold_the_true_speedup():
    medians = np.log([[1.0] * 8, [1.2] * 8])
    held = []
    for _, times, rng in simulate(lambda _: medians, 150):
        drawn = geometric_speedups(draws_of(times, rng).log_dsw(), 1, STRUCTURE)[:, 0]
        low, high = np.quantile(drawn, [0.025, 0.975])
        held.append(low <= 1.2 <= high)
    assert np.mean(held) >= 0.93
    assert np.mean(held) < 1, "intervals that never miss are too wide"
