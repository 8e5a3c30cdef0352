"""Folders that stand in for timetrial's own workloads and submissions."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Shelf:
    """Folders of workloads and submissions that stand in for those of timetrial."""

    root: Path

    def add_workload(self, name: str, source: str) -> Path:
        return self._add(self.root / "workloads" / name / "__init__.py", source)

    def add_submission(self, name: str, source: str) -> Path:
        return self._add(self.root / "submissions" / name / "submission.py", source)

    @staticmethod
    def _add(path: Path, source: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
        return path
