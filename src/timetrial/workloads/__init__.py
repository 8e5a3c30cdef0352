"""The frozen workloads, imported by name: `timetrial.workloads.lobes.WORKLOAD`.

In a checkout they lie in the top-level folder `workloads/`; in an installed wheel they lie beside this file.
"""

from pathlib import Path

_checkout = Path(__file__).parents[3] / "workloads"
if (_checkout.parent / "pyproject.toml").is_file() and _checkout.is_dir():
    __path__ = [str(_checkout)]
