"""Workloads of the full track from preparing data to an audit, on synthetic twins of their data."""

from dataclasses import replace
from importlib import import_module

import pytest
from audited import ask_here
from small_models import SMALLER

from timetrial.audit.run import run_audit
from timetrial.campaign import Campaign, open_folder, restrict
from timetrial.cli import main
from timetrial.compilation import use_cache
from timetrial.loading import find_source
from timetrial.record import read_record
from timetrial.registry import base_of, load_workload, workload_names
from timetrial.ruleset import load_ruleset
from timetrial.trial import Trial, run_trial

TWINS = load_ruleset("twins")
CHEAP = ("ogbg@twin", "criteo1tb_test@twin")
"""With models that a processor trains in minutes, whole."""
pytestmark = pytest.mark.slow


def smaller(name):
    """The workload of that name with less of each kind of layer."""
    workload, module = load_workload(name), import_module(f"timetrial.workloads.{base_of(name)}")
    made = module.build(replace(module.MODEL, **SMALLER[module.WORKLOAD.name]), workload.data)
    sizes = ("name", "default_batch_size", "max_batch_size", "eval_batch_size", "train_eval_rows")
    return replace(made, **{field: getattr(workload, field) for field in sizes})


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIMETRIAL_DATA", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture(scope="module", params=TWINS.workloads)
def trials(request, data, compiled, tmp_path_factory):
    """A workload, a campaign on it whose trial was interrupted and went on, and the record of one that was not."""
    del data
    use_cache(compiled)
    workload, source = smaller(request.param), find_source("adamw")
    out = tmp_path_factory.mktemp(request.param) / "out"
    campaign = Campaign(out=out, ruleset=restrict(TWINS, workloads=[workload.name]), sources=(source,), seed=0)
    open_folder(campaign, resume=False)

    def run(folder, leave=lambda: False):
        trial = Trial(seed=0, study=0, trial=0, self_tuning=False)
        return run_trial(workload, source, campaign.ruleset, trial, folder, workload_sha256="f" * 64, leave=leave)

    whole, parted = out.parent / "whole", out / source.name / workload.name / "study_0" / "trial_0"
    run(whole)
    assert run(parted, leave=lambda: True).status == "interrupted"
    run(parted)
    return workload, out, read_record(whole / "record.jsonl"), read_record(parted / "record.jsonl")


def curve(record):
    return [(line.step, line.metrics) for line in record.evals]


def test_the_ruleset_has_a_twin_of_every_workload_of_the_track():
    assert {base_of(name) for name in TWINS.workloads} == {*workload_names("full")}


def test_a_model_learns_from_a_twin_in_20_steps(trials):
    workload, _, record, _ = trials
    assert (record.end.status, record.run.workload) == ("budget", workload.name)
    assert [step for step, _ in curve(record)] == [0, 10, 20]
    assert record.evals[-1].metrics["train_eval/loss"] < record.evals[0].metrics["train_eval/loss"]


def test_a_trial_on_a_twin_goes_on_from_its_checkpoint_as_if_nothing_had_happened(trials):
    *_, whole, parted = trials
    assert parted.resumes
    assert (parted.end.status, curve(parted)) == ("budget", curve(whole))


def test_a_trial_on_a_twin_that_was_interrupted_holds_against_an_audit(trials):
    workload, out, *_ = trials
    audit = run_audit([out], ask=ask_here(workload))
    assert [trial.compared for trial in audit.trials] == ["bit for bit"]
    assert audit.all_findings() == []


@pytest.mark.usefixtures("data")
@pytest.mark.parametrize("name", CHEAP)
def test_a_campaign_on_a_twin_prepares_its_data_and_holds_against_an_audit(name, tmp_path, capfd):
    assert main(["data", "prepare", name]) == 0
    out = str(tmp_path / "runs")
    assert main(["run", "-r", "twins", "-s", "adamw", "-w", name, "-o", out]) == 0
    assert main(["audit", out]) == 0
    assert "1 trials audited: nothing found" in capfd.readouterr().out
