"""AlgoPerf's submissions run as they are, by the rules of any other."""

import itertools
import sys
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from algoperf_toys import JIT, PMAP, write
from toy_trials import SGD, rules
from toy_trials import run as run_native
from toys import toy_workload

from timetrial.algoperf import spec
from timetrial.algoperf.names import algoperf_names
from timetrial.algoperf.search_space import read_search_space
from timetrial.algoperf.view import AlgoPerfWorkload
from timetrial.check.conformance import check
from timetrial.errors import UserError
from timetrial.loading import load
from timetrial.problem import WorkloadProblem
from timetrial.record import read_record
from timetrial.registry import load_workload, workload_names
from timetrial.submission import Batch
from timetrial.trial import Trial, run_trial
from timetrial.tuning import Choice, LogUniform, Uniform

pytestmark = pytest.mark.usefixtures("keep_programs", "quick_compilation")
POINT = [{"learning_rate": 0.1}]


def run(folder, text=JIT, *, ruleset=None, workload=None, space=POINT, out=None, others=None, **options):
    source = write(folder, text, space=space, **(others or {}))
    out = out or folder / f"out-{len(list(folder.glob('out-*')))}"
    place = Trial(seed=0, study=0, trial=0, self_tuning=source.self_tuning)
    run_trial(
        workload or toy_workload(),
        source,
        ruleset or rules(budget=128, eval_every=64),
        place,
        out,
        workload_sha256="f" * 64,
        **options,
    )
    return read_record(out / "record.jsonl")


def losses(record):
    return [line.metrics["valid/loss"] for line in record.evals]


def test_the_api_is_told_from_the_text(tmp_path):
    assert write(tmp_path, JIT).api == "algoperf"
    assert write(tmp_path, SGD, name="ours").api == "timetrial"
    assert write(tmp_path, "def update_params(:", name="broken").api == "timetrial"
    assert write(tmp_path, "from .core import init_optimizer_state, update_params", name="thin").api == "algoperf"


def test_without_a_search_space_beside_it_a_submission_tunes_itself(tmp_path):
    assert write(tmp_path, JIT).self_tuning
    assert not write(tmp_path, JIT, space=POINT).self_tuning


def test_jit_pmap_and_a_native_submission_of_one_algorithm_give_the_same_curve(tmp_path):
    ruleset = rules(budget=320, eval_every=64)
    native = losses(run_native(tmp_path, SGD, ruleset=ruleset))
    assert len(native) == 6
    assert losses(run(tmp_path, JIT, ruleset=ruleset)) == pytest.approx(native, rel=1e-5)
    assert losses(run(tmp_path, PMAP, ruleset=ruleset)) == pytest.approx(native, rel=1e-5)


def test_the_record_names_the_api_and_what_jax_had_to_be_given_back(tmp_path):
    record = run(tmp_path, PMAP, ruleset=rules(budget=64, eval_every=64))
    assert (record.run.api, record.run.restored, record.run.told) == ("algoperf", ("jax.tree_map",), ())
    assert record.run.hparams == {"learning_rate": 0.1}
    assert record.end is not None
    assert (record.end.status, record.end.step, record.end.examples_exact) == ("budget", 4, False)


def test_nothing_of_it_outlasts_the_trial(tmp_path):
    before = set(sys.path), list(sys.meta_path)
    run(tmp_path, PMAP, ruleset=rules(budget=32, eval_every=32))
    assert not hasattr(jax, "tree_map")
    assert not {name.partition(".")[0] for name in sys.modules} & {"algoperf", "algorithmic_efficiency", "submissions"}
    assert (set(sys.path), list(sys.meta_path)) == before


def test_helpers_are_found_beside_the_submission_under_every_path_that_is_published(tmp_path):
    text = """
    from submissions.team_1.external_tuning.theirs.first import ONE
    from reference_algorithms.somewhere.second import TWO
    from .first import ONE as again
    import third
    def init_optimizer_state(): ...
    def update_params(): ...
    """
    helpers = {"first": "ONE = 1", "second": "from algoperf import spec; TWO = spec.LossType(0)", "third": ""}
    source = write(tmp_path, text, **helpers)
    with algoperf_names(source):
        module = load(source).module
    assert (module.ONE, module.TWO, module.again) == (1, spec.LossType.SOFTMAX_CROSS_ENTROPY, 1)


def test_a_module_that_algoperf_has_and_timetrial_lacks_ends_the_trial_by_name(tmp_path):
    record = run(tmp_path, "from algoperf import data_utils\0" + JIT)
    assert record.end is not None
    assert record.end.status == "error"
    assert "data_utils" in record.end.message


def test_arguments_that_jax_has_renamed_are_taken_again(tmp_path):
    source = write(tmp_path, "import jax.numpy as jnp\nlow = lambda x: jnp.clip(x, a_min=0.5)\0" + JIT)
    with algoperf_names(source):
        assert load(source).module.low(jnp.array([0.0, 1.0])).tolist() == [0.5, 1.0]
    with pytest.raises(TypeError):
        jnp.clip(jnp.array([0.0]), a_min=0.5)  # pyright: ignore[reportCallIssue]


def test_a_submission_may_end_its_training_and_gets_one_more_eval(tmp_path):
    first = "trace, update = optimizer_state"
    ending = JIT.replace(first, f"if global_step == 3: raise spec.TrainingCompleteError\n        {first}")
    record = run(tmp_path, ending)
    assert record.end is not None
    assert record.end.status == "budget"
    assert "ended its training" in record.end.message
    assert [line.step for line in record.evals] == [0, 4]


def test_what_a_submission_learns_of_evals_is_validation_and_charged_time(tmp_path):
    spying = JIT.replace(
        "trace, update = optimizer_state",
        """assert not hasattr(workload, 'target_metric_name')
        if global_step == 6:
            (step, found), = eval_results
            assert step == 4 and set(found) == {'validation/loss', 'validation/error_rate'}, eval_results
            assert 0 < train_state['accumulated_submission_time'] < 60
            try:
                train_state['is_time_remaining'] = False
            except TypeError:
                raise RuntimeError('read-only')
        trace, update = optimizer_state""",
    )
    record = run(tmp_path, spying)
    assert record.end is not None
    assert "read-only" in record.end.message


def test_prepare_for_eval_decides_what_is_evaluated_and_what_goes_on(tmp_path):
    zeroing = """
    def prepare_for_eval(workload, current_param_container, current_params_types, model_state, hyperparameters,
                         loss_type, optimizer_state, eval_results, global_step, rng):
        return optimizer_state, jax.tree.map(jnp.zeros_like, current_param_container), model_state
    """
    record = run(tmp_path, JIT + "\0" + zeroing)
    assert losses(record)[1:] == pytest.approx([np.log(4)] * 2)


def test_parameters_of_another_shape_are_the_submissions_error(tmp_path):
    shrinking = """
    def prepare_for_eval(workload, current_param_container, current_params_types, model_state, hyperparameters,
                         loss_type, optimizer_state, eval_results, global_step, rng):
        return optimizer_state, {}, model_state
    """
    record = run(tmp_path, JIT + "\0" + shrinking)
    assert record.end is not None
    assert (record.end.status, "hold 0 arrays, where 2" in record.end.message) == ("error", True)


def test_a_trial_goes_on_from_its_checkpoint_bit_for_bit(tmp_path):
    whole = run(tmp_path, JIT)
    out, seconds, steps = tmp_path / "cut", itertools.count(), [0]
    cut = run(
        tmp_path,
        JIT,
        out=out,
        now=lambda: float(next(seconds)),
        watch=lambda progress: steps.append(progress.step),
        leave=lambda: steps[-1] >= 6,
    )
    assert cut.end is not None
    assert (cut.end.status, cut.end.step) == ("interrupted", 6)
    resumed = run(tmp_path, JIT, out=out)
    assert resumed.resumes
    assert [(line.step, line.metrics) for line in resumed.evals] == [(line.step, line.metrics) for line in whole.evals]


def test_check_tries_a_submission_and_notes_what_it_would_have_installed(tmp_path):
    source = write(tmp_path, JIT, space=POINT)
    (source.folder / "requirements.txt").write_text("left-pad")
    verdicts = {verdict.rule: verdict for verdict in check(source, [toy_workload()])}
    assert [rule for rule, verdict in verdicts.items() if verdict.status == "fail"] == []
    assert [rule for rule, verdict in verdicts.items() if verdict.status == "warn"] == ["requirements", "counting"]


def test_search_spaces_of_all_three_forms_are_read(tmp_path):
    ranges = {
        "a": {"min": 1e-4, "max": 1e-2, "scaling": "log"},
        "b": {"min": 0.0, "max": 1.0, "scaling": "linear"},
        "c": {"feasible_points": [0.1, 0.2]},
    }
    path = write(tmp_path, JIT, space=ranges).folder / "tuning_search_space.json"
    assert read_search_space(path) == {"a": LogUniform(1e-4, 1e-2), "b": Uniform(0.0, 1.0), "c": Choice([0.1, 0.2])}
    path.write_text('[{"a": 0.1}, {"a": 0.2}]')
    assert read_search_space(path) == [{"a": 0.1}, {"a": 0.2}]


@pytest.mark.parametrize("text", ["{", '{"a": {}}', '{"a": {"min": 0, "max": 1, "scaling": "cubic"}}', "3", "[]"])
def test_a_broken_search_space_is_an_error_that_names_its_file(tmp_path, text):
    path = tmp_path / "tuning_search_space.json"
    path.write_text(text)
    with pytest.raises(UserError, match="tuning_search_space"):
        read_search_space(path)


def shown(workload):
    view = AlgoPerfWorkload(workload, step_hint=100)
    params, state = workload.init(jax.random.key(0))
    return view, view.params(params), view.model_state(state)


def forward(view, params, state, batch, *, mode=spec.ForwardPassMode.TRAIN, update=True, **options):
    rng = np.array([0, 1], np.uint32)
    return view.model_fn(params, batch, state, mode, rng, update_batch_norm=update, **options)


def test_the_loss_is_that_of_a_native_submission_masked_and_smoothed():
    workload = toy_workload()
    view, params, state = shown(workload)
    named: dict[str, Any] = {
        **workload.random_batch(8, seed=1),
        "weights": np.array([1, 1, 1, 1, 1, 0, 0, 0], np.float32),
    }
    batch = view.batch(named)
    logits, _ = forward(view, params, state, batch)
    found = view.loss_fn(batch["targets"], logits, batch["weights"], 0.1)
    problem = WorkloadProblem(workload)
    with problem.counted():
        mean, aux = problem.loss(
            jax.tree.leaves(params), [], Batch((named["label"], named["x"]), named["weights"]), jax.random.key(0),
            label_smoothing=0.1,
        )  # fmt: skip
    assert set(found) == {"summed", "n_valid_examples", "per_example"}
    assert float(found["summed"] / found["n_valid_examples"]) == pytest.approx(float(mean))
    assert found["per_example"].tolist() == pytest.approx(aux.losses.tolist())
    assert float(found["n_valid_examples"]) == 5


def test_batch_norm_uses_its_running_averages_where_they_are_not_updated():
    workload = toy_workload(batch_norm=True)
    view, params, state = shown(workload)
    batch = view.batch(workload.random_batch(8, seed=1))
    running, kept = forward(view, params, state, batch, update=False)
    own, moved = forward(view, params, state, batch)
    evaluated, _ = forward(view, params, state, batch, mode=spec.ForwardPassMode.EVAL, update=False)
    assert running.tolist() == evaluated.tolist()
    assert running.tolist() != own.tolist()
    assert kept is state
    assert jax.tree.leaves(moved)[0].tolist() != jax.tree.leaves(state)[0].tolist()
    assert forward(view, params, state, batch, update=False, use_running_average_bn=False)[0].tolist() == own.tolist()


def test_speech_models_take_batch_norm_for_updated_wherever_they_train():
    view, params, state = shown(replace(toy_workload(batch_norm=True), loss_type="ctc"))
    batch = view.batch(toy_workload(batch_norm=True).random_batch(8, seed=1))
    own, moved = forward(view, params, state, batch)
    same, moved_alike = forward(view, params, state, batch, update=False)
    evaluated, kept = forward(view, params, state, batch, mode=spec.ForwardPassMode.EVAL, update=False)
    assert same.tolist() == own.tolist()
    assert evaluated.tolist() != own.tolist()
    assert jax.tree.leaves(moved_alike)[0].tolist() == jax.tree.leaves(moved)[0].tolist()
    assert kept is state


def test_dropout_has_the_workloads_rate_unless_told_otherwise_and_none_in_evaluation():
    workload = toy_workload(dropout=True)
    view, params, state = shown(workload)
    batch = view.batch(workload.random_batch(8, seed=1))
    plain = forward(view, params, state, batch, mode=spec.ForwardPassMode.EVAL)[0].tolist()
    default = forward(view, params, state, batch)[0].tolist()
    assert default != plain
    assert forward(view, params, state, batch, dropout_rate=0.1)[0].tolist() == default
    assert forward(view, params, state, batch, dropout_rate=0.0)[0].tolist() == plain


def test_settings_that_a_workload_lacks_are_ignored_and_listed():
    workload = toy_workload(has_label_smoothing=False)
    view, params, state = shown(workload)
    batch = view.batch(workload.random_batch(8, seed=1))
    logits, _ = forward(view, params, state, batch, dropout_rate=0.5)
    plain = view.loss_fn(batch["targets"], logits)
    assert not view.ignored - {"dropout_rate"}
    assert view.loss_fn(batch["targets"], logits, None, 0.1)["summed"] == plain["summed"]
    assert view.ignored == {"dropout_rate", "label_smoothing"}


def type_by_name(path):
    """AlgoPerf's rule, from its documentation of parameter types: what a path of lower-case names stands for."""
    parent, name = path.rsplit("/", 1)
    kinds = spec.ParameterType
    if "batchnorm" in parent or "layernorm" in parent:
        return kinds[f"{'BATCH' if 'batchnorm' in parent else 'LAYER'}_NORM_{name.upper()}"]
    if "conv" in parent:
        return kinds.BIAS if "bias" in name else kinds.CONV_WEIGHT
    if "embedding" in name:
        return kinds.EMBEDDING
    if "attention" in parent:
        roles = {"query": "Q", "key": "K", "value": "V", "out": "OUT"}
        found = [letter for role, letter in roles.items() if role in parent and name == "kernel"]
        return kinds[f"ATTENTION_{found[0] if found else 'QKV'}"]
    return kinds.BIAS if "bias" in name else kinds.WEIGHT


@pytest.mark.parametrize("name", workload_names())
def test_every_parameter_of_every_workload_has_its_shape_and_its_kind(name):
    workload = load_workload(name)
    view = AlgoPerfWorkload(workload, step_hint=1)
    params = jax.tree.leaves(jax.eval_shape(workload.init, jax.random.key(0))[0])
    shapes = jax.tree.leaves(view.param_shapes)
    assert [shape.shape_tuple for shape in shapes] == [param.shape for param in params]
    types = jax.tree_util.tree_leaves_with_path(view.model_params_types)
    for path, kind in types:
        assert kind == type_by_name("/".join(str(key.key) for key in path))
    norms = {kind.name.split("_")[0] for _, kind in types if "NORM" in kind.name}
    assert norms <= {"BATCH" if workload.rows_coupled else "LAYER"}
    batch = view.batch(workload.abstract_batch(4))
    assert set(batch) == {"inputs", "targets"}
