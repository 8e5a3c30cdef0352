"""The harness's side of a process that it does not trust: started under a policy, asked, suspended, and ended."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from timetrial import machine
from timetrial.errors import UserError
from timetrial.gpus import at_work, visible_gpus
from timetrial.isolation.guard import Guard
from timetrial.isolation.image import MUST_AGREE, differing
from timetrial.isolation.policy import Isolation, Mounts, Policy, command, owner
from timetrial.isolation.wire import BrokenWire, Exchange, Pipe
from timetrial.judge import SubmissionFailure
from timetrial.loading import Source
from timetrial.workload import Workload

MODULE = ("-m", "timetrial.isolation.child")
_LOG_BYTES = 1 << 20
"""Of what a submission prints, at most, that is kept."""
_SETTLE_SECONDS = 2.0
"""For which a GPU may seem at work after its last: twice the longest sample of its driver."""
_SUSPEND_SECONDS = 5.0
"""After which a process that still runs is one whose processes wake each other."""


@dataclass(frozen=True, kw_only=True)
class Isolated:
    """How a submission is kept apart."""

    isolation: Isolation
    policy: Policy
    module: Sequence[str] = MODULE
    code: Sequence[Path] = field(default_factory=tuple)
    """What the child imports beside the harness: a test's own workloads."""


class Process:
    """A process that holds a submission. What it answers is never believed without a check."""

    def __init__(
        self,
        isolated: Isolated,
        source: Source,
        workload: Workload,
        task: Mapping[str, Any],
        *,
        platform: str,
        trains: bool,
    ) -> None:
        """Starts it; raises `SubmissionFailure` or `UserError` where that fails.

        One that `trains` gets the training rows, and the GPUs where `platform` is theirs; others only trace.
        """
        self._name = f"timetrial-{uuid.uuid4().hex[:12]}"
        self._docker = isolated.isolation == "docker"
        self._folder = Path(tempfile.mkdtemp(prefix=f"{self._name}-", dir=_shared_memory()))
        self._folder.chmod(0o711)
        exchange = self._folder / "exchange"
        self.exchange = Exchange(exchange)
        self._kills = machine.out_of_memory_kills()
        self._seconds = isolated.policy.seconds
        self._until = time.monotonic() + self._seconds
        self._closed = False
        self._gpus = visible_gpus() if trains and platform == "cuda" else ()
        mounts = Mounts(
            submission=readable_copy(source, self._folder / "submission"),
            exchange=exchange,
            train=_train_folder(workload, self._folder / "train") if trains else None,
            code=isolated.code,
            gpus=self._gpus,
        )
        if (own := owner()) is not None:
            os.chown(exchange, *own)
        words, environment = command(isolated.isolation, isolated.policy, mounts, isolated.module, name=self._name)
        self._process = subprocess.Popen(
            words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self._guard = Guard(self._process, self._folder, container=self._name if self._docker else None)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._said: list[bytes] = []
        threading.Thread(target=drain, args=(self._process.stderr, self._said, _LOG_BYTES), daemon=True).start()
        self._pipe = Pipe(self._process.stdout.fileno(), self._process.stdin.fileno())
        first = {
            "workload": workload.name,
            "matmul_precision": workload.matmul_precision,
            "accumulate": workload.accumulate,
            "remat": workload.remat,
            "name": source.name,
            "file": source.path.name,
            "task": task,
            "platform": platform,
        }
        try:
            try:
                ready = self.ask(first)
            except SubmissionFailure as failure:
                if failure.status != "error":
                    raise
                # It has not read any code of the submission yet.
                raise UserError(f"the isolated process did not start: {failure}") from None
            self._compare(ready.get("ready"))
            if trains and (devices := ready.get("devices")) != machine.devices():
                raise UserError(f"the isolated process has the devices {devices}, and this one {machine.devices()}")
            self._first = _seen_from_here(self._name) if self._docker else self._process.pid
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Process":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(
        self, message: Mapping[str, Any], *, look: Callable[[], None] | None = None, every: float = 0.25
    ) -> dict[str, Any]:
        """The answer; `look` is called `every` so many seconds until it is there.

        Raises `SubmissionFailure` for a failure, a death, what is no answer, or none by the end of the policy's time.
        """
        try:
            self._pipe.send(message)
            answer = None
            while answer is None:
                if time.monotonic() >= self._until:
                    raise SubmissionFailure("hung", f"not done within the {self._seconds:g} s of a process")
                answer = self._pipe.receive(every)
                if answer is None and look is not None:
                    look()
        except BrokenWire as error:
            raise self._death(error) from None
        if "failure" in answer:
            status, text = (*answer["failure"], "", "")[:2] if isinstance(answer["failure"], list) else ("", "")
            known = "out_of_memory" if status == "out_of_memory" else "error"
            raise SubmissionFailure(known, _printable(text) or "the submission failed and did not say why")
        return answer

    def suspend(self) -> None:
        """Stops it and all that it has started, until `resume`; raises `SubmissionFailure` where something runs on."""
        if self._first is None:
            self._docker_does("pause")
            return
        until = time.monotonic() + _SUSPEND_SECONDS
        while running := [pid for pid in _descendants(self._first) if _runs(pid)]:
            if time.monotonic() >= until:
                raise SubmissionFailure("error", "the submission's process cannot be suspended")
            _signal(running, signal.SIGSTOP)

    def settle(self) -> None:
        """Returns once the GPUs are idle, where it has some: suspended, it has asked for its last work.

        Raises `SubmissionFailure` where they work on: what ran now would not be charged.
        """
        until = time.monotonic() + _SETTLE_SECONDS
        while self._gpus and at_work(self._gpus):
            if time.monotonic() >= until:
                raise SubmissionFailure("error", "the submission left its device at work after its last answer")

    def resume(self) -> None:
        if self._first is None:
            self._docker_does("unpause")
            return
        _signal(_descendants(self._first), signal.SIGCONT)

    def said(self) -> str:
        """What it wrote on standard error, the beginning of it."""
        return b"".join(self._said).decode(errors="replace")

    def close(self) -> None:
        """Ends it and all that it has started, and removes what was shared with it; once."""
        if self._closed:
            return
        self._closed = True
        self._guard.close()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        sys.stderr.write(self.said())
        self.exchange.close()

    def _death(self, error: BrokenWire) -> SubmissionFailure:
        """What its end, or its nonsense, means for the trial."""
        try:
            code = self._process.wait(2.0)
        except subprocess.TimeoutExpired:
            return SubmissionFailure("error", f"the submission's process broke the protocol: {error}")
        number = -code if code < 0 else code - 128 if code > 128 else 0
        if number == signal.SIGKILL and (self._docker or machine.out_of_memory_kills() > self._kills):
            return SubmissionFailure("out_of_memory", "the submission's process was ended: no memory was left")
        if number:
            name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
            return SubmissionFailure("error", f"the submission's process crashed ({name})")
        lines = [line for line in self.said().splitlines() if line.strip()]
        last = f"; it last said: {_printable(lines[-1])}" if lines else ""
        return SubmissionFailure("error", f"the submission ended its process (exit code {code}){last}")

    def _compare(self, theirs: Any) -> None:
        ours = {name: version for name, version in machine.packages().items() if name in MUST_AGREE}
        if found := differing(ours, theirs if isinstance(theirs, dict) else {}):
            raise UserError(f"the isolated process has other packages: {found}; `make docker` makes the image")

    def _docker_does(self, verb: str) -> None:
        done = subprocess.run(("docker", verb, self._name), capture_output=True, text=True)
        if done.returncode:
            raise SubmissionFailure("error", f"docker {verb}: {_printable(done.stderr)}")


def _shared_memory() -> str | None:
    """Where the file for arrays lies: in memory, where there is such a folder."""
    return "/dev/shm" if Path("/dev/shm").is_dir() and os.access("/dev/shm", os.W_OK) else None


def readable_copy(source: Source, folder: Path) -> Path:
    """A copy of the submission that whoever runs it can read."""
    source.copy_to(folder)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


def _train_folder(workload: Workload, folder: Path) -> Path:
    """The folder of the training rows; they are written where the data set has none."""
    prepared = workload.data.folder() / "train"
    if prepared.is_dir():
        return prepared
    folder.mkdir()
    for name, rows in workload.split("train").items():
        np.save(folder / f"{name}.npy", rows, allow_pickle=False)
    return folder


def _seen_from_here(container: str) -> int | None:
    """A container's first process, for signals, which take a tenth of the time of Docker's commands: that is charged.

    None where it cannot be signalled: on Docker's own virtual machine, or as another user.
    """
    words = ("docker", "inspect", "--format", "{{.State.Pid}} {{.Id}}", container)
    try:
        said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        pid, identifier = said.split()
        os.kill(int(pid), 0)
        return int(pid) if identifier in Path(f"/proc/{pid}/cgroup").read_text() else None
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None


def _descendants(pid: int) -> list[int]:
    """A process and all below it."""
    found, waiting = list[int](), [pid]
    while waiting:
        current = waiting.pop()
        found.append(current)
        for listed in Path(f"/proc/{current}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                waiting += map(int, listed.read_text().split())
    return found


def _runs(pid: int) -> bool:
    """Whether a process has a thread that is neither stopped nor over: the first may be over before the others."""
    for path in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(OSError):  # over meanwhile
            if path.read_text().rpartition(") ")[2][0] not in "TtZX":
                return True
    return False


def _signal(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def drain(pipe: IO[bytes], said: list[bytes], at_most: int) -> None:
    """Reads all, so that nobody waits, and keeps the beginning: `at_most` bytes."""
    kept = 0
    with pipe:
        while data := os.read(pipe.fileno(), 1 << 16):
            if kept < at_most:
                said.append(data[: at_most - kept])
                kept += len(data)


def _printable(text: Any) -> str:
    """One line that no terminal acts on."""
    line = str(text).strip().splitlines()[0] if str(text).strip() else ""
    return "".join(c if c.isprintable() else "?" for c in line)[:500]
