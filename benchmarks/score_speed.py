"""How long scoring takes, from the files to the printed table, and how that grows with the number of logs.

    python benchmarks/score_speed.py LOGS [--ruleset algoperf-v05-external]

LOGS is AlgoPerf's log tree (or environment TIMETRIAL_ALGOPERF_LOGS). Each line is a fresh process on one core: seconds
of processor time, seconds on the wall, and peak memory. 2x and 4x are the same submissions, linked under more names.
Expect for v0.5 external (3,718 logs): under 2 s, under 300 MB, and time in proportion to the logs.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LOG = "eval_measurements.csv"


def submissions(root: Path) -> list[Path]:
    """The submission folders below `root`."""
    logs = (Path(where) for where, _, files in os.walk(root) if LOG in files)
    return sorted({folder.parents[2] for folder in logs if folder.parents[1].name.startswith("study_")})


def copies(folders: list[Path], times: int, root: Path) -> int:
    """Links every submission's files `times` times under new names; returns the number of logs."""
    logs = 0
    for folder in folders:
        for where, _, files in os.walk(folder):
            for copy in range(times):
                to = root / f"{folder.name}_{copy}" / os.path.relpath(where, folder)
                to.mkdir(parents=True, exist_ok=True)
                for name in files:
                    (to / name).symlink_to(Path(where, name).resolve())
                    logs += name == LOG
    return logs


def measure(folder: Path, ruleset: str) -> tuple[float, float, float]:
    """Processor seconds, wall seconds and peak megabytes of one `timetrial_scoring` process on one core."""
    command = [sys.executable, "-m", "timetrial_scoring", str(folder), "--ruleset", ruleset]
    pin = (
        (lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})) if hasattr(os, "sched_setaffinity") else None
    )
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True, preexec_fn=pin)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used, wall, after.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logs", nargs="?", default=os.environ.get("TIMETRIAL_ALGOPERF_LOGS"))
    parser.add_argument("--ruleset", default="algoperf-v05-external")
    args = parser.parse_args()
    if args.logs is None:
        parser.error("give the folder of AlgoPerf's logs, or set TIMETRIAL_ALGOPERF_LOGS")
    folders = submissions(Path(args.logs))
    if not folders:
        parser.error(f"no {LOG} below {args.logs}")
    measure(Path(args.logs), args.ruleset)  # reads the files into the cache, compiles the modules
    print(f"{'logs':>8}  {'processor':>10}  {'wall':>8}  {'peak':>8}")
    for times in (1, 2, 4):
        with tempfile.TemporaryDirectory() as scratch:
            logs = copies(folders, times, Path(scratch))
            used, wall, peak = measure(Path(scratch), args.ruleset)
            print(f"{logs:>8,}  {used:>8.2f} s  {wall:>6.2f} s  {peak:>5.0f} MB")


if __name__ == "__main__":
    main()
