"""The machine in equal shares, for trials side by side. jax, which takes hold of GPUs, is not imported."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from timetrial import machine
from timetrial.errors import UserError
from timetrial.gpus import VISIBLE, visible_gpus

_T = TypeVar("_T")


@dataclass(frozen=True)
class Share:
    """What one trial may use; empty: all that the campaign may."""

    cores: tuple[int, ...] = ()
    gpus: tuple[str, ...] = ()

    @property
    def environment(self) -> dict[str, str]:
        """What the trial's process finds in its environment beside the campaign's."""
        return {VISIBLE: ",".join(self.gpus)} if self.gpus else {}


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
