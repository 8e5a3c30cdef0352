"""The rules of the protocol, under a clock that only moves when told."""

import math

import pytest
from fakes import FakeClock, FakeTrainer, ListRecorder, header
from hypothesis import given
from hypothesis import strategies as st

from timetrial.judge import Judge, SubmissionFailure

NEVER = 10**9


def judge(trainer, *, error_rate, loss=lambda step: 1.0, eval_cost=0.0, watch=lambda progress: None, **rules):
    """Runs a trial whose validation error at a step is `error_rate(step)`; returns its end and its evals."""
    recorder, clock = ListRecorder(), trainer.clock

    def evaluate(step, model_state, splits):
        del model_state
        recorder.asked.append((step, tuple(splits)))
        clock.spend(eval_cost)
        return {f"{s}/{k}": v for s in splits for k, v in (("error_rate", error_rate(step)), ("loss", loss(step)))}

    end = Judge(trainer, evaluate, recorder, header(**rules), now=clock, watch=watch).run()
    assert recorder.ends == [end]
    return end, recorder


def falls_at(step):
    """An error rate that is bad before `step` and good from there on."""
    return lambda now: 0.9 if now < step else 0.1


def trainer(**costs):
    return FakeTrainer(FakeClock(), **costs)


def test_the_untrained_model_is_evaluated_before_anything_is_charged():
    _, record = judge(trainer(init=5.0), error_rate=falls_at(NEVER))
    first = record.evals[0]
    assert (first.step, first.examples, first.seconds) == (0, 0, 0.0)


def test_evaluation_time_is_not_charged():
    end, record = judge(trainer(), error_rate=falls_at(20), eval_cost=1000.0)
    assert end.status == "reached"
    assert end.seconds == 20.0
    assert [line.eval_seconds for line in record.evals] == [1000.0, 1000.0, 2000.0]  # the last one adds the test split


def test_init_steps_eval_params_and_on_eval_are_charged():
    end, record = judge(
        trainer(init=3.0, step=1.0, eval_params=2.0, on_eval=4.0), error_rate=falls_at(11), budget=1000.0
    )
    # init 3, seven steps to 10, eval_params 2, on_eval 4; then steps from 16 to 20, eval_params 2.
    assert [line.seconds for line in record.evals] == [0.0, 12.0, 22.0]
    assert end.crossing is not None
    assert (end.crossing.charge_before, end.crossing.charge) == (12.0, 22.0)


def test_evals_happen_at_the_first_step_boundary_at_or_past_each_grid_point():
    _, record = judge(trainer(step=4.0), error_rate=falls_at(NEVER))
    assert [line.seconds for line in record.evals] == [0, 12, 20, 32, 40, 52, 60, 72, 80, 92, 100]


def test_a_step_longer_than_the_grid_gives_one_eval_a_step():
    _, record = judge(trainer(step=25.0), error_rate=falls_at(NEVER))
    assert [line.seconds for line in record.evals] == [0, 25, 50, 75, 100]


def test_the_budget_is_checked_at_every_step_and_not_only_at_evals():
    end, record = judge(trainer(step=3.0), error_rate=falls_at(NEVER), budget=11.0, eval_every=1000.0)
    assert end.status == "budget"
    assert end.step == 4
    assert [line.seconds for line in record.evals] == [0.0, 12.0]


def test_a_target_met_past_the_budget_does_not_count():
    end, record = judge(trainer(step=3.0), error_rate=falls_at(4), budget=11.0, eval_every=1000.0)
    assert record.evals[-1].metrics["valid/error_rate"] < 0.5
    assert (end.status, end.crossing) == ("budget", None)


def test_a_target_met_exactly_at_the_budget_counts():
    end, _ = judge(trainer(step=1.0), error_rate=falls_at(100))
    assert end.status == "reached"
    assert end.seconds == 100.0


def test_eval_params_that_overrun_the_budget_void_the_eval():
    end, _ = judge(trainer(eval_params=0.5), error_rate=falls_at(100))
    assert end.status == "budget"


def test_the_crossing_is_the_interval_between_two_evals():
    end, _ = judge(trainer(), error_rate=falls_at(33))
    assert end.crossing is not None
    assert (end.crossing.eval_index, end.crossing.charge_before, end.crossing.charge) == (4, 30.0, 40.0)


@pytest.mark.parametrize("confirmation", [1, 2])
def test_a_crossing_needs_its_confirming_evals_in_a_row(confirmation):
    def flickers(step):
        return 0.1 if step == 20 or step >= 50 else 0.9

    end, _ = judge(trainer(), error_rate=flickers, confirmation=confirmation)
    assert end.status == "reached"
    assert end.crossing is not None
    assert (end.crossing.charge, end.crossing.charge_before) == (50.0, 40.0)
    assert end.seconds == 50.0 + 10.0 * confirmation


def test_a_confirmation_beyond_the_budget_means_not_reached():
    end, _ = judge(trainer(step=4.0), error_rate=falls_at(23), confirmation=1, budget=98.0)
    assert end.status == "budget"


def test_the_submission_hears_nothing_between_confirming_evals():
    training = trainer()
    judge(training, error_rate=falls_at(30), confirmation=2)
    assert [feedback.charge for feedback in training.feedbacks] == [10.0, 20.0]


def test_feedback_holds_validation_metrics_and_the_charged_clock_only():
    training = trainer()
    judge(training, error_rate=falls_at(20), clock="examples", budget=1000.0, eval_every=100.0)
    assert training.feedbacks == [({"valid/error_rate": 0.9, "valid/loss": 1.0}, 100.0, 1000.0)]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_metric_that_is_no_number_ends_the_trial_as_diverged(value):
    end, record = judge(trainer(), error_rate=lambda step: value if step >= 20 else 0.9)
    assert (end.status, end.step) == ("diverged", 20)
    assert len(record.evals) == 3


def test_a_model_of_nans_never_reaches_the_target_however_good_its_error_rate_looks():
    end, _ = judge(trainer(), error_rate=falls_at(20), loss=lambda step: math.nan if step else 1.0)
    assert end.status == "diverged"


def test_a_target_met_by_the_untrained_model_is_an_error_of_the_workload():
    with pytest.raises(RuntimeError, match="the untrained model meets the target"):
        judge(trainer(), error_rate=lambda step: 0.1)


def test_higher_can_be_better():
    from timetrial.target import Target

    end, _ = judge(trainer(), error_rate=lambda step: step / 100, target=Target("error_rate", 0.4, "higher"))
    assert (end.status, end.seconds) == ("reached", 40.0)


def test_the_test_split_is_evaluated_only_where_the_target_is_met_and_at_the_end():
    _, record = judge(trainer(), error_rate=falls_at(20))
    assert [step for step, splits in record.asked if "test" in splits] == [20]
    _, record = judge(trainer(), error_rate=falls_at(NEVER))
    assert [step for step, splits in record.asked if "test" in splits] == [100]


@pytest.mark.parametrize(
    ("clock", "budget", "every", "expected"),
    [("steps", 25.0, 10.0, [0, 10, 20, 25]), ("examples", 250.0, 100.0, [0, 10, 20, 25])],
)
def test_budget_and_grid_are_in_units_of_the_charged_clock(clock, budget, every, expected):
    _, record = judge(trainer(step=7.0), error_rate=falls_at(NEVER), clock=clock, budget=budget, eval_every=every)
    assert [line.step for line in record.evals] == expected


def test_a_failure_of_the_submission_is_a_result_and_keeps_the_evals():
    end, record = judge(trainer(fail_at=25), error_rate=falls_at(NEVER))
    assert (end.status, end.message, end.step) == ("error", "step raised ValueError: no", 25)
    assert len(record.evals) == 3


def test_running_out_of_memory_is_a_result():
    failure = SubmissionFailure("out_of_memory", "step: RESOURCE_EXHAUSTED")
    end, _ = judge(trainer(fail_at=0, failure=failure), error_rate=falls_at(NEVER))
    assert end.status == "out_of_memory"


def test_an_interrupt_finishes_the_record_as_interrupted():
    end, _ = judge(trainer(fail_at=15, failure=KeyboardInterrupt()), error_rate=falls_at(NEVER))
    assert (end.status, end.step) == ("interrupted", 15)


def test_a_watcher_hears_of_steps_and_evals():
    heard = []
    judge(trainer(), error_rate=falls_at(20), watch=heard.append)
    assert {p.step for p in heard} >= {0, 10, 20}
    assert heard[-1].metric == 0.1


@given(
    step=st.floats(0.01, 30),
    init=st.floats(0, 50),
    every=st.floats(0.5, 40),
    budget=st.floats(1, 200),
    at=st.integers(1, 50),
)
def test_every_trial_ends_with_its_evals_in_order_and_no_crossing_past_the_budget(step, init, every, budget, at):
    end, record = judge(trainer(step=step, init=init), error_rate=falls_at(at), budget=budget, eval_every=every)
    seconds = [line.seconds for line in record.evals]
    assert seconds == sorted(seconds)
    assert end.status in ("reached", "budget")
    assert end.seconds <= max(budget, init) + step + 1e-9
    if end.crossing is not None:
        assert end.crossing.charge_before < end.crossing.charge <= budget


def test_what_disturbed_the_trial_is_read_once_it_has_ended():
    side, asked = trainer(), []

    def noise():
        asked.append(side.counts().step)
        return {"steal": 0.25}

    recorder = ListRecorder()
    metrics = {f"{split}/{name}": 0.9 for split in ("valid", "train_eval", "test") for name in ("error_rate", "loss")}
    end = Judge(side, lambda *_: metrics, recorder, header(), now=side.clock, noise=noise).run()
    assert (end.noise, asked) == ({"steal": 0.25}, [end.step])
