"""Which quantities a set of instruments has, and which of them cannot be had where."""

from collections.abc import Mapping

from timetrial.instrument_log import SETS, SetName

_OF_LOSS: Mapping[SetName, tuple[str, ...]] = {
    "economy": ("probe_loss", "alpha", "gradient_norm", "cosine"),
    "business": ("hessian_trace", "hessian_diagonal"),
    "full": ("hessian_max_eigenvalue", "preconditioned_max_eigenvalue"),
}
"""What needs the loss, by the first set that has it."""
_OF_ROWS: Mapping[SetName, tuple[str, ...]] = {
    "economy": (
        *("gradient_variance", "gradient_square", "noise_scale"),
        *("norm_test", "inner_product_test", "orthogonality_test", "gradient_histogram"),
    ),
    "business": ("mean_gsnr", "early_stopping", "cabs", "tic_trace", "tic_diagonal"),
    "full": ("gradient_histogram_2d",),
}
"""What needs the gradients of single rows, likewise."""


def has(set_name: SetName, least: SetName) -> bool:
    """Whether a set has what `least` has."""
    return SETS.index(set_name) >= SETS.index(least)


def absences(
    set_name: SetName, *, sees_loss: bool, coupled: bool, second_moments: bool, learning_rate: bool
) -> dict[str, str]:
    """The quantities of a set that cannot be had here, with reasons."""

    def held(table: Mapping[SetName, tuple[str, ...]]) -> list[str]:
        return [name for first, names in table.items() if has(set_name, first) for name in names]

    of_loss, of_rows = held(_OF_LOSS), held(_OF_ROWS)
    why: dict[str, str] = {}
    if not learning_rate:
        why["cabs"] = "the optimizer's state names no learning_rate (optax.inject_hyperparams puts one there)"
    if not second_moments:
        reason = "the optimizer's state holds no running mean of squared gradients of optax's (nu)"
        why["preconditioned_max_eigenvalue"] = reason
    if coupled:
        why |= dict.fromkeys(of_rows, "batch norm couples the rows of a batch: a row has no gradient of its own")
    if not sees_loss:
        reason = "the submission is driven by the host (AlgoPerf's API): only its parameters are seen"
        why |= dict.fromkeys((*of_rows, *of_loss), reason)
    return {name: reason for name, reason in why.items() if name in (*of_rows, *of_loss)}
