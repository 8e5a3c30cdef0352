"""What a run must reach: a metric, a value and the direction that is better. Standard library only."""

import math
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Target:
    """`metric` must become at most `value` (better="lower") or at least `value` (better="higher")."""

    metric: str
    value: float
    better: Literal["lower", "higher"]

    def __post_init__(self) -> None:
        if self.better not in ("lower", "higher"):
            raise ValueError(f'target of {self.metric!r}: better must be "lower" or "higher", not {self.better!r}')
        if not math.isfinite(self.value):
            raise ValueError(f"target of {self.metric!r}: value must be finite, not {self.value!r}")

    def met_by(self, value: float) -> bool:
        """Whether `value` meets the target. NaN never does."""
        return value <= self.value if self.better == "lower" else value >= self.value

    def __str__(self) -> str:
        return f"{self.metric} {'<=' if self.better == 'lower' else '>='} {self.value:g}"

    def to_json(self) -> dict[str, Any]:
        return {"metric": self.metric, "value": self.value, "better": self.better}

    @staticmethod
    def from_json(data: dict[str, Any]) -> "Target":
        return Target(str(data["metric"]), float(data["value"]), data["better"])
