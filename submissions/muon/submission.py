"""Muon (Jordan et al. 2024): momentum orthogonalised by Newton-Schulz iteration, for the matrices inside the network.

Hidden weights, convolutions and attention projections are matrices of their in axes by their out axes, one for each
index of their batch axes, and decay; embeddings, output heads, biases and normalisation get NAdam. Matrices are updated
with Adam's root mean square (Liu et al. 2025), so that one learning rate serves both.
"""

from typing import Any

from optax.contrib import MuonDimensionNumbers, muon

from timetrial import Hparams, LogUniform, ParamInfo, Submission, Task, from_optax, warmup_cosine

SEARCH_SPACE = {
    "learning_rate": LogUniform(1e-4, 2e-2, default=6e-3),
    "one_minus_momentum": LogUniform(2e-2, 0.2, default=5e-2),
    "weight_decay": LogUniform(5e-3, 1.0, default=5e-2),
}
ADAM_KINDS = ("bias", "norm_scale", "norm_bias", "embedding", "tied_embedding", "output_head")


def matrix_axes(info: ParamInfo) -> MuonDimensionNumbers | None:
    """The axes of an array's matrices; None for an array that NAdam trains."""
    if info.kind in ADAM_KINDS or not (info.in_axes and info.out_axes):
        return None
    return MuonDimensionNumbers(info.in_axes, info.out_axes)


def make(hparams: Hparams, task: Task) -> Submission:
    axes: Any = [matrix_axes(info) for info in task.params]
    tx = muon(
        warmup_cosine(hparams.learning_rate, task.horizon_steps()),
        beta=1 - hparams.one_minus_momentum,
        weight_decay=hparams.weight_decay,
        muon_weight_dimension_numbers=axes,
        consistent_rms=0.2,
    )
    return from_optax(tx)
