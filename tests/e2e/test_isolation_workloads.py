"""What is traced apart trains every workload of the mini track to the bits of the trainer without isolation."""

from dataclasses import replace
from pathlib import Path

import pytest
from apart import POLICY, curve, sandboxed
from prepared import prepared_splits

from timetrial.isolation.process import MODULE
from timetrial.loading import find_source
from timetrial.record import read_record
from timetrial.registry import load_workload
from timetrial.ruleset import load_ruleset
from timetrial.trial import Trial, run_trial

_IN_CI = "flights"
MINI = ["lobes", "fashion", "flights", "phantoms", "formants", "molecules", "verses", "scripture"]


@pytest.mark.parametrize("name", [pytest.param(w, marks=[] if w == _IN_CI else [pytest.mark.slow]) for w in MINI])
def test_programs_give_the_bits_of_the_trainer_without_isolation(tmp_path: Path, name: str):
    workload, official = load_workload(name), load_ruleset("mini-v1")
    prepared_splits(workload)
    steps = 4 * workload.default_batch_size
    rules = replace(official.workloads[name], budget=2 * steps, eval_every=steps, anchor=None)
    ruleset = replace(official, confirmation=0, workloads={name: rules})
    point = {"learning_rate": 3e-3, "one_minus_b1": 0.1, "weight_decay": 0.05}
    trial = Trial(seed=3, study=0, trial=0, self_tuning=False, point=point)
    policy = replace(POLICY, file_bytes=1 << 30)
    records = []
    for kind, isolated in (("here", None), ("apart", sandboxed(module=MODULE, code=(), policy=policy))):
        end = run_trial(
            workload, find_source("adamw"), ruleset, trial, tmp_path / kind, workload_sha256="0" * 64, isolated=isolated
        )
        assert end.status == "budget", end.message
        records.append(read_record(tmp_path / kind / "record.jsonl"))
    here, apart = records
    assert (here.run.trainer, apart.run.trainer) == ("python", "program")
    assert len(apart.evals) == 3
    assert curve(apart) == curve(here)
