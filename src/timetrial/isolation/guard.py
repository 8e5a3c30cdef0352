"""The end of an isolated process, also where whoever started it is killed."""

import subprocess
from pathlib import Path

_PATIENCE_SECONDS = 20.0
_SCRIPT = """
cat
tries=0
while kill -0 "$1" && [ "$tries" -lt 100 ]; do
  if [ -n "$2" ]; then docker kill "$2"; else kill -KILL "$1"; fi
  tries=$((tries + 1))
  sleep 0.1
done
rm -rf "$3"
"""
"""Reads until the pipe is closed, which the kernel does at the death of its only other end."""


class Guard:
    """A shell beside an isolated process, that ends it and removes what it shared once the harness is done or gone.

    Docker's command is no parent of what it starts: a container outlives it, and us.
    """

    def __init__(self, guarded: "subprocess.Popen[bytes]", folder: Path, *, container: str | None) -> None:
        """`container` is the name of what `guarded` runs, where that is Docker's command."""
        self._guarded = guarded
        self._container = container
        self._shell = subprocess.Popen(
            ("sh", "-c", _SCRIPT, "sh", str(guarded.pid), container or "", str(folder)),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # who ends our process group does not end this
        )

    def __enter__(self) -> "Guard":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process, and removes the folder."""
        if self._container is None:
            self._guarded.kill()  # what runs under bubblewrap dies with it
        assert self._shell.stdin is not None
        self._shell.stdin.close()
        try:
            self._guarded.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:  # Docker does not answer
            self._guarded.kill()
            self._guarded.wait()
        self._shell.wait()
