"""A trial's processes talk to each other, and notice when one is gone. Nothing is trained here."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
from toy_trials import SGD, rules, write

from timetrial import peers
from timetrial.campaign import Campaign
from timetrial.errors import UserError
from timetrial.instrument_log import Choice

FOLLOWER = """
import sys, time
from timetrial import peers
peers.LOST_SECONDS = 1.0
leader = peers.Leader()
print(leader.job["seed"], leader.place.rank, flush=True)
while True:
    order = leader.order()
    print(order, flush=True)
    if order == ["fail"]:
        leader.failed("it was told to")
"""


class Trial:
    """A leader in this process and one follower, whose output is heard."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lost: Queue[str] = Queue()
        monkeypatch.setattr(peers, "_start", self._start)
        monkeypatch.setattr(peers, "_ALONE_SECONDS", 0.1)
        monkeypatch.setattr(peers, "_PING_SECONDS", 0.1)
        monkeypatch.setattr(peers, "LOST_SECONDS", 2.0)
        monkeypatch.setattr(peers, "shares", lambda number: [peers.Share()] * number)
        self.followers = peers.Followers(2, {"seed": 7}, self.lost.put)

    def _start(self, spread: bool, others: Any, environment: Any) -> "list[subprocess.Popen[Any]]":
        command = (sys.executable, "-c", FOLLOWER)
        self.process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True)
        return [self.process]

    def heard(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end(self) -> None:
        self.followers.close()
        self.process.communicate()


@pytest.fixture
def trial(monkeypatch: pytest.MonkeyPatch) -> Iterator[Trial]:
    found = Trial(monkeypatch)
    yield found
    found.end()


def test_a_follower_hears_the_job_and_every_order_and_ends_with_the_trial(trial: Trial):
    trial.followers.tell("start")
    trial.followers.tell("feedback", {"x": float("inf")})
    assert [trial.heard() for _ in range(3)] == ["7 1", "['start']", "['feedback', {'x': inf}]"]
    trial.followers.close()
    assert trial.process.wait(10) == 0
    assert trial.lost.empty()


@pytest.mark.parametrize(("end", "why"), [(signal.SIGKILL, "ended"), (signal.SIGSTOP, "timed out")])
def test_a_follower_that_dies_or_answers_no_more_is_lost(trial: Trial, end: signal.Signals, why: str):
    trial.heard()
    trial.process.send_signal(end)
    said = trial.lost.get(timeout=30)
    assert said.startswith("process 1 of the trial's processes 0 to 1 is lost")
    assert why in said or "reset" in said
    trial.process.kill()


def test_a_follower_that_fails_alone_is_lost(trial: Trial):
    trial.followers.tell("fail")
    assert "it failed alone: it was told to" in trial.lost.get(timeout=30)


def test_a_follower_whose_leader_answers_no_more_ends(trial: Trial, monkeypatch: pytest.MonkeyPatch):
    trial.heard()
    monkeypatch.setattr(trial.followers, "_over", threading.Event())
    trial.followers._over.set()  # no pings any more, as when the leader's machine is lost
    assert trial.process.wait(30) == 0


def test_a_stranger_is_sent_away(monkeypatch: pytest.MonkeyPatch):
    real = Trial._start

    def start(self: Trial, spread: bool, others: Any, environment: Any) -> Any:
        host, port = environment[peers.FOLLOWS].split()[0].rsplit(":", 1)
        stranger = socket.create_connection((host, int(port)))
        stranger.sendall(b"0" * 32)
        stranger.close()
        return real(self, spread, others, environment)

    monkeypatch.setattr(Trial, "_start", start)
    trial = Trial(monkeypatch)
    assert trial.heard() == "7 1"
    trial.end()


def test_a_follower_that_ends_before_it_comes_is_not_waited_for(monkeypatch: pytest.MonkeyPatch):
    def start(spread: bool, others: Any, environment: Any) -> Any:
        return [subprocess.Popen((sys.executable, "-c", "raise SystemExit(3)"))]

    monkeypatch.setattr(peers, "_start", start)
    monkeypatch.setattr(peers, "shares", lambda number: [peers.Share()] * number)
    with pytest.raises(ConnectionError, match="exit code 3"):
        peers.Followers(2, {}, print)


def test_a_slurm_job_has_one_node_or_one_for_each_process(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "3")
    with pytest.raises(UserError, match="this Slurm job has 3 nodes"):
        peers.Followers(2, {}, print)


ALGOPERF = "def update_params(workload): ...\ndef init_optimizer_state(workload): ...\n"


@pytest.mark.parametrize(
    ("text", "options", "why"),
    [
        (SGD, {"instruments": Choice.of("basic", "16", None)}, "instruments"),
        (SGD, {"isolation": "sandbox"}, "isolated"),
        (ALGOPERF, {}, "AlgoPerf"),
    ],
)
def test_what_sees_one_process_alone_is_refused_where_a_trial_has_several(
    tmp_path: Path, text: str, options: Any, why: str
):
    with pytest.raises(UserError, match=why):
        Campaign(
            out=tmp_path / "out", ruleset=rules(), sources=(write(tmp_path, text),), seed=0, processes=2, **options
        )
