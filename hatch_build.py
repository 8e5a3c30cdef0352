"""Puts the frozen workloads and the baseline submissions into the wheel, beside the harness that runs them."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class InstallWorkloadsAndSubmissions(BuildHookInterface[Any]):
    """`workloads/` becomes `timetrial/workloads/`, `submissions/` becomes `timetrial/submissions/`.

    What git ignores stays out. An editable install needs neither: the harness finds both at the top of the checkout.
    """

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        root = Path(self.root)
        for folder in ("workloads", "submissions"):
            for path in sorted((root / folder).rglob("*")):
                inside = path.relative_to(root).as_posix()
                if path.is_file() and not self.build_config.path_is_excluded(inside):
                    build_data["force_include"][str(path)] = f"timetrial/{inside}"
