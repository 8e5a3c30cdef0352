"""A derivation tunes, reruns and repeats, goes on where it was stopped, and leaves evidence that is taken up."""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from shelf import Shelf
from toy_trials import SGD
from toy_trials import rules as toy_rules

from timetrial import registry
from timetrial.cli import main
from timetrial.derivation import SUBMISSIONS, Derivation, Procedure
from timetrial.errors import UserError
from timetrial.evidence import evidence_path, write_evidence
from timetrial.held_out import with_held_out
from timetrial.record import read_record
from timetrial.ruleset import Ruleset
from timetrial.variants import drawn

WORKER = (sys.executable, str(Path(__file__).parents[1] / "support" / "toy_worker.py"))
TOY = """\
import dataclasses
from toys import toy_workload

@dataclasses.dataclass(frozen=True)
class Net:
    width: int = 8

AXES = {"width": (8, 4, 2, 3, 5, 6)}
VARIANTS = {"toy_narrow": {"width": 4}}

def build(model):
    return dataclasses.replace(toy_workload(), target=None, test_target=None)

MODEL = Net()
WORKLOAD = build(MODEL)
"""
PROCEDURE = Procedure(points=2, seeds=3)


class Counter:
    """A watcher that counts trials, and may press Ctrl-C when one has ended."""

    def __init__(self, stop_after: int = 10**9) -> None:
        self.ended_count, self._stop_after = 0, stop_after

    def began(self, job, number, total) -> None: ...

    def progressed(self, job, progress) -> None: ...

    def noted(self, job, text) -> None: ...

    def ended(self, job, end) -> None:
        del job, end
        self.ended_count += 1
        if self.ended_count == self._stop_after:
            os.kill(os.getpid(), signal.SIGINT)


pytestmark = pytest.mark.usefixtures("ctrl_c")


@pytest.fixture(autouse=True)
def toy(shelf: Shelf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    sys.modules.pop("timetrial.workloads.toy", None)
    shelf.add_workload("toy", TOY)
    for name in SUBMISSIONS:
        shelf.add_submission(name, "\n".join(line[4:] for line in SGD.splitlines()))


def derivation(out: Path, workload: str = "toy") -> Derivation:
    return Derivation(workload, toy_rules(budget=9600), PROCEDURE, out)


def test_a_base_is_tuned_its_best_rerun_and_repeated_and_its_variant_starts_from_that(tmp_path: Path):
    counter = Counter()
    evidence = derivation(tmp_path / "toy").run(counter, worker=WORKER)
    assert counter.ended_count == 2 * 4 + 2 + 3
    assert len({(p["submission"], p["trial"]) for p in evidence["points"]}) == 8
    assert all(run["hparams"] == evidence["best_configuration"]["hparams"] for run in evidence["fresh_seeds"])
    bests = [point["best"] for point in evidence["points"]]
    assert bests == sorted(bests)
    assert all(len(finalist["bests"]) == 2 for finalist in evidence["finalists"])
    record = read_record(
        tmp_path / "toy" / evidence["best_configuration"]["submission"] / "toy/study_2/trial_0/record.jsonl"
    )
    assert record.end is not None
    assert (record.end.status, record.end.examples) == ("budget", 3200)
    assert all("test/error_rate" in line.metrics for line in record.evals)

    write_evidence(evidence, evidence_path(registry.shipped("workloads") / "toy", "toy"))
    taken_up = registry.load_workload("toy").target
    assert (taken_up is not None and taken_up.to_json() == evidence["target"]) == evidence["usable"]

    again = Counter()
    assert derivation(tmp_path / "toy").run(again, worker=WORKER) == evidence
    assert again.ended_count == 0

    narrow = Counter()
    found = derivation(tmp_path / "narrow", "toy_narrow").run(narrow, worker=WORKER)
    assert narrow.ended_count == 2 + 2 + 3
    assert found["variant_of"] == "toy"
    tried = {(point["submission"], point["hparams"]["learning_rate"]) for point in found["points"]}
    finalists = {(f["submission"], f["hparams"]["learning_rate"]) for f in evidence["finalists"]}
    new = tried - finalists
    assert (len(finalists & tried), len(new)) == (2, 2)
    assert {submission for submission, _ in new} == {evidence["best_configuration"]["submission"]}


@pytest.mark.slow
def test_a_derivation_that_is_stopped_goes_on_and_comes_to_the_same_evidence(tmp_path: Path):
    whole = derivation(tmp_path / "whole").run(Counter(), worker=WORKER)
    with pytest.raises(KeyboardInterrupt):
        derivation(tmp_path / "parts").run(Counter(stop_after=5), worker=WORKER)
    rest = Counter()
    assert derivation(tmp_path / "parts").run(rest, worker=WORKER) == whole
    assert 0 < rest.ended_count < 2 * 4 + 2 + 3


@pytest.mark.slow
def test_a_campaign_s_held_out_variants_are_drawn_and_get_targets_once(tmp_path: Path):
    ruleset = toy_rules(budget=9600)
    write_evidence(
        derivation(tmp_path / "toy").run(Counter(), worker=WORKER),
        evidence_path(registry.shipped("workloads") / "toy", "toy"),
    )
    said: list[str] = []

    def held_out() -> tuple[Ruleset, int]:
        counter = Counter()
        found = with_held_out(
            ruleset, "beacon", tmp_path / "held", counter, procedure=PROCEDURE, worker=WORKER, tell=said.append
        )
        return found, counter.ended_count

    first, runs = held_out()
    (variant,) = first.variants("toy")
    assert variant in drawn("toy", "beacon", 4)
    assert runs >= 7
    assert first.workloads[variant].target is not None
    assert first.workloads[variant].budget == 9600
    assert first.modified == ("held-out variants: beacon",)
    assert held_out() == (first, 0)


def test_the_runs_save_memory_as_the_ruleset_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    plain = toy_rules(budget=9600)
    ruleset = replace(plain, workloads={"toy": replace(plain.workloads["toy"], accumulate=2, remat=True)})

    def run_jobs(jobs, *args, **kwargs):
        raise InterruptedError({(job.accumulate, job.remat) for job in jobs})

    monkeypatch.setattr("timetrial.derivation.run_jobs", run_jobs)
    with pytest.raises(InterruptedError) as planned:
        Derivation("toy", ruleset, PROCEDURE, tmp_path / "out").run(Counter(), worker=WORKER)
    assert planned.value.args == ({(2, True)},)


def test_parts_of_a_workload_with_batch_norm_are_refused_before_anything_runs(tmp_path: Path, shelf: Shelf):
    shelf.add_workload("toy", TOY.replace("toy_workload()", "toy_workload(batch_norm=True)"))
    plain = toy_rules(budget=9600)
    ruleset = replace(plain, workloads={"toy": replace(plain.workloads["toy"], accumulate=2)})
    with pytest.raises(UserError, match=r"ruleset 'toy-rules': accumulate: batch norm couples the rows .* of 'toy'"):
        Derivation("toy", ruleset, PROCEDURE, tmp_path / "out").run(Counter(), worker=WORKER)
    assert not (tmp_path / "out").exists()


def test_a_variant_without_evidence_of_its_base_is_told_to_derive_that_first(tmp_path: Path):
    with pytest.raises(UserError, match="timetrial target toy"):
        derivation(tmp_path / "narrow", "toy_narrow").run(Counter(), worker=WORKER)


def test_the_runs_have_the_ruleset_s_precision(tmp_path: Path):
    found = Derivation("toy", toy_rules(matmul_precision="float32"), PROCEDURE, tmp_path / "out")
    assert found.rules("error_rate", "lower", None).matmul_precision == "float32"


def test_a_ruleset_of_another_clock_is_refused(tmp_path: Path):
    wrong = Derivation("toy", toy_rules("seconds"), PROCEDURE, tmp_path / "toy")
    with pytest.raises(UserError, match="examples clock"):
        wrong.run(Counter(), worker=WORKER)


def test_a_workload_without_a_target_is_refused_before_anything_runs(tmp_path: Path, capsys):
    rules = tmp_path / "mine.toml"
    rules.write_text(
        'version = 1\ndescription = ""\nclock = "examples"\n[external]\nstudies = 1\ntrials = 1\n'
        "[workloads.toy]\nbudget = 320\neval_every = 160\nhorizon_examples = 320\n"
    )
    assert main(["run", "-s", "adamw", "-r", str(rules), "-o", str(tmp_path / "out")]) == 2
    assert "workload 'toy' has no target yet: `timetrial target toy` derives one" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
