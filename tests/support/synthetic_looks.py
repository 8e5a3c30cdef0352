"""Trials with instruments that nobody ran: looks whose values are given as functions of their number."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fakes import header
from timetrial_scoring.cockpit.run import Run, read_run

from timetrial.instrument_log import LOG_NAME, Choice, LogHeader, LogWriter, Look
from timetrial.record import RECORD_NAME, EndLine, EvalLine, RecordWriter

ARRAYS = ("dense/bias", "dense/kernel")


def write_looks(
    folder: Path,
    values: Mapping[str, Callable[[int], float]],
    *,
    looks: int = 40,
    every: int = 16,
    arrays: Mapping[str, Callable[[int], list[float]]] | None = None,
    histograms: Mapping[str, Callable[[int], list[Any]]] | None = None,
    hyperparameters: Mapping[str, float] | None = None,
    absent: Mapping[str, str] | None = None,
    status: Any = "budget",
    **changes: Any,
) -> Path:
    """A trial's folder with a record and a log; `status` None leaves it without an end."""
    run = header(clock="steps", budget=float(looks * every), **changes)
    clocks: dict[str, Any] = {"examples": 0, "seconds": 0.0, "compile_seconds": 0.0, "data_seconds": 0.0}
    with RecordWriter(folder / RECORD_NAME) as record:
        record.run(run)
        for i in range(5):
            metrics = {
                "valid/error_rate": 0.9 - 0.05 * i,
                "valid/loss": 2.0 - 0.1 * i,
                "train_eval/loss": 1.9 - 0.1 * i,
            }
            record.eval(EvalLine(step=i * looks * every // 4, eval_seconds=0.1, metrics=metrics, **clocks))
        if status is not None:
            end: dict[str, Any] = {
                "message": "the end",
                "step": looks * every,
                "crossing": None,
                "examples_exact": True,
            }
            record.end(EndLine(status=status, **end, **clocks))
    log = LogWriter(folder / LOG_NAME, resume=False)
    choice = Choice(set="full", every=every)
    params = tuple({"name": name, "kind": "weight", "shape": [4]} for name in ARRAYS)
    log.write(
        LogHeader(
            set=choice.set, every=choice.every, batch_size=128, probe_rows=16, params=params, absent=dict(absent or {})
        )
    )
    for i in range(looks):
        log.write(
            Look(
                step=i * every,
                examples=i * every * 128,
                seconds=0.1 * i,
                wall_seconds=0.01,
                values={name: value(i) for name, value in values.items()},
                arrays={name: value(i) for name, value in (arrays or {}).items()},
                histograms={name: value(i) for name, value in (histograms or {}).items()},
                hyperparameters=dict(hyperparameters or {}),
            )
        )
    log.close()
    return folder


def looked(folder: Path, values: Mapping[str, Callable[[int], float]], **options: Any) -> Run:
    return read_run(write_looks(folder, values, **options))


def everything(folder: Path, *, wide: float = 1.0, **options: Any) -> Path:
    """A trial in which every gauge has something to show."""
    names = (
        *("step_loss", "probe_loss", "param_norm", "distance", "update_size", "update_ratio", "gradient_norm"),
        *("norm_test", "inner_product_test", "orthogonality_test", "noise_scale", "mean_gsnr", "cabs", "tic_trace"),
        *("tic_diagonal", "hessian_trace", "hessian_max_eigenvalue", "preconditioned_max_eigenvalue"),
    )
    values: dict[str, Callable[[int], float]] = {name: lambda i: wide * (1 + (i % 7) / 7 + i / 40) for name in names}
    values |= {
        "alpha": lambda i: 0.4 + 0.3 * (i % 3),
        "cosine": lambda i: 0.3,
        "early_stopping": lambda i: -0.5,
        "hessian_min_eigenvalue": lambda i: -0.2,
        "gradient_variance": lambda i: 5000.0,
        "gradient_square": lambda i: 1.0,
    }
    counts = [abs(21 - k) for k in range(43)]
    return write_looks(
        folder,
        values,
        arrays={
            "update_size": lambda i: [1e-3, 2e-3],
            "param_norm": lambda i: [0.5, 2.0],
            "gradient_norm": lambda i: [1.0, 2.0],
        },
        histograms={
            "gradient_histogram": lambda i: counts,
            "hessian_diagonal": lambda i: counts,
            "gradient_histogram_2d": lambda i: [[k + r for k in range(23)] for r in range(13)],
        },
        hyperparameters={"learning_rate": 0.1 * wide},
        **options,
    )
