"""The Docker image that holds submissions: whether it is there, and holds what this installation holds."""

import hashlib
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from timetrial import machine, registry
from timetrial.errors import UserError
from timetrial.lock import source_sha256

IMAGE = "timetrial"
"""The image, unless $TIMETRIAL_IMAGE names another; `make docker` makes it."""
MUST_AGREE = ("timetrial", "jax", "jaxlib", "flax", "numpy")
"""Packages whose versions both sides of an isolated trial need alike."""
_SOURCE = "source of timetrial"
_SECONDS = 120.0
"""In which a container says what it holds."""


def image() -> str:
    """The name of the image."""
    return os.environ.get("TIMETRIAL_IMAGE") or IMAGE


def installed() -> dict[str, str]:
    """What both sides need alike: versions, and the hash of the harness's and the workloads' source."""
    found = {name: version for name, version in machine.packages().items() if name in MUST_AGREE}
    return {**found, _SOURCE: _sha256()}


def differing(ours: Mapping[str, str], theirs: Mapping[str, object]) -> str:
    """Where they differ from ours, in words; nothing where they agree."""
    return "; ".join(
        f"another {name}" if name == _SOURCE else f"{name} {theirs.get(name, 'missing')}, here {ours.get(name)}"
        for name in (*MUST_AGREE, _SOURCE)
        if name in ours and theirs.get(name) != ours[name]
    )


def require_image() -> None:
    """Raises `UserError` where Docker does not run, the image is missing, or is of another version than this is."""
    words = ("docker", "run", "--rm", "--pull", "never", "--network", "none", "--read-only", "--cap-drop", "ALL")
    try:
        done = subprocess.run(
            (*words, "--entrypoint", "python", image(), "-P", "-m", "timetrial.isolation.image"),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise UserError(f"--docker: no container of {image()!r} answered within {_SECONDS:g} s") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["it does not say why"]
        said = next((line for line in lines if line.startswith("docker:")), lines[-1])
        raise UserError(
            f"--docker cannot use the image {image()!r}: {said.removeprefix('docker: ')}; "
            "`make docker` in a checkout makes it (docker/README.md)"
        )
    if found := differing(installed(), json.loads(done.stdout)):
        raise UserError(
            f"the Docker image {image()!r} is not of this installation: {found}; `make docker` makes it anew, and "
            "`pip install -r docker/requirements.txt` brings its packages here"
        )


def _sha256() -> str:
    """Over what an isolated process runs: the same for a checkout and for a wheel made from it."""
    package = Path(machine.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        inside = path.relative_to(package)
        if inside.parts[0] not in ("workloads", "submissions"):
            digest.update(f"{inside.as_posix()}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    for name in registry.workload_names():
        digest.update(f"{name}\0{source_sha256(registry.shipped('workloads') / name)}\n".encode())
    return digest.hexdigest()


if __name__ == "__main__":
    print(json.dumps(installed()))
