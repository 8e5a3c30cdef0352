"""What the gauges say, in plain words and with their evidence. Each rule looks at one trial and may be silent."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from timetrial_scoring.cockpit.run import Run

_LOOKS = 8
"""Fewer looks than this say nothing."""
_MOST = 0.8
"""The share of looks that must agree."""


@dataclass(frozen=True)
class Hint:
    says: str
    """What seems to be the case, and what to try."""
    because: str
    """The numbers behind it."""


def hints(run: Run) -> list[Hint]:
    """All hints, the gravest first."""
    return [hint for rule in _RULES if (hint := rule(run)) is not None]


def _late(values: np.ndarray) -> np.ndarray:
    """The numbers in the second half of the looks."""
    late = values[len(values) // 2 :]
    return late[np.isfinite(late)]


def _agree(holds: np.ndarray) -> bool:
    return len(holds) >= _LOOKS and float(holds.mean()) >= _MOST


def _share(holds: np.ndarray) -> str:
    return f"{holds.mean():.0%} of {len(holds)} looks"


def _not_finite(run: Run) -> Hint | None:
    for look in run.looks:
        for name in ("step_loss", "probe_loss", "param_norm"):
            if not np.isfinite(look.values.get(name, 0.0)):
                return Hint(
                    "Training has left the numbers: lower the learning rate, or clip gradients",
                    f"{name} is not finite at step {look.step:,}",
                )
    return None


def _overshoots(run: Run) -> Hint | None:
    values = run.values("alpha")
    alpha = values[np.isfinite(values)]
    if _agree(alpha > 1):
        return Hint(
            "Step size far too large: steps end higher than they began",
            f"Alpha > 1 for {_share(alpha > 1)}, median {np.median(alpha):.2f}",
        )
    if _agree(alpha > 0):
        return Hint(
            "Step size too large: steps go past the minimum along their direction",
            f"Alpha > 0 for {_share(alpha > 0)}, median {np.median(alpha):.2f}",
        )
    short = (alpha >= -1) & (alpha < -0.75)
    if _agree(short):
        return Hint(
            "Step size small: steps stop in the first quarter of the way to the minimum along their direction",
            f"-1 <= Alpha < -0.75 for {_share(short)}, median {np.median(alpha):.2f}",
        )
    return None


def _uphill(run: Run) -> Hint | None:
    cosine = _late(run.values("cosine"))
    if not _agree(cosine < 0):
        return None
    return Hint(
        "Updates point uphill: momentum carries on past the valley, or the gradient is noise",
        f"cosine of update and negative gradient < 0 for {_share(cosine < 0)} in the second half, "
        f"median {np.median(cosine):.2f}",
    )


def _batch_size(run: Run) -> Hint | None:
    variance, square = run.values("gradient_variance"), run.values("gradient_square")
    there = np.isfinite(variance) & np.isfinite(square)
    if there.sum() < _LOOKS:
        return None
    late = slice(int(there.sum()) // 2, None)
    noise, signal = float(variance[there][late].mean()), float(square[there][late].mean())
    scale, batch = noise / signal if signal > 0 else np.inf, run.batch_size
    evidence = f"noise scale about {scale:,.0f} in the second half (ratio of means), batch size {batch:,}"
    if scale > 10 * batch:
        return Hint("The gradient is mostly noise: larger batches, or a lower learning rate, should pay", evidence)
    if scale < batch / 10:
        return Hint("The batch is larger than the noise asks for: smaller batches should do as well a step", evidence)
    return None


def _no_signal(run: Run) -> Hint | None:
    criterion = _late(run.values("early_stopping"))
    if not _agree(criterion > 0):
        return None
    return Hint(
        "The gradient shows no more than noise would: training may be done, or needs a lower learning rate",
        f"early-stopping criterion > 0 for {_share(criterion > 0)} in the second half",
    )


def _unstable(run: Run) -> Hint | None:
    """Bounds: (2 + 2b) / rate for heavy-ball momentum b; Adam's first moment, a mean, makes it 1 / (1 - b) times that.

    Cohen et al. 2021, section 2; Cohen et al. 2022, section 3. Silent where the optimizer's state does not name them.
    """
    for quantity, momentum, is_mean in (
        ("preconditioned_max_eigenvalue", "b1", True),
        ("hessian_max_eigenvalue", "momentum", False),
    ):
        b = run.values(momentum)
        bound = (2 + 2 * b) / (1 - b if is_mean else 1) / run.values("learning_rate")
        share = _late(run.values(quantity) / bound)
        if _agree(share > 0.9):
            return Hint(
                "At the edge of stability: the learning rate holds the curvature down, a higher one may diverge",
                f"{quantity} above 0.9 of its bound for {_share(share > 0.9)} in the second half, "
                f"median {np.median(share):.2f} of it",
            )
    return None


def _saddle(run: Run) -> Hint | None:
    low, high = (_late(run.values(f"hessian_{side}_eigenvalue")) for side in ("min", "max"))
    if len(low) != len(high) or not _agree(low < -0.5 * np.abs(high)):
        return None
    return Hint(
        "Near a saddle: the loss bends down about as much as up",
        f"least eigenvalue below minus half the largest for {_share(low < -0.5 * np.abs(high))} in the second half",
    )


def _silent_arrays(run: Run) -> Hint | None:
    norms = run.by_array("gradient_norm")
    late = norms[len(norms) // 2 :]
    late = late[np.isfinite(late).all(axis=1)]
    if len(late) < _LOOKS or not (silent := np.flatnonzero((late == 0).all(axis=0))).size:
        return None
    return Hint(
        "No gradient reaches some parameters: dead units, or a part of the model that the loss does not see",
        f"gradient norm 0 throughout the second half in {_listed(run, silent)}",
    )


def _uneven_arrays(run: Run) -> Hint | None:
    size, norm = run.by_array("update_size"), run.by_array("param_norm")
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(norm > 0, size / norm, np.nan)
    late = ratio[len(ratio) // 2 :]
    kept = np.isfinite(late).sum(axis=0) >= _LOOKS
    typical = np.full(len(run.arrays), np.nan)
    typical[kept] = np.nanmedian(late[:, kept], axis=0)
    fast = np.flatnonzero(typical > 0.1)
    if not fast.size:
        return None
    return Hint(
        "Some parameters change by more than a tenth of their size in a single step",
        f"median update/weight ratio above 0.1 in the second half: {_listed(run, fast, typical)}",
    )


def _listed(run: Run, which: np.ndarray, values: np.ndarray | None = None) -> str:
    named = [run.arrays[i] + ("" if values is None else f" ({values[i]:.2g})") for i in which[:4]]
    return ", ".join(named) + (f" and {len(which) - 4} more" if len(which) > 4 else "")


_RULES: tuple[Callable[[Run], Hint | None], ...] = (
    _not_finite,
    _overshoots,
    _unstable,
    _uphill,
    _batch_size,
    _no_signal,
    _saddle,
    _silent_arrays,
    _uneven_arrays,
)
