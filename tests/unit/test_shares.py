"""Trials side by side have equal shares of cores and GPUs. The GPUs here are made up."""

import os
from pathlib import Path

import pytest

from timetrial.errors import UserError
from timetrial.launchers.shares import Share, shares, visible_gpus

TWO = """GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-aaaa-1)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-bbbb-2)
"""
DIVIDED = """GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-aaaa-1)
  MIG 3g.40gb     Device  0: (UUID: MIG-cccc-3)
  MIG 3g.40gb     Device  1: (UUID: MIG-dddd-4)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-bbbb-2)
"""
NOWHERE = Path("/nowhere")


def machine_of(monkeypatch: pytest.MonkeyPatch, cores: int, gpus: str) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)), raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)


def test_shares_are_equal_disjoint_and_leave_what_does_not_divide(monkeypatch: pytest.MonkeyPatch):
    machine_of(monkeypatch, cores=8, gpus="4,5,6,7,1")
    assert shares(2) == [Share((0, 1, 2, 3), ("4", "5")), Share((4, 5, 6, 7), ("6", "7"))]
    assert [share.environment for share in shares(4)] == [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in "4567"]


def test_a_machine_without_gpus_is_divided_by_cores_and_its_environment_left_alone(monkeypatch: pytest.MonkeyPatch):
    machine_of(monkeypatch, cores=5, gpus="")
    assert shares(2) == [Share((0, 1)), Share((2, 3))]
    assert shares(2)[0].environment == {}


def test_one_trial_at_a_time_is_pinned_to_nothing(monkeypatch: pytest.MonkeyPatch):
    machine_of(monkeypatch, cores=8, gpus="0,1")
    assert shares(1) == [Share()]


@pytest.mark.parametrize(
    ("cores", "gpus", "message"),
    [(2, "", "from 1 to 2, the cores"), (8, "0,1", "from 1 to 2, the GPUs .* JAX_PLATFORMS=cpu")],
)
def test_more_shares_than_the_machine_has_are_refused(
    monkeypatch: pytest.MonkeyPatch, cores: int, gpus: str, message: str
):
    machine_of(monkeypatch, cores, gpus)
    with pytest.raises(UserError, match=message):
        shares(3)
    with pytest.raises(UserError, match="--jobs must be from 1"):
        shares(0)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ("GPU-aaaa-1", "GPU-bbbb-2")),
        ({"JAX_PLATFORMS": "cpu"}, ()),
        ({"JAX_PLATFORMS": "cuda,cpu"}, ("GPU-aaaa-1", "GPU-bbbb-2")),
        ({"CUDA_VISIBLE_DEVICES": ""}, ()),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, ()),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, ()),
        ({"CUDA_VISIBLE_DEVICES": "3, 1,-1,2"}, ("3", "1")),
        ({"CUDA_VISIBLE_DEVICES": "MIG-cccc-3"}, ("MIG-cccc-3",)),
    ],
)
def test_the_environment_chooses_among_the_gpus(environment: dict[str, str], expected: tuple[str, ...]):
    assert visible_gpus(environment, lambda: TWO, NOWHERE) == expected


def test_a_divided_gpu_is_there_as_its_parts():
    assert visible_gpus({}, lambda: DIVIDED, NOWHERE) == ("MIG-cccc-3", "MIG-dddd-4", "GPU-bbbb-2")


def test_without_nvidia_smi_the_driver_s_own_files_name_the_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    for bus, uuid in (("0000:01:00.0", "GPU-aaaa-1"), ("0000:02:00.0", "GPU-bbbb-2")):
        (tmp_path / bus).mkdir()
        (tmp_path / bus / "information").write_text(f"Model: \t\t NVIDIA H100\nGPU UUID: \t {uuid}\n")
    assert visible_gpus({}, drivers=tmp_path) == ("GPU-aaaa-1", "GPU-bbbb-2")
    assert visible_gpus({}, drivers=NOWHERE) == ()
