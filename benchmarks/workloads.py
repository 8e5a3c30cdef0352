"""What a workload costs on this machine: compilation, a step, an evaluation, waiting for data, memory, utilisation.

Each in a process of its own, with AdamW at its default point for a while. The figures of docs/workloads.md. Utilisation
is the step's operations, as XLA counts them, in what the devices' largest products would do meanwhile.

    python benchmarks/workloads.py [--batch-size ROWS] [--ruleset full-v1] [WORKLOAD …]

On GPUs, the full track on synthetic twins: `--batch-size 128 --ruleset full-v1 imagenet_resnet@twin …`, one model at a
time, since a batch that fits differs (`timetrial doctor --memory`).
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

from timetrial import registry

_SECONDS = 8.0


def measure(name: str, batch_size: int | None, ruleset: str | None) -> dict[str, Any]:
    """The figures of one workload; times in seconds but where the key says milliseconds."""
    import jax

    from timetrial.calibration import calibrate
    from timetrial.devices import Mesh
    from timetrial.evaluate import Evaluator
    from timetrial.loading import find_source, load
    from timetrial.machine import hardware
    from timetrial.memory import step_flops
    from timetrial.problem import make_task
    from timetrial.programs import Entry
    from timetrial.registry import load_workload
    from timetrial.ruleset import load_ruleset
    from timetrial.trainer import PureTrainer
    from timetrial.tuning import default_point, traced_names
    from timetrial.workload import at_precision

    mesh = Mesh.local()
    workload = at_precision(load_workload(name), None if ruleset is None else load_ruleset(ruleset).matmul_precision)
    rows = batch_size or workload.default_batch_size
    workload = replace(workload, default_batch_size=rows)
    with jax.default_matmul_precision(workload.matmul_precision):
        ceiling = calibrate(hardware())["matmul_flops"] * mesh.size
    flops = step_flops(workload, rows, mesh)
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
        "teraflop": flops / 1e12,
        "utilisation": flops / statistics.median(stretches) / ceiling,
        "data_waiting": waited / took,
        "eval": min(evals),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workloads", nargs="*", default=registry.workload_names("mini"))
    parser.add_argument("--batch-size", type=int, help="rows of a step (default: the workload's own)")
    parser.add_argument("--ruleset", help="whose precision of products holds")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        print(json.dumps(measure(args.workloads[0], args.batch_size, args.ruleset)))
        return
    print(f"load {os.getloadavg()[0]:.1f}, {len(os.sched_getaffinity(0))} cores", file=sys.stderr)
    for name in args.workloads:
        command = [sys.executable, __file__, "--here", name]
        command += ["--batch-size", str(args.batch_size)] if args.batch_size else []
        command += ["--ruleset", args.ruleset] if args.ruleset else []
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        print(
            f"{name:<12} first step {found['first_step']:5.1f} s (compiling {found['compile']:.1f}), "
            f"step {found['step_ms']:6.1f} ms ({found['step_cpu_ms']:.0f} of processor), "
            f"{found['teraflop']:.3g} TFLOP at {found['utilisation']:.0%} of the ceiling, "
            f"eval {found['eval']:.2f} s, data waiting {found['data_waiting']:.2%}, {found['peak_memory_mb']:.0f} MB"
        )


if __name__ == "__main__":
    main()
