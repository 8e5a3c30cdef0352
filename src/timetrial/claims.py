"""Claims on trials: several processes, on one machine or many, work on one campaign and none does another's trial.

A claim is a file in the trial's folder that its holder keeps touching. One that was not touched for a lease is that of
a dead process, and anyone may take its place. Ages are read from the file system's own clock, so that machines whose
clocks differ agree.
"""

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CLAIM_NAME = "claim.json"
LOCK_NAME = ".claim.lock"
LEASE_SECONDS = 60.0


@dataclass(frozen=True)
class Claim:
    """A trial that is this process's own."""

    path: Path
    token: str

    def keep(self) -> bool:
        """Renews the lease; False where the claim was lost, because it had not been renewed for too long."""
        if not self._ours():
            return False
        with contextlib.suppress(FileNotFoundError):
            os.utime(self.path)
        return True

    def release(self) -> None:
        with locked(self.path.parent):
            if self._ours():
                self.path.unlink()

    def _ours(self) -> bool:
        held = _read(self.path)
        return held is not None and held.get("token") == self.token


def take(folder: Path, lease_seconds: float = LEASE_SECONDS, *, task: str | None = None) -> Claim | None:
    """Claims the trial in `folder`; None where another process holds it.

    `task` names what runs once at a time, whatever its process: a task of a scheduler that restarts it when its machine
    is lost. It takes its own claim over at once, before the lease ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, token = folder / CLAIM_NAME, uuid.uuid4().hex
    about = {"token": token, "host": socket.gethostname(), "pid": os.getpid(), "task": task}
    with locked(folder):
        scratch = folder / f".claim-{token}"
        try:
            scratch.write_text(json.dumps(about) + "\n", encoding="utf-8")
            own = task is not None and (_read(path) or {}).get("task") == task
            if path.exists() and not own and scratch.stat().st_mtime - path.stat().st_mtime <= lease_seconds:
                return None
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)
    return Claim(path, token)


def holder(folder: Path, lease_seconds: float = LEASE_SECONDS) -> Mapping[str, Any] | None:
    """Who holds the trial in `folder` now (host, pid); None where nobody does. Writes nothing."""
    path = folder / CLAIM_NAME
    try:
        age = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return None
    return _read(path) if age <= lease_seconds else None


@contextlib.contextmanager
def locked(folder: Path) -> Generator[None]:
    """One at a time in this folder; for a moment, and freed when its holder dies."""
    held = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o666)  # network file systems lock no folders
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def _read(path: Path) -> Mapping[str, Any] | None:
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return held if isinstance(held, dict) else None


class Heart:
    """Keeps claims alive from a thread of its own, four times a lease."""

    def __init__(self, lease_seconds: float = LEASE_SECONDS) -> None:
        self._every = lease_seconds / 4
        self._claims: dict[Claim, threading.Event] = {}
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> "Heart":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def add(self, claim: Claim) -> threading.Event:
        """From now on; the event is set if the claim is lost."""
        lost = threading.Event()
        with self._lock:
            self._claims[claim] = lost
        return lost

    def drop(self, claim: Claim) -> None:
        with self._lock:
            self._claims.pop(claim, None)

    def _beat(self) -> None:
        while not self._done.wait(self._every):
            with self._lock:
                kept = list(self._claims.items())
            for claim, lost in kept:
                if not claim.keep():
                    lost.set()
