"""Writes our runs as an AlgoPerf log tree, so that AlgoPerf's own scorer can read them and comes to the same times.

That scorer takes, of each study, the trial that reaches the target at the lowest *eval index*, knows no budget and no
confirmation, and passes over studies that are absent. So, per study, all trials are written on one grid of rows: the
charges of all their evals. A row repeats the trial's newest eval, and the lowest index becomes the least charge. Evals
that meet the target but do not count (unconfirmed, beyond the budget, of a failed trial) are left out, and a study
without trials is written as one that never reached.
"""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from timetrial.errors import UserError
from timetrial.ruleset import Ruleset
from timetrial.seeds import seed
from timetrial_scoring.algoperf_logs import LOG_NAME
from timetrial_scoring.board import Finding, Floats, Trial
from timetrial_scoring.grid import Grid, lay_out
from timetrial_scoring.load import load
from timetrial_scoring.score import ruleset_of
from timetrial_scoring.times import Crossing, target_curve, target_of, times_to_target


def export_algoperf(runs: Path, out: Path, *, ruleset: Ruleset | None = None) -> list[Finding]:
    """Writes `out`/SUBMISSION/study_N/WORKLOAD_jax/trial_N, and returns what could not be carried over as it was.

    The column `score`, AlgoPerf's time, holds the charged clock, whichever that is. With an even number of studies
    AlgoPerf averages the middle two times where we take the lower. Raises UserError where `out` is not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{str(out)!r} exists and is not an empty folder; name a new one")
    found = load(runs)
    rules = ruleset_of(found) if ruleset is None else ruleset
    findings = list(found.findings)
    grids = lay_out(found, rules, findings)
    for grid in grids:
        root = out if len(grids) == 1 else out / grid.tuning
        if grid.studies % 2 == 0:
            message = f"{grid.studies} studies: AlgoPerf averages the middle two times, here the lower one counts"
            findings.append(Finding("even number of studies", message))
        _export_board(grid, root)
    return findings


def _export_board(grid: Grid, root: Path) -> None:
    times = times_to_target(grid)
    targets = {trial.workload: target_of(grid, trial) for trial in grid.trials()}
    for s, submission in enumerate(grid.submissions):
        if submission in grid.unranked:
            continue
        for w, workload in enumerate(times.structure.workloads):
            for k in range(grid.studies):
                folder = root / submission / f"study_{k}" / f"{workload}_jax"
                if (s, w, k) in grid.cells:
                    _export_study(grid, workload, grid.cells[s, w, k], times.crossings[s, w, k], folder)
                else:
                    target = targets.get(workload, grid.ruleset.workloads[workload].target)
                    metrics = [] if target is None else [f"valid/{target.metric}"]
                    _write_trial(folder / "trial_1", metrics, np.full((1, 4 + len(metrics)), np.nan), {}, {})


def _export_study(
    grid: Grid, workload: str, trials: Sequence[Trial], crossings: Sequence[Crossing], folder: Path
) -> None:
    kept = [_counted_evals(grid, trial, crossing) for trial, crossing in zip(trials, crossings, strict=True)]
    charges = [_charge(grid, trial)[evals] for trial, evals in zip(trials, kept, strict=True)]
    rows = np.unique(np.concatenate(charges))
    for number, (trial, evals, charge) in enumerate(zip(trials, kept, charges, strict=True), start=1):
        own = rows[rows <= charge.max(initial=0.0)]
        newest = np.searchsorted(charge, own, side="right") - 1  # -1, before the first eval, takes the NaN at the end
        names = sorted(trial.metrics)
        columns = [trial.seconds, trial.steps, *(trial.metrics[name] for name in names)]
        table = np.array([np.append(c[evals], np.nan)[newest] for c in columns])
        numbers = np.column_stack([table[0], table[1], own, np.zeros(len(own)), *table[2:]])
        meta: dict[str, object] = {"hardware": trial.hardware}
        if trial.seed is not None:
            meta["rng_seed"] = seed(trial.seed[0], workload, trial.study, trial.trial, "init")
        _write_trial(folder / f"trial_{number}", names, numbers, dict(trial.hparams or {}), meta)


def _counted_evals(grid: Grid, trial: Trial, crossing: Crossing) -> "np.ndarray[tuple[int], np.dtype[np.intp]]":
    """Indices of the evals to write: all but those that meet the target and do not count."""
    target = target_of(grid, trial)
    values = None if target is None else target_curve(trial, target)
    index = np.arange(len(trial.seconds))
    if target is None or values is None:
        return index
    met = np.array([target.met_by(float(value)) for value in values], np.bool_)
    early = index < crossing.eval_index if crossing.eval_index >= 0 else np.ones_like(met)
    return index[~(met & early)]


def _charge(grid: Grid, trial: Trial) -> Floats:
    charge = trial.charge(grid.ruleset.clock)
    if charge is None:
        raise UserError(f"{trial.source}: does not say what it charged in {grid.ruleset.clock}")
    return charge


def _write_trial(
    folder: Path, metrics: Sequence[str], rows: Floats, hparams: dict[str, object], meta: dict[str, object]
) -> None:
    folder.mkdir(parents=True)
    header = ["accumulated_submission_time", "global_step", "score", "preemption_count"]
    header += [name.replace("valid/", "validation/") for name in metrics]
    with (folder / LOG_NAME).open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(["" if np.isnan(x) else repr(x) for x in row] for row in rows.tolist())
    (folder / "hparams.json").write_text(json.dumps(hparams, indent=1) + "\n")
    (folder / "meta_data_0.json").write_text(json.dumps(meta, indent=1) + "\n")
