"""Structural similarity (Wang, Bovik, Sheikh & Simoncelli 2004), with the settings of fastMRI and scikit-image."""

import jax
import jax.numpy as jnp

WINDOW = 7
_K1, _K2 = 0.01, 0.03


def ssim(images: jax.Array, references: jax.Array, ranges: jax.Array) -> jax.Array:
    """Of each image, (B, H, W), and its reference: mean over all windows of 7 x 7 pixels inside the image, (B,).

    `ranges`, (B,), are the widths of the ranges of values; 0 counts as 1. Windows weigh uniformly, variances are those
    of a sample (divided by 48).
    """
    scale = 1 / jnp.where(ranges > 0, ranges, 1.0)[:, None, None]
    x, y = images * scale, references * scale
    mean_x, mean_y = _window_mean(x), _window_mean(y)
    unbiased = WINDOW**2 / (WINDOW**2 - 1)
    variance_x = unbiased * (_window_mean(x * x) - mean_x * mean_x)
    variance_y = unbiased * (_window_mean(y * y) - mean_y * mean_y)
    covariance = unbiased * (_window_mean(x * y) - mean_x * mean_y)
    luminance = (2 * mean_x * mean_y + _K1**2) / (mean_x * mean_x + mean_y * mean_y + _K1**2)
    structure = (2 * covariance + _K2**2) / (variance_x + variance_y + _K2**2)
    return jnp.mean(luminance * structure, axis=(1, 2))


def _window_mean(x: jax.Array) -> jax.Array:
    """Means over all windows, (B, H - 6, W - 6): sums of shifted rows, then of shifted columns."""
    height, width = x.shape[1] - WINDOW + 1, x.shape[2] - WINDOW + 1
    x = sum((x[:, i : i + height] for i in range(1, WINDOW)), start=x[:, :height])
    x = sum((x[:, :, j : j + width] for j in range(1, WINDOW)), start=x[:, :, :width])
    return x / WINDOW**2
