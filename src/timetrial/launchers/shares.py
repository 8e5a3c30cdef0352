"""The machine in equal shares, for trials side by side. jax, which takes hold of GPUs, is not imported."""

import os
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TypeVar

from timetrial import machine
from timetrial.errors import UserError

GPUS = "CUDA_VISIBLE_DEVICES"
_T = TypeVar("_T")


@dataclass(frozen=True)
class Share:
    """What one trial may use; empty: all that the campaign may."""

    cores: tuple[int, ...] = ()
    gpus: tuple[str, ...] = ()

    @property
    def environment(self) -> dict[str, str]:
        """What the trial's process finds in its environment beside the campaign's."""
        return {GPUS: ",".join(self.gpus)} if self.gpus else {}


def shares(number: int) -> list[Share]:
    """The cores and GPUs that this process may use in `number` equal shares; what does not divide stays idle.

    Raises `UserError` where there are more shares than cores, or than GPUs where there are any.
    """
    if number == 1:
        return [Share()]
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(machine.cores()))
    gpus = visible_gpus()
    if not 1 <= number <= len(cores):
        raise UserError(f"--jobs must be from 1 to {len(cores)}, the cores of this machine; got {number}")
    if gpus and number > len(gpus):
        raise UserError(
            f"--jobs must be from 1 to {len(gpus)}, the GPUs of this machine; got {number} "
            "(to train on its cores alone, set JAX_PLATFORMS=cpu)"
        )
    return [Share(_part(cores, i, number), _part(gpus, i, number)) for i in range(number)]


def _part(whole: Sequence[_T], i: int, number: int) -> tuple[_T, ...]:
    each = len(whole) // number
    return tuple(whole[i * each : (i + 1) * each])


def visible_gpus(
    environment: Mapping[str, str] = os.environ,
    listing: Callable[[], str] | None = None,
    drivers: Path = Path("/proc/driver/nvidia/gpus"),
) -> tuple[str, ...]:
    """The GPUs that jax would find, as CUDA_VISIBLE_DEVICES names them; none where jax is told to use none.

    Where the environment does not choose they are named by UUID, since CUDA and the driver number them differently; a
    GPU that is divided (MIG) is there as its parts.
    """
    platforms = environment.get("JAX_PLATFORMS", "")
    if platforms and not {"cuda", "gpu"} & set(platforms.split(",")):
        return ()
    chosen = environment.get(GPUS)
    if chosen is not None:  # CUDA stops at the first that it does not know
        names = (name.strip() for name in chosen.split(","))
        return tuple(takewhile(lambda name: re.fullmatch(r"\d+|(GPU|MIG)-\S+", name), names))
    found: list[str] = []
    for name in re.findall(r"UUID: ((?:GPU|MIG)-[^)\s]+)", (listing or _nvidia_smi)()):
        if name.startswith("MIG") and found and found[-1].startswith("GPU"):
            found.pop()
        found.append(name)
    if not found:
        texts = (path.read_text() for path in sorted(drivers.glob("*/information")))
        found = [match[1] for text in texts if (match := re.search(r"GPU UUID:\s*(GPU-\S+)", text))]
    return tuple(found)


def _nvidia_smi() -> str:
    try:
        return subprocess.run(("nvidia-smi", "-L"), capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
