"""What a submission's process may say and do to whoever asks it: the harness's side of the wire believes none of it."""

import contextlib
import json
import math
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from apart import POLICY, sandboxed
from hypothesis import given
from hypothesis import strategies as st
from toy_trials import SGD, rules, write
from toys import toy_workload

from timetrial import machine
from timetrial.audit.retime import Nobody
from timetrial.campaign import Campaign
from timetrial.devices import Mesh
from timetrial.isolation import process as isolated_process
from timetrial.isolation import wire
from timetrial.isolation.policy import EXCHANGE
from timetrial.isolation.process import Isolated, Process
from timetrial.isolation.remote import Apart, Described, RemoteTrainer, Tracer
from timetrial.isolation.wire import BrokenWire, Spec, space_from_json
from timetrial.judge import Counts, SubmissionFailure
from timetrial.launchers.local import run_campaign
from timetrial.tuning import default_point
from timetrial.worker import PREEMPTED

TOY = toy_workload()
SUPPORT = Path(__file__).parents[1] / "support"
FORGER, TOY_WORKER = str(SUPPORT / "forger.py"), str(SUPPORT / "toy_worker.py")
Reply = bytes | dict[str, Any]


def state(counts: Any = (0, 0), **changes: Any) -> dict[str, Any]:
    """What an honest process says of itself."""
    return {"counts": counts, "meters": [0, 0], "repeated": 0, "exact": True, "ignored": [], **changes}


def run(text: str) -> bytes:
    return b"!" + text.encode()


def saying(reply: dict[str, Any]) -> str:
    """Python that sends it."""
    return f"\nos.write(1, {json.dumps(reply).encode()!r} + b'\\n')\n"


def started(folder: Path, *replies: Reply) -> Process:
    """A process that has said that it is ready, and goes on with these replies."""
    return Process(forging(*replies), write(folder, SGD), TOY, {}, platform="cpu", trains=False)


def forging(*replies: Reply) -> Isolated:
    said = ({"ready": machine.packages()}, *replies)
    words = (r if isinstance(r, bytes) else json.dumps(r).encode() + b"\n" for r in said)
    return sandboxed(module=(FORGER, *(word.hex() for word in words)))


def trainer(process: Process, kind: type[RemoteTrainer] = RemoteTrainer) -> RemoteTrainer:
    return kind(
        process,
        TOY,
        Described({}, {}, hooks=True, batch_size=None),
        seed=len,
        mesh=Mesh.local(),
        clock="examples",
        file_bytes=POLICY.file_bytes,
    )


def start(process: Process) -> None:
    trainer(process).start()


def evaluate(process: Process) -> None:
    trainer(process).evaluated()


def save(process: Process) -> None:
    trainer(process).save()


def trace(process: Process) -> None:
    Tracer(process, {}, 1).trace()


class _Bomb:
    def __reduce__(self) -> Any:
        return str.upper, ("boom",)


def raises(kind: type[BaseException], act: Callable[[], Any]) -> bool:
    with pytest.raises(kind):
        act()
    return True


def dies_of_a_file_that_shrinks() -> bool:
    reader = """
import mmap, tempfile
file = tempfile.TemporaryFile()
file.truncate(1 << 16)
page = mmap.mmap(file.fileno(), 1 << 16)
file.truncate(0)
page[5000]
"""
    return subprocess.run((sys.executable, "-c", reader)).returncode == -signal.SIGBUS


class Credulous(RemoteTrainer):
    """Counts what it is told."""

    def _take(self, state: Mapping[str, Any]) -> None:
        self._counts = Counts(*state["counts"])


def counted_by_the_credulous(*replies: Reply) -> Counts:
    with tempfile.TemporaryDirectory() as folder, started(Path(folder), *replies) as process:
        believing = trainer(process, Credulous)
        believing.start()
        return believing.counts()


def kept_of_a_message_that_never_ends() -> int:
    """Bytes, where no limit holds."""
    endless = run("import os\nos.write(1, b'x' * (4 << 20))\nos._exit(0)")
    with (
        patch.object(wire, "MAX_LINE", math.inf),
        tempfile.TemporaryDirectory() as folder,
        started(Path(folder), endless) as process,
    ):
        with contextlib.suppress(SubmissionFailure):
            start(process)
        return len(process._pipe._rest)


def said_by_a_process_whose_words_are_repeated() -> str:
    message = {"failure": ["error", "\x1b[2Jreached"]}
    with (
        patch.object(isolated_process, "_printable", str),
        tempfile.TemporaryDirectory() as folder,
        started(Path(folder), state(), message) as process,
        pytest.raises(SubmissionFailure) as failure,
    ):
        start(process)
    return str(failure.value)


def ended_without_isolation(text: str) -> str:
    """How a trial ends whose submission does this in the process of the trial."""
    with tempfile.TemporaryDirectory() as folder:
        source, ruleset = write(Path(folder), text + "\0" + SGD), rules()
        campaign = Campaign(out=Path(folder) / "out", ruleset=ruleset, sources=(source,), seed=0)
        ((_, end),) = run_campaign(campaign, Nobody(), worker=(sys.executable, TOY_WORKER))
        return end.status


@dataclass(frozen=True)
class Forgery:
    """Replies that follow `ready`; what the harness asks for; what it makes of them; what believing them would do."""

    name: str
    replies: tuple[Reply, ...]
    ask: Callable[[Process], None]
    finds: str
    believed: Callable[[], bool]


INTERRUPTED = """
from timetrial.judge import SubmissionFailure
raise SubmissionFailure("interrupted", "a node was lost")
"""
FORGERIES = [
    Forgery(
        "sends a message that never ends",
        (run("import os\nos.write(1, b'x' * (4 << 20))"),),
        start,
        "too long",
        lambda: kept_of_a_message_that_never_ends() == 4 << 20,
    ),
    Forgery(
        "sends what is no JSON",
        (b"\xff{\n",),
        start,
        "no JSON",
        lambda: raises(ValueError, lambda: json.loads(b"\xff{")),
    ),
    Forgery(
        "nests JSON deeper than Python reads",
        (run("import os\nos.write(1, b'[' * 500_000 + b'\\n')"),),
        start,
        "no JSON",
        lambda: raises(RecursionError, lambda: json.loads(b"[" * 500_000)),
    ),
    Forgery(
        "takes steps back",
        (state((10, 160)), state((5, 160))),
        start,
        "5 steps cannot",
        lambda: counted_by_the_credulous(state((10, 160)), state((5, 160))) == (5, 160),
    ),
    Forgery(
        "counts fewer examples than its steps have",
        (state(), state((100, 16))),
        start,
        "100 steps cannot",
        lambda: counted_by_the_credulous(state(), state((100, 16))) == (100, 16),
    ),
    Forgery(
        "counts what is no number",
        (state(), state((math.nan, math.nan))),
        start,
        "NaN to integer",
        lambda: math.isnan(json.loads(json.dumps(math.nan))),
    ),
    Forgery(
        "counts beyond all numbers",
        (state((10**300, 10**300)),),
        start,
        "cannot have used",
        lambda: raises(OverflowError, lambda: np.asarray(10**300).astype(np.int64)),
    ),
    Forgery(
        "measures beyond all numbers",
        (state(meters=[10**400, 0]),),
        start,
        "too large",
        lambda: raises(OverflowError, lambda: float(10**400)),
    ),
    Forgery(
        "saves half a terabyte",
        (state(), {"saved": {}, "arrays": [[[1 << 37], "float32"]]}),
        save,
        "larger than the file",
        lambda: Spec((1 << 37,), "float32").nbytes > machine.memory_bytes(),
    ),
    Forgery(
        "saves a pickle",
        (state(), {"saved": {}, "arrays": [[[1], "object"]]}),
        save,
        "no array of numbers",
        lambda: pickle.loads(pickle.dumps(_Bomb())) == "BOOM",
    ),
    Forgery(
        "saves an array of a million axes",
        (state(), {"saved": {}, "arrays": [[[1] * 10_000, "int8"]]}),
        save,
        "no array of numbers",
        lambda: raises(ValueError, lambda: np.zeros([1] * 10_000, np.int8)),
    ),
    Forgery(
        "cuts the file of parameters short",
        (state(), run(f"import os\nos.truncate({EXCHANGE!r}, 10)" + saying(state()))),
        evaluate,
        "not all there",
        dies_of_a_file_that_shrinks,
    ),
    Forgery(
        "says that its programs have less than no bytes",
        ({"programs": {"begin": 1, "step": -1}},),
        trace,
        "no programs",
        lambda: raises(ValueError, lambda: np.empty(-1, np.uint8)),
    ),
    Forgery(
        "asks for a batch that fills the machine",
        (
            run(
                f"import os\nos.truncate({EXCHANGE!r}, 8192)"
                + saying({"programs": {"step": 1}, "ignored": [], "batch_size": 10**12})
            ),
        ),
        trace,
        "no batch size",
        lambda: machine.memory_bytes() < 4 * 10**12,
    ),
    Forgery(
        "says that it was interrupted, to be run again",
        (state(), {"failure": ["interrupted", "a node was lost"]}),
        start,
        "a node was lost",
        lambda: ended_without_isolation(INTERRUPTED) == "interrupted",
    ),
    Forgery(
        "writes on the terminal with its message",
        (state(), {"failure": ["error", "\x1b[2Jreached"]}),
        start,
        r"\?\[2Jreached",
        lambda: "\x1b[2J" in said_by_a_process_whose_words_are_repeated(),
    ),
    Forgery(
        "ends by a signal, as on a node that is lost",
        (state(), run("import os\nos.kill(os.getpid(), 15)")),
        start,
        "SIGTERM",
        lambda: ended_without_isolation("import os\nos.kill(os.getpid(), 15)") == "interrupted",
    ),
]  # fmt: skip


@pytest.mark.parametrize("forgery", FORGERIES, ids=lambda forgery: forgery.name)
def test_a_process_only_harms_itself_that(forgery: Forgery, tmp_path: Path):
    with (
        started(tmp_path, *forgery.replies) as process,
        pytest.raises(SubmissionFailure, match=forgery.finds) as failure,
    ):
        forgery.ask(process)
    assert failure.value.status == "error"
    assert str(failure.value).isprintable()


@pytest.mark.parametrize("forgery", FORGERIES, ids=lambda forgery: forgery.name)
def test_a_trusting_reader_would_be_harmed_by_a_process_that(forgery: Forgery):
    assert forgery.believed()


def test_a_process_that_ends_with_the_code_of_a_trial_to_be_taken_up_has_failed(tmp_path: Path):
    leaves = run(f"import os\nos._exit({PREEMPTED})")
    with started(tmp_path, state(), leaves) as process, pytest.raises(SubmissionFailure) as failure:
        start(process)
    assert failure.value.status == "error"


def test_a_search_space_carries_no_weights_past_the_clock(tmp_path: Path):
    space = {"learnt": {"kind": "Choice", "values": ["w" * 10_000], "default": None}}
    apart = Apart(forging({"space": space}), write(tmp_path, SGD), TOY, {})
    with pytest.raises(SubmissionFailure, match="more than 4,096 characters"):
        apart.describe(default_point, told=None)
    assert default_point(space_from_json(space)) == {"learnt": "w" * 10_000}


def test_a_process_that_never_answers_is_hung_when_its_time_is_up(tmp_path: Path):
    isolated = sandboxed(
        module=(FORGER, run("import signal\nsignal.pause()").hex()), policy=replace(POLICY, seconds=0.2)
    )
    with pytest.raises(SubmissionFailure, match="not done") as failure:
        Process(isolated, write(tmp_path, SGD), TOY, {}, platform="cpu", trains=False)
    assert failure.value.status == "hung"


def test_a_process_that_answers_at_once_for_ever_is_hung_when_its_time_is_up(tmp_path: Path):
    with started(tmp_path, {}, {}) as process:
        process.ask({})
        process._until = time.monotonic()
        with pytest.raises(SubmissionFailure, match="not done") as failure:
            process.ask({})
    assert failure.value.status == "hung"


def test_under_the_seconds_clock_no_checkpoint_is_asked_for_in_time_that_is_not_charged(tmp_path: Path):
    with started(tmp_path, state(), {"saved": {}, "arrays": []}) as process:
        remote = trainer(process)
        remote._clock = "seconds"
        assert remote.save() is None
        remote._clock = "examples"
        assert remote.save() is not None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", "int8", "Uniform", "Choice"]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(["kind", "low", "high", "values", "x"]), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_no_json_does_more_to_a_reader_than_be_refused(data: Any):
    for read in (Spec.read, space_from_json):
        with contextlib.suppress(BrokenWire):
            read(json.loads(json.dumps(data)))


TICKS = f"""
import ctypes, mmap, os, signal, struct, threading
page = mmap.mmap(os.open({EXCHANGE!r}, os.O_RDWR), mmap.PAGESIZE)
def tick():
    ticks = 0
    while True:
        ticks += 1
        struct.pack_into("<q", page, 0, ticks)
def wake(other):
    ticks = 0
    while True:
        ticks += 1
        struct.pack_into("<q", page, 0, ticks)
        os.kill(other, signal.SIGCONT)
"""
ANSWER = saying({})
BUSY = {
    "in a thread": "threading.Thread(target=tick, daemon=True).start()" + ANSWER,
    "in a process that left its parents": """
if not os.fork():
    os.setsid()
    if not os.fork():
        tick()
    os._exit(0)
"""
    + ANSWER,
    "in a thread that outlives the first": "threading.Thread(target=tick).start()"
    + ANSWER
    + "ctypes.CDLL(None).pthread_exit(None)",
    "in two processes that wake each other": """
first, other = os.getpid(), os.fork()
if not other:
    wake(first)
"""
    + ANSWER
    + "wake(other)",
}


@pytest.mark.parametrize("where", BUSY)
def test_what_works_on_while_the_harness_evaluates_is_suspended(where: str, tmp_path: Path):
    with started(tmp_path, run(TICKS + BUSY[where])) as process, started(tmp_path, run(TICKS + BUSY[where])) as other:
        for busy in (process, other):
            busy.ask({})
        until_it_ticks(process)
        if not suspended(process):
            assert "wake" in where  # and that is the end of its trial
            return
        before = process.exchange.counts()
        until_it_ticks(other)  # which nobody has suspended
        assert process.exchange.counts() == before
        process.resume()
        until_it_ticks(process)


def suspended(process: Process) -> bool:
    try:
        process.suspend()
    except SubmissionFailure:
        return False
    return True


def until_it_ticks(process: Process) -> None:
    """Waits until the process has done some work."""
    before, until = process.exchange.counts()[0], time.monotonic() + 120
    while process.exchange.counts()[0] == before:
        assert time.monotonic() < until
