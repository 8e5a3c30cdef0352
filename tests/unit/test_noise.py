"""What disturbed a trial is read from the operating system; here from files of our own making."""

import os
import time
from pathlib import Path

import pytest

from timetrial import noise
from timetrial.noise import NoiseMeter


class System:
    """Files like those of Linux, for a machine of two cores of which this process may use the first."""

    def __init__(self, root: Path) -> None:
        self.proc, self.sys = root / "proc", root / "cpu"
        self.set()

    def set(self, *, user: int = 0, idle: int = 0, steal: int = 0, own: int = 0, child: int = 0, hot: int = 0) -> None:
        ticks = f"{user} 0 0 {idle} 0 0 0 {steal} 0 0"
        self._write(self.proc / "stat", f"cpu 9 9 9 9 9 9 9 9 0 0\ncpu0 {ticks}\ncpu1 9{ticks}\nintr 1\n")
        self._process(os.getpid(), 1, own)
        self._process(77, os.getpid(), child)
        self._process(78, 1, 5000)
        self._write(self.sys / "cpu0" / "thermal_throttle" / "core_throttle_total_time_ms", f"{hot}\n")

    def _process(self, pid: int, parent: int, ticks: int) -> None:
        self._write(
            self.proc / str(pid) / "stat", f"{pid} (a (strange) name) S {parent} {'0 ' * 9}{ticks} 0 0 0 20 0\n"
        )

    def _write(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    now = iter((10.0, 20.0))
    monkeypatch.setattr(noise.time, "monotonic", lambda: next(now))
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0}, raising=False)
    return System(tmp_path)


def test_shares_are_of_the_process_s_own_cores_and_its_children_are_not_others(system: System):
    meter = NoiseMeter(proc=system.proc, sys=system.sys)
    system.set(user=600, idle=300, steal=100, own=350, child=50)
    found = meter.read()
    assert (found["steal"], found["others"]) == (pytest.approx(0.1), pytest.approx(0.2))


def test_a_meter_that_does_not_see_who_works_for_it_says_nothing_of_others(system: System):
    meter = NoiseMeter(sees_all=False, proc=system.proc, sys=system.sys)
    system.set(user=600, idle=300, steal=100)
    assert {"steal", "others"} & meter.read().keys() == {"steal"}


def test_a_core_that_was_slowed_down_for_its_heat_is_told(system: System):
    meter = NoiseMeter(proc=system.proc, sys=system.sys)
    system.set(hot=2500)
    assert meter.read()["throttled"] == pytest.approx(0.25)


def test_what_the_system_does_not_tell_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    now = iter((10.0, 20.0))
    monkeypatch.setattr(noise.time, "monotonic", lambda: next(now))
    assert NoiseMeter(proc=tmp_path, sys=tmp_path).read().keys() == {"involuntary_switches", "load"}


def test_less_than_a_second_says_nothing():
    assert NoiseMeter().read() == {}


def test_on_this_machine_every_number_is_in_its_range(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(noise, "_LEAST_SECONDS", 0.0)
    meter = NoiseMeter()
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass
    found = meter.read()
    assert all(value >= 0 for value in found.values())
    assert all(found[name] <= 1 for name in found if name in ("steal", "others"))
