"""How fast a machine is at the three things that training is made of, kept by the kind of machine. Imports jax."""

import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from timetrial.compilation import cache_folder
from timetrial.fingerprint import fingerprint

_REPEATS = 7
_LARGEST_SIDE = 16_384
_MOST_CALLS = 100_000
_LARGEST_ARRAY = 2**26
"""float32 elements: 256 MiB, more than caches hold."""


def calibration_path(hardware: Mapping[str, Any]) -> Path:
    """Where the calibration of this kind of machine is kept: beside the caches, in the user's cache folder."""
    return cache_folder().with_name("calibration") / f"{fingerprint(hardware)}.json"


def read_calibration(hardware: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What was measured last on this kind of machine; None where nothing was."""
    try:
        return json.loads(calibration_path(hardware).read_text())
    except (OSError, ValueError):
        return None


def calibrate(hardware: Mapping[str, Any], *, least_seconds: float = 0.02) -> dict[str, Any]:
    """Measures the first device, and keeps the result.

    `matmul_flops`: operations a second of a float32 product of square matrices, in jax's default precision.
    `memory_bytes_per_second`: read and written by a + 2 b on long float32 vectors. `dispatch_seconds`: of one call of a
    compiled function that has next to nothing to do. Sizes grow until one call takes `least_seconds`; the fastest of
    seven calls counts, since whatever disturbs only makes slower.
    """
    multiply, add = jax.jit(jnp.matmul), jax.jit(lambda a, b: a + 2 * b)
    side, product_seconds = _grown(256, _LARGEST_SIDE, least_seconds, lambda n: _fastest(multiply, _ones(n, n)))
    size, sum_seconds = _grown(2**16, _LARGEST_ARRAY, least_seconds, lambda n: _fastest(add, _ones(n)))
    found = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "fingerprint": fingerprint(hardware),
        "matmul_flops": 2 * side**3 / product_seconds,
        "memory_bytes_per_second": 3 * 4 * size / sum_seconds,
        "dispatch_seconds": _dispatch(least_seconds),
    }
    path = calibration_path(hardware)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".tmp")
    scratch.write_text(json.dumps(found, indent=1) + "\n")
    scratch.replace(path)
    return found


def _grown(size: int, largest: int, least_seconds: float, measure: Callable[[int], float]) -> tuple[int, float]:
    """The first of doubling sizes at which a call takes long enough to be measured, and how long."""
    while (seconds := measure(size)) < least_seconds and size < largest:
        size *= 2
    return size, seconds


def _ones(*shape: int) -> tuple[jax.Array, jax.Array]:
    """Two arrays of ones: two, so that both have to be read."""
    return jnp.ones(shape, jnp.float32), jnp.ones(shape, jnp.float32)


def _fastest(call: Callable[..., jax.Array], arguments: tuple[jax.Array, ...]) -> float:
    """Wall seconds of the fastest call, compilation aside."""
    jax.block_until_ready(call(*arguments))
    return min(_seconds(lambda: call(*arguments)) for _ in range(_REPEATS))


def _seconds(call: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - begin


def _dispatch(least_seconds: float) -> float:
    """Each call takes the result of the one before, so that none can be left out or overlap."""
    add = jax.jit(lambda x: x + 1)

    def chain(number: int) -> float:
        def calls() -> jax.Array:
            x = jnp.zeros(())
            for _ in range(number):
                x = add(x)
            return x

        return min(_seconds(calls) for _ in range(_REPEATS))

    number, seconds = _grown(100, _MOST_CALLS, least_seconds, chain)
    return seconds / number
