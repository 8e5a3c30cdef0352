"""`timetrial doctor`: what this machine is, how steady its clock is, what a ruleset costs, what memory a step needs."""

import argparse
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timetrial.absent_gpus import COMPILER_OPTIONS, MODELS, absent_devices
from timetrial.campaign import restrict
from timetrial.commands.output import add_format, print_json, print_table
from timetrial.cost import cost, measured_paces, per_unit, read_paces
from timetrial.data import data_root
from timetrial.errors import UserError
from timetrial.fingerprint import fingerprint
from timetrial.full.recorded import Recorded
from timetrial.gpus import share_memory, trainers_share
from timetrial.machine import hardware, packages
from timetrial.noise import NoiseMeter
from timetrial.ruleset import load_ruleset

if TYPE_CHECKING:
    from timetrial.workload import Workload

GIB = 2**30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=1.0, help="how long to watch the clock (default: 1)")
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help="measure matrix products, memory bandwidth and dispatch, beside what this kind of machine gave before",
    )
    costs = parser.add_argument_group("what a ruleset costs")
    costs.add_argument("--cost", metavar="RULESET", help="at most, by workload and board, before anything starts")
    costs.add_argument("--submissions", type=int, default=1, metavar="N", help="of a board of so many (default: 1)")
    parser.add_argument(
        "--devices", type=int, default=1, metavar="N", help="--cost, --gpu: of a machine of so many (default: 1)"
    )
    costs.add_argument("--held-out", action="store_true", help="with a variant of each workload that has none there")
    paces = costs.add_mutually_exclusive_group()
    paces.add_argument(
        "--measure", action="store_true", help="hours of rulesets charged in examples or steps: time AdamW's steps here"
    )
    paces.add_argument(
        "--seconds-per-step", type=Path, metavar="FILE", help="the same, from what --measure --format json printed"
    )
    memory = parser.add_argument_group("what a training step needs of a device's memory")
    memory.add_argument("--memory", metavar="WORKLOAD", help="as AdamW's step compiles here; needs no data")
    memory.add_argument(
        "--batch-sizes", type=_sizes, metavar="B,B,…", help="(default: a quarter and all of the workload's own)"
    )
    memory.add_argument(
        "--gpu", choices=MODELS, help="compiled for --devices of these, which need not be here (docs/planning.md)"
    )
    memory.add_argument("--ruleset", "-r", metavar="R", help="precision, and what saves memory, as it says")
    memory.add_argument("--accumulate", type=int, metavar="K", help="as of `timetrial run`")
    memory.add_argument("--remat", action=argparse.BooleanOptionalAction, help="as of `timetrial run`")
    add_format(parser)


def run(args: argparse.Namespace) -> int:
    share_memory(os.environ, judge_alone=False)
    if args.devices < 1:
        raise UserError(f"--devices must be at least 1, not {args.devices}")
    if args.gpu is not None and args.memory is None:
        raise UserError("--gpu is for --memory WORKLOAD")
    if args.memory is not None and args.devices > 1 and args.gpu is None:
        raise UserError("--memory counts the devices that are here; --devices needs --gpu beside it")
    if args.gpu is not None:
        os.environ.setdefault("JAX_PLATFORMS", "cpu")  # the plugin looks for a driver otherwise, and says so at length
    if args.cost is not None:
        return _cost(args)
    if args.memory is not None:
        return _memory(args)
    found: dict[str, Mapping[str, Any]] = {
        "versions": packages(),
        "machine": machine(),
        "clock": clock_noise(args.seconds),
        **calibration(measure=args.calibrate),
    }
    if args.format == "json":
        print_json(found)
        return 0
    for title, values in found.items():
        print_table(title.capitalize(), [{"": name.replace("_", " "), "value": _text(v)} for name, v in values.items()])
    return 0


def _cost(args: argparse.Namespace) -> int:
    rules = load_ruleset(args.cost)
    if args.submissions < 1:
        raise UserError(f"--submissions must be at least 1, not {args.submissions}")
    paces: dict[str, float] = {}
    if args.seconds_per_step is not None:
        paces = read_paces(args.seconds_per_step)
    elif args.measure and rules.clock != "seconds":
        paces = measured_paces(rules)
    rows = cost(
        rules,
        per_unit(rules, paces),
        submissions=args.submissions,
        devices=args.devices,
        held_out=args.held_out,
    )
    if args.format == "json":
        print_json({"ruleset": rules.name, "clock": rules.clock, "seconds_per_step": paces, "cost": rows})
        return 0
    board = "one submission" if args.submissions == 1 else f"{args.submissions} submissions"
    print_table(f"Cost of {board} under {rules.name}, at most", [_words(row) for row in rows])
    print("Nothing reached early; evaluation, which is not charged, and what the input needs come on top.")
    if rules.clock != "seconds":
        print("hours: of training at AdamW's pace" if paces else "hours: with --measure, or --seconds-per-step FILE")
    return 0


def _memory(args: argparse.Namespace) -> int:
    from jax.errors import JaxRuntimeError

    from timetrial.devices import Mesh
    from timetrial.memory import step_memory

    workload = _as_trained(args)
    own = workload.default_batch_size
    if args.gpu is None:
        mesh, options = Mesh.local(), None
    else:
        model = MODELS[args.gpu]
        mesh = Mesh.absent(absent_devices(model, args.devices), trainers_share(model.memory_bytes))
        options = COMPILER_OPTIONS
    sizes = args.batch_sizes or sorted({max(1, own // 4), own})
    try:
        rows = [step_memory(workload, size, mesh, options) for size in sizes]
    except JaxRuntimeError as error:
        raise UserError(f"XLA cannot compile a step of {workload.name!r}: {str(error).splitlines()[0]}") from None
    kind = mesh.mesh.devices.flat[0].device_kind
    if args.format == "json":
        about = {name: getattr(workload, name) for name in ("accumulate", "remat", "matmul_precision")}
        devices = {"device_kind": kind, "device_count": mesh.size, "device_memory": mesh.memory_bytes}
        print_json({"workload": workload.name} | about | devices | {"bytes": rows})
        return 0
    how = [workload.name]
    if workload.accumulate > 1:
        how.append(f"in {workload.accumulate} parts")
    if workload.remat:
        how.append("computed again")
    if workload.matmul_precision is not None:
        how.append(workload.matmul_precision)
    print_table(
        f"A step of AdamW on {', '.join(how)}: MiB of each device",
        [{name: n if name == "batch_size" else round(n / 2**20, 2) for name, n in row.items()} for row in rows],
    )
    data = "" if isinstance(workload.data, Recorded) else "; beside the training data, which may take a quarter"
    print(f"{mesh.size} x {kind} of {mesh.memory_bytes / GIB:.1f} GiB{data}")
    return 0


def _as_trained(args: argparse.Namespace) -> "Workload":
    """The workload of --memory as `timetrial run` would train it."""
    from timetrial.registry import load_workload
    from timetrial.workload import at_precision, economical

    workload, accumulate, remat, where = load_workload(args.memory), args.accumulate, args.remat, "--accumulate"
    if args.ruleset is not None:
        ruleset = restrict(load_ruleset(args.ruleset), workloads=[args.memory])
        rules = ruleset.workloads[args.memory]
        workload = at_precision(workload, ruleset.matmul_precision)
        if accumulate is None:
            accumulate, where = rules.accumulate, f"ruleset {ruleset.name!r}: accumulate"
        remat = rules.remat if remat is None else remat
    return economical(workload, accumulate=1 if accumulate is None else accumulate, remat=bool(remat), where=where)


def _sizes(text: str) -> list[int]:
    """`text`, as in "16,32", as batch sizes."""
    parts = text.split(",")
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not made of numbers from 1 on with commas between, as in 16,32")
    return [int(part) for part in parts]


def _words(row: Mapping[str, Any]) -> dict[str, Any]:
    said = {True: "held out", False: "base", None: None}
    return {name.replace("_", " "): said[value] if name == "held_out" else value for name, value in row.items()}


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


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return "unknown" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
