"""What a submission's Python tries on the machine: sandbox and container stop it, and without them it succeeds."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from apart import contained, sandboxed
from arena import SECRET, Arena, Attack, write_attacks
from toy_trials import SGD, write
from toys import toy_workload

from timetrial.errors import UserError
from timetrial.isolation.policy import EXCHANGE, Policy
from timetrial.isolation.process import Process
from timetrial.loading import Source

SMALL = Policy(memory_bytes=4 << 30, file_bytes=32 << 20, seconds=600.0, scratch_bytes=32 << 20, processes=256)

ATTACKS = [
    Attack(
        "reads the labels of the test split from the data's folder",
        'loot = open(TARGET["labels"]).read()',
        lambda arena, loot: loot == SECRET,
    ),
    Attack(
        "reads the environment of the harness",
        "import os; loot = os.environ.get('TIMETRIAL_TEST_SECRET')",
        lambda arena, loot: loot == SECRET,
    ),
    Attack(
        "reads the environment of another process",
        "loot = open(f\"/proc/{TARGET['victim']}/environ\").read()",
        lambda arena, loot: SECRET in loot,
    ),
    Attack(
        "reads the environment of every process that it finds, the first among them",
        """
import glob
loot = ""
for path in glob.glob("/proc/[0-9]*/environ"):
    try:
        loot += open(path).read()
    except OSError:
        pass
""",
        lambda arena, loot: SECRET in loot,
    ),
    Attack(
        "traces another process to read its memory",
        """
with open(f"/proc/{TARGET['victim']}/mem", "rb") as memory:
    memory.seek(TARGET["address"])
    loot = memory.read(28).decode()
""",
        lambda arena, loot: loot == SECRET,
    ),
    Attack(
        "writes the record",
        'open(TARGET["record"], "a").write("reached"); loot = "written"',
        lambda arena, loot: not arena.untouched("record"),
    ),
    Attack(
        "poisons the cache of compiled programs",
        'open(TARGET["cache"], "w").write("another program"); loot = "written"',
        lambda arena, loot: not arena.untouched("cache/program"),
    ),
    Attack(
        "leaves code where Python imports from",
        'open(TARGET["code"] + "/sitecustomize.py", "w").write("raise SystemExit"); loot = "written"',
        lambda arena, loot: (arena.code / "sitecustomize.py").exists(),
    ),
    Attack(
        "opens a socket to send what it learnt",
        """
import socket
with socket.create_connection(("127.0.0.1", TARGET["port"]), 10):
    loot = "sent"
""",
        lambda arena, loot: arena.called(arena.network),
    ),
    Attack(
        "calls a socket that has no place in the file system",
        """
import socket
with socket.socket(socket.AF_UNIX) as calling:
    calling.connect("\\0" + TARGET["abstract"])
    loot = "sent"
""",
        lambda arena, loot: arena.called(arena.abstract),
    ),
    Attack(
        "forks until nothing else can run",
        """
import os, signal
pids = []
try:
    while len(pids) < TARGET["processes"] + 64:
        pid = os.fork()
        if not pid:
            signal.pause()
        pids.append(pid)
except OSError:
    pass
loot = len(pids)
for pid in pids:
    os.kill(pid, signal.SIGKILL)
for pid in pids:
    os.waitpid(pid, 0)
""",
        lambda arena, loot: loot > SMALL.processes,
    ),
    Attack(
        "takes all memory",
        """
import mmap
mmap.mmap(-1, TARGET["memory_bytes"], flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
loot = TARGET["memory_bytes"]
""",
        lambda arena, loot: loot == SMALL.memory_bytes,
    ),
    Attack(
        "fills the disk with temporary files",
        """
import os
names, loot = [], 0
try:
    while loot < 2 * TARGET["scratch_bytes"]:
        names.append(TARGET["scratch"] + f"/fill-{len(names)}")
        with open(names[-1], "wb", buffering=0) as file:
            loot += file.write(bytes(1 << 20))
except OSError:
    pass
for name in names:
    if os.path.exists(name):
        os.remove(name)
""",
        lambda arena, loot: loot == 2 * SMALL.scratch_bytes,
    ),
    Attack(
        "fills the disk through the file for arrays",
        """
import os
file = os.open(TARGET["exchange"], os.O_RDWR)
loot = os.pwrite(file, b"x", TARGET["file_bytes"])
""",
        lambda arena, loot: loot == 1,
    ),
    Attack(
        "puts a link to the labels in the place of the file for arrays",
        """
import os
os.remove(TARGET["exchange"])
os.symlink(TARGET["labels"], TARGET["exchange"])
loot = "linked"
""",
        lambda arena, loot: loot == "linked",
    ),
    Attack(
        "kills another process",
        'import os; os.kill(TARGET["victim"], 9); loot = "killed"',
        lambda arena, loot: not arena.victim_is_alive(),
    ),
    Attack(
        "floods the log",
        'import sys; print("x" * (8 << 20), file=sys.stderr, flush=True); loot = "printed"',
        lambda arena, loot: arena.said >= 8 << 20,
    ),
    Attack(
        "kills the process that started it",
        'import os; os.kill(os.getppid(), 9); loot = "killed"',
        lambda arena, loot: arena.parent_ended,
    ),
]
"""In this order, all in one process each way; what harms the others comes last."""


@dataclass(frozen=True)
class Done:
    """What is left once all attacks were tried."""

    arena: Arena
    loot: Mapping[str, Any]

    def succeeded(self, attack: Attack) -> bool:
        found = self.loot[attack.name]
        return found is not None and attack.succeeded(self.arena, found)


@pytest.fixture(scope="module")
def secret() -> Iterator[None]:
    os.environ["TIMETRIAL_TEST_SECRET"] = SECRET
    yield
    del os.environ["TIMETRIAL_TEST_SECRET"]


@pytest.fixture(scope="module")
def unprotected(secret: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Done]:
    arena = Arena(tmp_path_factory.mktemp("unprotected"))
    try:
        yield Done(arena, arena.unprotected(texts(), targets(arena)))
    finally:
        arena.close()


@pytest.fixture(scope="module", params=["sandbox", pytest.param("docker", marks=pytest.mark.docker)])
def isolation(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def apart(isolation: str, secret: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Done]:
    isolated = (contained if isolation == "docker" else sandboxed)(policy=SMALL)
    arena = Arena(tmp_path_factory.mktemp(isolation))
    isolated = replace(isolated, code=(*isolated.code, arena.code))
    there = {"exchange": EXCHANGE, "scratch": "/tmp"}
    if isolation == "docker":
        there["code"] = "/code/1"
    source = Source("mine", write_attacks(arena.folder / "mine", texts(), targets(arena, **there)))
    task = {"horizon_examples": 3200, "device_count": 1, "device_memory_bytes": 1 << 30}
    try:
        with Process(isolated, source, toy_workload(), task, platform="cpu", trains=False) as process:
            space = process.ask({"do": "space"})["space"]
            arena.said = len(process.said())
        yield Done(arena, json.loads(space["loot"]["values"][0]))
    finally:
        arena.close()


def texts() -> dict[str, str]:
    return {attack.name: attack.text for attack in ATTACKS}


def targets(arena: Arena, **more: str) -> dict[str, Any]:
    limits = {name: getattr(SMALL, name) for name in ("memory_bytes", "file_bytes", "scratch_bytes", "processes")}
    return arena.target(**limits, **more)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_isolation_stops_a_submission_that(attack: Attack, apart: Done):
    assert not apart.succeeded(attack), apart.loot[attack.name]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_nothing_but_isolation_stops_a_submission_that(attack: Attack, unprotected: Done):
    assert unprotected.succeeded(attack), unprotected.loot[attack.name]


def test_a_link_out_of_the_submission_s_folder_is_not_followed_for_it(tmp_path: Path):
    source = write(tmp_path, SGD)
    (tmp_path / "labels").write_text(SECRET)
    link = source.folder / "labels.txt"
    link.symlink_to(tmp_path / "labels")

    with pytest.raises(UserError, match=r"labels\.txt: a link that leaves"):
        source.copy_to(tmp_path / "copy")
    assert Path(shutil.copyfile(link, tmp_path / "copied")).read_text() == SECRET  # what copying it would have done
