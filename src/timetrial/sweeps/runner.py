"""Shares the cells of a sweep out: processes claim them one by one, here and wherever else the folder is used."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from timetrial.claims import Heart, take
from timetrial.errors import UserError
from timetrial.launchers.shares import Share, shares
from timetrial.sweeps.ledger import Cell, read_folder
from timetrial.sweeps.spec import ProblemSpec, Sweep

if TYPE_CHECKING:
    from timetrial.sweeps.cell import CellRunner

_POLL_SECONDS = 2.0
CellName = tuple[ProblemSpec, str]
_DONE = "done"
"""The file that says of a cell that nothing is missing."""


def work(out: Path, leave: Callable[[], bool] = lambda: False) -> None:
    """Runs cells of the sweep in `out` until none is left, waiting for those that others run, or until `leave()`."""
    from timetrial.sweeps.cell import CellRunner

    sweep = read_folder(out)
    runner = CellRunner(sweep)
    with Heart() as heart:
        while waiting := [cell for cell in sweep.cells if not _is_done(out, cell)]:
            ran = False
            for cell in waiting:
                if leave():
                    return
                ran |= _claim_and_run(out, runner, cell, heart)
            if not ran:  # others hold all that is left: wait for them, or for their leases
                time.sleep(_POLL_SECONDS)


def _work_on_share(out: Path, share: Share) -> None:
    """`work`, in a process of its own on its share of the machine; compiled programs are kept between processes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that began this one says when to stop
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # by way of what releases the claim
    if share.cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, share.cores)
    os.environ.update(share.environment)
    from timetrial.compilation import cache_folder, use_cache

    use_cache(cache_folder())
    parent = multiprocessing.parent_process()
    work(out, leave=lambda: parent is not None and not parent.is_alive())


def _claim_and_run(out: Path, runner: "CellRunner", cell: CellName, heart: Heart) -> bool:
    """False where another process holds the cell."""
    problem, optimizer = cell
    ledger = Cell(out, problem.name, optimizer)
    claim = take(ledger.folder)
    if claim is None:
        return False
    try:
        lost = heart.add(claim)
        if not _is_done(out, cell):  # whoever held it before has just finished it
            runner.run(problem, optimizer, ledger, lost)
            if not lost.is_set():
                (ledger.folder / _DONE).touch()
    finally:
        heart.drop(claim)
        claim.release()
    return True


def run_sweep(out: Path, *, side_by_side: int, watch: Callable[[int], None]) -> None:
    """Runs the sweep in `out` in `side_by_side` processes, each on its share of the machine, until no cell is left.

    `watch` is told every few seconds how many cells are done. Raises `UserError` where a process failed; its own
    message is on standard error.
    """
    sweep = read_folder(out)
    spawn = multiprocessing.get_context("spawn")  # jax's threads do not survive a fork
    workers = [spawn.Process(target=_work_on_share, args=(out, share)) for share in shares(side_by_side)]
    for worker in workers:
        worker.start()
    try:
        while any(worker.is_alive() for worker in workers):
            watch(cells_done(sweep, out))
            for worker in workers:
                worker.join(_POLL_SECONDS / len(workers))
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()
    watch(cells_done(sweep, out))
    if cells_done(sweep, out) < len(sweep.cells):
        raise UserError(f"a process of the sweep failed; its message stands above, and what it trained is in {out}")


def cells_done(sweep: Sweep, out: Path) -> int:
    return sum(_is_done(out, cell) for cell in sweep.cells)


def trials_done(sweep: Sweep, out: Path) -> int:
    """Of cells that are done, and of others."""
    return sum(len(Cell(out, problem.name, optimizer).rows()) for problem, optimizer in sweep.cells)


def _is_done(out: Path, cell: CellName) -> bool:
    problem, optimizer = cell
    return (Cell(out, problem.name, optimizer).folder / _DONE).exists()
