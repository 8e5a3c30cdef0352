"""Small boards on disk: our records and AlgoPerf's logs, written by hand so that the readers are not their own test."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

RULES: dict[str, Any] = {
    "name": "small",
    "version": 1,
    "description": "Two workloads, one held-out variant.",
    "clock": "seconds",
    "external": {"studies": 1, "trials": 1},
    "self_tuning": None,
    "workloads": {
        "digits": {"budget": 100.0, "target": {"metric": "error_rate", "value": 0.1, "better": "lower"}},
        "words": {"budget": 1000.0, "target": {"metric": "bleu", "value": 30.0, "better": "higher"}},
    },
}
CSV = "eval_measurements.csv"


@pytest.fixture
def rules() -> dict[str, Any]:
    """A ruleset's JSON, free to be changed."""
    return json.loads(json.dumps(RULES))


@pytest.fixture
def ruleset_file(tmp_path: Path) -> Callable[[dict[str, Any]], str]:
    """Writes a ruleset as TOML and returns its path."""

    def write(rules: dict[str, Any]) -> str:
        lines = [f"{key} = {json.dumps(value)}" for key, value in rules.items() if not isinstance(value, dict | None)]
        for table in ("external", "self_tuning"):
            if rules[table] is not None:
                lines += [f"[{table}]", *(f"{k} = {json.dumps(v)}" for k, v in rules[table].items())]
        for name, workload in rules["workloads"].items():
            lines.append(f"[workloads.{name}]")
            for key, value in workload.items():
                if isinstance(value, dict):
                    value = "{ " + ", ".join(f"{k} = {json.dumps(v)}" for k, v in value.items()) + " }"
                    lines.append(f"{key} = {value}")
                else:
                    lines.append(f"{key} = {json.dumps(value)}")
        path = tmp_path / "small.toml"
        path.write_text("\n".join(lines))
        return str(path)

    return write


@pytest.fixture
def log(tmp_path: Path) -> Callable[..., Path]:
    """Writes one trial of an AlgoPerf log tree, and returns its measurements' path."""

    def write(
        submission: str,
        workload: str,
        curve: Sequence[tuple[float, object]],
        *,
        study: int = 0,
        trial: int = 1,
        metric: str | None = None,
        hparams: dict[str, Any] | None = None,
        meta: dict[str, Any] | None = None,
    ) -> Path:
        metric = metric or {"digits": "error_rate", "words": "bleu"}[workload.removesuffix("_hard")]
        folder = tmp_path / "logs" / submission / f"study_{study}" / f"{workload}_jax" / f"trial_{trial}"
        folder.mkdir(parents=True)
        rows = [f"1.0,{10 * (i + 1)},{seconds},0.5,{value}" for i, (seconds, value) in enumerate(curve)]
        header = f"accumulated_eval_time,global_step,score,train/loss,validation/{metric}"
        (folder / CSV).write_text("\n".join([header, *rows]) + "\n")
        (folder / "hparams.json").write_text(json.dumps({"learning_rate": 0.1 * trial} if hparams is None else hparams))
        seed = {"rng_seed": 1000 * study + trial, "gpu_count": 8, "gpu_model_name": "V100"}
        (folder / "meta_data_0.json").write_text(json.dumps(seed if meta is None else meta))
        return folder / CSV

    return write


@pytest.fixture
def record(tmp_path: Path) -> Callable[..., Path]:
    """Writes one of our own run records, and returns its path."""

    def write(
        submission: str,
        workload: str,
        curve: Sequence[tuple[float, object]],
        *,
        study: int = 0,
        trial: int = 0,
        status: str | None = "reached",
        crossing: dict[str, Any] | None = None,
        examples_exact: bool = True,
        folder: str | None = None,
        **changes: Any,
    ) -> Path:
        target = RULES["workloads"][workload]["target"]
        header = {
            "schema": 1, "kind": "run", "workload": workload, "workload_version": 1, "workload_sha256": "a" * 64,
            "submission": submission, "submission_sha256": "b" * 64, "ruleset": "small", "ruleset_version": 1,
            "ruleset_sha256": "c" * 64, "clock": "seconds", "tuning": "external", "seed": 0, "study": study,
            "trial": trial, "hparams": {}, "target": target, "test_target": None, "budget": 100.0, "eval_every": 10.0,
            "confirmation": 0, "isolation": "none", "created": "2026-01-01T00:00:00Z",
            "hardware": {"devices": "1 x cpu"}, "packages": {"python": "3.11"},
        }  # fmt: skip
        header |= changes
        clocks = {"compile_seconds": 0.0, "data_seconds": 0.0}
        evals = [
            {
                "schema": 1, "kind": "eval", "step": i, "examples": 32 * i, "seconds": seconds, "eval_seconds": 1.0,
                "metrics": {f"valid/{target['metric']}": value}, **clocks,
            }
            for i, (seconds, value) in enumerate(curve)
        ]  # fmt: skip
        last = len(curve) - 1
        end = {
            "schema": 1, "kind": "end", "status": status, "message": "", "step": last, "examples": 32 * last,
            "seconds": curve[-1][0], "crossing": crossing, "examples_exact": examples_exact, "ignored": [], **clocks,
        }  # fmt: skip
        where = f"{submission}/{workload}/study_{study}/trial_{trial}" if folder is None else folder
        path = tmp_path / "runs" / where / "record.jsonl"
        path.parent.mkdir(parents=True)
        path.write_text(
            "".join(json.dumps(line) + "\n" for line in [header, *evals, *([] if status is None else [end])])
        )
        return path

    return write


@pytest.fixture
def algoperf_logs() -> Path:
    """AlgoPerf's published v0.5 external logs."""
    folder = os.environ.get("TIMETRIAL_ALGOPERF_LOGS")
    if not folder:
        pytest.skip("needs AlgoPerf's published v0.5 logs: set TIMETRIAL_ALGOPERF_LOGS to their folder")
    return Path(folder)
