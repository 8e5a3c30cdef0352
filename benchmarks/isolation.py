"""What isolation adds to charged time: the same trial here, as programs, and in a process of its own, turn by turn.

    python benchmarks/isolation.py --workload lobes --steps 400 --turns 3

Each trial is compiled from nothing, as under the seconds clock. Medians, and ratios to the trial without isolation; the
machine's load stands beside them. A submission with a hook cannot be handed over as programs, so that mode is measured
with AdamW and a hook that does nothing.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

TEXT = """
import optax

from timetrial import Submission, from_optax

SEARCH_SPACE = {{}}


def make(hparams, task):
    pure = from_optax(optax.adamw(1e-3, mask=task.decay_mask))
    return {made}
"""
PURE = TEXT.format(made="pure")
HOOKED = TEXT.format(made="Submission(pure.init, pure.step, on_eval=lambda state, feedback: state)")
MODES = {
    "python": (PURE, False),
    "program": (PURE, True),
    "python, hooked": (HOOKED, False),
    "process": (HOOKED, True),
}


def one(workload_name: str, mode: str, steps: int) -> None:
    """Runs one trial, and prints charged seconds, those of compilation, and steps."""
    from timetrial.isolation.policy import Policy
    from timetrial.isolation.process import Isolated
    from timetrial.loading import Source
    from timetrial.registry import load_workload
    from timetrial.ruleset import load_ruleset
    from timetrial.target import Target
    from timetrial.trial import Trial, run_trial

    text, apart = MODES[mode]
    workload, ruleset = load_workload(workload_name), load_ruleset("mini-v1")
    never = Target(workload.metric, -1e30 if workload.better == "lower" else 1e30, workload.better)
    rules = replace(ruleset.workloads[workload_name], budget=steps, eval_every=steps / 4, target=never)
    ruleset = replace(ruleset, clock="steps", workloads={workload_name: rules})
    isolated = None
    if apart:
        isolated = Isolated(
            isolation="sandbox", policy=Policy(memory_bytes=8 << 30, file_bytes=1 << 30, seconds=3600.0)
        )
    with tempfile.TemporaryDirectory() as scratch:
        source = Source("bench", Path(scratch) / "bench" / "submission.py")
        source.folder.mkdir()
        source.path.write_text(text)
        trial = Trial(seed=0, study=0, trial=0, self_tuning=True)
        end = run_trial(
            workload, source, ruleset, trial, Path(scratch) / "out", workload_sha256="0" * 64, isolated=isolated
        )
    assert end.status == "budget", end.message
    print(end.seconds, end.compile_seconds, end.step)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", default="lobes", metavar="W")
    parser.add_argument("--steps", type=int, default=400, metavar="N")
    parser.add_argument("--turns", type=int, default=3, metavar="K")
    parser.add_argument("--one", choices=list(MODES), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        one(args.workload, args.one, args.steps)
        return
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for _ in range(args.turns):
        for mode in MODES:
            words = (sys.executable, __file__, "--workload", args.workload, "--steps", str(args.steps), "--one", mode)
            done = subprocess.run(words, capture_output=True, text=True, check=True)
            seconds, compiling, _ = map(float, done.stdout.split()[-3:])
            found[mode].append((seconds, compiling))
    print(f"{args.workload}, {args.steps} steps, medians of {args.turns}; load {os.getloadavg()[0]:.1f}")
    print(f"{'':>16}  charged [s]  of it compiling  ratio")
    for mode, values in found.items():
        base = found["python" if mode in ("python", "program") else "python, hooked"]
        seconds, compiling = (statistics.median(v[i] for v in values) for i in (0, 1))
        ratio = statistics.median(a[0] / b[0] for a, b in zip(values, base, strict=True))
        print(f"{mode:>16}  {seconds:11.2f}  {compiling:15.2f}  {ratio:5.3f}")


if __name__ == "__main__":
    main()
