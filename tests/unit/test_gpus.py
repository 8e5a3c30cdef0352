"""What is known of GPUs without jax. The GPUs here are made up."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from timetrial.errors import UserError
from timetrial.gpus import at_work, device_files, driver, share_memory, visible_gpus

TWO = """GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-aaaa-1)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-bbbb-2)
"""
DIVIDED = """GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-aaaa-1)
  MIG 3g.40gb     Device  0: (UUID: MIG-cccc-3)
  MIG 3g.40gb     Device  1: (UUID: MIG-dddd-4)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-bbbb-2)
"""
NOWHERE = Path("/nowhere")


def driver_of(folder: Path, gpus: Sequence[tuple[str, int]]) -> Path:
    """The driver's files on GPUs of these UUIDs and minor numbers."""
    for uuid, minor in gpus:
        bus = folder / "drivers" / f"0000:0{minor}:00.0"
        bus.mkdir(parents=True)
        (bus / "information").write_text(f"Model: \t\t NVIDIA H100\nGPU UUID: \t {uuid}\nDevice Minor: \t {minor}\n")
    return folder / "drivers"


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
    drivers = driver_of(tmp_path, [("GPU-aaaa-1", 0), ("GPU-bbbb-2", 1)])
    assert visible_gpus({}, drivers=drivers) == ("GPU-aaaa-1", "GPU-bbbb-2")
    assert visible_gpus({}, drivers=NOWHERE) == ()


def test_of_a_gpu_driver_clock_and_power_limit_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert driver() == {}
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho '570.124.06, 1980, 700.00'\necho '570.124.06, 1980, 700.00'\n")
    program.chmod(0o755)
    expected = {"driver": "570.124.06", "device_clock_mhz": "1980", "device_power_limit_w": "700.00"}
    assert driver() == expected


def test_whoever_trains_has_the_same_share_of_memory_in_all_modes_and_a_judge_takes_what_it_needs():
    in_process: dict[str, str] = {}
    share_memory(in_process, judge_alone=False)
    judge: dict[str, str] = {}
    share_memory(judge, judge_alone=True)
    assert in_process == {"XLA_CLIENT_MEM_FRACTION": "0.75"}
    assert judge == {**in_process, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


@pytest.mark.parametrize("name", ["XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"])
def test_a_share_that_the_environment_names_stays(name: str):
    environment = {name: "0.5", "XLA_PYTHON_CLIENT_PREALLOCATE": "true"}
    share_memory(environment, judge_alone=True)
    assert environment == {name: "0.5", "XLA_PYTHON_CLIENT_PREALLOCATE": "true"}


def test_a_process_reaches_the_device_files_of_its_own_gpus_alone_where_they_are_named_by_uuid(tmp_path: Path):
    drivers = driver_of(tmp_path, [("GPU-aaaa-1", 0), ("GPU-bbbb-2", 1)])
    devices = tmp_path / "dev"
    devices.mkdir()
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (devices / name).touch()

    def reached(*gpus: str) -> list[str]:
        return [path.name for path in device_files(gpus, devices, drivers)]

    assert reached("GPU-bbbb-2") == reached("GPU-bbbb") == ["nvidia1", "nvidiactl", "nvidia-uvm"]
    assert reached("1") == reached("MIG-cccc-3") == ["nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"]


def test_gpus_are_at_work_while_any_of_them_is():
    assert at_work(["0", "1"], lambda gpus: "0\n37\n")
    assert not at_work(["0", "1"], lambda gpus: "0\n0\n")


@pytest.mark.parametrize("said", ["", "[N/A]\n", "0\n"], ids=["nothing", "a divided GPU", "one of two"])
def test_where_the_driver_does_not_tell_of_all_gpus_the_user_is_told(said: str):
    with pytest.raises(UserError, match="does not tell whether the GPUs 0, 1 are at work"):
        at_work(["0", "1"], lambda gpus: said)
