"""`timetrial freeze`: writes the locks of workloads into LOCK.toml, or checks that they hold."""

import argparse
import sys

from timetrial import registry
from timetrial.lock import LOCK_NAME, changes, current_table, read_lock, write_tables


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "workloads", nargs="*", metavar="W", help="workloads to lock anew; default: those without a lock"
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 where a workload is not what is locked"
    )


def run(args: argparse.Namespace) -> int:
    """A workload that changed loses its lock only when it is named: its records would no longer compare."""
    from timetrial.compilation import cache_folder, use_cache

    use_cache(cache_folder())
    locked = read_lock()
    names = registry.all_workload_names()
    gone = set() if args.workloads else {*locked} - {*names}
    found = {name: current_table(name) for name in args.workloads or names}
    differing = {
        name: said for name, table in found.items() if name in locked and (said := changes(locked[name], table))
    }
    new = {*found} - {*locked}

    if args.check:
        unlocked = {name: ["has no lock"] for name in new} | {name: ["its folder is gone"] for name in gone}
        if not differing and not unlocked:
            print(f"{len(found)} {'lock holds' if len(found) == 1 else 'locks hold'}")
        return _report(differing | unlocked)

    written = {name: table for name, table in found.items() if name in new or name in args.workloads}
    write_tables(written, gone, registry.shipped("workloads"))
    for name in sorted({*written, *gone}):
        print(f"{name}: {'dropped' if name in gone else 'locked' if name in new else 'locked anew'}")
    return _report({name: said for name, said in differing.items() if name not in args.workloads})


def _report(findings: dict[str, list[str]]) -> int:
    """Prints what differs from the lock, and what to do; the exit code."""
    for name, said in sorted(findings.items()):
        for line in said:
            print(f"{name}: {line}", file=sys.stderr)
    if findings:
        names = " ".join(sorted(findings))
        print(
            f"{LOCK_NAME} does not hold. A workload that has been run is frozen: undo the change, or make it a new "
            f"workload in a folder of its own (name_v2). One that nobody has run yet: `timetrial freeze {names}`.",
            file=sys.stderr,
        )
    return 1 if findings else 0
