"""Two records are of one kind of machine where all is the same that decides how fast it is."""

import pytest

from timetrial.fingerprint import essentials, fingerprint

MACHINE = {
    "platform": "gpu",
    "device_kind": "NVIDIA H100",
    "device_count": 8,
    "device_memory_bytes": 80 * 2**30,
    "driver": "570.1",
    "processor": "a processor",
    "cores": 96,
    "memory_bytes": 1000 * 2**30,
    "system": "Linux-6.1",
    "xla_flags": "",
}


def test_kernel_and_a_little_memory_make_no_other_machine():
    assert fingerprint(MACHINE | {"system": "Linux-6.2", "memory_bytes": 1000 * 2**30 - 2**26}) == fingerprint(MACHINE)


def test_what_is_not_known_is_as_if_it_were_not_there():
    assert fingerprint({k: v for k, v in MACHINE.items() if v != ""}) == fingerprint(MACHINE)
    assert fingerprint(MACHINE | {"processor_clock": ""}) == fingerprint(MACHINE)


@pytest.mark.parametrize("name", [name for name in MACHINE if name != "system"])
def test_whatever_else_differs_makes_another_machine(name: str):
    assert fingerprint(MACHINE | {name: 7 * 2**30}) != fingerprint(MACHINE)


def test_the_essentials_are_for_people():
    assert essentials({"memory_bytes": 24.4 * 2**30, "device_kind": "cpu"}) == "device kind cpu, memory 24 GiB"
