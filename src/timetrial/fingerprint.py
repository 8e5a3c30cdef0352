"""Whether two records come from the same kind of machine. Standard library only."""

import hashlib
from collections.abc import Mapping
from typing import Any

_LEFT_OUT = {"system"}
"""Kernel and C library: machines of one cluster are updated one after the other."""
_GIB = 2**30


def essentials(hardware: Mapping[str, Any]) -> str:
    """What decides how fast a machine is, in one line: two of the same kind have the same one.

    `hardware` is that of a record. Memory is rounded to GiB, since machines of one kind differ in what firmware keeps.
    """
    parts = {
        name: value for name, value in sorted(hardware.items()) if name not in _LEFT_OUT and value not in (None, "")
    }
    return ", ".join(f"{_words(name)} {_rounded(name, value)}" for name, value in parts.items())


def fingerprint(hardware: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits that stand for `essentials`."""
    return hashlib.sha256(essentials(hardware).encode()).hexdigest()[:12]


def _words(name: str) -> str:
    return name.removesuffix("_bytes").replace("_", " ")


def _rounded(name: str, value: Any) -> str:
    return f"{round(value / _GIB)} GiB" if name.endswith("memory_bytes") else str(value)
