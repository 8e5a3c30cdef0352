"""What the harness's loop costs over a bare loop of the same jitted step, with the data in memory.

The two take turns within one trial: the judge charges a stretch of steps to the harness, and the "evaluation" that
follows times a bare loop of as many steps. Both gather the same rows and derive the same keys, on the device.

    python benchmarks/loop.py [WORKLOAD …]
"""

import argparse
import itertools
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from fakes import ListRecorder, header
from toys import toy_workload

from timetrial import from_optax
from timetrial.devices import Mesh, put_replicated
from timetrial.judge import Judge
from timetrial.problem import make_task
from timetrial.programs import Entry
from timetrial.registry import load_workload, workload_names
from timetrial.stream import pad_indices
from timetrial.target import Target
from timetrial.trainer import PureTrainer

NEVER = Target("loss", -1e30, "lower")


def measure(name: str, stretches: int, seconds: float) -> dict[str, Any]:
    """Milliseconds a step of both loops (medians over stretches), their ratio and difference."""
    workload = toy_workload() if name == "toy" else load_workload(name)
    mesh = Mesh.local()
    task = make_task(workload, horizon_examples=10**6, device_count=mesh.size, device_memory_bytes=mesh.memory_bytes)
    entry = Entry(make=lambda hparams, task: from_optax(optax.adam(1e-4)), folder=None, hparams={}, traced=frozenset())
    trainer = PureTrainer(workload, entry, task, seed=len, mesh=mesh, now=time.perf_counter, exact_examples=True)
    trainer.start()
    trainer.run(lambda counts: counts.step >= 5)
    began = time.perf_counter()
    trainer.run(lambda counts: counts.step >= 25)
    steps = max(20, round(seconds / ((time.perf_counter() - began) / 20)))

    # The bare loop: the same program, on a state of its own, its indices sent beforehand.
    program, rows = trainer._programs.gathering_step, workload.default_batch_size
    state = put_replicated(jax.tree.map(lambda x: np.array(x), trainer.state), mesh)
    first = int(state.step)
    count = steps * (stretches + 2)
    indices = trainer._stream.indices(first * rows, count * rows).reshape(count, rows)
    plan = put_replicated((np.int32(first), pad_indices(indices, mesh)), mesh)
    bare: list[float] = []

    def bare_stretch(params: Any, model_state: Any, splits: Any) -> dict[str, float]:
        nonlocal state
        del params, model_state
        if "valid" in splits:
            began = time.perf_counter()
            for _ in range(steps):
                state, _ = program(state, trainer._data, plan, trainer._keys["step"], trainer._hparams)
            jax.block_until_ready(state)
            bare.append((time.perf_counter() - began) / steps)
        return {"valid/loss": 1.0}

    recorder = ListRecorder()
    rules = header(clock="steps", budget=float(steps * stretches), eval_every=float(steps), target=NEVER)
    trainer.start = lambda: None  # it has started; the judge goes on from here
    trainer._counts = trainer._counts._replace(step=0)
    trainer._plan = None
    trainer.state = trainer.state._replace(step=put_replicated(np.int32(0), mesh))
    Judge(trainer, bare_stretch, recorder, rules, now=time.perf_counter).run()
    charged = [line.seconds for line in recorder.evals]
    harness = [(b - a) / steps for a, b in itertools.pairwise(charged)]
    trainer.close()
    mine, theirs = statistics.median(harness), statistics.median(bare[1:])
    paired = statistics.median(h / b for h, b in zip(harness, bare[1:], strict=False))
    return {
        "workload": name,
        "arrays": len(jax.tree.leaves(trainer.state)),
        "steps_a_stretch": steps,
        "harness_ms": 1e3 * mine,
        "bare_ms": 1e3 * theirs,
        "ratio": paired,
        "microseconds_more": 1e6 * (mine - theirs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", default=["toy", *workload_names("mini")])
    parser.add_argument("--stretches", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.5, help="length of a stretch")
    args = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores, jax {jax.__version__}")
    for name in args.workloads:
        print(json.dumps(measure(name, args.stretches, args.seconds)))


if __name__ == "__main__":
    main()
