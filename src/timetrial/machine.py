"""What a record says of the machine and of the packages that made it. Standard library only, jax where it is loaded."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from timetrial import gpus

PACKAGES = ("timetrial", "jax", "jaxlib", "flax", "optax", "numpy", "scipy", "grain")


def packages() -> dict[str, str]:
    """Versions of Python and of the packages that can change a result."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def source_commit() -> str | None:
    """The commit of the checkout that this is; with a plus where files have changed since. None where there is none."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        command = ("git", "-C", str(folder), *arguments)
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()

    try:
        if git("ls-files", "machine.py") == "":  # a checkout of something else that this is installed in
            return None
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def processor() -> str:
    """The processor's model, as the operating system names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def cores() -> int:
    """Processor cores that this process may use; the machine's where the system does not say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> int:
    """Physical memory of the machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def processor_clock(cpufreq: Path = Path("/sys/devices/system/cpu/cpu0/cpufreq")) -> str:
    """How the processor's clock is governed, as far as the operating system tells; "" where it does not."""
    parts = {
        "governor": cpufreq / "scaling_governor",
        "at most kHz": cpufreq / "scaling_max_freq",
        "boost": cpufreq.parents[1] / "cpufreq" / "boost",
        "no turbo": cpufreq.parents[1] / "intel_pstate" / "no_turbo",
    }
    return ", ".join(f"{name} {path.read_text().strip()}" for name, path in parts.items() if path.is_file())


def devices() -> list[Any]:
    """Platform, kind and number of this process's devices."""
    import jax

    local = jax.local_devices()
    return [local[0].platform, local[0].device_kind, len(local)]


def hardware() -> dict[str, Any]:
    """Devices of the trial, processor, cores and memory of this process; what is not known is left out."""
    import jax

    devices = jax.local_devices()
    memory = None if devices[0].platform == "cpu" else (devices[0].memory_stats() or {}).get("bytes_limit")
    known = {
        "platform": devices[0].platform,
        "device_kind": devices[0].device_kind,
        "device_count": jax.device_count(),
        "processor": processor(),
        "cores": cores(),
        "memory_bytes": memory_bytes(),
        "system": platform.platform(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }
    processes = jax.process_count()
    found = {"device_memory_bytes": memory, "processor_clock": processor_clock()}
    found |= {"processes": processes} if processes > 1 else {}
    found |= gpus.driver() if devices[0].platform == "gpu" else {}
    return known | {name: value for name, value in found.items() if value}


def out_of_memory_kills() -> int:
    """How often Linux has ended a process for want of memory; 0 where it does not say."""
    try:
        counters = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    except (OSError, ValueError):
        return 0
    return int(counters.get("oom_kill", 0))
