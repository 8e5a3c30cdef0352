"""Puts the frozen workloads and the baseline submissions into the wheel, beside the harness that runs them."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class InstallWorkloadsAndSubmissions(BuildHookInterface):
    """`workloads/` becomes `timetrial/workloads/`, `submissions/` becomes `timetrial/submissions/`.

    An editable install needs neither: there the harness finds both at the top of the checkout.
    """

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        root = Path(self.root)
        for folder in ("workloads", "submissions"):
            for path in sorted((root / folder).rglob("*")):
                if path.is_file() and "__pycache__" not in path.parts:
                    inside = path.relative_to(root).as_posix()
                    build_data["force_include"][str(path)] = f"timetrial/{inside}"
