"""A hierarchical model of log times, and draws of the true median times from it.

log t = mean of (submission, workload) + effect of (workload, study), common to all submissions + residual. Residual
variances are shrunk to their common value (Smyth 2004); a trial that never finished is a residual beyond the budget
(Tobin 1958). A true median is the median of infinitely many studies.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from timetrial_scoring.profiles import TAU_MAX

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
MEAN_POINTS, VARIANCE_POINTS = 200, 16
"""Grid of the posterior of a cell in which not all trials finished."""
ITERATIONS = 12
"""Of expectation and maximisation, where trials are censored."""
MIN_PRIOR_DF, MAX_PRIOR_DF = 2.0, 200.0


@dataclass(frozen=True, kw_only=True)
class LogTimeModel:
    """The fit to one board. Logarithms of times; a cell is a (submission, workload)."""

    residual_swk: Floats
    """Log times less study effects; inf where a trial never finished."""
    limit_wk: Floats
    """Log budgets less study effects."""
    variance_sw: Floats
    """Residual variance of a cell, shrunk to the common variance."""
    df_sw: Floats
    """Its degrees of freedom."""
    prior_variance: float
    prior_df: float
    level_variance: float
    """Variance of the mean of a workload's study effects: it moves all submissions against the budget alike."""


class _Additive(NamedTuple):
    fitted_swk: Floats
    effect_wk: Floats
    variance_sw: Floats
    df_sw: Floats
    prior_variance: float
    prior_df: float


def fit(times_swk: Floats, budgets_w: Floats) -> LogTimeModel | None:
    """The fit to (S, W, K) times; None where nothing tells the residual variance: one study, no cell finished twice.

    Expectation and maximisation: trials beyond the budget are given what the fit expects of them, in cells that
    finished at least once.
    """
    from scipy.special import log_ndtr

    log_swk = np.log(times_swk)
    studies = log_swk.shape[-1]
    finished = np.isfinite(log_swk)
    live = np.asarray(finished.any(axis=-1))
    if studies < 2 or not (finished.sum(axis=-1) >= 2).any():
        return None
    censored = live[..., None] & ~finished
    limit_swk = np.broadcast_to(np.log(budgets_w)[:, None], log_swk.shape)
    filled_swk = np.where(finished, log_swk, np.where(censored, limit_swk, 0.0))
    additive = _additive(filled_swk, np.zeros_like(filled_swk), live)
    for _ in range(ITERATIONS if censored.any() else 0):
        sd_swk = np.sqrt(np.maximum(additive.variance_sw, 1e-12))[..., None]
        edge_swk = np.clip((limit_swk - additive.fitted_swk) / sd_swk, -30.0, 30.0)
        log_tail = np.asarray(log_ndtr(-edge_swk), np.float64)
        hazard_swk = np.exp(-0.5 * edge_swk**2 - log_tail) / np.sqrt(2 * np.pi)
        filled_swk = np.where(censored, additive.fitted_swk + sd_swk * hazard_swk, filled_swk)
        left_over = np.where(censored, sd_swk**2 * (1 + edge_swk * hazard_swk - hazard_swk**2), 0.0)
        additive = _additive(filled_swk, left_over, live)
    cells_w = live.sum(axis=0)
    shared_w = cells_w >= 2
    level_w = np.square(additive.effect_wk).sum(axis=-1) / (studies - 1) - additive.prior_variance / np.maximum(
        cells_w, 1
    )
    return LogTimeModel(
        residual_swk=log_swk - additive.effect_wk,
        limit_wk=np.log(budgets_w)[:, None] - additive.effect_wk,
        variance_sw=additive.variance_sw,
        df_sw=additive.df_sw,
        prior_variance=additive.prior_variance,
        prior_df=additive.prior_df,
        level_variance=max(0.0, float(np.mean(level_w[shared_w]))) / studies if shared_w.any() else 0.0,
    )


def _additive(filled_swk: Floats, left_over_swk: Floats, live: Bools) -> _Additive:
    """Means, study effects and shrunk variances; `left_over_swk` is the variance of the times filled in."""
    studies = filled_swk.shape[-1]
    # Study effects are told from residuals where two or more cells are live; their share of the freedom is lost.
    cells_w = live.sum(axis=0)
    shared_w = cells_w >= 2
    kept_w = np.where(shared_w, 1 - 1 / np.maximum(cells_w, 2), 1.0)
    df_sw = np.where(live, (studies - 1) * kept_w, 0.0)
    mean_sw = filled_swk.mean(axis=-1)
    deviation_swk = np.where(live[..., None], filled_swk - mean_sw[..., None], 0.0)
    effect_wk = np.where(shared_w[:, None], deviation_swk.sum(axis=0) / np.maximum(cells_w, 1)[:, None], 0.0)
    squares_sw = ((deviation_swk - effect_wk) ** 2 / kept_w[:, None] + left_over_swk).sum(axis=-1)
    sample_sw = np.where(live, squares_sw / (studies - 1), 0.0)
    prior_variance, prior_df = pooled_variance(sample_sw[live], df_sw[live])
    return _Additive(
        fitted_swk=mean_sw[..., None] + effect_wk,
        effect_wk=effect_wk,
        variance_sw=(prior_df * prior_variance + df_sw * sample_sw) / (prior_df + df_sw),
        df_sw=prior_df + df_sw,
        prior_variance=prior_variance,
        prior_df=prior_df,
    )


def pooled_variance(sample_c: Floats, df_c: Floats) -> tuple[float, float]:
    """The scale and the degrees of freedom of the inverse chi-squared law that the cells' variances come from.

    By the moments of their logarithms (Smyth 2004, section 6.2). Variances of 0, which a coarse eval grid makes, count
    as a thousandth of the mean.
    """
    from scipy.special import digamma, polygamma

    mean = float(np.average(sample_c, weights=df_c))
    if mean == 0:
        return 0.0, MAX_PRIOR_DF
    log_variance = np.log(np.maximum(sample_c, 1e-3 * mean))
    shifted = np.asarray(log_variance - digamma(df_c / 2) + np.log(df_c / 2), np.float64)
    chance = np.asarray(polygamma(1, df_c / 2), np.float64)
    excess = float(np.var(shifted, ddof=1) - np.mean(chance)) if len(shifted) > 1 else 0.0
    candidates = np.geomspace(MIN_PRIOR_DF, MAX_PRIOR_DF, 200)
    trigamma = np.asarray(polygamma(1, candidates / 2), np.float64)
    prior_df = float(candidates[np.argmin(np.abs(trigamma - excess))])
    scale = float(np.exp(np.mean(shifted) + float(digamma(prior_df / 2)) - np.log(prior_df / 2)))
    return scale, prior_df


_LARGEST_LOG = 200.0


@dataclass(frozen=True, kw_only=True)
class MedianDraws:
    """Draws of every cell's true median time."""

    unlimited_dsw: Floats
    """Logarithms (D, S, W), as if there were no budget; inf where the cell is taken as never finished."""
    limit_d1w: Floats
    """Log budgets, less a draw of the workload's mean study effect."""
    error_sw: Floats
    """Standard error of a cell's log median."""

    def log_dsw(self, grace: float = 0.0) -> Floats:
        """(D, S, W): the logarithms, inf beyond the budget; `grace`, in standard errors, moves the budget.

        Two studies can leave a variance so open that a draw has no exponential; draws stay within e^-200 and e^200.
        """
        beyond = self.unlimited_dsw > self.limit_d1w + grace * self.error_sw
        return np.where(beyond, np.inf, np.clip(self.unlimited_dsw, -_LARGEST_LOG, _LARGEST_LOG))


def draw_medians(model: LogTimeModel, rng: np.random.Generator, draws: int) -> MedianDraws:
    """Draws of every cell's true median time, from its posterior under flat priors of means.

    A cell that no trial finished stays so in every draw, unless both its submission and its workload have complete
    cells to tell how near it may have been.
    """
    finished = np.isfinite(model.residual_swk)
    submissions, workloads, studies = finished.shape
    complete = np.asarray(finished.all(axis=-1))
    mean_sw = np.where(complete[..., None], model.residual_swk, 0.0).mean(axis=-1)
    noise = rng.standard_t(np.broadcast_to(model.df_sw, (draws, submissions, workloads)))
    log_dsw = np.where(complete, mean_sw + noise * np.sqrt(model.variance_sw / studies), np.inf)
    prior = _additive_prediction(mean_sw, complete)
    incomplete = ~complete & (finished.any(axis=-1) | np.isfinite(prior.spread_sw))
    if incomplete.any():
        log_dsw[:, incomplete] = _draw_censored(model, incomplete, prior, rng, draws)
    level = rng.standard_normal((draws, 1, workloads)) * np.sqrt(model.level_variance)
    error_sw = np.sqrt(model.variance_sw / studies + model.level_variance)
    return MedianDraws(unlimited_dsw=log_dsw, limit_d1w=model.limit_wk.mean(axis=-1) - level, error_sw=error_sw)


class _Prior(NamedTuple):
    expected_sw: Floats
    spread_sw: Floats
    """inf where the complete cells do not determine a cell."""
    df: int


def _additive_prediction(mean_sw: Floats, complete: Bools) -> _Prior:
    """What log times would be if submissions differed by factors alone: least squares over the complete cells."""
    submission, workload = np.nonzero(complete)
    in_row, in_column = complete.sum(axis=1), complete.sum(axis=0)
    freedom = len(submission) - int((in_row > 0).sum()) - int((in_column > 0).sum()) + 1
    if freedom < 1:
        return _Prior(np.zeros_like(mean_sw), np.full_like(mean_sw, np.inf), 1)
    rows, columns = np.eye(len(in_row)), np.eye(len(in_column))
    design = np.hstack([rows[submission], columns[workload]])
    effects = np.linalg.lstsq(design, mean_sw[complete], rcond=None)[0]
    expected = effects[: len(in_row), None] + effects[len(in_row) :]
    variance = ((mean_sw - expected)[complete] ** 2).sum() / freedom
    determined = (in_row[:, None] > 0) & (in_column > 0)
    terms = 1 + 1 / np.maximum(in_row, 1)[:, None] + 1 / np.maximum(in_column, 1)
    return _Prior(expected, np.where(determined, np.sqrt(variance * terms), np.inf), freedom)


def _draw_censored(
    model: LogTimeModel, incomplete: Bools, prior: _Prior, rng: np.random.Generator, draws: int
) -> Floats:
    """(D, C): the means of the cells `incomplete`, from their posterior on a grid of means and variances.

    The mean's prior is Student's t, or flat where `prior` tells nothing; the variance's is the common one.
    """
    from scipy.special import log_ndtr
    from scipy.stats import chi2

    log_ck = model.residual_swk[incomplete]
    limit_ck = np.broadcast_to(model.limit_wk, model.residual_swk.shape)[incomplete]
    expected_c, spread_c = prior.expected_sw[incomplete], prior.spread_sw[incomplete]
    variance = max(model.prior_variance, 1e-8)
    censored = np.isinf(log_ck)
    shares = (np.arange(VARIANCE_POINTS) + 0.5) / VARIANCE_POINTS
    sd_g = np.sqrt(model.prior_df * variance / np.asarray(chi2.ppf(shares, model.prior_df), np.float64))
    informed = np.isfinite(spread_c)
    spread = np.where(informed, np.maximum(spread_c, 1e-9), 1.0)
    lowest = np.where(censored, limit_ck, log_ck).min(axis=1) - 6 * np.sqrt(variance)
    highest = limit_ck.max(axis=1) + np.where(informed, 4 * spread, np.log(TAU_MAX))
    highest = np.maximum(highest, np.where(informed, expected_c + 4 * spread, -np.inf))
    step = (highest - lowest) / MEAN_POINTS
    mean_cm = lowest[:, None] + step[:, None] * (np.arange(MEAN_POINTS) + 0.5)
    surprise_cm = ((mean_cm - expected_c[:, None]) / spread[:, None]) ** 2 / prior.df
    log_prior = np.where(informed[:, None], -0.5 * (prior.df + 1) * np.log1p(surprise_cm), 0.0)
    log_posterior = np.repeat(log_prior[..., None], VARIANCE_POINTS, axis=2)
    for log_c, limit_c, censored_c in zip(log_ck.T, limit_ck.T, censored.T, strict=True):
        standard = (mean_cm - np.where(censored_c, limit_c, log_c)[:, None])[..., None] / sd_g
        log_posterior[censored_c] += np.asarray(log_ndtr(standard[censored_c]), np.float64)
        log_posterior[~censored_c] -= 0.5 * standard[~censored_c] ** 2 + np.log(sd_g)
    weight_cm = np.exp(log_posterior - log_posterior.max(axis=(1, 2), keepdims=True)).sum(axis=2)
    drawn = np.empty((draws, len(log_ck)))
    for cell, weight_m in enumerate(weight_cm):
        point = np.searchsorted(np.cumsum(weight_m), rng.uniform(0, weight_m.sum(), draws))
        drawn[:, cell] = lowest[cell] + step[cell] * (np.minimum(point, MEAN_POINTS - 1) + rng.uniform(size=draws))
    return drawn
