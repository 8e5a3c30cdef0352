"""What runs apart ends with who started it, however that came."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from timetrial.isolation.guard import Guard

ENDLESS = (sys.executable, "-c", "import time; time.sleep(3600)")
STARTS = """
import subprocess, sys, time
from pathlib import Path
from timetrial.isolation.guard import Guard
guarded = subprocess.Popen((sys.executable, "-c", "import time; time.sleep(3600)"))
guard = Guard(guarded, Path(sys.argv[1]), container=None)
print(guarded.pid, flush=True)
time.sleep(3600)
"""


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.01)


def shared(folder: Path) -> Path:
    path = folder / "shared"
    path.mkdir()
    (path / "exchange").write_bytes(b"arrays")
    return path


def runs(pid: int) -> bool:
    """Whether there is such a process; one that nobody has waited for is over."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


def test_a_guard_that_is_closed_ends_the_process_and_removes_what_was_shared(tmp_path: Path):
    folder = shared(tmp_path)
    with subprocess.Popen(ENDLESS) as guarded:
        Guard(guarded, folder, container=None).close()
        assert guarded.returncode == -signal.SIGKILL
    assert not folder.exists()


def test_a_process_is_ended_when_who_started_it_is_killed_with_its_whole_group(tmp_path: Path):
    folder = shared(tmp_path)
    words = (sys.executable, "-c", STARTS, str(folder))
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, process_group=0) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        os.kill(starter.pid, signal.SIGKILL)
    until(lambda: not runs(pid) and not folder.exists())


def test_a_container_is_ended_by_its_name_until_the_command_that_runs_it_is_over(tmp_path: Path, monkeypatch):
    docker = tmp_path / "docker"
    docker.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\n[ "$(wc -l <{tmp_path}/asked)" -lt 3 ] || kill $PID\n')
    docker.chmod(0o755)
    with subprocess.Popen(ENDLESS) as guarded:
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        monkeypatch.setenv("PID", str(guarded.pid))
        Guard(guarded, shared(tmp_path), container="mine").close()
    assert (tmp_path / "asked").read_text() == "kill mine\n" * 3
