"""What a workload costs on this machine: compilation, a step, an evaluation, waiting for data, memory.

Each in a process of its own, with AdamW at its default point for a while. The figures of docs/workloads.md.

    python benchmarks/workloads.py [WORKLOAD …]
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

from timetrial import registry

_SECONDS = 8.0


def measure(name: str) -> dict[str, Any]:
    """The figures of one workload; times in seconds but where the key says milliseconds."""
    from timetrial.devices import Mesh
    from timetrial.evaluate import Evaluator
    from timetrial.loading import find_source, load
    from timetrial.problem import make_task
    from timetrial.programs import Entry
    from timetrial.registry import load_workload
    from timetrial.trainer import PureTrainer
    from timetrial.tuning import default_point, traced_names

    workload, mesh = load_workload(name), Mesh.local()
    source = find_source("adamw")
    loaded = load(source)
    task = make_task(workload, horizon_examples=10**6, device_count=mesh.size, device_memory_bytes=mesh.memory_bytes)
    entry = Entry(
        make=loaded.make,
        folder=source.folder,
        hparams=default_point(loaded.search_space),
        traced=traced_names(loaded.search_space),
    )
    trainer = PureTrainer(workload, entry, task, seed=len, mesh=mesh, now=time.perf_counter, exact_examples=True)
    evaluate = Evaluator(workload, mesh)
    began = time.perf_counter()
    trainer.start()
    trainer.run(lambda counts: counts.step >= 1)
    first = time.perf_counter() - began
    waited = trainer.meters().data_seconds

    stretches: list[float] = []
    took, evals, cpu = 0.0, list[float](), time.process_time()
    while took < _SECONDS:
        until, began = trainer.counts().step + 20, time.perf_counter()
        trainer.run(lambda counts, until=until: counts.step >= until)
        stretches.append((time.perf_counter() - began) / 20)
        took += stretches[-1] * 20
    cpu = (time.process_time() - cpu) / (20 * len(stretches))
    waited = trainer.meters().data_seconds - waited
    for _ in range(3):
        began = time.perf_counter()
        evaluate(*trainer.evaluated(), ("valid", "train_eval"))
        evals.append(time.perf_counter() - began)
    return {
        "workload": name,
        "first_step": first,
        "compile": trainer.meters().compile_seconds,
        "step_ms": 1000 * statistics.median(stretches),
        "step_cpu_ms": 1000 * cpu,
        "data_waiting": waited / took,
        "eval": min(evals),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workloads", nargs="*", default=registry.workload_names("mini"))
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        print(json.dumps(measure(args.workloads[0])))
        return
    print(f"load {os.getloadavg()[0]:.1f}, {len(os.sched_getaffinity(0))} cores", file=sys.stderr)
    for name in args.workloads:
        command = [sys.executable, __file__, "--here", name]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        print(
            f"{name:<12} first step {found['first_step']:5.1f} s (compiling {found['compile']:.1f}), "
            f"step {found['step_ms']:6.1f} ms ({found['step_cpu_ms']:.0f} of processor), "
            f"eval {found['eval']:.2f} s, data waiting {found['data_waiting']:.2%}, {found['peak_memory_mb']:.0f} MB"
        )


if __name__ == "__main__":
    main()
