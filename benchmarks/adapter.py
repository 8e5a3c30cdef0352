"""What the adapter adds to a step of an AlgoPerf submission: against its `update_params`, called by hand.

A submission with jit and momentum on the toy workload, whose step is short enough for the difference to show. Both take
turns within one trainer: the adapter's loop draws batches and keys, and asks at each step whether to stop; by hand the
same function is called with one batch and one key that are there already. Prints microseconds a step, medians of
stretches.

    python benchmarks/adapter.py
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
import algoperf_toys
from toys import toy_workload

from timetrial.devices import Mesh
from timetrial.loading import load
from timetrial.problem import make_task
from timetrial.trainers import importable, make_trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stretches", type=int, default=21)
    parser.add_argument("--steps", type=int, default=2000, help="of a stretch")
    args = parser.parse_args()
    workload, mesh = toy_workload(), Mesh.local()
    task = make_task(workload, horizon_examples=10**6, device_count=mesh.size, device_memory_bytes=mesh.memory_bytes)
    print(f"load {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores, jax {jax.__version__}")
    with tempfile.TemporaryDirectory() as scratch:
        source = algoperf_toys.write(Path(scratch), algoperf_toys.JIT)
        with importable(source):
            point = {"learning_rate": 0.01}
            trainer: Any = make_trainer(
                source,
                lambda: load(source),
                point,
                workload,
                task,
                seed=len,
                mesh=mesh,
                now=time.perf_counter,
                exact_examples=False,
            )
            trainer.start()
            adapted, by_hand = [], []
            for _ in range(args.stretches + 1):
                began = time.perf_counter()
                until = trainer.counts().step + args.steps
                trainer.run(lambda counts, until=until: counts.step >= until)
                jax.block_until_ready(trainer.state)
                adapted.append((time.perf_counter() - began) / args.steps)
                by_hand.append(called_by_hand(trainer, args.steps))
            trainer.close()
    ours, theirs = 1e6 * statistics.median(adapted[1:]), 1e6 * statistics.median(by_hand[1:])
    print(f"through the adapter {ours:.1f} us a step, by hand {theirs:.1f} us: {ours - theirs:.1f} us more")


def called_by_hand(trainer: Any, steps: int) -> float:
    """Seconds a step of `update_params` alone, from the trainer's state; the trainer goes on from the end."""
    module, view, hparams = trainer._module, trainer._view, trainer._hparams
    batch, (_, rng) = next(trainer._batches), trainer._rngs[0]
    state, params, model_state = trainer._optimizer_state, trainer._params, trainer._model_state
    jax.block_until_ready((batch, rng, params))
    began = time.perf_counter()
    for step in range(steps):
        state, params, model_state = module.update_params(
            workload=view,
            current_param_container=params,
            current_params_types=view.model_params_types,
            model_state=model_state,
            hyperparameters=hparams,
            batch=batch,
            loss_type=view.loss_type,
            optimizer_state=state,
            eval_results=[],
            global_step=step,
            rng=rng,
            **trainer._extra,
        )
    jax.block_until_ready((params, model_state))
    spent = (time.perf_counter() - began) / steps
    trainer._optimizer_state, trainer._params, trainer._model_state = state, params, model_state
    return spent


if __name__ == "__main__":
    main()
