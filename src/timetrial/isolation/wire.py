"""What goes between the harness and a process that it does not trust: lines of JSON over a pipe, and arrays in a file.

Nothing is unpickled. The harness opens the file before the process exists, reads it with `pread` (a file that was cut
short gives an error and no fault), and believes no shape or type that it did not ask for.
"""

import json
import math
import mmap
import os
import select
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from timetrial.errors import UserError
from timetrial.tuning import Choice, Integers, LogUniform, SearchSpace, Uniform, check_search_space

MAX_LINE = 1 << 20
_MAX_AXES = 32
_PAGE = mmap.PAGESIZE
_COUNTS = struct.Struct("<qq")
_STOP = _COUNTS.size
"""The file's first page: steps and examples so far, and a byte that says stop. Then the arrays, one after another."""


class BrokenWire(Exception):
    """The other side is gone, or sent what it may not."""


class Spec(NamedTuple):
    """Shape and dtype of an array."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * jnp.dtype(self.dtype).itemsize

    @staticmethod
    def of(array: Any) -> "Spec":
        return Spec(tuple(array.shape), jnp.dtype(array.dtype).name)

    @staticmethod
    def read(data: Any) -> "Spec":
        """From JSON; raises `BrokenWire`."""
        try:
            shape, dtype = data
            found = Spec(tuple(int(n) for n in shape), str(dtype))
            holds_numbers = jnp.issubdtype(found.dtype, np.number) or found.dtype == "bool"
        except (OverflowError, TypeError, ValueError) as error:
            raise BrokenWire(f"no shape and dtype: {error}") from None
        sizes_fit = len(found.shape) <= _MAX_AXES and all(0 <= n < 1 << 40 for n in found.shape)
        if not (holds_numbers and sizes_fit and found.nbytes < 1 << 40):
            raise BrokenWire("no array of numbers has such a shape and dtype")
        return found


class Pipe:
    """Lines of JSON objects in two directions."""

    def __init__(self, reads: int, writes: int) -> None:
        self._reads, self._writes = reads, writes
        self._rest = b""

    def send(self, message: Mapping[str, Any]) -> None:
        data = json.dumps(message).encode() + b"\n"
        try:
            while data:
                data = data[os.write(self._writes, data) :]
        except OSError as error:
            raise BrokenWire(error.strerror or "broken") from None

    def receive(self, timeout: float | None = None) -> dict[str, Any] | None:
        """The next message; None where there is none within `timeout` seconds. Raises `BrokenWire`."""
        until = None if timeout is None else time.monotonic() + timeout
        while b"\n" not in self._rest:
            if len(self._rest) > MAX_LINE:
                raise BrokenWire("a message is too long")
            left = None if until is None else max(0.0, until - time.monotonic())
            if not select.select([self._reads], [], [], left)[0]:
                return None
            data = os.read(self._reads, 1 << 16)
            if not data:
                raise BrokenWire("the other side is gone")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        try:
            message = json.loads(line)
        except (RecursionError, ValueError):
            raise BrokenWire("a message is no JSON") from None
        if not isinstance(message, dict):
            raise BrokenWire("a message is no JSON object")
        return message


class Exchange:
    """The harness's side of the file: what it has opened stays what it reads, whatever the other side does."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._file, _PAGE)

    def counts(self) -> tuple[int, int]:
        """Steps and examples, as the other side says."""
        data = os.pread(self._file, _COUNTS.size, 0)
        return _COUNTS.unpack(data) if len(data) == _COUNTS.size else (0, 0)

    def tell_to_stop(self, stop: bool) -> None:
        os.pwrite(self._file, bytes([stop]), _STOP)

    def write(self, arrays: Sequence[np.ndarray]) -> list[Any]:
        return _write(self._file, arrays)

    def read(self, specs: Sequence[Spec]) -> list[np.ndarray]:
        """The arrays that the other side has written; raises `BrokenWire` where they are not all there."""
        return _read(self._file, specs)

    def close(self) -> None:
        os.close(self._file)


class ChildExchange:
    """The child's side of the file."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._page = mmap.mmap(self._file, _PAGE)

    def count(self, step: int, examples: int) -> None:
        _COUNTS.pack_into(self._page, 0, step, examples)

    def told_to_stop(self) -> bool:
        return self._page[_STOP] != 0

    def write(self, arrays: Sequence[np.ndarray]) -> list[Any]:
        return _write(self._file, arrays)

    def read(self, specs: Sequence[Spec]) -> list[np.ndarray]:
        return _read(self._file, specs)


def _write(file: int, arrays: Sequence[np.ndarray]) -> list[Any]:
    """Writes the arrays one after another, and says what they are, in JSON."""
    offset = _PAGE
    for array in arrays:
        view = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        while view:
            written = os.pwrite(file, view, offset)
            view, offset = view[written:], offset + written
    return [[list(array.shape), jnp.dtype(array.dtype).name] for array in arrays]


def _read(file: int, specs: Sequence[Spec]) -> list[np.ndarray]:
    offset, arrays = _PAGE, list[np.ndarray]()
    for spec in specs:
        array = np.empty(spec.shape, jnp.dtype(spec.dtype))
        view = array.reshape(-1).view(np.uint8).data
        while view:
            count = os.preadv(file, [view], offset)
            if count == 0:
                raise BrokenWire("the arrays are not all there")
            view, offset = view[count:], offset + count
        arrays.append(array)
    return arrays


def space_to_json(space: SearchSpace) -> Any:
    """A search space as JSON."""
    if not isinstance(space, Mapping):
        return [dict(point) for point in space]
    return {name: {"kind": type(distribution).__name__, **asdict(distribution)} for name, distribution in space.items()}


def space_from_json(data: Any) -> SearchSpace:
    """The search space that `space_to_json` wrote; raises `BrokenWire` where it is none."""
    kinds = {kind.__name__: kind for kind in (Uniform, LogUniform, Integers, Choice)}
    try:
        if isinstance(data, list):
            return check_search_space(data)
        return check_search_space({name: kinds[given.pop("kind")](**given) for name, given in data.items()})
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError, UserError) as error:
        raise BrokenWire(f"no search space: {error}") from None
