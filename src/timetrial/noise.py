"""What disturbed a timed stretch of this process: read from the operating system at its beginning and end.

Shares are of the time of the cores that the process may use, so that trials pinned to cores of their own are not each
other's noise. What the system does not tell is left out; outside of Linux that is all but the switches and the load.
"""

import os
import resource
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_STEAL = 7
_BUSY = (0, 1, 2, 5, 6)
"""Of the ticks: user, nice, system, idle, iowait, irq, softirq, steal."""
_LEAST_SECONDS = 1.0


@dataclass(frozen=True)
class _Reading:
    when: float
    ticks: list[int] | None
    own_ticks: int
    switches: int
    throttled_ms: int | None


class NoiseMeter:
    """Counts from when it is made."""

    def __init__(
        self, *, sees_all: bool = True, proc: Path = Path("/proc"), sys: Path = Path("/sys/devices/system/cpu")
    ) -> None:
        """`sees_all` is false where a process that is not a child works for this one: `others` is then left out."""
        self._sees_all = sees_all
        self._proc = proc
        self._sys = sys
        self._began = self._reading()

    def read(self) -> dict[str, float]:
        """Since the beginning; nothing where that is less than a second ago, which ticks are too coarse for.

        `steal`: share of the cores' time that a hypervisor gave to other machines. `others`: share that other
        processes used (children are not others). `involuntary_switches`: how often a second this process was put aside
        for another. `throttled`: share of the time that the hottest core was slowed down. `load`: the machine's load
        average of the last minute, a core.
        """
        began, now = self._began, self._reading()
        seconds = now.when - began.when
        if seconds < _LEAST_SECONDS:
            return {}
        found = {"involuntary_switches": (now.switches - began.switches) / seconds}
        if hasattr(os, "getloadavg"):
            found["load"] = os.getloadavg()[0] / (os.cpu_count() or 1)
        if began.ticks is not None and now.ticks is not None:
            passed = [after - before for before, after in zip(began.ticks, now.ticks, strict=True)]
            total = max(1, sum(passed))
            found["steal"] = passed[_STEAL] / total
            if self._sees_all:
                others = sum(passed[i] for i in _BUSY) - (now.own_ticks - began.own_ticks)
                found["others"] = max(0, others) / total
        if began.throttled_ms is not None and now.throttled_ms is not None:
            found["throttled"] = (now.throttled_ms - began.throttled_ms) / 1000 / seconds
        return found

    def _reading(self) -> _Reading:
        return _Reading(
            when=time.monotonic(),
            ticks=_ticks(self._proc / "stat"),
            own_ticks=_own_ticks(self._proc),
            switches=resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw,
            throttled_ms=_throttled_ms(self._sys),
        )


def _cores() -> set[int] | None:
    """None: all of the machine's."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None


def _ticks(stat: Path) -> list[int] | None:
    """Ticks of this process's cores since boot, summed; None where the system does not say."""
    if not stat.is_file():
        return None
    cores = _cores()
    lines = [line.split() for line in stat.read_text().splitlines() if line.startswith("cpu")]
    own = [line[1:9] for line in lines if line[0] != "cpu" and (cores is None or int(line[0][3:]) in cores)]
    return [sum(map(int, column)) for column in zip(*own, strict=True)]


def _own_ticks(proc: Path) -> int:
    """Ticks that this process and its descendants have used, those that have ended included."""
    used: dict[int, int] = {}
    children: dict[int, list[int]] = {}
    for pid, parent, ticks in _processes(proc):
        used[pid] = ticks
        children.setdefault(parent, []).append(pid)
    found, total = [os.getpid()], 0
    for pid in found:
        total += used.get(pid, 0)
        found += children.get(pid, [])
    return total


def _processes(proc: Path) -> Iterator[tuple[int, int, int]]:
    """Process, parent, and ticks used by it and by its children that have ended."""
    for path in proc.glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        yield int(path.parent.name), int(fields[1]), sum(map(int, fields[11:15]))


def _throttled_ms(sys: Path) -> int | None:
    """How long the hottest of this process's cores has been slowed down since boot; None where that is not told."""
    cores = _cores()
    paths: Mapping[int, Path] = {
        int(path.parts[-3][3:]): path for path in sys.glob("cpu[0-9]*/thermal_throttle/core_throttle_total_time_ms")
    }
    return max((int(path.read_text()) for core, path in paths.items() if cores is None or core in cores), default=None)
