"""Real trials of a toy: what a submission can do, what it is charged, and what becomes of it when it fails."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_trials import CUSTOM, SGD, custom, rules, run, write
from toys import toy_workload

from timetrial.trainer import PureTrainer
from timetrial.trial import Trial


def message(record):
    assert record.end is not None
    return record.end.message


pytestmark = pytest.mark.usefixtures("keep_programs", "quick_compilation")


def losses(record):
    return [line.metrics["valid/loss"] for line in record.evals]


def test_a_trial_trains_and_records_all_three_clocks(tmp_path):
    record = run(tmp_path, ruleset=rules(target=0.25))
    assert record.end is not None
    assert record.end.status == "reached"
    last = record.evals[-1]
    assert last.examples == 16 * last.step > 0
    assert last.seconds > 0
    assert 0 < last.compile_seconds < last.seconds
    assert {"valid/error_rate", "train_eval/loss", "test/error_rate"} <= set(last.metrics)


def test_two_trials_with_the_same_seeds_agree_bit_for_bit_and_other_trials_do_not(tmp_path):
    workload = toy_workload(dropout=True)
    again = [run(tmp_path, workload=workload) for _ in range(2)]
    assert losses(again[0]) == losses(again[1])
    other = run(tmp_path, workload=workload, place=Trial(seed=0, study=0, trial=1, self_tuning=False))
    assert losses(other) != losses(again[0])


def test_submissions_meet_the_same_initial_weights_and_the_same_order_of_the_data(tmp_path):
    spy = custom("""
        seen = []
        def step(problem, state, batch, key):
            jax.debug.callback(lambda x: seen.append(float(x)), batch.rows[1].sum())
            state, report = gradient_step(problem, state, batch, key)
            return state, report
        def init(params, model_state, key):
            return {"anything": jax.random.normal(key, (3,))}
    """)
    first, second = run(tmp_path, spy), run(tmp_path, SGD)
    assert first.evals[0].metrics == second.evals[0].metrics


def test_the_optimizer_state_is_drawn_from_another_key_than_the_weights(tmp_path):
    keys = {}

    def init(key):
        jax.debug.callback(lambda words: keys.update(weights=words.tolist()), jax.random.key_data(key))
        return toy_workload().init(key)

    spy = custom("""
        state_keys = []
        def init(params, model_state, key):
            jax.debug.callback(lambda words: state_keys.append(words.tolist()), jax.random.key_data(key))
            return ()
    """)
    import sys

    run(tmp_path, spy, workload=toy_workload(init=init))
    (seen,) = next(m for m in sys.modules.values() if hasattr(m, "state_keys")).state_keys
    assert seen != keys["weights"]


def test_the_parameters_reported_are_those_of_plain_gradient_descent(tmp_path):
    """The harness's loop against a loop written here from the workload's functions and the seeds alone."""
    from timetrial.seeds import seed

    record = run(tmp_path, custom(""), ruleset=rules(budget=160, eval_every=160))
    workload = toy_workload()

    def words(purpose):
        s = seed(0, "toy", 0, 0, purpose)
        return s >> 32, s & 0xFFFFFFFF

    params, _ = workload.init(jax.random.wrap_key_data(jnp.array(words("init"), jnp.uint32)))
    data = workload.split("train")
    high, low = words("data")
    order = np.random.RandomState([low, high, 0]).permutation(len(data["label"]))

    def mean_loss(params, rows):
        batch = {name: array[rows] for name, array in data.items()}
        outputs, _ = workload.apply(params, {}, batch, jax.random.key(0), train=True)
        return jnp.mean(workload.loss(outputs, batch)[0])

    for i in range(10):
        grads = jax.grad(mean_loss)(params, order[16 * i : 16 * i + 16])
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
    valid = workload.split("valid")
    outputs, _ = workload.apply(params, {}, valid, jax.random.key(0), train=False)
    assert losses(record)[-1] == pytest.approx(float(jnp.mean(workload.loss(outputs, valid)[0])), rel=1e-5)


def test_device_work_that_a_hook_leaves_running_is_charged_before_the_eval(tmp_path):
    slow = custom("""
        heavy = jax.jit(lambda x: jax.lax.fori_loop(0, 40, lambda i, x: jnp.tanh(x @ x), x))
        pending = []
        def on_eval(state, feedback):
            pending.append(heavy(jnp.ones((700, 700))))      # queued, and not waited for
            return state
        hooks = {"on_eval": on_eval}
    """)
    import time

    finished_at = []

    def watch(progress):
        del progress
        finished_at.append(time.perf_counter())

    run(tmp_path, slow, ruleset=rules("steps", budget=4, eval_every=1), watch=watch)
    # The queue is empty whenever the judge goes on: nothing is left to wait for.
    import sys

    module = next(m for n, m in sys.modules.items() if n.startswith("timetrial_submission_") and hasattr(m, "pending"))
    assert len(module.pending) == 3
    assert all(array.is_ready() for array in module.pending)


def test_compilation_is_charged_and_reported(tmp_path):
    record = run(tmp_path, ruleset=rules("seconds", budget=60, eval_every=0.01, target=0.25))
    first = record.evals[1]
    assert 0 < first.compile_seconds <= first.seconds


@pytest.mark.parametrize(
    ("changes", "examples"),
    [
        ("", 16),
        ("hooks = {'batch_size': 4}", 16),
        ("hooks = {'batch_size': 48}", 48),
        (
            """
            def step(problem, state, batch, key):
                ahead, _ = gradient_step(problem, state, batch, key)
                return gradient_step(problem, ahead, batch, key)
            """,
            32,
        ),
        ("hooks = {'select': lambda batches, state, key: [next(batches) for _ in range(3)][2]}", 48),
    ],
    ids=["the default batch", "a small batch", "a large batch", "two gradients", "two of three batches thrown away"],
)
def test_a_step_is_charged_its_rows_and_never_less_than_the_default_batch(tmp_path, changes, examples):
    record = run(tmp_path, custom(changes), ruleset=rules("steps", budget=5, eval_every=5))
    assert record.end is not None
    assert record.end.examples == 5 * examples
    assert record.end.examples_exact


def test_the_loss_cannot_be_called_where_its_rows_are_not_counted(tmp_path):
    record = run(
        tmp_path,
        custom("""
            kept = []
            def step(problem, state, batch, key):
                kept.append(problem)
                return gradient_step(problem, state, batch, key)
            def on_eval(state, feedback):
                kept[0].loss(state.params, state.model_state, Batch(()), None)
                return state
            hooks = {"on_eval": on_eval}
        """),
    )
    assert "on_eval: problem.loss may be called in step and eval_params alone" in message(record)


def test_a_while_loop_around_the_loss_is_refused_by_the_examples_clock_and_flagged_by_the_others(tmp_path):
    searching = custom("""
        def step(problem, state, batch, key):
            new, report = gradient_step(problem, state, batch, key)
            value = lambda: problem.loss(new.params, new.model_state, batch, key)[0]
            turns = jax.lax.while_loop(lambda i: i < value() * 0, lambda i: i + 1, 0.0)
            return new, {"loss": report["loss"] + turns}
    """)
    refused = run(tmp_path, searching)
    assert refused.end is not None
    assert refused.end.status == "error"
    assert "while loop" in refused.end.message
    flagged = run(tmp_path, searching, ruleset=rules("steps", budget=3, eval_every=3))
    assert flagged.end is not None
    assert (flagged.end.status, flagged.end.examples_exact) == ("budget", False)


def test_eval_params_decides_what_is_evaluated_and_its_rows_are_charged(tmp_path):
    frozen = custom("""
        def init(params, model_state, key):
            return params
        def eval_params(problem, state, batch, key):
            loss, _ = problem.loss(state.params, state.model_state, batch, key)
            return [p + 0 * loss for p in state.opt_state], state.model_state
        hooks = {"eval_params": eval_params}
    """)
    record = run(tmp_path, frozen, ruleset=rules("steps", budget=4, eval_every=2))
    assert len({tuple(line.metrics[k] for k in ("valid/loss", "train_eval/loss")) for line in record.evals}) == 1
    assert [line.examples for line in record.evals] == [0, 16 * 3, 16 * 6]


def test_on_eval_may_change_the_state_and_sees_the_validation_metrics(tmp_path):
    decaying = custom("""
        def init(params, model_state, key):
            return {"rate": jnp.float32(0.1)}
        def step(problem, state, batch, key):
            return gradient_step(problem, state, batch, key, rate=state.opt_state["rate"])
        def on_eval(state, feedback):
            assert set(feedback.metrics) == {"valid/loss", "valid/error_rate"}
            return state._replace(opt_state={"rate": 0.0 * state.opt_state["rate"]})
        hooks = {"on_eval": on_eval}
    """)
    record = run(tmp_path, decaying)
    values = losses(record)
    assert values[0] != values[1] == values[2] == values[-1]


def test_a_submission_sees_no_name_and_no_test_data(tmp_path):
    nosy = custom(
        """
        def step(problem, state, batch, key):
            assert isinstance(state.params, list) and isinstance(batch.rows, tuple)
            assert "toy" not in repr((problem, batch))
            return gradient_step(problem, state, batch, key)
        """,
        """
        def make(hparams, task):
            assert "toy" not in repr(task)
            return Submission(init, step)
        """,
    )
    record = run(tmp_path, nosy)
    assert record.end is not None
    assert record.end.status == "budget"


def test_settings_that_the_workload_lacks_are_ignored_and_recorded(tmp_path):
    text = SGD.replace("momentum=0.9)", "momentum=0.9), dropout_rate=0.5")
    record = run(tmp_path, text)
    assert record.end is not None
    assert record.end.ignored == ("dropout_rate",)
    assert losses(record) == losses(run(tmp_path, SGD))


def test_dropout_follows_the_submissions_rate_where_the_workload_has_it(tmp_path):
    workload = toy_workload(dropout=True)
    text = SGD.replace("momentum=0.9)", "momentum=0.9), dropout_rate=0.5")
    assert losses(run(tmp_path, text, workload=workload)) != losses(run(tmp_path, SGD, workload=workload))


def test_per_example_gradients_are_refused_where_batch_norm_couples_rows(tmp_path):
    per_example = custom("""
        def step(problem, state, batch, key):
            def one(row):
                single = jax.tree.map(lambda x: x[None], row)
                return jax.grad(lambda p: problem.loss(p, state.model_state, single, key)[0])(state.params)
            grads = jax.tree.map(lambda g: g.mean(0), jax.vmap(one)(batch))
            params = [p - 0.1 * g for p, g in zip(state.params, grads)]
            return state._replace(params=params), {"loss": jnp.zeros(())}
    """)
    fine = run(tmp_path, per_example)
    assert losses(fine) == pytest.approx(losses(run(tmp_path, custom(""))), rel=1e-4)
    refused = run(tmp_path, per_example, workload=toy_workload(batch_norm=True))
    assert refused.end is not None
    assert "per-example gradients do not exist" in refused.end.message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ("def init(params, model_state, key):\n    raise ValueError('no state')", "init raised ValueError"),
        ("def step(problem, state, batch, key):\n    raise ValueError('no step')", "step raised ValueError"),
        (
            "def eval_params(problem, state, batch, key):\n    raise ValueError\nhooks = {'eval_params': eval_params}",
            "eval_params raised ValueError",
        ),
        (
            "def on_eval(state, feedback):\n    raise ValueError('no')\nhooks = {'on_eval': on_eval}",
            "on_eval raised ValueError",
        ),
        (
            "def select(batches, state, key):\n    raise SystemExit(0)\nhooks = {'select': select}",
            "step raised SystemExit",
        ),
        ("hooks = {'select': lambda batches, state, key: 3}", "select must return a Batch, not int"),
        ("hooks = {'on_eval': lambda state, feedback: None}", "on_eval must return a TrainState, not NoneType"),
        ("hooks = {'batch_size': 0}", "batch_size must be a whole number above 0"),
        ("def step(problem, state, batch, key):\n    return state", "step must return (TrainState"),
        ("def step(problem, state, batch, key):\n    return state, {}", 'step must return {"loss"'),
        (
            "def step(problem, state, batch, key):\n    return state._replace(opt_state=(1.0,)), {'loss': 0.0}",
            "the state that step returned has the structure",
        ),
        (
            "def step(problem, state, batch, key):\n"
            "    return state._replace(params=[p[:1] for p in state.params]), {'loss': 0.0}",
            "it must stay (4,)",
        ),
        (
            "hooks = {'eval_params': lambda problem, state, batch, key: (state.params, [jnp.ones(3)])}",
            "what eval_params returned has the structure",
        ),
        ("raise ImportError('a missing helper')", "import raised ImportError at submission.py"),
        ("SEARCH_SPACE = {'rate': 3}", "must be Uniform, LogUniform, Integers or Choice"),
    ],
)
def test_a_submission_that_breaks_the_contract_ends_with_one_clear_message(tmp_path, changes, message):
    record = run(
        tmp_path, "\0".join((CUSTOM, changes, "def make(hparams, task):\n    return Submission(init, step, **hooks)"))
    )
    assert record.end is not None
    assert record.end.status == "error"
    assert message in record.end.message
    assert "\n" not in record.end.message


def test_make_that_is_missing_or_returns_something_else_is_said_so(tmp_path):
    assert "no function `make(hparams, task)`" in message(run(tmp_path, "SEARCH_SPACE = {}"))
    assert "not int" in message(run(tmp_path, "def make(hparams, task):\n    return 3"))
    assert "no hyperparameter 'rate'" in message(run(tmp_path, "def make(hparams, task):\n    return hparams.rate"))


def test_an_allocation_that_cannot_be_met_is_out_of_memory(tmp_path):
    greedy = custom("def init(params, model_state, key):\n    return jnp.zeros((1 << 45,), jnp.int8)")
    record = run(tmp_path, greedy)
    assert record.end is not None
    assert record.end.status == "out_of_memory"


def test_nans_end_the_trial_as_diverged(tmp_path):
    record = run(tmp_path, SGD.replace("optax.sgd(", "optax.sgd(float('nan') * "))
    assert record.end is not None
    assert record.end.status == "diverged"


def test_optimizer_state_may_hold_the_parameters_themselves(tmp_path):
    aliasing = custom("""
        def init(params, model_state, key):
            return (params, params, [p * 1 for p in params])
    """)
    assert losses(run(tmp_path, aliasing)) == losses(run(tmp_path, custom("")))


def test_a_weakly_typed_state_does_not_compile_the_step_twice(tmp_path):
    weak = custom("""
        traces = []
        def init(params, model_state, key):
            return {"count": 0, "scale": 1.0}
        def step(problem, state, batch, key):
            traces.append(1)
            new, report = gradient_step(problem, state, batch, key)
            return new._replace(opt_state={"count": state.opt_state["count"] + 1, "scale": 1.0}), report
    """)
    import sys

    run(tmp_path, weak, ruleset=rules("steps", budget=6, eval_every=3))
    module = next(m for n, m in sys.modules.items() if n.startswith("timetrial_submission_") and hasattr(m, "traces"))
    assert module.traces == [1]


def test_plain_numbers_from_on_eval_do_not_compile_the_step_twice(tmp_path):
    plain = custom("""
        plain_traces = []
        def init(params, model_state, key):
            return {"count": jnp.int32(0), "scale": jnp.float32(1.0), "key": key}
        def step(problem, state, batch, key):
            plain_traces.append(1)
            return gradient_step(problem, state, batch, key)
        def on_eval(state, feedback):
            return state._replace(opt_state={**state.opt_state, "count": 3, "scale": 0.5})
        hooks = {"on_eval": on_eval}
    """)
    import sys

    record = run(tmp_path, plain, ruleset=rules("steps", budget=6, eval_every=3))
    assert record.end is not None
    assert record.end.status == "budget"
    assert next(m for m in sys.modules.values() if hasattr(m, "plain_traces")).plain_traces == [1]


def test_where_no_step_may_be_queued_each_ends_before_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr("timetrial.devices.Mesh.steps_in_flight", 0)
    slow = custom("""
        def step(problem, state, batch, key):
            new, report = gradient_step(problem, state, batch, key)
            x = jax.lax.fori_loop(0, 30, lambda i, x: jnp.tanh(x @ x), jnp.full((300, 300), report["loss"]))
            return new, {"loss": x[0, 0]}
    """)
    idle = []
    run_steps = PureTrainer.run

    def spying_run(self, stop, boundary):
        run_steps(self, lambda counts: idle.append(self.state.step.is_ready()) or stop(counts), boundary)

    monkeypatch.setattr(PureTrainer, "run", spying_run)
    run(tmp_path, slow, ruleset=rules("steps", budget=6, eval_every=6))
    assert len(idle) > 6
    assert all(idle)


def test_a_selected_batch_may_carry_an_array_of_the_state(tmp_path):
    weighted = custom("""
        def init(params, model_state, key):
            return jnp.ones(16)
        def select(batches, state, key):
            return next(batches).reweight(state.opt_state)
        hooks = {"select": select}
    """)
    assert losses(run(tmp_path, weighted)) == pytest.approx(losses(run(tmp_path, custom(""))), rel=1e-6)


def test_batches_from_the_host_train_exactly_like_batches_on_the_device(tmp_path, monkeypatch):
    on_device = run(tmp_path)
    monkeypatch.setattr("timetrial.stream.fits_on_device", lambda arrays, mesh: False)
    assert losses(run(tmp_path)) == pytest.approx(losses(on_device), rel=1e-6)


def test_a_selection_of_the_first_batch_trains_exactly_like_no_selection(tmp_path):
    chosen = run(tmp_path, custom("hooks = {'select': lambda batches, state, key: next(batches)}"))
    assert losses(chosen) == pytest.approx(losses(run(tmp_path, custom(""))), rel=1e-6)


def test_the_source_is_kept_beside_the_record_and_hashed(tmp_path):
    record = run(tmp_path)
    kept = record.path.parent / "source" / "submission.py"
    source = write(tmp_path, SGD)
    assert kept.read_text() == source.path.read_text()
    assert record.run.submission_sha256 == dataclasses.replace(source, path=kept).sha256


def test_a_self_tuning_submission_has_no_hyperparameters_and_a_board_of_its_own(tmp_path):
    record = run(tmp_path, custom(""))
    assert record.run.tuning == "self"
    assert record.run.hparams == {}
    assert run(tmp_path, SGD).run.tuning == "external"


def test_a_search_space_that_the_text_does_not_show_is_an_error_and_no_self_tuning(tmp_path):
    record = run(tmp_path, SGD.replace("SEARCH_SPACE =", "if True: SEARCH_SPACE ="))
    assert "SEARCH_SPACE must be assigned at the top level" in message(record)


def test_trials_of_a_study_try_the_points_of_one_sequence(tmp_path):
    ruleset = rules("steps", budget=1, eval_every=1, external={"studies": 1, "trials": 3, "points": "halton"})
    places = [Trial(seed=7, study=0, trial=t, self_tuning=False) for t in range(3)]
    rates = [run(tmp_path, ruleset=ruleset, place=place).run.hparams["learning_rate"] for place in places]
    assert len(set(rates)) == 3
    assert all(isinstance(rate, float) and 1e-3 <= rate <= 1.0 for rate in rates)
