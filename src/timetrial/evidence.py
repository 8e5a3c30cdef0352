"""Where a workload's target comes from: the evidence beside its source, written by `timetrial target`.

Standard library only. docs/targets.md describes the file and the procedure.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timetrial.errors import UserError
from timetrial.target import Target

SCHEMA = 1
FOLDER = "evidence"
"""Within a workload's folder; not a part of its frozen source."""
MOST_LOG_TIME_PER_SD = 0.2
"""A target is used only where one standard deviation of it moves the log time to target by no more than this."""


def evidence_path(workload_folder: Path, name: str) -> Path:
    """The evidence of a workload or variant called `name`, in its base's folder."""
    return workload_folder / FOLDER / f"{name}.json"


def read_evidence(path: Path) -> Mapping[str, Any] | None:
    """The evidence in that file; None where there is no file."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {error}; restore it, or derive it again: timetrial target") from None
    if not isinstance(data, dict) or data.get("kind") != "target_evidence" or data.get("schema") != SCHEMA:
        raise UserError(f"{path} is no evidence of a target, schema {SCHEMA}; restore it, or derive it again")
    return data


def write_evidence(evidence: Mapping[str, Any], path: Path) -> None:
    """Keeps evidence where `read_evidence` finds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(evidence, indent=1) + "\n", encoding="utf-8")


def derived_targets(path: Path) -> tuple[Target | None, Target | None]:
    """The validation and the test target of that evidence; None where there is none that may be used."""
    data = read_evidence(path)
    if data is None or not data["usable"]:
        return None, None
    test = data["test_target"]
    return Target.from_json(data["target"]), None if test is None else Target.from_json(test)
