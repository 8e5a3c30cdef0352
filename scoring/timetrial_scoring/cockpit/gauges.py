"""The gauges: which quantity is drawn where, on what scale, and how it is to be read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from timetrial_scoring.cockpit.run import Run


@dataclass(frozen=True, kw_only=True)
class Gauge:
    """One chart of quantities over steps."""

    title: str
    reads: str
    """One line that says how to read it."""
    names: tuple[str, ...]
    """Quantities drawn in it, by name in the log; hyperparameters and metrics likewise."""
    log: bool = False
    """Whether heights are logarithmic, where all values are positive."""
    rules: Mapping[str, float] | None = None
    """Heights of rules across the chart, by label."""
    within: tuple[float, float] | None = None
    """Heights beyond which points are drawn at the edge."""


@dataclass(frozen=True, kw_only=True)
class Heat:
    """One picture of numbers over steps, row by row."""

    title: str
    reads: str
    name: str
    """A histogram of the log, or `update_ratio` for that of each parameter array."""


Panel = Sequence[Gauge | Heat]

STEP_SIZE: Panel = (
    Gauge(
        title="Alpha",
        reads="-1 stands still, 0 at the minimum along the step, 1 as high as before on the other side",
        names=("alpha",),
        rules={"still": -1, "minimum": 0, "overshoots": 1},
        within=(-2.0, 3.0),
    ),
    Gauge(title="Update size", reads="length of a step", names=("update_size",), log=True),
    Gauge(
        title="Update over weights",
        reads="length of a step over that of the parameters",
        names=("update_ratio",),
        log=True,
    ),
    Heat(
        title="Update over weights, by array", reads="from below 1e-6, light, to above 0.1, dark", name="update_ratio"
    ),
    Gauge(title="Distance from the start", reads="to the initial parameters", names=("distance",)),
)
GRADIENTS: Panel = (
    Gauge(title="Gradient norm", reads="of the probe batch", names=("gradient_norm",), log=True),
    Gauge(
        title="Update against gradient",
        reads="cosine of update and negative gradient; below 0 a step goes uphill",
        names=("cosine",),
        rules={"uphill below": 0},
    ),
    Gauge(
        title="Tests of the batch size",
        reads="share of noise in a batch's gradient: 0 none, 1 nothing else",
        names=("norm_test", "inner_product_test", "orthogonality_test"),
    ),
    Gauge(
        title="Noise scale", reads="the batch size from which on noise matters less", names=("noise_scale",), log=True
    ),
    Gauge(title="Signal to noise", reads="mean over parameters of g² / variance", names=("mean_gsnr",), log=True),
    Gauge(
        title="Early stopping",
        reads="above 0 the gradient shows no more than noise would",
        names=("early_stopping",),
        rules={"stop above": 0},
    ),
    Gauge(title="CABS", reads="the batch size that fits the learning rate of plain SGD", names=("cabs",), log=True),
    Heat(
        title="Gradient elements",
        reads="from -100 below to 100 above, half a decade a row, none smaller than 1e-8",
        name="gradient_histogram",
    ),
    Heat(
        title="Gradient elements against parameters",
        reads="the newest look: parameters to the right, elements upwards",
        name="gradient_histogram_2d",
    ),
)
CURVATURE: Panel = (
    Gauge(
        title="Largest and smallest curvature",
        reads="outermost eigenvalues of the Hessian",
        names=("hessian_max_eigenvalue", "hessian_min_eigenvalue"),
        rules={"": 0},
    ),
    Gauge(
        title="Preconditioned curvature",
        reads="largest eigenvalue as the optimizer's second moment sees it",
        names=("preconditioned_max_eigenvalue",),
        log=True,
    ),
    Gauge(
        title="Trace of the Hessian", reads="mean curvature times parameters", names=("hessian_trace",), rules={"": 0}
    ),
    Heat(
        title="Diagonal of the Hessian",
        reads="from -100 below to 100 above, half a decade a row",
        name="hessian_diagonal",
    ),
    Gauge(title="TIC", reads="noise over curvature, from traces", names=("tic_trace",), log=True),
    Gauge(
        title="TIC, diagonal", reads="noise over curvature, summed over parameters", names=("tic_diagonal",), log=True
    ),
)
COLUMNS: Mapping[str, Panel] = {"Step size": STEP_SIZE, "Gradients": GRADIENTS, "Curvature": CURVATURE}


def hyperparameters(runs: Sequence[Run]) -> Panel:
    """A chart of each hyperparameter that some optimizer's state names."""
    names = sorted({name for run in runs for look in run.looks for name in look.hyperparameters})
    return [Gauge(title=name, reads="as the optimizer's state names it", names=(name,)) for name in names]


def performance(runs: Sequence[Run]) -> Panel:
    """Losses at the looks, and the target's metric at the evals."""
    target = runs[0].record.run.target
    metric = f"valid/{target.metric}"
    return [
        Gauge(
            title="Loss", reads="of the step on its batch, and of the probe batch", names=("step_loss", "probe_loss")
        ),
        Gauge(
            title=metric, reads=f"at the evals; the target is {target}", names=(metric,), rules={"target": target.value}
        ),
        Gauge(title="train_eval/loss", reads="at the evals", names=("train_eval/loss",)),
    ]
