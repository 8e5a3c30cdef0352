"""Runs trials on the toy workload with the submission kept apart."""

from pathlib import Path

import pytest

from timetrial.errors import UserError
from timetrial.isolation.policy import Policy, require
from timetrial.isolation.process import Isolated

_HERE = Path(__file__).parent
POLICY = Policy(memory_bytes=8 << 30, file_bytes=64 << 20, seconds=600.0, scratch_bytes=64 << 20, processes=256)


def sandboxed(**changes: object) -> Isolated:
    """Under bubblewrap, with the toy; skips where that cannot be."""
    try:
        require("sandbox")
    except UserError as error:
        pytest.skip(str(error))
    given = {"isolation": "sandbox", "policy": POLICY, "module": (str(_HERE / "toy_child.py"),), "code": (_HERE,)}
    return Isolated(**{**given, **changes})  # type: ignore[arg-type]


def contained(**changes: object) -> Isolated:
    """In a container, with the toy; skips where that cannot be."""
    try:
        require("docker")
    except UserError as error:
        pytest.skip(f"needs Docker and its image: {error}")
    given = {"isolation": "docker", "policy": POLICY, "module": ("/code/0/toy_child.py",), "code": (_HERE,)}
    return Isolated(**{**given, **changes})  # type: ignore[arg-type]


def curve(record: object) -> list[object]:
    """What two trials must have alike: steps, examples and metrics of each eval."""
    return [(line.step, line.examples, dict(line.metrics)) for line in record.evals]  # type: ignore[attr-defined]
