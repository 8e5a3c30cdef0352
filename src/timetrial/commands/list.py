"""`timetrial list`: what there is to run. Reads LOCK.toml and source text; imports no workload and no submission."""

import argparse
import ast
import sys
from typing import Any

from timetrial.commands.output import add_format, print_json, print_table
from timetrial.errors import UserError
from timetrial.loading import Source
from timetrial.lock import read_lock
from timetrial.registry import find_submission, submission_folders, submission_names, workload_names
from timetrial.ruleset import Tuning, load_ruleset, ruleset_names
from timetrial.target import Target

_LOCKS = ("source_sha256", "data", "data_sha256", "fingerprint", "fingerprint_tolerance", "arrays_sha256")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_format(parser)


def run(args: argparse.Namespace) -> int:
    found = {"workloads": workloads(), "submissions": submissions(), "rulesets": rulesets()}
    if args.format == "json":
        print_json(found)
    else:
        _print(found)
    if not_locked := sorted({*workload_names()} - {*read_lock()}):
        print(f"not frozen, so not listed: {', '.join(not_locked)} (`timetrial freeze`)", file=sys.stderr)
    return 0


def workloads() -> list[dict[str, Any]]:
    """What LOCK.toml says of each workload, less the locks themselves; the mini track first."""
    tables = sorted(read_lock().items(), key=lambda item: item[1]["track"] == "full")
    return [
        {"name": name, "variant_of": None, **{key: value for key, value in table.items() if key not in _LOCKS}}
        for name, table in tables
    ]


def submissions() -> list[dict[str, Any]]:
    """Each submission by name; `tuning` is "self" where its source assigns no SEARCH_SPACE."""
    shipped = submission_folders()
    return [
        {"name": name, "source": "timetrial" if name in shipped else "installed", **_read_source(name)}
        for name in submission_names()
    ]


def _read_source(name: str) -> dict[str, Any]:
    source = Source(name, find_submission(name))
    try:
        summary = (ast.get_docstring(source.parse()) or "").split("\n")[0]
        return {"tuning": "self" if source.self_tuning else "external", "summary": summary}
    except UserError as error:
        return {"tuning": None, "summary": f"does not parse: {error}"}


def rulesets() -> list[dict[str, Any]]:
    def board(tuning: Tuning | None) -> dict[str, int] | None:
        return None if tuning is None else {"studies": tuning.studies, "trials": tuning.trials}

    return [
        {
            "name": name,
            "version": rules.version,
            "clock": rules.clock,
            "workloads": list(rules.workloads),
            "external": board(rules.external),
            "self_tuning": board(rules.self_tuning),
            "description": rules.description,
        }
        for name, rules in ((name, load_ruleset(name)) for name in ruleset_names())
    ]


def _target(workload: dict[str, Any]) -> str:
    if "target" in workload:
        return str(Target.from_json(workload["target"]))
    return f"{workload['metric']}, {'the ruleset says' if workload['track'] == 'full' else 'not derived'}"


def _print(found: dict[str, list[dict[str, Any]]]) -> None:
    def board(sizes: dict[str, int] | None) -> str:
        return "" if sizes is None else f"{sizes['studies']} x {sizes['trials']}"

    print_table(
        "Workloads",
        [
            {
                "name": w["name"],
                "track": w["track"],
                "variant of": w["variant_of"],
                "task": w["task"],
                "parameters": w["parameters"],
                "arrays": w["parameter_arrays"],
                "batch": w["default_batch_size"],
                "target": _target(w),
            }
            for w in found["workloads"]
        ],
    )
    print_table("Submissions", found["submissions"])
    print_table(
        "Rulesets (studies x trials)",
        [
            {
                "name": r["name"],
                "clock": r["clock"],
                "external": board(r["external"]),
                "self-tuning": board(r["self_tuning"]),
                "workloads": len(r["workloads"]),
                "description": r["description"],
            }
            for r in found["rulesets"]
        ],
    )
