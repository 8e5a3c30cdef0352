"""How many trials of a sweep are trained in an hour: many at once against one at a time.

    python benchmarks/sweeps.py [PROBLEM ...]

For each problem the steps of single trials that the ways of training take in a second, of wall time and of the
processor's (which other processes on the machine do not slow down), the ways in turn, and the best of three rounds.
"""

import os
import sys
import time
from functools import partial

from timetrial.seeds import seed
from timetrial.sweeps.lanes import Lane, LaneTrainer, Loop
from timetrial.sweeps.optimizers import OPTIMIZERS, SCHEDULE, scheduled
from timetrial.sweeps.problems import PROBLEMS, load_problem
from timetrial.tuning import default_point

STEPS, EVALS, ROUNDS = 40, 2, 3
WAYS: tuple[tuple[Loop, int], ...] = (("scan", 64), ("python", 64), ("python", 1))


def main(names: list[str]) -> None:
    point = default_point(OPTIMIZERS["adam"].space)
    make = scheduled(OPTIMIZERS["adam"], STEPS)
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; lane-steps a second, wall | processor")
    for name in names:
        workload = load_problem(name)
        lanes = [
            Lane({**{k: float(v) for k, v in point.items()}, SCHEDULE: i % 4}, partial(seed, 0, name, i, 0))
            for i in range(64)
        ]
        trainers = [
            LaneTrainer(workload, make, lanes[0].hparams, steps=STEPS, evals=EVALS, lanes=size, loop=loop)
            for loop, size in WAYS
        ]
        clocks = (time.perf_counter, time.process_time)
        paces = [[[t.pace(lanes, clock) for clock in clocks] for t in trainers] for _ in range(ROUNDS)]
        best = [[max(paces[r][w][c] for r in range(ROUNDS)) for c in range(2)] for w in range(len(WAYS))]
        shown = "  ".join(
            f"{loop} x {size}: {wall:,.0f} | {cpu:,.0f}" for (loop, size), (wall, cpu) in zip(WAYS, best, strict=True)
        )
        print(f"{name:16} {shown}  gain {max(best[0][1], best[1][1]) / best[2][1]:.1f} x", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or list(PROBLEMS))
