"""From the start of a process to the end of its first training step: the harness against bare jax.

Bare jax imports jax, flax and optax, reads the same arrays, and compiles init and step of the same model. The harness
also evaluates the untrained model, whose program comes from the cache; both compile the step anew. They take turns.

    python benchmarks/startup.py [WORKLOAD …]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from timetrial.launchers.process import WORKER
from timetrial.loading import find_source
from timetrial.record import read_record
from timetrial.registry import workload_names
from timetrial.ruleset import Ruleset
from timetrial.worker import Job

RULES = {
    "name": "startup",
    "version": 1,
    "description": "",
    "clock": "seconds",
    "external": {"studies": 1, "trials": 1, "points": "default"},
}
LIMITS = {"budget": 1000, "eval_every": 0.1, "horizon_examples": 10**6}
"""The first eval follows the first step, since compiling it takes longer than the grid's spacing."""

BARE = """
import sys, time
import flax, jax, jax.numpy as jnp, numpy as np, optax
from timetrial.registry import load_workload
workload = load_workload(sys.argv[1])
data = {k: jnp.asarray(np.asarray(v)) for k, v in workload.split("train").items()}
params, model_state = jax.jit(workload.init)(jax.random.key(0))
tx = optax.adamw(1e-3)
opt_state = jax.jit(tx.init)(params)
def step(params, model_state, opt_state, data, rows, key):
    batch = {k: v[rows] for k, v in data.items()}
    def mean(params):
        outputs, new = workload.apply(params, model_state, batch, key, train=True)
        losses, terms = workload.loss(outputs, batch)
        return losses.sum() / terms.sum(), new
    (loss, new), grads = jax.value_and_grad(mean, has_aux=True)(params)
    updates, opt_state = tx.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), new, opt_state, loss
rows = np.arange(workload.default_batch_size, dtype=np.int32)
jax.block_until_ready(jax.jit(step)(params, model_state, opt_state, data, rows, jax.random.key(1)))
print("done", flush=True)
"""


def bare(workload: str) -> float:
    """Seconds until bare jax has taken its first step."""
    began = time.perf_counter()
    with subprocess.Popen([sys.executable, "-c", BARE, workload], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"
        return time.perf_counter() - began


def harness(workload: str, folder: Path) -> float:
    """Seconds until a worker has taken its first step, under the seconds clock."""
    source = find_source("adamw")
    rules = Ruleset.from_json({**RULES, "workloads": {workload: LIMITS}})
    job = Job(
        submission="adamw",
        path=str(source.path),
        workload=workload,
        ruleset=rules.to_json(),
        seed=0,
        study=0,
        trial=0,
        self_tuning=False,
        folder=str(folder),
    )
    began = time.perf_counter()
    with subprocess.Popen(WORKER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(asdict(job)))
        process.stdin.close()
        for line in process.stdout:
            if json.loads(line).get("progress", {}).get("evals", 0) > 1:
                break
        seconds = time.perf_counter() - began
        process.kill()
    first = read_record(folder / "record.jsonl").evals[1]
    if first.step != 1:
        raise SystemExit(f"{workload}: the first eval came after step {first.step}, so this measures nothing")
    return seconds - first.eval_seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", default=workload_names("mini"))
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores")
    for name in args.workloads:
        with tempfile.TemporaryDirectory() as folder:
            rounds = [(bare(name), harness(name, Path(folder) / str(i))) for i in range(args.rounds + 1)][1:]
        theirs, mine = (statistics.median(column) for column in zip(*rounds, strict=True))
        more = statistics.median(b - a for a, b in rounds)
        print(json.dumps({"workload": name, "harness_s": mine, "bare_s": theirs, "seconds_more": more}))


if __name__ == "__main__":
    main()
