"""What is charged while submission code runs, and what of it is compiling, waiting for data or repeated."""

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

from timetrial.failures import submission_code

_COMPILING = tuple(
    f"/jax/core/compile/{name}_duration" for name in ("jaxpr_trace", "jaxpr_to_mlir_module", "backend_compile")
)
"""What jax reports of tracing, lowering and compiling, in seconds."""


class Metering:
    """Listens to the compiler from when it is made until `close`."""

    def __init__(self, folder: Path | None, now: Callable[[], float]) -> None:
        """`folder` holds the submission's source, so that messages can name its lines."""
        self._folder = folder
        self._now = now
        self._charging = False
        self._ran: set[Any] = set()
        self._to_repeat: set[str] = set()
        self.compile_seconds = 0.0
        self.data_seconds = 0.0
        self.repeated_seconds = 0.0
        jax.monitoring.register_event_duration_secs_listener(self._on_duration)

    @contextmanager
    def charged(self, hook: str) -> Generator[None]:
        """Submission code: its compilation is metered, its failures become results, its device work is waited for.

        All arrays are waited for, not only the state: work that a host hook left behind must not run uncharged.
        """
        self._charging = True
        try:
            with submission_code(hook, self._folder):
                yield
                jax.effects_barrier()
                for array in jax.live_arrays():
                    if not array.is_deleted():
                        array.block_until_ready()
        finally:
            self._charging = False

    @contextmanager
    def waiting_for_data(self) -> Generator[None]:
        began = self._now()
        yield
        self.data_seconds += self._now() - began

    def has_run(self, program: Any) -> None:
        """Notes that a program is compiled."""
        if program not in self._ran:
            self._ran.add(program)
            self._to_repeat.discard(repr(program))

    def ran(self) -> list[str]:
        return sorted(map(repr, self._ran))

    def repeat(self, programs: Iterable[str]) -> None:
        """From here on compiling only repeats what was done before, until all of these have run again."""
        self._to_repeat = set(programs)

    def close(self) -> None:
        jax.monitoring.unregister_event_duration_listener(self._on_duration)

    def _on_duration(self, event: str, duration_secs: float, **_: Any) -> None:
        if not self._charging:
            return
        if self._to_repeat and event in _COMPILING:
            self.repeated_seconds += duration_secs
        elif event == _COMPILING[-1]:
            self.compile_seconds += duration_secs
