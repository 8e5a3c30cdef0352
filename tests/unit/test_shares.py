"""Trials side by side have equal shares of cores and GPUs. The GPUs here are made up."""

import os

import pytest

from timetrial.errors import UserError
from timetrial.launchers.shares import Share, shares


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
