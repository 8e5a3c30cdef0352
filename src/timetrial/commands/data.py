"""`timetrial data`: prepares the data of workloads once, or shows what is there."""

import argparse
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from timetrial.commands.output import add_format, print_json, print_table
from timetrial.data import SPLITS, AnyDataset, DataFolderError, Watch, data_root
from timetrial.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

_REMEDY = "`timetrial data prepare --verify` makes anew what is damaged"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_subparsers(metavar="prepare|status", required=True)
    for name, run_it, about, example in (
        ("prepare", prepare, "obtain and prepare data, once", "timetrial data prepare lobes flights"),
        ("status", status, "show which data are prepared, and what the others need", "timetrial data status --verify"),
    ):
        one = what.add_parser(
            name,
            help=about,
            description=f"{about[0].upper()}{about[1:]}.",
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            add_help=False,
        )
        one.set_defaults(run_it=run_it)
        one.add_argument("-h", "--help", action="help", help="show this help and exit")
        one.add_argument(
            "workloads", nargs="*", metavar="W", help="workloads (default: the mini track, variants aside)"
        )
        one.add_argument("--verify", action="store_true", help="read all prepared data and compare their SHA-256")
        add_format(one)


def run(args: argparse.Namespace) -> int:
    return args.run_it(args)


class _Used(NamedTuple):
    dataset: AnyDataset
    workloads: list[str]

    @property
    def title(self) -> str:
        return f"{self.dataset.name} {self.dataset.version}"


def _used(names: Sequence[str]) -> list[_Used]:
    """The data sets of these workloads, or of all bases of the mini track, each once. Imports jax."""
    from timetrial.registry import load_workload, workload_names

    found: dict[tuple[str, str], _Used] = {}
    for workload in map(load_workload, names or workload_names("mini")):
        if names or workload.variant_of is None:
            key = (workload.data.name, workload.data.version)
            found.setdefault(key, _Used(workload.data, [])).workloads.append(workload.name)
    return list(found.values())


def status(args: argparse.Namespace) -> int:
    """Exit code 1 where data are damaged; what was never prepared is no finding."""
    rows = [_describe(used, verify=args.verify) for used in _used(args.workloads)]
    if args.format == "json":
        print_json({"folder": str(data_root()), "datasets": rows})
    else:
        print_table(f"Data in {data_root()}", [_cells(row) for row in rows])
        if needs := {row["dataset"]: row["needs"] for row in rows if row["needs"]}:
            print(*(f"{name}: {need}" for name, need in needs.items()), sep="\n")
        if any(row["state"] == "absent" for row in rows):
            print("absent: `timetrial data prepare` obtains it; `timetrial run` does so too, on first use")
    damaged = [row["dataset"] for row in rows if row["state"] not in ("prepared", "absent")]
    if damaged:
        print(f"{', '.join(damaged)}: {_REMEDY}", file=sys.stderr)
    return 1 if damaged else 0


def _describe(used: _Used, *, verify: bool) -> dict[str, Any]:
    dataset = used.dataset
    state = dataset.state(verify=verify)
    installed = dataset.installed()
    prepared = state == "prepared"
    return {
        "dataset": dataset.name,
        "version": dataset.version,
        "workloads": used.workloads,
        "state": state,
        "rows": {s: len(dataset.rows(s)) for s in SPLITS} if prepared else None,
        "bytes": dataset.bytes_on_disk(),
        "packages": [
            {"name": name, "needed": version, "installed": installed[name]}
            for name, version in dataset.packages.items()
        ],
        "needs": None if prepared else dataset.needs(),
        "licence": dataset.licence,
    }


def _cells(row: dict[str, Any]) -> dict[str, Any]:
    def package(p: dict[str, Any]) -> str:
        has = "installed" if p["installed"] == p["needed"] else f"{p['installed'] or 'not'} installed"
        return f"{p['name']} {p['needed']}: {has}"

    return {
        "data set": row["dataset"],
        "version": row["version"],
        "workloads": ", ".join(row["workloads"]),
        "state": row["state"],
        **{split: (row["rows"] or {}).get(split) for split in SPLITS},
        "size": _size(row["bytes"]),
        "packages": "\n".join(map(package, row["packages"])),
        "licence": row["licence"],
    }


def _size(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def prepare(args: argparse.Namespace) -> int:
    """Exit code 1 where data sets cannot be prepared; the others are. Where nothing can be written, it ends at once."""
    from rich.console import Console

    console = Console(file=sys.stderr if args.format == "json" else sys.stdout, highlight=False, markup=False)
    ends = [_prepare(used, console, verify=args.verify) for used in _used(args.workloads)]
    failed = [end for end in ends if end["error"]]
    pip = sorted({package for end in failed for package in end["missing"]})
    if args.format == "json":
        print_json({"folder": str(data_root()), "datasets": ends, "pip": pip})
    else:
        print(f"{len(ends) - len(failed)} of {len(ends)} data sets are prepared in {data_root()}")
    for end in failed:
        print(f"not prepared: {end['error']}", file=sys.stderr)
    if pip:
        print(f"all packages that are missing: pip install {' '.join(pip)}", file=sys.stderr)
    return 1 if failed else 0


def _prepare(used: _Used, console: "Console", *, verify: bool) -> dict[str, Any]:
    dataset, began = used.dataset, time.monotonic()
    stages: list[str] = []
    error = None
    try:
        with _watching(used.title, stages, console) as watch:
            if verify and dataset.prepared():
                watch("verifying", 0, None)
            dataset.prepare(verify=verify, watch=watch)
    except DataFolderError:
        raise
    except UserError as mistake:
        error = str(mistake)
    made, seconds = "generating" in stages and error is None, time.monotonic() - began
    done = f"prepared in {seconds:.1f} s, {_size(dataset.bytes_on_disk())}" if made else "already prepared"
    console.print(f"{used.title}: {done if error is None else 'not prepared'}", soft_wrap=True)
    return {
        "dataset": dataset.name,
        "version": dataset.version,
        "workloads": used.workloads,
        "made": made,
        "seconds": seconds,
        "error": error,
        "missing": dataset.missing(),
    }


@contextmanager
def _watching(title: str, stages: list[str], console: "Console") -> Generator[Watch]:
    """Shows each stage, and notes it in `stages`: with a bar on a terminal, as a line elsewhere."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[rows]}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:

        def watch(stage: str, rows: int, of: int | None) -> None:
            if rows == 0:
                stages.append(stage)
                for task in progress.task_ids:
                    progress.remove_task(task)
                progress.add_task(f"{title}: {stage}", total=of, rows="")
                if not console.is_terminal:
                    console.print(f"{title}: {stage}", soft_wrap=True)
            if of is not None:
                progress.update(progress.task_ids[0], completed=rows, rows=f"{rows:,} of {of:,} rows")

        yield watch
