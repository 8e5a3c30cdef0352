"""`timetrial doctor`: what this machine is, how steady its clock is, and what a ruleset costs at most."""

import argparse
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from timetrial.commands.output import add_format, print_json, print_table
from timetrial.data import data_root
from timetrial.fingerprint import fingerprint
from timetrial.machine import hardware, packages
from timetrial.noise import NoiseMeter
from timetrial.ruleset import Ruleset, load_ruleset

GIB = 2**30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ruleset", nargs="?", metavar="RULESET", help="a ruleset, to estimate what it costs")
    parser.add_argument("--seconds", type=float, default=1.0, help="how long to watch the clock (default: 1)")
    parser.add_argument(
        "--measure",
        action="store_true",
        help="time AdamW's steps here, for hours of rulesets charged in examples or steps",
    )
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help="measure matrix products, memory bandwidth and dispatch, beside what this kind of machine gave before",
    )
    add_format(parser)


def run(args: argparse.Namespace) -> int:
    rules = None if args.ruleset is None else load_ruleset(args.ruleset)
    found: dict[str, Mapping[str, Any]] = {
        "versions": packages(),
        "machine": machine(),
        "clock": clock_noise(args.seconds),
        **calibration(measure=args.calibrate),
    }
    paces = measured(rules) if rules is not None and args.measure else {}
    costs = None if rules is None else cost(rules, paces)
    if args.format == "json":
        print_json(found | ({} if costs is None else {"cost": costs}))
        return 0
    for title, values in found.items():
        print_table(title.capitalize(), [{"": name.replace("_", " "), "value": _text(v)} for name, v in values.items()])
    if rules is not None and costs is not None:
        print_table(f"Cost of one submission under {rules.name}, at most", costs)
        if rules.clock != "seconds":
            print("hours: of training at AdamW's pace here, evaluation aside" if paces else "hours: with --measure")
    return 0


def machine() -> dict[str, Any]:
    """What a record would say of this machine, and how much room it has now."""
    found = hardware()
    return found | {
        "fingerprint": fingerprint(found),
        "memory_free_gib": _memory_free_gib(),
        "data_folder": str(data_root()),
        "data_disk_free_gib": shutil.disk_usage(_nearest_existing(data_root())).free / GIB,
    }


def _memory_free_gib(meminfo: Path = Path("/proc/meminfo")) -> float | None:
    """What can be allocated without swapping; None where the kernel does not say."""
    if not meminfo.is_file():
        return None
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024 / GIB


def _nearest_existing(path: Path) -> Path:
    return next(parent for parent in (path, *path.parents) if parent.exists())


def calibration(*, measure: bool) -> dict[str, Mapping[str, Any]]:
    """What this kind of machine gave when it was last calibrated and, with `measure`, what it gives now."""
    from timetrial.calibration import calibrate, read_calibration

    here = hardware()
    before = read_calibration(here)
    found: dict[str, Mapping[str, Any]] = {} if before is None else {"calibration before": before}
    return found | ({"calibration": calibrate(here)} if measure else {})


def clock_noise(seconds: float, now: Callable[[], float] = time.monotonic) -> dict[str, Any]:
    """How far times on this machine can be trusted: a fixed piece of work of about 1 ms, repeated for `seconds`.

    `jitter` is its 99th percentile over its median: 1 on an idle machine with a steady clock. Beside it stands what a
    trial would record of the noise meanwhile (`timetrial.noise`).
    """
    meter = NoiseMeter()
    durations: list[float] = []
    start = end = now()
    while end - start < seconds or not durations:
        begin = now()
        sum(range(40_000))
        end = now()
        durations.append(end - begin)
    durations.sort()
    median, p99 = durations[len(durations) // 2], durations[int(0.99 * len(durations))]
    return {
        "resolution_seconds": time.get_clock_info("monotonic").resolution,
        "work_median_seconds": median,
        "work_p99_seconds": p99,
        "jitter": p99 / median if median > 0 else None,
        **meter.read(),
    }


def measured(rules: Ruleset) -> dict[str, float]:
    """Seconds that a unit of the ruleset's clock takes AdamW on this machine, by workload. Imports jax."""
    from timetrial.check.pace import seconds_a_step
    from timetrial.compilation import cache_folder, use_cache
    from timetrial.registry import load_workload

    if rules.clock == "seconds":
        return {}
    use_cache(cache_folder())
    workloads = {name: load_workload(name) for name in rules.workloads}
    examples = {name: w.default_batch_size if rules.clock == "examples" else 1 for name, w in workloads.items()}
    return {name: seconds_a_step(workload) / examples[name] for name, workload in workloads.items()}


def cost(rules: Ruleset, paces: Mapping[str, float] = {}) -> list[dict[str, Any]]:
    """What one submission can charge, by workload and board: studies x trials x budget, nothing reached early.

    `hours` is None where the ruleset charges steps or examples and `paces` does not say how many seconds one takes.
    """

    def hours(name: str, charge: float) -> float | None:
        pace = 1.0 if rules.clock == "seconds" else paces.get(name)
        return None if pace is None else charge * pace / 3600

    rows: list[dict[str, Any]] = []
    for board, tuning in (("external", rules.external), ("self-tuning", rules.self_tuning)):
        if tuning is None:
            continue
        for name in rules.workloads:
            budget = rules.budget(name, self_tuning=board == "self-tuning")
            charge = tuning.studies * tuning.trials * budget
            rows.append(
                {"board": board, "workload": name, "studies": tuning.studies, "trials": tuning.trials}
                | {"budget": budget, "total": charge, "clock": rules.clock, "hours": hours(name, charge)}
            )
        mine = [row for row in rows if row["board"] == board]
        known = all(row["hours"] is not None for row in mine)
        sums = {
            "total": sum(row["total"] for row in mine),
            "hours": sum(row["hours"] for row in mine) if known else None,
        }
        rows.append(rows[-1] | {"workload": "all", "budget": None} | sums)
    return rows


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return "unknown" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
