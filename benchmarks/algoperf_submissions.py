"""Runs AlgoPerf submissions on the mini workloads, on noise, and prints who runs where and what stops the others.

    python benchmarks/algoperf_submissions.py PATH [--steps 50] [--workload lobes …]

PATH is a copy of github.com/mlcommons/submissions_algorithms, or any folder with JAX submissions of AlgoPerf's API in
it. Each submission has a process of its own and takes its first hyperparameters; a cell says `ran`, or what stopped it.
The table in docs/algoperf.md is this output.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from timetrial.errors import UserError
from timetrial.loading import Source, find_source, load
from timetrial.registry import SUBMISSION_FILE, load_workload, workload_names


def submissions_below(root: Path) -> Iterator[tuple[str, Source | str]]:
    """The submissions that import jax, or why one cannot be read."""
    for path in sorted(root.rglob(SUBMISSION_FILE)):
        if re.search(r"^\s*(import|from) jax\b", path.read_text(errors="replace"), re.MULTILINE):
            name = path.parent.relative_to(root).as_posix()
            try:
                source = find_source(str(path.parent))
                source.parse()
                if source.api == "algoperf":
                    yield name, source
            except UserError as error:
                yield name, re.sub(r"^.*/", "", str(error))


def try_on(source: Source, workloads: list[str], steps: int) -> Iterator[dict[str, str]]:
    """One line for each workload: `cell` says how it went."""
    from timetrial.check.conformance import on_noise
    from timetrial.devices import Mesh
    from timetrial.failures import submission_code
    from timetrial.judge import SubmissionFailure
    from timetrial.problem import make_task
    from timetrial.trainers import importable, make_trainer
    from timetrial.tuning import default_point

    mesh = Mesh.local()
    with importable(source):
        try:
            with submission_code("import", source.folder):
                loaded = load(source)
        except SubmissionFailure as failure:
            yield from ({"workload": name, "cell": str(failure)} for name in workloads)
            return
        point = default_point(loaded.search_space) if loaded.search_space else {}
        for name in workloads:
            workload = on_noise(load_workload(name))
            task = make_task(
                workload,
                horizon_examples=1000 * workload.default_batch_size,
                device_count=mesh.size,
                device_memory_bytes=mesh.memory_bytes,
            )
            trainer = make_trainer(
                source,
                lambda: loaded,
                point,
                workload,
                task,
                seed=len,
                mesh=mesh,
                now=time.perf_counter,
                exact_examples=False,
            )
            try:
                trainer.start()
                trainer.run(lambda counts: counts.step >= steps)
                trainer.evaluated()
                yield {"workload": name, "cell": "ran"}
            except SubmissionFailure as failure:
                yield {"workload": name, "cell": str(failure)}
            finally:
                trainer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, metavar="PATH")
    parser.add_argument("--steps", type=int, default=50, metavar="N")
    parser.add_argument("--workload", nargs="+", default=workload_names("mini"), metavar="W")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        for line in try_on(find_source(str(args.path)), args.workload, args.steps):
            print("\n" + json.dumps(line), flush=True)
        return
    print(f"| submission | {' | '.join(args.workload)} |\n{'|---' * (1 + len(args.workload))}|", flush=True)
    for name, source in submissions_below(args.path):
        cells = {} if isinstance(source, Source) else dict.fromkeys(args.workload, source)
        if isinstance(source, Source):
            command = [sys.executable, __file__, str(source.folder), "--one", "--steps", str(args.steps)]
            done = subprocess.run([*command, "--workload", *args.workload], capture_output=True, text=True, check=False)
            lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"workload"')]
            cells = {line["workload"]: line["cell"] for line in lines}
        shown = " | ".join(cells.get(workload, "the process died") for workload in args.workload)
        print(f"| {name} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
