"""A submission in a container gives the same curve as without, gets at nothing, and leaves nothing behind."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import algoperf_toys
import pytest
from apart import POLICY, contained, curve
from toy_trials import PICKY, SGD, custom, rules, run, write
from toys import toy_workload

from timetrial import machine, registry
from timetrial.errors import UserError
from timetrial.isolation.policy import require
from timetrial.isolation.process import Isolated, Process
from timetrial.isolation.remote import Apart
from timetrial.judge import SubmissionFailure
from timetrial.record import read_record

pytestmark = pytest.mark.docker

TASK = {"horizon_examples": 3200, "device_count": 1, "device_memory_bytes": 1 << 30}


@pytest.fixture(scope="module")
def image() -> Isolated:
    return contained()


@pytest.fixture(autouse=True)
def nothing_stays(image: Isolated) -> Iterator[None]:
    before = containers("--all")
    yield
    assert containers("--all") == before


def containers(*options: str) -> set[str]:
    """The containers that run, by their identifiers."""
    listed = subprocess.run(("docker", "ps", "--quiet", *options), capture_output=True, text=True, check=True)
    return set(listed.stdout.split())


def until(true: Callable[[], object], seconds: float = 60.0) -> None:
    """Waits, and fails where that does not help."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.1)


@contextlib.contextmanager
def started(folder: Path, text: str, isolated: Isolated) -> Iterator[Process]:
    """A process that has the submission and has not read it yet."""
    apart = Apart(isolated, write(folder, text), toy_workload(), TASK)
    with apart.start(trains=False) as process:
        yield process


def ended(folder: Path, text: str, isolated: Isolated) -> str:
    """How a trial of the submission ended, and what was said of it."""
    end = run(folder, text, isolated=isolated).end
    assert end is not None
    return f"{end.status}: {end.message}"


@pytest.mark.parametrize(("text", "how"), [(SGD, "program"), (PICKY, "process")], ids=["pure", "hooks"])
def test_the_curve_is_the_same_bit_for_bit(tmp_path: Path, image: Isolated, text: str, how: str):
    here = run(tmp_path, text, ruleset=rules(budget=1600))
    apart = run(tmp_path, text, ruleset=rules(budget=1600), isolated=image)

    assert apart.end is not None
    assert apart.end.status == "budget", apart.end.message
    assert (apart.run.isolation, apart.run.trainer) == ("docker", how)
    assert curve(apart) == curve(here)


def test_the_curve_of_an_algoperf_submission_is_the_same_too(tmp_path: Path, image: Isolated):
    source = algoperf_toys.write(tmp_path, algoperf_toys.JIT)
    here, apart = run(tmp_path, source=source), run(tmp_path, source=source, isolated=image)

    assert apart.end is not None
    assert apart.end.status == "budget", apart.end.message
    assert curve(apart) == curve(here)


LOOK = """
    import json, os, socket, sys
    from pathlib import Path
    def tried(what, *arguments):
        try:
            return str(what(*arguments))
        except OSError as error:
            return error.strerror
    status = dict(line.split(":\\t") for line in Path("/proc/self/status").read_text().splitlines())
    found = {
        "interfaces": os.listdir("/sys/class/net"),
        "connect": tried(socket.create_connection, ("192.0.2.1", 53), 1),
        "root": tried(Path("/found").write_text, ""),
        "packages": tried(Path(os.__file__).with_name("found").write_text, ""),
        "submission": tried(Path(__file__).write_text, ""),
        "user": os.getuid(),
        "become root": tried(os.setuid, 0),
        "capabilities": status["CapEff"] + status["CapBnd"],
        "data": [str(path) for path in Path("/").glob("*/*.npy")],
        "scratch": [tried(Path(f"/tmp/{n}").write_bytes, bytes(SCRATCH // 2)) for n in range(3)][-1],
        "exchange": tried(os.truncate, "/exchange", FILE + 1),
        "cores": sorted(os.sched_getaffinity(0)),
    }
    print("found", json.dumps(found), file=sys.stderr, flush=True)
    raise RuntimeError("all is said")
""".replace("SCRATCH", str(POLICY.scratch_bytes)).replace("FILE +", f"{POLICY.file_bytes} +")


def test_there_is_no_network_no_data_no_privilege_and_little_to_write(tmp_path: Path, image: Isolated):
    with started(tmp_path, LOOK, image) as process:
        with pytest.raises(SubmissionFailure, match="all is said"):
            process.ask({"do": "space"})
        until(lambda: "found {" in process.said() and process.said().endswith("\n"))
        found = json.loads(process.said().partition("found ")[2].splitlines()[0])

    assert found["interfaces"] == ["lo"]
    assert found["connect"] == "Network is unreachable"
    assert found["root"] == found["packages"] == found["submission"] == "Read-only file system"
    assert found["user"] != 0
    assert found["become root"] == "Operation not permitted"
    assert int(found["capabilities"], 16) == 0
    assert found["data"] == []
    assert found["scratch"] == "No space left on device"
    assert found["exchange"] == "File too large"
    assert found["cores"] == sorted(os.sched_getaffinity(0))


def test_a_process_with_hooks_sees_the_training_rows_and_no_others(tmp_path: Path, image: Isolated):
    looks = custom("""
        import glob
        def select(batches, state, key):
            raise RuntimeError(f"rows: {sorted(glob.glob('/*/*.npy'))}")
        hooks = {"select": select}
    """)
    message = ended(tmp_path, looks, image)
    assert "rows: ['/train/" in message
    assert all(path.startswith("/train/") for path in message.partition("rows: ")[2].strip("[]'").split("', '"))


def test_a_container_that_is_narrowed_to_some_cores_has_no_others(tmp_path: Path, image: Isolated):
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        with started(tmp_path, LOOK, image) as process:
            with pytest.raises(SubmissionFailure):
                process.ask({"do": "space"})
            until(lambda: f'"cores": [{max(cores)}]' in process.said())
    finally:
        os.sched_setaffinity(0, cores)


def test_memory_that_is_not_there_ends_the_trial_as_out_of_memory(tmp_path: Path, image: Isolated):
    greedy = """
        from pathlib import Path
        with open("/tmp/large", "wb") as file:
            while True:
                file.write(bytes(1 << 24))
    """
    policy = replace(POLICY, memory_bytes=1 << 30, scratch_bytes=4 << 30, file_bytes=4 << 30)
    assert ended(tmp_path, greedy, replace(image, policy=policy)).startswith("out_of_memory")


def test_no_more_processes_are_started_than_the_policy_allows(tmp_path: Path, image: Isolated):
    forks = """
        import os, time
        for number in range(1000):
            try:
                if os.fork() == 0:
                    time.sleep(3600)
            except OSError as error:
                raise RuntimeError(f"{error.strerror}, {number < 256}")
    """
    assert "Resource temporarily unavailable, True" in ended(tmp_path, forks, image)


COUNTS = """
    import mmap, os, struct, threading
    page = mmap.mmap(os.open("/exchange", os.O_RDWR), 4096)
    def count():
        number = 0
        while True:
            number += 1
            struct.pack_into("<qq", page, 0, number, number)
    threading.Thread(target=count, daemon=True).start()
    SEARCH_SPACE = {}
    def make(hparams, task):
        pass
"""


@pytest.mark.parametrize("how", ["signals", "pause"])
def test_a_suspended_container_does_nothing_until_it_is_resumed(tmp_path: Path, image: Isolated, how: str):
    with started(tmp_path, COUNTS, image) as process:
        assert process._first is not None
        if how == "pause":  # as where Docker has a virtual machine of its own
            process._first = None
        process.ask({"do": "space"})
        counts = process.exchange.counts
        until(lambda: counts() > (1000, 1000))
        process.suspend()
        last = counts()
        containers()  # takes time enough for thousands
        assert counts() == last
        process.resume()
        until(lambda: counts() > last)
        process.suspend()  # and it can be ended as it is: `nothing_stays`


LEFT = """
import signal, sys
from pathlib import Path
from apart import contained
from test_docker import TASK
from toys import toy_workload
from timetrial.isolation.remote import Apart
from timetrial.loading import Source

process = Apart(contained(), Source("mine", Path(sys.argv[1])), toy_workload(), TASK).start(trains=False)
print(process._folder, flush=True)

def look():
    if "at work" in process.said():
        if sys.argv[2] == "suspended":
            process.suspend()
        print("at work", flush=True)
        signal.pause()

process.ask({"do": "space"}, look=look)
"""


@pytest.mark.parametrize("state", ["computing", "suspended"])
def test_a_container_is_gone_as_soon_as_who_started_it_is_killed(tmp_path: Path, image: Isolated, state: str):
    endless = "import sys\nprint('at work', file=sys.stderr, flush=True)\nwhile True:\n    pass\n"
    source, before = write(tmp_path, endless), containers()
    paths = {"PYTHONPATH": os.pathsep.join(path for path in (str(Path(__file__).parent), *sys.path) if path)}
    words = (sys.executable, "-c", LEFT, str(source.path), state)
    with subprocess.Popen(words, env={**os.environ, **paths}, stdout=subprocess.PIPE, text=True) as harness:
        assert harness.stdout is not None
        folder = Path(harness.stdout.readline().strip())
        assert harness.stdout.readline() == "at work\n"
        assert folder.is_dir()
        assert len(containers() - before) == 1
        harness.kill()
    until(lambda: not containers("--all") - before, seconds=20.0)
    until(lambda: not folder.exists(), seconds=20.0)


def test_an_image_of_other_packages_is_refused(image: Isolated, monkeypatch: pytest.MonkeyPatch):
    here = machine.packages()
    monkeypatch.setattr(machine, "packages", lambda: {**here, "jax": "0.0.1"})
    with pytest.raises(UserError, match=rf"jax {here['jax']}, here 0.0.1; `make docker`"):
        require("docker")


def test_an_image_of_another_source_is_refused(image: Isolated, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(registry, "workload_names", lambda: ["flights"])
    with pytest.raises(UserError, match="not of this installation: another source of timetrial; `make docker`"):
        require("docker")


def test_an_image_that_is_not_there_is_named_and_not_looked_for_elsewhere(
    image: Isolated, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TIMETRIAL_IMAGE", "timetrial-nowhere")
    with pytest.raises(UserError, match=r"'timetrial-nowhere': .*No such image.*`make docker`"):
        require("docker")


def timetrial(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run((sys.executable, "-m", "timetrial", *arguments), cwd=cwd, capture_output=True, text=True)


def test_a_shipped_submission_passes_its_rehearsal(tmp_path: Path, image: Isolated):
    rehearsal = ("validate", "adamw", "--docker", "--workload", "flights", "--fraction", "0.01", "--format", "json")
    validated = timetrial(*rehearsal, cwd=tmp_path)

    assert validated.returncode == 0, validated.stdout + validated.stderr
    said = json.loads(validated.stdout)
    assert (said["passed"], said["isolation"]) == (True, "docker")
    assert {verdict["status"] for verdict in said["check"]["verdicts"]} <= {"pass", "warn"}
    assert [trial["workload"] for trial in said["rehearsal"]] == ["flights"]


def test_a_campaign_gives_the_curves_that_it_gives_without_isolation(tmp_path: Path, image: Isolated):
    grid = ("run", "--ruleset", "smoke", "--submission", "adamw", "self_tuning", "--workload", "flights", "lobes")
    curves: list[dict[tuple[str, str], object]] = []
    for name, more in (("here", ()), ("apart", ("--docker",))):
        ran = timetrial(*grid, "--out", name, *more, cwd=tmp_path)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        records = [read_record(path) for path in sorted((tmp_path / name).rglob("record.jsonl"))]
        assert {record.run.isolation for record in records} == {"docker" if more else "none"}
        curves.append({(record.run.submission, record.run.workload): curve(record) for record in records})

    assert len(curves[0]) == 4
    assert curves[0] == curves[1]
