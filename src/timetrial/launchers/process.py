"""One trial's process: started, listened to, ended, and its record finished where it could not do that itself."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from queue import Empty, Queue
from typing import IO, Any, Protocol

from timetrial import machine
from timetrial.record import RECORD_NAME, EndLine, RecordError, RunHeader, append_end, end_after, read_header
from timetrial.worker import Job, Unready

LOG_NAME = "trial.log"
WORKER = (sys.executable, "-P", "-m", "timetrial.worker")  # -P: a file of the folder one stands in is no module
_PATIENCE_SECONDS = 10.0
"""How long a worker that was told to stop may take to finish its record."""


class Listener(Protocol):
    """Is told how a trial goes."""

    def progressed(self, job: Job, progress: Mapping[str, Any]) -> None: ...

    def noted(self, job: Job, text: str) -> None: ...


class Stop:
    """Tells the threads of a campaign to finish their trials' records, or not even that."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.at_once = threading.Event()


def run_job(
    job: Job,
    hang_seconds: float,
    listener: Listener,
    worker: Sequence[str],
    environment: Mapping[str, str],
    stop: Stop,
    lost: threading.Event,
) -> EndLine:
    """Runs the trial in a process of its own, which `worker` starts, until it ends.

    `environment` is added to this process's; `lost` says that another process has taken the trial over. Raises
    `Unready` where no trial of its workload could begin.
    """
    folder = Path(job.folder)
    folder.mkdir(parents=True, exist_ok=True)
    kills = machine.out_of_memory_kills()
    with open(folder / LOG_NAME, "ab") as log:
        process = subprocess.Popen(
            worker,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
    assert process.stdin is not None
    header: RunHeader | None = None
    failed = unready = ""
    try:
        with contextlib.suppress(BrokenPipeError), process.stdin:  # who dies at once says why by the exit code
            process.stdin.write(json.dumps(asdict(job)).encode())
        for event in _events(process, hang_seconds, lambda: stop.asked.is_set() or lost.is_set()):
            if "header" in event:
                header = read_header(event["header"])
            elif "progress" in event:
                listener.progressed(job, event["progress"])
            elif "note" in event:
                listener.noted(job, event["note"])
            elif "unready" in event:
                unready = event["unready"]
            elif "failed" in event:
                failed = event["failed"]
        code = process.wait(hang_seconds)  # a thread of the submission's may outlive the worker's last report
    except _Stopped:
        if lost.is_set():
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return end_after(None, "interrupted", "another process took the trial over")
        _stop(process, stop.at_once)
        return _finish(job, header, "interrupted", "stopped by a signal; run it again with --resume")
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return _finish(job, header, "hung", f"no step finished for {hang_seconds:g} s (hang_seconds of the ruleset)")
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # what the submission may have left behind
    if code == -signal.SIGKILL and machine.out_of_memory_kills() > kills:
        return _finish(job, header, "out_of_memory", "the operating system ended the trial: no memory was left")
    if code < 0 and -code in _CRASHES:
        return _finish(job, header, "error", f"the process crashed in native code ({signal.Signals(-code).name})")
    if code < 0:
        return _finish(job, header, "interrupted", f"the process was killed ({signal.Signals(-code).name})")
    if unready:
        raise Unready(unready)
    if failed:
        return _finish(job, header, "interrupted", failed)
    return _finish(job, header, "error", f"the submission ended the process (exit code {code})")


_CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)


def _finish(job: Job, header: RunHeader | None, status: Any, message: str) -> EndLine:
    """The end line of the trial's record; written here where the worker could not."""
    path = Path(job.folder) / RECORD_NAME
    try:
        return append_end(path, header, lambda last: end_after(last, status, message))
    except (OSError, RecordError) as error:
        return end_after(None, "interrupted", f"{message}; and its record cannot be ended: {error}")


def _stop(process: "subprocess.Popen[bytes]", at_once: threading.Event) -> None:
    """Asks the worker to finish its record; kills it, with all its children, when it does not."""
    process.terminate()
    until = time.monotonic() + _PATIENCE_SECONDS
    while process.poll() is None and not at_once.wait(0.1) and time.monotonic() < until:
        pass
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class _Stopped(Exception):
    """The campaign was told to stop."""


def _events(
    process: "subprocess.Popen[bytes]", hang_seconds: float, stop: Callable[[], bool]
) -> Iterator[Mapping[str, Any]]:
    """The worker's reports until it is gone.

    Raises TimeoutExpired when there was none for `hang_seconds`, and _Stopped once `stop()` says so.
    """
    lines: Queue[bytes] = Queue()
    threading.Thread(target=_read_lines, args=(process.stdout, lines), daemon=True).start()
    silent_since = time.monotonic()
    while True:
        if stop():
            raise _Stopped
        try:
            line = lines.get(timeout=0.5)
        except Empty:
            if process.poll() is not None:  # gone, though a process that it left behind may hold the pipe open
                return
            if time.monotonic() - silent_since > hang_seconds:
                raise subprocess.TimeoutExpired(process.args, hang_seconds) from None
            continue
        if not line:
            return
        silent_since = time.monotonic()
        yield json.loads(line)


def _read_lines(pipe: IO[bytes], lines: "Queue[bytes]") -> None:
    with pipe:
        for line in pipe:
            lines.put(line)
    lines.put(b"")
