"""What a check says: a verdict for each rule, and all of them as one report."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from timetrial.errors import printable
from timetrial.loading import Source

if TYPE_CHECKING:
    from timetrial.workload import Workload

Status = Literal["pass", "warn", "fail"]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What one rule says of the submission."""

    rule: str
    status: Status
    message: str
    workload: str | None = None
    """None for a rule that concerns no single workload."""
    where: str | None = None
    """`file:line` within the submission's folder, or the file; None where no single place is meant."""
    todo: str | None = None
    """What the author can do about it; None for what passes."""

    def __str__(self) -> str:
        """What, on which workload and where, on one line that no terminal acts on: a submission may have written it."""
        on = f" on {self.workload}" if self.workload else ""
        place = f"{self.where}: " if self.where else ""
        return printable(f"{self.rule}{on}: {place}{self.message}")


@dataclass(frozen=True, kw_only=True)
class Report:
    """The verdicts on one submission; docs/rules.md describes the JSON."""

    submission: str
    sha256: str
    """Of the source that was checked."""
    api: Literal["timetrial", "algoperf"]
    verdicts: tuple[Verdict, ...]

    @property
    def passed(self) -> bool:
        """Whether no rule fails; warnings pass."""
        return self.count("fail") == 0

    def count(self, status: Status) -> int:
        return sum(verdict.status == status for verdict in self.verdicts)

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": 1,
            "submission": self.submission,
            "sha256": self.sha256,
            "api": self.api,
            "passed": self.passed,
            "verdicts": [asdict(verdict) for verdict in self.verdicts],
        }


def report_of(source: Source, verdicts: Iterable[Verdict]) -> Report:
    """The report that these verdicts on `source` make."""
    return Report(submission=source.name, sha256=source.sha256, api=source.api, verdicts=tuple(verdicts))


def check_report(source: Source, workloads: Iterable["Workload"]) -> Report:
    """The whole check: the static rules, then, where the source is Python, the dynamic ones. Imports jax."""
    from timetrial.check.conformance import check
    from timetrial.check.static import check_static

    return report_of(source, [*check_static(source), *check(source, workloads)])
