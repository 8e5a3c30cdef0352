"""A trial of two processes is the trial of one process with two devices, and the death of one of them loses nothing."""

import os
import signal
import subprocess
from pathlib import Path

import pytest
from test_kills import AVERAGED, BOARD, WORKER, Killer, bits, children
from toy_trials import custom, rules, write

from timetrial.campaign import Campaign, open_folder
from timetrial.launchers.local import run_campaign
from timetrial.record import read_record

HOOKED = custom("""
    def on_eval(state, feedback):
        return state._replace(params=[p * (1 - 0.01 * feedback.metrics["valid/loss"]) for p in state.params])
    hooks = dict(on_eval=on_eval, batch_size=13)  # which two devices do not divide
""")
SLOW = HOOKED.replace("return state._replace", "time.sleep(0.3); return state._replace")
"""It has a checkpoint at each eval."""
SRUN = """#!/bin/bash
echo "$*" > {log}
while [[ $1 == --* ]]; do [ "$1" = --overlap ] || [[ $1 == *=* ]] || shift; shift; done
exec "$@"
"""
"""Slurm's, on a cluster of this machine alone."""


class FollowerKiller(Killer):
    """Kills the process that the worker of the running trial has started, once there is a checkpoint."""

    def progressed(self, job, progress) -> None:
        if not self.kills and any(path.name.isdecimal() for path in (Path(job.folder) / "checkpoints").glob("*")):
            (worker,) = children()
            found = subprocess.run(("pgrep", "-P", str(worker)), capture_output=True, text=True, check=True).stdout
            for pid in map(int, found.split()):
                self.kills += 1
                os.kill(pid, signal.SIGKILL)


def run(folder: Path, text: str, *, processes: int, killer: Killer | None = None) -> tuple[Path, str, str]:
    """Runs the trial, or goes on with it; returns its record, how it ended, and why."""
    ruleset = rules(budget=1_600, eval_every=160, external=BOARD, self_tuning=BOARD)
    campaign = Campaign(
        out=folder / "out", ruleset=ruleset, sources=(write(folder, text),), seed=5, checkpoint_seconds=0.1,
        processes=processes,
    )  # fmt: skip
    open_folder(campaign, resume=campaign.out.exists())
    ((job, end),) = run_campaign(campaign, killer or Killer([]), worker=WORKER)
    return Path(job.folder) / "record.jsonl", end.status, end.message


@pytest.fixture
def two_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
    monkeypatch.setenv("NPROC", "32")  # a pool of threads that the devices' rendezvous cannot exhaust


@pytest.mark.parametrize("text", [HOOKED, pytest.param(AVERAGED, marks=pytest.mark.slow)], ids=["hook", "averaged"])
def test_two_processes_leave_the_metrics_of_one_process_with_two_devices(tmp_path, text, two_devices):
    one, status, _ = run(tmp_path / "one", text, processes=1)
    os.environ["XLA_FLAGS"] = ""
    two, _, _ = run(tmp_path / "two", text, processes=2)
    assert status == "budget"
    assert bits(two) == bits(one)
    hardware = read_record(two).run.hardware
    assert (hardware["processes"], hardware["device_count"]) == (2, 2)


@pytest.mark.slow
def test_the_death_of_a_process_interrupts_the_trial_which_goes_on_from_its_checkpoint(tmp_path):
    calm, _, _ = run(tmp_path / "calm", SLOW, processes=2)
    killer = FollowerKiller([])
    record, status, why = run(tmp_path / "rough", SLOW, processes=2, killer=killer)
    assert (killer.kills, status) == (1, "interrupted")
    assert "lost" in why
    again, status, _ = run(tmp_path / "rough", SLOW, processes=2)
    assert (again, status) == (record, "budget")
    assert bits(again) == bits(calm)
    assert len(read_record(again).resumes) == 1


@pytest.mark.slow
def test_in_a_slurm_job_of_two_nodes_the_second_process_is_started_on_the_second_node(tmp_path, monkeypatch):
    program, log = tmp_path / "bin" / "srun", tmp_path / "calls"
    program.parent.mkdir()
    program.write_text(SRUN.format(log=log))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "2")
    record, status, _ = run(tmp_path, HOOKED, processes=2)
    assert status == "budget"
    assert read_record(record).run.hardware["processes"] == 2
    assert "--relative=1 --nodes 1 --ntasks 1 " in log.read_text()
