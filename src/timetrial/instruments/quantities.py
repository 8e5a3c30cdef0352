"""The formulas of the instruments: numbers from sums that the device has made. 64-bit floats, no jax.

In all of them: b rows of a probe batch, of which row n has the loss f_n and the gradient g_n; g their mean; S the
covariance of g_n, unbiased; B rows of a training batch; u the step that was taken, from theta to theta + u. Where the
probe batch is smaller than the training batch, formulas that the papers give for the training batch's own gradient
take what a batch of B rows is expected to show.
"""

import math
from typing import NamedTuple

import numpy as np

Floats = np.ndarray


class Moments(NamedTuple):
    """What is known of the gradient's distribution."""

    variance: float
    """tr S: how far a row's gradient is from the mean, squared."""
    square: float
    """|G|^2 of the whole data's gradient G, unbiased: |g|^2 - tr S / b. Noise can make it negative."""

    @property
    def noise_scale(self) -> float:
        """The simple noise scale tr S / |G|^2: the batch size from which on noise matters less than the gradient.

        McCandlish et al. 2018, equation 2.9 and appendix A.1, with 1 and b rows for the two batch sizes. Infinite where
        the probe batch shows no gradient but noise; ratios of means over several looks are steadier (ibid.).
        """
        return self.variance / self.square if self.square > 0 else math.inf


def moments(sum_of_squares: float, gradient_norm: float, rows: int) -> Moments:
    """From the sum over rows of |g_n - g|^2, and |g|."""
    variance = sum_of_squares / (rows - 1)
    return Moments(variance, gradient_norm**2 - variance / rows)


class Tests(NamedTuple):
    """The least tolerances with which tests of the batch size pass: 0 without noise, 1 where there is nothing else."""

    norm: float
    """theta of the norm test (Byrd, Chin, Nocedal and Wu 2012, equation 3.9)."""
    inner_product: float
    """theta of the inner product test (Bollapragada, Byrd and Nocedal 2018, equation 2.6)."""
    orthogonality: float
    """nu of the orthogonality test (ibid., equation 3.3)."""


def gradient_tests(found: Moments, along: Floats, gradient_norm: float, batch_size: int) -> Tests:
    """The three tests for a batch of `batch_size` rows; `along` holds the inner products of g_n and g, (b,).

    theta^2 = tr S / (B |g_B|^2), with |g_B|^2 = |G|^2 + tr S / B, which is |g|^2 where b = B. The variance of g_n along
    g is the inner product test's part of tr S, what is left the orthogonality test's: their squares add up.
    """
    noise = found.variance / batch_size
    expected = max(found.square, 0.0) + noise
    if not found.variance > 0:
        return Tests(0.0, 0.0, 0.0) if found.variance == 0 else Tests(math.nan, math.nan, math.nan)
    share = min(1.0, float(np.var(along, ddof=1)) / (gradient_norm**2 * found.variance)) if gradient_norm > 0 else 0.0
    norm = noise / expected
    return Tests(math.sqrt(norm), math.sqrt(norm * share), math.sqrt(norm * (1 - share)))


class Line(NamedTuple):
    """What is seen of the loss along u, row by row: f_n and its slope, the inner product of g_n and u."""

    losses: Floats
    slopes: Floats


def alpha(start: Line, end: Line) -> float:
    """Where a step ends on the parabola that fits what is seen of the loss at its two ends.

    -1: it does not move; 0: at the minimum; 1: on the other side, as high as it began; above 1: higher; below -1: away
    from the minimum. A parabola that is open below gives -1, as in Cockpit. Schneider, Dangel and Hennig 2021,
    section 3.1: the parabola has maximum likelihood where means of losses and slopes have independent Gaussian noise.
    """
    seen = (start.losses, end.losses, start.slopes, end.slopes)
    means = np.array([np.mean(x, dtype=np.float64) for x in seen])
    variances = np.array([np.var(x, ddof=1, dtype=np.float64) for x in seen])
    if not (np.isfinite(means).all() and np.isfinite(variances).all()):
        return math.nan
    if not (start.slopes.any() or end.slopes.any()):
        return -1.0
    # Without noise all four count alike; with the slopes of a step of length 1, losses and slopes have one unit.
    floor = 1e-10 * (variances.max() or 1.0)
    weight = 1 / np.sqrt(np.maximum(variances, floor))
    design = np.array([[1, 0, 0], [1, 1, 1], [0, 1, 0], [0, 1, 2]], np.float64)  # f(0), f(1), f'(0), f'(1)
    (_, slope, bend), *_ = np.linalg.lstsq(design * weight[:, None], means * weight)
    if bend <= 0:
        return -1.0
    return -2 * bend / slope - 1 if slope != 0 else math.inf


def cosine(slope: float, gradient_norm: float, update_norm: float) -> float:
    """Of u and -g; NaN where one of them is zero."""
    size = gradient_norm * update_norm
    return -slope / size if size > 0 else math.nan


def cabs(learning_rate: float, variance: float, loss: float) -> float:
    """The batch size that fits the learning rate: eta tr S / f (Balles, Romero and Hennig 2017, equation 22).

    Derived for SGD without momentum and a loss whose minimum is 0.
    """
    return learning_rate * variance / loss if loss > 0 else math.nan


def early_stopping(signal_to_noise: float, rows: int) -> float:
    """1 - b times the mean over parameters of g^2 / S: above 0 the gradient is what noise alone would give.

    Mahsereci, Balles, Lassner and Hennig 2017, equation 7.
    """
    return 1 - rows * signal_to_noise


def tic_trace(variance: float, gradient_norm: float, rows: int, hessian_trace: float) -> float:
    """Tr C / tr H, with C the mean of g_n g_n' (Thomas et al. 2020, section 3.3): Takeuchi's criterion, roughly.

    NaN where the trace is not positive: at a place so far from a minimum it means nothing.
    """
    second_moment = variance * (rows - 1) / rows + gradient_norm**2
    return second_moment / hessian_trace if hessian_trace > 0 else math.nan
