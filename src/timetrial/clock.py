"""The stopwatch: what is charged to a submission, and what is not (rule 1)."""

from collections.abc import Callable, Generator
from contextlib import contextmanager


class Stopwatch:
    """Adds up the seconds spent in `charging()`, read from an injected `now()` (monotonic seconds)."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._charged = 0.0
        self._since: float | None = None

    @property
    def seconds(self) -> float:
        """Seconds charged so far, those of a running section included."""
        return self._charged if self._since is None else self._charged + (self._now() - self._since)

    def return_to(self, seconds: float) -> None:
        """Charges `seconds` in all, whatever was charged before: those of a checkpoint."""
        if self._since is not None:
            raise RuntimeError("the stopwatch is charging")
        self._charged = seconds

    @contextmanager
    def charging(self) -> Generator[None]:
        """Charges what happens inside, also when it raises. Whoever leaves has waited for all device work first."""
        if self._since is not None:
            raise RuntimeError("the stopwatch is charging already")
        self._since = self._now()
        try:
            yield
        finally:
            self._charged, self._since = self.seconds, None
