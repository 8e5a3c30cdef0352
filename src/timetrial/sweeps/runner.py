"""Shares the cells of a sweep out: processes claim them one by one, here and wherever else the folder is used."""

import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from timetrial.claims import Heart, take
from timetrial.errors import UserError
from timetrial.launchers.shares import Share, shares
from timetrial.sweeps.ledger import Cell, read_folder
from timetrial.sweeps.spec import ProblemSpec, Sweep

if TYPE_CHECKING:
    from timetrial.sweeps.cell import CellRunner

_POLL_SECONDS = 2.0
_DONE = "done"
"""The file that says of a cell that nothing is missing."""


class Progress(NamedTuple):
    cells: int
    """Cells that are done."""
    trials: int
    """Trials that are done, of these and of others."""


def work(out: Path) -> None:
    """Runs cells of the sweep in `out` until none is left; waits for those that other processes run."""
    from timetrial.sweeps.cell import CellRunner

    sweep = read_folder(out)
    runner = CellRunner(sweep)
    with Heart() as heart:
        while waiting := [cell for cell in sweep.cells if not _is_done(out, *_names(cell))]:
            ran = [_claim_and_run(out, runner, cell, heart) for cell in waiting]
            if not any(ran):  # others hold all that is left: wait for them, or for their leases
                time.sleep(_POLL_SECONDS)


def _work_on_share(out: Path, share: Share) -> None:
    """`work`, in a process of its own on its share of the machine; compiled programs are kept between processes."""
    if share.cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, share.cores)
    os.environ.update(share.environment)
    from timetrial.compilation import cache_folder, use_cache

    use_cache(cache_folder())
    work(out)


def _claim_and_run(out: Path, runner: "CellRunner", cell: tuple[ProblemSpec, str], heart: Heart) -> bool:
    """False where another process holds the cell."""
    problem, optimizer = cell
    ledger = Cell(out, problem.name, optimizer)
    claim = take(ledger.folder)
    if claim is None:
        return False
    try:
        lost = heart.add(claim)
        if not _is_done(out, problem.name, optimizer):  # whoever held it before has just finished it
            runner.run(problem, optimizer, ledger, lost)
            if not lost.is_set():
                (ledger.folder / _DONE).touch()
    finally:
        heart.drop(claim)
        claim.release()
    return True


def run_sweep(out: Path, *, side_by_side: int, watch: Callable[[Progress], None]) -> None:
    """Runs the sweep in `out` in `side_by_side` processes, each on its share of the machine; tells `watch` how it goes.

    Raises `UserError` where a process failed; its own message is on standard error.
    """
    sweep = read_folder(out)
    spawn = multiprocessing.get_context("spawn")  # jax's threads do not survive a fork
    workers = [spawn.Process(target=_work_on_share, args=(out, share), daemon=True) for share in shares(side_by_side)]
    for worker in workers:
        worker.start()
    try:
        while any(worker.is_alive() for worker in workers):
            watch(progress(sweep, out))
            for worker in workers:
                worker.join(_POLL_SECONDS / len(workers))
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()
    watch(progress(sweep, out))
    if any(worker.exitcode for worker in workers):
        raise UserError(f"a process of the sweep failed; its message stands above, and what it trained is in {out}")


def progress(sweep: Sweep, out: Path) -> Progress:
    done = [_is_done(out, *_names(cell)) for cell in sweep.cells]
    return Progress(sum(done), sum(len(Cell(out, *_names(cell)).rows()) for cell in sweep.cells))


def _names(cell: tuple[ProblemSpec, str]) -> tuple[str, str]:
    problem, optimizer = cell
    return problem.name, optimizer


def _is_done(out: Path, problem: str, optimizer: str) -> bool:
    return (Cell(out, problem, optimizer).folder / _DONE).exists()
