"""The frozen workloads, imported by name: `timetrial.workloads.lobes.WORKLOAD`.

In a checkout they lie in the top-level folder `workloads/`; in an installed wheel they lie beside this file.
"""

from timetrial.registry import shipped

__path__ = [str(shipped("workloads"))]
