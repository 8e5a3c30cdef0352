"""Instruments leave a trial as it is to the bit, say what they cannot see, and write no step twice."""

import functools
import itertools
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import algoperf_toys
import numpy as np
import pytest
from fakes import FakeClock, FakeTrainer, ListRecorder, header
from test_resume import WITH_STATE_EVERYWHERE, bits, leave_after
from toy_trials import SGD, rules, write
from toys import toy_workload

from timetrial import trial
from timetrial.campaign import Campaign
from timetrial.checkpoint import FOLDER
from timetrial.errors import UserError
from timetrial.instrument_log import Choice, Log, read_log
from timetrial.isolation.remote import RemoteTrainer
from timetrial.judge import Counts, Judge
from timetrial.record import RunRecord, read_record
from timetrial.trainers import Ready
from timetrial.trial import Trial, run_trial

pytestmark = pytest.mark.usefixtures("keep_programs", "quick_compilation")

ADAM = """
    import optax
    from timetrial import LogUniform, from_optax
    SEARCH_SPACE = {"learning_rate": LogUniform(1e-3, 1.0, default=0.01)}
    def make(hparams, task):
        return from_optax(optax.inject_hyperparams(optax.adam)(optax.linear_schedule(0.01, 0.0, 200)))
"""


def train(out: Path, text: str = SGD, choice: Choice | None = None, **options: Any) -> RunRecord:
    """A hundred steps of 16 rows, evaluated every 20."""
    source = write(out.parent, text)
    run_trial(
        options.pop("workload", None) or toy_workload(dropout=True),
        source,
        options.pop("ruleset", rules(budget=1600, eval_every=320)),
        Trial(seed=0, study=0, trial=0, self_tuning=source.self_tuning),
        out,
        workload_sha256="f" * 64,
        instruments=choice,
        **options,
    )
    return read_record(out / "record.jsonl")


Trained = Callable[..., Path]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The folder of a whole trial; the same arguments give the same trial, which nobody may change."""

    @functools.cache
    def once(text: str, choice: Choice | None, *, batch_norm: bool = False) -> Path:
        folder = tmp_path_factory.mktemp("trained") / "out"
        train(folder, text, choice, workload=toy_workload(dropout=True, batch_norm=batch_norm))
        return folder

    return once


def log_of(folder: Path) -> Log:
    return read_log(folder / "instruments.jsonl")


def evaluated(folder: Path) -> dict[str, Any]:
    """The parameters that were evaluated at the end, by the hash that their checkpoint has."""
    return {
        str(path.parent.parent.name): json.loads(path.read_text())["sha256"]
        for path in (folder / "evaluated").rglob("about/metadata")
    }


@pytest.mark.parametrize(
    ("text", "batch_norm"),
    [(ADAM, False), (WITH_STATE_EVERYWHERE, True)],
    ids=["adam, rows alone", "every hook, rows coupled"],
)
def test_parameters_and_metrics_are_the_same_to_the_bit_with_instruments_and_without(
    trained: Trained, text: str, batch_norm: bool
):
    plain = trained(text, None, batch_norm=batch_norm)
    seen = trained(text, Choice(set="full", every=7), batch_norm=batch_norm)
    outcomes = [bits(read_record(folder / "record.jsonl")) for folder in (plain, seen)]
    assert outcomes[0] == outcomes[1]
    assert evaluated(seen) == evaluated(plain) != {}
    assert [look.step for look in log_of(seen).looks] == list(range(0, outcomes[0][2], 7))


def test_each_step_can_be_looked_at_and_tells_of_the_state_before_it(trained: Trained):
    log = log_of(trained(SGD, Choice(set="basic", every=1)))
    assert [look.step for look in log.looks] == list(range(100))
    assert [look.examples for look in log.looks] == [16 * step for step in range(100)]
    assert log.looks[0].values["distance"] == 0
    assert log.looks[1].values["distance"] == pytest.approx(log.looks[0].values["update_size"])
    assert [array["name"] for array in log.headers[0].params] == ["dense/bias", "dense/kernel"]
    assert {len(row) for look in log.looks for row in look.arrays.values()} == {2}
    assert log.headers[0].probe_rows == 0
    assert log.headers[0].absent == {}
    for look in log.looks:
        assert set(look.values) == {"step_loss", "param_norm", "distance", "update_size", "update_ratio"}
        assert look.wall_seconds > 0


QUANTITIES: Mapping[str, set[str]] = {
    "economy": {
        *("step_loss", "param_norm", "distance", "update_size", "update_ratio", "probe_loss", "alpha", "gradient_norm"),
        *("cosine", "gradient_variance", "gradient_square", "noise_scale", "norm_test", "inner_product_test"),
        "orthogonality_test",
    },
    "business": {
        *("mean_gsnr", "early_stopping", "cabs", "hessian_trace", "hessian_trace_error", "tic_trace", "tic_diagonal"),
    },
    "full": {
        *("hessian_max_eigenvalue", "hessian_max_eigenvalue_error", "hessian_min_eigenvalue"),
        *("preconditioned_max_eigenvalue", "preconditioned_max_eigenvalue_error", "preconditioned_min_eigenvalue"),
    },
}


def test_a_set_has_what_it_is_said_to_have_and_all_of_the_sets_before_it(trained: Trained):
    expected: set[str] = set()
    for every, (name, new) in zip((3, 7, 7), QUANTITIES.items(), strict=True):
        expected |= new
        log = log_of(trained(ADAM, Choice.of(name, str(every))))
        assert log.headers[0].absent == {}
        assert log.headers[0].probe_rows == 8
        for look in log.looks:
            assert set(look.values) == expected
            assert look.hyperparameters["learning_rate"] == pytest.approx(0.01 * (1 - look.step / 200))
            finite = [name for name, value in look.values.items() if np.isfinite(value)]
            assert len(finite) >= len(expected) - 5  # noise scale, TIC; the preconditioner at the first step


@pytest.mark.parametrize(
    ("text", "batch_norm", "absent"),
    [
        (SGD, False, {"cabs": "learning_rate", "preconditioned_max_eigenvalue": "squared gradients"}),
        (WITH_STATE_EVERYWHERE, True, {"norm_test": "batch norm", "cabs": "batch norm", "tic_trace": "batch norm"}),
    ],
    ids=["sgd", "batch norm"],
)
def test_what_cannot_be_seen_is_absent_with_a_reason(
    trained: Trained, text: str, batch_norm: bool, absent: dict[str, str]
):
    log = log_of(trained(text, Choice(set="full", every=7), batch_norm=batch_norm))
    for name, why in absent.items():
        assert why in log.headers[0].absent[name]
        assert all(name not in look.values for look in log.looks)
    for look in log.looks:
        assert not set(log.headers[0].absent) & {*look.values, *look.histograms}
        assert {"alpha", "gradient_norm", "hessian_trace", "hessian_max_eigenvalue"} <= set(look.values)


class Ticks:
    """Seconds that pass because somebody looks at the clock, so that a trial leaves at a step of our choice."""

    def __init__(self) -> None:
        self._looks = itertools.count()

    def __call__(self) -> float:
        return 0.3 * next(self._looks)


def seen_alike(log: Log) -> Any:
    """All that may not depend on an interruption."""
    return [(look.step, look.examples, look.values, look.arrays, look.histograms) for look in log.looks]


@pytest.mark.parametrize(("asked", "with_checkpoint"), [(30, True), (60, False)])
def test_after_an_interruption_the_log_is_what_it_would_have_been_and_no_step_is_in_it_twice(
    trained: Trained, tmp_path: Path, asked: int, with_checkpoint: bool
):
    choice = Choice(set="economy", every=3)
    whole = trained(ADAM, choice)
    stopped = train(tmp_path / "parts", ADAM, choice, now=Ticks(), leave=leave_after(asked))
    assert stopped.end is not None
    assert stopped.end.status == "interrupted"
    assert 0 < len(log_of(tmp_path / "parts").looks) < 33
    if not with_checkpoint:
        shutil.rmtree(tmp_path / "parts" / FOLDER)
    resumed = train(tmp_path / "parts", ADAM, choice, now=Ticks())
    assert bits(resumed) == bits(read_record(whole / "record.jsonl"))
    assert seen_alike(log_of(tmp_path / "parts")) == seen_alike(log_of(whole))


def test_a_trial_may_go_on_with_other_instruments(tmp_path: Path):
    train(tmp_path / "out", ADAM, Choice(set="basic", every=1), now=Ticks(), leave=leave_after(60))
    train(tmp_path / "out", ADAM, Choice(set="economy", every=3), now=Ticks())
    log = log_of(tmp_path / "out")
    assert [found.set for found in log.headers] == ["basic", "economy"]
    steps = [look.step for look in log.looks]
    assert steps == sorted(set(steps))
    assert "alpha" in log.looks[-1].values


class SlowEye:
    """Instruments that take a thousand seconds a look, at every other step."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._begun: int | None = None
        self.seen: list[tuple[int, int]] = []

    def due(self, step: int) -> bool:
        return step % 2 == 0 if self._begun is None else step > self._begun

    def before(self, counts: Counts, seconds: float) -> None:
        if counts.step % 2 == 0:
            self._begun = counts.step
            self._clock.spend(500)

    def after(self, step: int) -> None:
        if self._begun is not None and step > self._begun:
            self.seen.append((self._begun, step))
            self._begun = None
            self._clock.spend(500)


def test_what_instruments_take_is_not_charged():
    clock, recorder = FakeClock(), ListRecorder()
    eye = SlowEye(clock)
    trainer = FakeTrainer(clock, step=1.0, init=3.0)

    def evaluate(params: Any, model_state: Any, splits: Any) -> dict[str, float]:
        return {"valid/loss": 1.0, "valid/error_rate": 1.0}

    end = Judge(trainer, evaluate, recorder, header(budget=20.0, eval_every=5.0), now=clock, instruments=eye).run()
    assert end.seconds == 20.0
    assert [line.seconds for line in recorder.evals] == [0, 5, 10, 15, 20]
    assert eye.seen == [(step, step + 1) for step in range(0, 17, 2)]


def test_of_an_algoperf_submission_the_parameters_are_seen_and_all_else_is_absent_with_the_reason(tmp_path: Path):
    source = algoperf_toys.write(tmp_path, algoperf_toys.JIT, space=[{"learning_rate": 0.1}])
    run_trial(
        toy_workload(),
        source,
        rules(budget=128, eval_every=64),
        Trial(seed=0, study=0, trial=0, self_tuning=False),
        tmp_path / "out",
        workload_sha256="f" * 64,
        instruments=Choice(set="full", every=3),
    )
    log = log_of(tmp_path / "out")
    assert [look.step for look in log.looks] == [0, 3, 6]
    assert {"alpha", "norm_test", "hessian_trace", "cabs"} <= set(log.headers[0].absent)
    assert {"AlgoPerf" in why for why in log.headers[0].absent.values()} == {True}
    for look in log.looks:
        assert set(look.values) == {"param_norm", "distance", "update_size", "update_ratio"}
        assert look.values["update_size"] > 0


def test_a_submission_in_a_process_of_its_own_cannot_be_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    remote = Ready({}, "process", lambda: RemoteTrainer.__new__(RemoteTrainer))
    monkeypatch.setattr(trial, "here", lambda setting: remote)
    with pytest.raises(UserError, match="leave out --instruments"):
        train(tmp_path / "out", SGD, Choice(set="basic", every=1))


def test_a_campaign_hands_its_instruments_to_each_job(tmp_path: Path):
    choice = Choice(set="business", every="log", probe_rows=32)
    source = write(tmp_path, SGD)
    campaign = Campaign(out=tmp_path / "out", ruleset=rules(), sources=(source,), seed=0, instruments=choice)
    (job,) = campaign.jobs()
    sent = json.loads(json.dumps(asdict(job)))
    assert Choice(**sent["instruments"]) == choice
    assert "instruments" not in campaign.to_json()
