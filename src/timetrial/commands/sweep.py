"""`timetrial sweep`: many optimizers on many small problems, trained many at once."""

import argparse
import time
from pathlib import Path
from typing import Any

from timetrial import machine
from timetrial.launchers.shares import shares
from timetrial.sweeps.ledger import TRIALS_NAME, open_folder, write_results
from timetrial.sweeps.runner import cells_done, run_sweep, trials_done
from timetrial.sweeps.spec import Sweep, load_spec, points


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("spec", type=Path, metavar="SPEC.toml", help="what to try (docs/sweeps.md)")
    parser.add_argument(
        "--out", "-o", type=Path, metavar="DIR", help="where results are kept (default: runs/NAME of SPEC)"
    )
    parser.add_argument(
        "--jobs", "-j", type=int, default=1, metavar="N", help="processes, each on its share of the cores (default: 1)"
    )
    parser.add_argument("--dry-run", action="store_true", help="say how much it is, and run nothing")


def run(args: argparse.Namespace) -> int:
    """0 when every trial has its result."""
    sweep = load_spec(args.spec)
    print(
        f"{sweep.name}: {len(sweep.optimizers)} optimizers x {len(sweep.problems)} problems x {len(sweep.budgets)} "
        f"budgets x {len(sweep.schedules)} schedules = {sweep.configurations:,} configurations, "
        f"at most {sweep.most_trials:,} trials"
    )
    if args.dry_run:
        return 0
    shares(args.jobs)
    out: Path = args.out or Path("runs") / sweep.name
    open_folder(sweep, out)
    run_sweep(out, side_by_side=args.jobs, watch=_Printer(sweep, out).show)
    write_results(
        sweep,
        out,
        points={optimizer: points(sweep, optimizer) for optimizer in sweep.optimizers},
        problems={problem.name: _known(problem.name) for problem in sweep.problems},
        hardware=machine.hardware(),
        packages=machine.packages(),
    )
    print(f"Results in {out / TRIALS_NAME}; next: timetrial sweep-report {out}")
    return 0


def _known(name: str) -> dict[str, Any]:
    """What the report must know of a problem."""
    from timetrial.sweeps.problems import load_problem, scale

    workload = load_problem(name)
    return {"metric": workload.metric, "better": workload.better, "scale": scale(name)}


class _Printer:
    """A line whenever a cell is done, with how long the rest will take if it goes on as since the start."""

    def __init__(self, sweep: Sweep, out: Path) -> None:
        self._sweep, self._out, self._shown = sweep, out, -1
        self._before, self._began = cells_done(sweep, out), time.monotonic()

    def show(self, done: int) -> None:
        if done == self._shown:
            return
        self._shown = done
        cells, ran = len(self._sweep.cells), done - self._before
        left = ""
        if ran > 0 and done < cells:
            left = f", about {(time.monotonic() - self._began) / ran * (cells - done) / 60:.0f} min left"
        print(f"{done} of {cells} cells, {trials_done(self._sweep, self._out):,} trials{left}", flush=True)
