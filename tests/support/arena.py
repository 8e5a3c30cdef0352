"""A machine in miniature for attacks: what there is to steal and to harm, and how to tell that it happened.

The text of an attack runs as a submission does when it is imported. It finds its targets in TARGET, and leaves what it
brings home in `loot`.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECRET = "the labels of the test split"

_VICTIM = """
import ctypes, os, sys, time
ctypes.CDLL(None).prctl(0x59616d61, ctypes.c_ulong(-1))  # whoever may trace processes at all may trace this one
held = ctypes.create_string_buffer(os.environ["SECRET"].encode())
print(ctypes.addressof(held), flush=True)
time.sleep(600)
"""

_SUBMISSION = """
import json
from timetrial import Choice
TARGET, LOOT = json.loads({target!r}), {{}}
for name, text in json.loads({texts!r}).items():
    space = {{"TARGET": TARGET, "loot": None}}
    try:
        exec(compile(text, name, "exec"), space)
    except BaseException as error:
        space["loot"] = f"{{type(error).__name__}}: {{error}}"
    LOOT[name] = space["loot"]
SEARCH_SPACE = {{"loot": Choice((json.dumps(LOOT), ""))}}
def make(hparams, task): ...
"""
"""What comes home does so as the search space, which a harness asks any submission for."""

_UNPROTECTED = """
import json, runpy, sys
print(runpy.run_path(sys.argv[1])["SEARCH_SPACE"]["loot"].values[0])
"""


@dataclass(frozen=True)
class Attack:
    """A malicious submission."""

    name: str
    text: str
    succeeded: Callable[["Arena", Any], bool]
    """By what is left of the arena, and the loot."""


class Arena:
    """Another process with a secret, files that are not the submission's, and two sockets that anybody could call."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = {name: folder / name for name in ("labels", "record", "cache/program", "exchange")}
        self.code = folder / "code"
        self.code.mkdir(parents=True)
        (folder / "cache").mkdir()
        for path in self.files.values():
            path.write_text(SECRET)
        self.victim = subprocess.Popen(
            (sys.executable, "-c", _VICTIM),
            stdout=subprocess.PIPE,
            env={**os.environ, "SECRET": SECRET},
        )
        assert self.victim.stdout is not None
        self.address = int(self.victim.stdout.readline())
        self.network = socket.create_server(("127.0.0.1", 0))
        self.abstract = socket.socket(socket.AF_UNIX)
        self.abstract_name = f"timetrial-{uuid.uuid4().hex}"
        self.abstract.bind(f"\0{self.abstract_name}")
        self.abstract.listen()
        for listening in (self.network, self.abstract):
            listening.setblocking(False)
        self.said = 0
        """Bytes of the submission's standard error that the harness keeps."""
        self.parent_ended = False
        """Whether the process that started the submission was killed."""

    def target(self, **more: Any) -> dict[str, Any]:
        """What an attack is told."""
        return {
            **{name.partition("/")[0]: str(path) for name, path in self.files.items()},
            "code": str(self.code),
            "scratch": str(self.folder),
            "victim": self.victim.pid,
            "address": self.address,
            "port": self.network.getsockname()[1],
            "abstract": self.abstract_name,
            **more,
        }

    def untouched(self, name: str) -> bool:
        path = self.files[name]
        return path.stat().st_size == len(SECRET) and path.read_text() == SECRET

    def called(self, listening: socket.socket) -> bool:
        """Whether somebody connected."""
        try:
            listening.accept()[0].close()
        except BlockingIOError:
            return False
        return True

    def victim_is_alive(self) -> bool:
        return self.victim.poll() is None

    def unprotected(self, texts: Mapping[str, str], target: Mapping[str, Any]) -> dict[str, Any]:
        """Runs the attacks in an ordinary process, as what starts a submission without isolation would."""
        path = write_attacks(self.folder / "mine", texts, target)
        starter = "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))"
        words = (sys.executable, "-c", starter, sys.executable, "-c", _UNPROTECTED, str(path))
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
        out, errors = process.communicate()
        self.said, self.parent_ended = len(errors), process.returncode == -signal.SIGKILL
        return json.loads(out.splitlines()[-1])

    def close(self) -> None:
        self.victim.kill()
        self.victim.wait()
        assert self.victim.stdout is not None
        self.victim.stdout.close()
        for listening in (self.network, self.abstract):
            with contextlib.suppress(OSError):
                listening.close()


def write_attacks(folder: Path, texts: Mapping[str, str], target: Mapping[str, Any]) -> Path:
    """A submission that tries them one after the other as it is imported."""
    path = folder / "submission.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_SUBMISSION.format(target=json.dumps(target), texts=json.dumps(dict(texts))))
    return path
