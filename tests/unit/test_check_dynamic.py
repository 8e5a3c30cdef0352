"""`timetrial check` runs a submission: each rule catches what breaks it and nothing else."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from shelf import Shelf
from toy_trials import SGD, custom, write
from toys import toy_workload

from timetrial import machine
from timetrial.check.canary import canary
from timetrial.check.conformance import _Checked
from timetrial.check.disguise import disguised, likeness
from timetrial.check.report import Verdict, check_report
from timetrial.check.static import RULES
from timetrial.loading import load
from timetrial.problem import WorkloadProblem
from timetrial.registry import load_workload
from timetrial.workload import Workload

pytestmark = pytest.mark.usefixtures("quick_compilation", "keep_programs")

COUNTING = """
    def make(hparams, task):
        calls = []
        def init(params, model_state, key):
            return jnp.zeros(())
        def on_eval(state, feedback):
            calls.append(KEPT)
            return state._replace(opt_state=jnp.float32(RETURNED))
        return Submission(init, step, on_eval=on_eval)
"""
"""What it keeps of each eval, and what it makes of all that, is written in the place of KEPT and RETURNED."""


def complaints(verdicts: Iterable[Verdict]) -> dict[str, tuple[str, str]]:
    """By rule: the status and the message of what does not pass."""
    return {v.rule: (v.status, v.message) for v in verdicts if v.status != "pass"}


def on(workload: Workload, folder: Path, text: str) -> dict[str, tuple[str, str]]:
    """What the rules that hold on each workload complain of."""
    source = write(folder, text)
    return complaints(_Checked(source, load(source), workload).on_workload())


def on_toy(folder: Path, text: str, **changes: Any) -> dict[str, tuple[str, str]]:
    return on(toy_workload(**changes), folder, text)


def first_failure(folder: Path, text: str) -> Verdict:
    """Of the rules that hold on the canary, with the quicker toy in its place."""
    source = write(folder, text)
    return next(v for v in _Checked(source, load(source), toy_workload()).on_canary(load(source)) if v.status == "fail")


def test_an_ordinary_submission_passes_every_rule_static_and_dynamic_on_the_canary_and_on_a_workload(tmp_path: Path):
    source = write(tmp_path, SGD)
    (source.folder / "README.md").write_text("SGD.")
    (source.folder / "submission.toml").write_text('authors = ["A"]\nlicense = "MIT"\ndescription = "SGD"\n')
    report = check_report(source, [toy_workload()])
    assert complaints(report.verdicts) == {}
    assert report.passed
    everywhere = ["contract", "finite", "purity", "evaluation", "growth", "memory"]
    rules = {where: [v.rule for v in report.verdicts if v.workload == where] for where in (None, "canary", "toy")}
    assert rules[None] == [*RULES, "import", "search space"]
    assert rules["canary"] == [*everywhere, "determinism", "rows", "disguise"]
    assert rules["toy"] == [*everywhere, "disguise"]


def test_an_exception_breaks_the_contract_and_ends_the_check_on_that_workload(tmp_path: Path):
    found = on_toy(tmp_path, custom("def init(params, model_state, key):\n    raise ValueError('too bad')"))
    assert list(found) == ["contract"]
    assert "init raised ValueError at submission.py:" in found["contract"][1]


def test_a_submission_that_runs_only_once_breaks_the_contract(tmp_path: Path):
    once = "used = []\ndef init(params, model_state, key):\n    assert not used\n    used.append(1)\n    return ()"
    failure = first_failure(tmp_path, custom(once))
    assert failure.rule == "contract"
    assert failure.message.startswith("started anew: init raised AssertionError")


@pytest.mark.parametrize(
    ("where", "what"),
    [
        ("import numpy as np\nNOISE = np.random.default_rng().random()", "imported anew"),
        ("import itertools\ncounter = itertools.count(1)", "started anew"),
    ],
)
def test_randomness_and_memory_of_one_s_own_are_found_by_a_fresh_start(tmp_path: Path, where: str, what: str):
    value = "NOISE" if what == "imported anew" else "next(counter)"
    stepping = f"def step(problem, state, batch, key):\n    return gradient_step(problem, state, batch, key, {value})"
    failure = first_failure(tmp_path, custom(f"{where}\n{stepping}"))
    assert failure.rule == "determinism"
    assert failure.message == f"two runs with the same seeds differ when the submission is {what}"


def test_what_a_host_hook_remembers_between_calls_is_impure(tmp_path: Path):
    remembering = COUNTING.replace("KEPT", "1").replace("RETURNED", "len(calls)")
    assert list(on_toy(tmp_path, custom("", remembering))) == ["purity"]


def test_a_hook_that_fails_later_on_breaks_the_contract_and_nothing_more_is_tried(tmp_path: Path):
    tiring = COUNTING.replace("KEPT", "1").replace("RETURNED", "1 / (len(calls) < 3)")
    assert list(on_toy(tmp_path, custom("", tiring))) == ["contract"]


def test_arrays_that_a_hook_hoards_are_growth_although_nothing_comes_of_them(tmp_path: Path):
    hoarding = COUNTING.replace("KEPT", "jnp.ones(3)").replace("RETURNED", "0")
    found = on_toy(tmp_path, custom("", hoarding))
    assert list(found) == ["growth"]
    assert found["growth"][1].startswith("1 more arrays")


def test_objects_that_a_hook_hoards_are_growth_too(tmp_path: Path):
    hoarding = COUNTING.replace("KEPT", "[[i] for i in range(1000)]").replace("RETURNED", "0")
    assert list(on_toy(tmp_path, custom("", hoarding))) == ["growth"]


def test_an_evaluation_that_counts_itself_is_found(tmp_path: Path):
    counting = """
    import itertools
    counter = itertools.count(1)
    def eval_params(problem, state, batch, key):
        more = jax.pure_callback(lambda: jnp.float32(next(counter)), jax.ShapeDtypeStruct((), jnp.float32))
        return [p + more for p in state.params], state.model_state
    hooks["eval_params"] = eval_params
    """
    assert {"evaluation", "purity"} <= set(on_toy(tmp_path, custom(counting)))


def test_nans_are_named(tmp_path: Path):
    broken = """
    def step(problem, state, batch, key):
        new, report = gradient_step(problem, state, batch, key)
        return new._replace(params=[p * jnp.nan for p in new.params]), report
    """
    found = on_toy(tmp_path, custom(broken))
    assert found["finite"] == ("fail", "not finite after 4 steps: the state, the evaluated parameters")


def rate_where(condition: str) -> str:
    """Gradient descent that takes a hundred times the rate where the task meets the condition."""
    return custom(
        "",
        f"""
    import functools
    def make(hparams, task):
        kernel = task.params[0] if task.params[0].kind == "output_head" else task.params[1]
        rate = 0.5 if {condition} else 0.005
        return Submission(init, functools.partial(gradient_step, rate=rate))
    """,
    )


@pytest.mark.parametrize(
    "condition",
    [
        "any(info.shape == (8, 4) for info in task.params)",
        "[info.kind for info in task.params][0] == 'bias'",
        "task.horizon_steps() == 1000",
        "task.default_batch_size == 16 and task.max_batch_size == 64",
    ],
)
def test_who_recognises_a_workload_by_shapes_order_or_hints_is_caught_in_disguise(tmp_path: Path, condition: str):
    found = on_toy(tmp_path, rate_where(condition))
    assert list(found) == ["disguise"]
    assert found["disguise"][0] == "fail"


def passing_through_the_loss(rows: str) -> str:
    """A submission whose batches are made so of those that are drawn."""
    return custom(f"""
        def step(problem, state, batch, key):
            return gradient_step(problem, state, {rows}, key)
    """)


ALTERED = [
    "batch._replace(rows=tuple(0.5 * (r + r[::-1]) if r.dtype == jnp.float32 else r for r in batch.rows))",
    "batch._replace(rows=tuple(r[::-1] if r.dtype == jnp.float32 else r for r in batch.rows))",
    "jax.tree.map(jnp.zeros_like, batch)",
]
KEPT = [
    "batch.take(jax.random.permutation(key, batch.size)[: batch.size // 2])",
    "batch.take(jnp.zeros(batch.size, int)).reweight(jnp.linspace(0, 1, batch.size))",
    "batch._replace(rows=tuple(r.astype(jnp.bfloat16) if r.dtype == jnp.float32 else r for r in batch.rows))",
    "jax.tree.map(lambda r: jnp.zeros_like(r).at[0].set(r[0]), batch.reweight(jnp.arange(batch.size) == 0.0))",
]


@pytest.mark.parametrize("rows", ALTERED)
def test_rows_that_are_none_of_those_drawn_are_found(tmp_path: Path, rows: str):
    assert first_failure(tmp_path, passing_through_the_loss(rows)).rule == "rows"


@pytest.mark.parametrize("rows", KEPT)
def test_rows_that_are_chosen_repeated_or_reweighted_are_as_they_were_drawn(tmp_path: Path, rows: str):
    source = write(tmp_path, passing_through_the_loss(rows))
    checked = _Checked(source, load(source), toy_workload())
    assert checked._unaltered().status == "pass"


ROW_BY_ROW = custom("""
    def step(problem, state, batch, key):
        def of(row):
            one = jax.tree.map(lambda x: x[None], row)
            return jax.grad(lambda p: problem.loss(p, state.model_state, one, key)[0])(state.params)
        def part(total, rows):
            return jax.tree.map(lambda t, g: t + g.sum(0), total, jax.vmap(of)(rows)), None
        parts = jax.tree.map(lambda x: x.reshape(2, -1, *x.shape[1:]), BATCH)
        grads, _ = jax.lax.scan(part, jax.tree.map(jnp.zeros_like, state.params), parts)
        return state._replace(params=[p - 1e-3 * g for p, g in zip(state.params, grads)]), {"loss": jnp.float32(0)}
""")


@pytest.mark.parametrize(("batch", "status"), [("batch", "pass"), ("jax.tree.map(lambda x: x + 1, batch)", "fail")])
def test_rows_are_looked_at_within_loops_and_one_by_one(tmp_path: Path, batch: str, status: str):
    source = write(tmp_path, ROW_BY_ROW.replace("BATCH", batch))
    assert _Checked(source, load(source), toy_workload())._unaltered().status == status


def test_who_goes_by_what_a_disguise_keeps_is_not_accused(tmp_path: Path):
    keeping = "kernel.in_axes and len(task.params) == 2 and task.default_batch_size > 8 and max(kernel.shape) == 8"
    assert on_toy(tmp_path, rate_where(keeping)) == {}


def test_noise_that_depends_on_the_order_of_the_parameters_is_a_warning(tmp_path: Path):
    noisy = """
    def step(problem, state, batch, key):
        new, report = gradient_step(problem, state, batch, key)
        keys = jax.random.split(key, len(new.params))
        return new._replace(params=[p + jax.random.normal(k, p.shape) for p, k in zip(new.params, keys)]), report
    """
    found = on_toy(tmp_path, custom(noisy))
    assert {rule: status for rule, (status, _) in found.items()} == {"disguise": "warn"}


def test_a_batch_size_that_follows_the_hint_is_not_held_against_a_submission(tmp_path: Path):
    following = custom("", "def make(hparams, task): return Submission(init, step, 2 * task.default_batch_size)")
    assert on_toy(tmp_path, following) == {}


@pytest.mark.parametrize("workload", [toy_workload(batch_norm=True), canary()], ids=lambda w: w.name)
def test_a_disguised_workload_has_the_same_losses_in_other_shapes_and_another_order(workload: Workload):
    disguise = disguised(workload)
    key = jax.random.key(0)
    values: list[float] = []
    leaves: list[list[np.ndarray]] = []
    for shown in (workload, disguise.workload):
        problem = WorkloadProblem(shown)
        params, state = map(jax.tree.leaves, jax.jit(shown.init)(key))
        assert [info.shape for info in jax.tree.leaves(shown.param_info)] == [p.shape for p in params]
        batch = problem.anonymous(workload.random_batch(8, 0))
        with problem.counted():
            values.append(float(jax.jit(problem.loss)(params, state, batch, key)[0]))
        leaves.append([np.asarray(p) for p in params])
    assert values[0] == pytest.approx(values[1], rel=1e-6)
    assert [p.shape for p in leaves[0]] != [p.shape for p in leaves[1]]
    assert all(map(np.array_equal, leaves[0], disguise.undo(leaves[1])))


def test_the_likeness_of_two_runs_is_the_ratio_of_their_updates_and_the_angle_between_them():
    def run(*ends: float) -> list[np.ndarray]:
        return [np.array(ends[:2], np.float32), np.array([ends[2:]], np.float32)]

    start = run(1, 1, 1)
    assert likeness(start, run(2, 1, 1), run(3, 1, 1)) == pytest.approx((2, 1))
    assert likeness(start, run(2, 1, 1), run(1, 1, 3)) == pytest.approx((2, 0))
    assert likeness(start, run(1, 3, 1), run(1, 0, 1)) == pytest.approx((0.5, -1))
    assert likeness(start, start, start) == (1, 1)
    assert likeness(start, start, run(1, 1, 2)) == (np.inf, 0)


def test_fans_follow_the_axes_into_the_disguise():
    plain, hidden = canary(), disguised(canary())
    infos = list(jax.tree.leaves(plain.param_info))
    for original, info in zip(hidden.order, jax.tree.leaves(hidden.workload.param_info), strict=True):
        assert info.kind == infos[original].kind
        for axes in ("in_axes", "out_axes"):
            sizes = [infos[original].shape[axis] for axis in getattr(infos[original], axes)]
            assert sizes == [info.shape[axis] for axis in getattr(info, axes)]


def test_the_state_is_measured_in_multiples_of_the_parameters(tmp_path: Path):
    adam = SGD.replace("optax.sgd(hparams.learning_rate, momentum=0.9)", "optax.adam(hparams.learning_rate)")
    source = write(tmp_path, adam)
    verdicts = _Checked(source, load(source), toy_workload()).on_workload()
    memory = next(v for v in verdicts if v.rule == "memory")
    assert memory.message.startswith("the state is 3.1 x the parameters")  # 3 x 36 numbers and 4 counts


def test_a_step_that_needs_more_memory_than_there_is_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine, "memory_bytes", lambda: 1000)
    source = write(tmp_path, SGD)
    verdicts = _Checked(source, load(source), toy_workload()).on_workload()
    assert next(v for v in verdicts if v.rule == "memory").status == "fail"


def test_a_point_of_the_search_space_that_fails_is_named(tmp_path: Path):
    text = 'SEARCH_SPACE = [{"size": 16}, {"size": 0}]\ndef make(hparams, task):\n'
    failure = first_failure(tmp_path, custom("", text + "    return Submission(init, step, hparams.size)"))
    assert failure.rule == "search space"
    assert "at the point {'size': 0}: make: batch_size must be a whole number" in failure.message


def test_a_variant_on_which_a_submission_fails_is_named(tmp_path: Path, shelf: Shelf, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("timetrial.registry.shipped", lambda kind: shelf.root / kind)
    shelf.add_workload(
        "shelved",
        "import dataclasses\nfrom toys import toy_workload\n"
        "@dataclasses.dataclass\nclass Model:\n    batch_norm: bool = False\n"
        "AXES, MODEL = {'batch_norm': (False, True)}, Model()\n"
        "def build(model): return toy_workload(name='shelved', batch_norm=model.batch_norm)\n"
        "WORKLOAD = build(MODEL)",
    )
    picky = custom("", "def make(hparams, task):\n    assert not task.rows_coupled\n    return Submission(init, step)")
    found = on(load_workload("shelved"), tmp_path, picky)
    assert list(found) == ["held-out variant"]
    assert found["held-out variant"][1].startswith("shelved+batch_norm=True: make raised AssertionError")
