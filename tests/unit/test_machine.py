"""What a record says of the machine."""

import os
from pathlib import Path

import pytest

from timetrial import machine


def test_cores_are_those_that_the_process_may_use(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 5, 7}, raising=False)
    assert machine.cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 9)
    assert machine.cores() == 9


def test_how_the_processor_s_clock_is_governed_is_told_as_far_as_the_system_does(tmp_path: Path):
    cpufreq = tmp_path / "cpu0" / "cpufreq"
    assert machine.processor_clock(cpufreq) == ""
    for path, text in ((cpufreq / "scaling_governor", "performance"), (tmp_path / "cpufreq" / "boost", "1")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    assert machine.processor_clock(cpufreq) == "governor performance, boost 1"
