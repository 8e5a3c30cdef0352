"""Workloads on speech and text, from preparing a synthetic twin to a trial, with narrower models than the real ones."""

from dataclasses import replace
from importlib import import_module

import pytest
from small_models import SMALLER

from timetrial.campaign import restrict
from timetrial.loading import find_source
from timetrial.record import read_record
from timetrial.ruleset import load_ruleset
from timetrial.trial import Trial, run_trial

STEPS = 8
ROWS = 4
EVALUATED = {"eval_batch_size": 16, "train_eval_rows": 16}
RULESET = load_ruleset("twins")
BASES = ("finewebedu_lm", "librispeech_conformer", "librispeech_deepspeech", "wmt")
SYMBOLS = 128
"""Enough for the twins of texts."""


def narrower(base):
    """The workload on its twin; the twin's own sizes are those of `W@twin`."""
    module = import_module(f"timetrial.workloads.{base}")
    fields = SMALLER[base] | ({"symbols": SYMBOLS} if "symbols" in SMALLER[base] else {})
    workload = module.build(replace(module.MODEL, **fields), module.WORKLOAD.data.twin())
    return replace(workload, name=f"{base}@twin", default_batch_size=ROWS, max_batch_size=16, **EVALUATED)


@pytest.mark.slow
@pytest.mark.parametrize("base", BASES)
def test_a_few_steps_on_the_twin_reduce_the_loss_and_a_resumed_trial_repeats_them(base, tmp_path, monkeypatch):
    monkeypatch.setenv("TIMETRIAL_DATA", str(tmp_path / "data"))
    workload, source = narrower(base), find_source("adamw")
    ruleset = restrict(RULESET, workloads=[workload.name])

    def run(folder, leave=lambda: False):
        trial = Trial(seed=0, study=0, trial=0, self_tuning=False)
        return run_trial(workload, source, ruleset, trial, folder, workload_sha256="0" * 64, leave=leave).status

    def evals(folder):
        return [(line.step, line.metrics) for line in read_record(folder / "record.jsonl").evals]

    whole, parted = tmp_path / "whole", tmp_path / "parted"
    assert run(whole) == "budget"
    assert [run(parted, leave=lambda: True), run(parted)] == ["interrupted", "budget"]
    assert evals(parted) == evals(whole)
    (_, before), *_, (last, after) = evals(whole)
    assert last == STEPS
    assert after["train/loss"] < before["train/loss"]
    assert workload.data.state(verify=True) == "prepared"
