"""The prepared data of a workload, where a test may read them."""

import numpy as np
import pytest

from timetrial.data import SPLITS
from timetrial.workload import Workload


def prepared_splits(workload: Workload) -> dict[str, dict[str, np.ndarray]]:
    """Fields by split; skips the test where the data set was never prepared, because preparing takes too long here."""
    if not workload.data.prepared():
        pytest.skip(f"the data set {workload.data.name} is not prepared: timetrial data prepare {workload.name}")
    return {split: dict(workload.split(split)) for split in SPLITS}
