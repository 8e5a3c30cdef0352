"""NVIDIA's GPUs, without jax, which takes hold of them: which there are, what of their memory a trial has, their work.

Standard library only. Written from the documentation of CUDA, NVML and jax ("GPU memory allocation").
"""

import os
import re
import subprocess
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from itertools import takewhile
from pathlib import Path

from timetrial.errors import UserError

VISIBLE = "CUDA_VISIBLE_DEVICES"
MEMORY = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")
"""What tells jax how much of a GPU's memory to take; the second is the older name."""
_FRACTION = "0.75"
_DRIVER = Path("/proc/driver/nvidia/gpus")
_PLAIN = "--format=csv,noheader,nounits"
_CONTROL = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset", "nvidia-caps")


def share_memory(environment: MutableMapping[str, str], *, judge_alone: bool) -> None:
    """Says, before jax is imported, how much of a GPU's memory whoever trains takes: three quarters, as by default.

    The rest is the judge's where a submission trains in a process of its own, and is left free in all other modes, so
    that isolation does not change what fits. With `judge_alone` this may be such a judge, which takes only what it
    needs. What the environment says already holds.
    """
    if not any(name in environment for name in MEMORY):
        environment[MEMORY[0]] = _FRACTION
    if judge_alone:
        environment.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def trainers_share(memory_bytes: int) -> int:
    """What whoever trains has of a GPU with so much memory, where the environment says nothing else."""
    return int(float(_FRACTION) * memory_bytes)


def visible_gpus(
    environment: Mapping[str, str] = os.environ,
    listing: Callable[[], str] | None = None,
    drivers: Path = _DRIVER,
) -> tuple[str, ...]:
    """The GPUs that jax would find, as CUDA_VISIBLE_DEVICES names them; none where jax is told to use none.

    Where the environment does not choose they are named by UUID, since CUDA and the driver number them differently; a
    GPU that is divided (MIG) is there as its parts.
    """
    platforms = environment.get("JAX_PLATFORMS", "")
    if platforms and not {"cuda", "gpu"} & set(platforms.split(",")):
        return ()
    chosen = environment.get(VISIBLE)
    if chosen is not None:  # CUDA stops at the first that it does not know
        names = (name.strip() for name in chosen.split(","))
        return tuple(takewhile(lambda name: re.fullmatch(r"\d+|(GPU|MIG)-\S+", name), names))
    found: list[str] = []
    for name in re.findall(r"UUID: ((?:GPU|MIG)-[^)\s]+)", (listing or _listing)()):
        if name.startswith("MIG") and found and found[-1].startswith("GPU"):
            found.pop()
        found.append(name)
    if not found:
        texts = (path.read_text() for path in sorted(drivers.glob("*/information")))
        found = [match[1] for text in texts if (match := re.search(r"GPU UUID:\s*(GPU-\S+)", text))]
    return tuple(found)


def device_files(gpus: Sequence[str], devices: Path = Path("/dev"), drivers: Path = _DRIVER) -> list[Path]:
    """The device files by which a process reaches these GPUs: theirs alone where all are named by UUID, else all."""
    own: list[Path] = []
    for text in (path.read_text() for path in sorted(drivers.glob("*/information"))):
        uuid, minor = re.search(r"GPU UUID:\s*(\S+)", text), re.search(r"Device Minor:\s*(\d+)", text)
        if uuid and minor and any(uuid[1].startswith(name) for name in gpus):
            own.append(devices / f"nvidia{minor[1]}")
    if len(own) != len(gpus):
        own = sorted(path for path in devices.glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name))
    return [path for path in (*own, *(devices / name for name in _CONTROL)) if path.exists()]


def at_work(gpus: Sequence[str], usage: Callable[[Sequence[str]], str] | None = None) -> bool:
    """Whether any of them ran a kernel within the driver's last sample, which is of a second at most.

    Raises `UserError` where the driver does not tell.
    """
    lines = (usage or _usage)(gpus).split("\n")
    percents = [line.strip() for line in lines if line.strip()]
    if len(percents) < len(gpus) or not all(percent.isdigit() for percent in percents):
        raise UserError(
            f"the driver does not tell whether the GPUs {', '.join(gpus)} are at work (nvidia-smi said: "
            f"{', '.join(percents) or 'nothing'}), which isolating a submission with hooks needs; leave that out"
        )
    return any(int(percent) > 0 for percent in percents)


def driver() -> dict[str, str]:
    """Driver, highest clock and power limit of the first GPU; nothing where its driver does not tell."""
    names = ("driver", "device_clock_mhz", "device_power_limit_w")
    told = _nvidia_smi("--query-gpu=driver_version,clocks.max.sm,power.limit", _PLAIN)
    first = [value.strip() for value in told.partition("\n")[0].split(",")]
    return dict(zip(names, first, strict=False)) if any(first) else {}


def _listing() -> str:
    return _nvidia_smi("-L")


def _usage(gpus: Sequence[str]) -> str:
    return _nvidia_smi(f"--id={','.join(gpus)}", "--query-gpu=utilization.gpu", _PLAIN)


def _nvidia_smi(*arguments: str) -> str:
    """What it prints; nothing where it is not there or fails."""
    try:
        return subprocess.run(("nvidia-smi", *arguments), capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
