"""A batch split over many devices trains like the same batch on one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from timetrial.registry import workload_names

SCRIPT = Path(__file__).parents[1] / "support" / "losses.py"


def losses(workload, batch_size, devices):
    environment = {
        **os.environ,
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "NPROC": "32",  # a pool of threads that the devices' rendezvous cannot exhaust
    }
    command = [sys.executable, str(SCRIPT), workload, str(batch_size)]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    found = json.loads(output)
    assert found["devices"] == devices
    return found["losses"]


@pytest.mark.parametrize(
    ("workload", "batch_size"),
    [("toy", 16), ("toy", 13), *((name, 32) for name in workload_names())],
    ids=lambda value: {13: "13 rows, which 8 devices do not divide"}.get(value, str(value)),
)
def test_eight_devices_train_like_one(workload, batch_size):
    one, eight = losses(workload, batch_size, 1), losses(workload, batch_size, 8)
    assert len(one) == 20
    assert one[-1] != one[0]
    assert eight == pytest.approx(one, rel=1e-5)
