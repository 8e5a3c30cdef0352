"""Less memory for the same loss: batches in parts, and what the pass back computes again."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import algoperf_toys
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shelf import Shelf
from toy_trials import SGD, rules, run, write
from toys import toy_workload

from timetrial.campaign import Campaign, open_folder, restrict
from timetrial.cli import main
from timetrial.devices import Mesh
from timetrial.errors import UserError
from timetrial.memory import step_memory
from timetrial.problem import WorkloadProblem
from timetrial.rows import rows_in
from timetrial.ruleset import Ruleset
from timetrial.workload import Workload, economical

pytestmark = pytest.mark.usefixtures("quick_compilation")
TOY = toy_workload()


def loss_and_gradients(workload: Workload, rows: int, weights: Any = None) -> Any:
    problem = WorkloadProblem(workload)
    params, state = map(jax.tree.leaves, workload.init(jax.random.key(1)))
    batch = problem.anonymous(workload.random_batch(rows, 0) | ({} if weights is None else {"weights": weights}))

    def loss(params: Any) -> Any:
        with problem.counted():
            return problem.loss(params, state, batch, jax.random.key(2), label_smoothing=0.1)

    (mean, aux), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    return mean, gradients, aux.losses, aux.weights


@settings(max_examples=5)
@given(rows=st.integers(1, 17), parts=st.integers(1, 6), weighted=st.booleans(), remat=st.booleans())
def test_a_batch_in_parts_has_the_loss_and_the_gradients_of_the_whole(
    rows: int, parts: int, weighted: bool, remat: bool
):
    weights = np.arange(rows, dtype=np.float32) % 3 if weighted and rows > 1 else None
    whole = loss_and_gradients(TOY, rows, weights)
    split = loss_and_gradients(economical(TOY, accumulate=parts, remat=remat), rows, weights)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-7), split, whole)


def test_a_batch_in_parts_costs_the_same_rows():
    problem = WorkloadProblem(economical(TOY, accumulate=4, remat=True))
    params, state = map(jax.tree.leaves, TOY.init(jax.random.key(1)))
    batch = problem.anonymous(TOY.random_batch(16, 0))

    def gradients(params: Any) -> Any:
        with problem.counted():
            return jax.grad(lambda p: problem.loss(p, state, batch, jax.random.key(2))[0])(params)

    assert rows_in(jax.make_jaxpr(gradients)(params).jaxpr) == 16


def test_parts_have_their_own_dropout():
    workload = economical(toy_workload(dropout=True), accumulate=2)
    rows = workload.random_batch(1, 0)
    twins = {name: np.repeat(array, 2, axis=0) for name, array in rows.items()}
    problem = WorkloadProblem(workload)
    params, state = map(jax.tree.leaves, workload.init(jax.random.key(1)))
    with problem.counted():
        _, aux = problem.loss(params, state, problem.anonymous(twins), jax.random.key(0), dropout_rate=0.5)
    assert aux.losses[0] != aux.losses[1]


def test_batch_norm_has_no_parts_but_can_be_computed_again():
    coupled = toy_workload(batch_norm=True)
    with pytest.raises(UserError, match="batch norm couples the rows"):
        economical(coupled, accumulate=2)
    plain, again = loss_and_gradients(coupled, 8), loss_and_gradients(economical(coupled, remat=True), 8)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-7), again, plain)


def test_a_trial_in_parts_says_so_and_charges_what_the_whole_does(tmp_path: Path):
    whole = run(tmp_path)
    parts = run(tmp_path, workload=economical(TOY, accumulate=4, remat=True))
    assert (whole.run.accumulate, whole.run.remat) == (1, False)
    assert (parts.run.accumulate, parts.run.remat) == (4, True)
    for a, b in zip(whole.evals, parts.evals, strict=True):
        assert (a.step, a.examples) == (b.step, b.examples)
        assert b.metrics["valid/loss"] == pytest.approx(a.metrics["valid/loss"], rel=1e-3)


def test_what_the_harness_does_not_trace_here_has_no_parts(tmp_path: Path):
    theirs = write(tmp_path, "def update_params(): ...\ndef init_optimizer_state(): ...\n")
    with pytest.raises(UserError, match="written for AlgoPerf"):
        Campaign(out=tmp_path / "out", ruleset=rules(), sources=(theirs,), seed=0, accumulate=2)


def two(**toy: Any) -> Ruleset:
    """A ruleset of `toy`, with these fields more, and `other`."""
    other = rules().to_json()["workloads"]["toy"]
    return rules(workloads={"toy": {**other, **toy}, "other": other})


def campaign(folder: Path, ruleset: Ruleset, **options: Any) -> Campaign:
    return Campaign(out=folder / "out", ruleset=ruleset, sources=(write(folder, SGD),), seed=0, **options)


def economies(campaign: Campaign) -> dict[str, tuple[int, bool]]:
    return {job.workload: (job.accumulate, job.remat) for job in campaign.jobs()}


def test_a_trial_saves_memory_as_the_ruleset_says_of_its_workload(tmp_path: Path):
    assert economies(campaign(tmp_path, two(accumulate=8))) == {"toy": (8, False), "other": (1, False)}
    assert economies(campaign(tmp_path, two(remat=True))) == {"toy": (1, True), "other": (1, False)}


@pytest.mark.parametrize(
    ("flags", "modified", "economy"),
    [
        ({}, (), {"toy": (8, True), "other": (1, False)}),
        ({"accumulate": 4}, ("accumulate: 4",), {"toy": (4, True), "other": (4, False)}),
        ({"accumulate": 8}, ("accumulate: 8",), {"toy": (8, True), "other": (8, False)}),
        ({"accumulate": 1}, ("accumulate: 1",), {"toy": (1, True), "other": (1, False)}),
        ({"remat": True}, ("remat: true",), {"toy": (8, True), "other": (1, True)}),
        (
            {"accumulate": 1, "remat": False},
            ("accumulate: 1", "remat: false"),
            {"toy": (1, False), "other": (1, False)},
        ),
    ],
)
def test_flags_replace_what_the_ruleset_says_of_all_workloads_and_are_noted(
    tmp_path: Path, flags: Any, modified: tuple[str, ...], economy: Any
):
    ruleset = restrict(two(accumulate=8, remat=True), **flags)
    assert ruleset.modified == modified
    assert economies(campaign(tmp_path, ruleset, **flags)) == economy


def test_a_flag_that_says_what_the_ruleset_does_changes_nothing():
    alone = rules(workloads={"toy": two(accumulate=8).to_json()["workloads"]["toy"]})
    assert restrict(alone, accumulate=8, remat=False) == alone


def test_flags_leave_a_ruleset_that_says_nothing_of_memory_as_it_is(tmp_path: Path):
    flags: Any = {"accumulate": 4, "remat": True}
    assert restrict(two(), **flags) == two()
    begun = campaign(tmp_path, restrict(two(), **flags), **flags)
    assert economies(begun) == {"toy": (4, True), "other": (4, True)}
    recorded = begun.to_json()
    assert (recorded["accumulate"], recorded["remat"], recorded["ruleset_sha256"]) == (4, True, two().sha256)


def test_fewer_parts_than_one_are_refused():
    with pytest.raises(UserError, match="--accumulate must be at least 1, not 0"):
        restrict(two(), accumulate=0)


def test_a_ruleset_that_saves_memory_is_refused_for_submissions_that_do_not_call_our_loss(tmp_path: Path):
    theirs, ruleset = algoperf_toys.write(tmp_path, algoperf_toys.JIT), two(remat=True)

    def begun(ruleset: Ruleset) -> Campaign:
        return Campaign(out=tmp_path / "out", ruleset=ruleset, sources=(theirs,), seed=0)

    with pytest.raises(UserError, match=r"ruleset 'toy-rules', workload 'toy': accumulate .* written for AlgoPerf"):
        begun(ruleset)
    assert begun(restrict(ruleset, workloads=["other"]))
    assert begun(restrict(ruleset, remat=False))


COUPLED = "from toys import toy_workload\nWORKLOAD = toy_workload(name='coupled', batch_norm=True)\n"


def test_parts_that_a_ruleset_wants_of_batch_norm_are_refused_before_anything_runs(
    tmp_path: Path, shelf: Shelf, capsys: pytest.CaptureFixture[str]
):
    shelf.add_workload("coupled", COUPLED)
    (tmp_path / "mine.toml").write_text(
        'version = 1\ndescription = ""\nclock = "examples"\n[external]\nstudies = 1\ntrials = 1\n'
        "[workloads.coupled]\nbudget = 320\neval_every = 160\nhorizon_examples = 320\naccumulate = 2\n"
        'target = { metric = "error_rate", value = 0.1, better = "lower" }\n'
    )
    ruleset, submission = str(tmp_path / "mine.toml"), str(write(tmp_path, SGD).folder)
    trials = ["run", "-s", submission, "-r", ruleset, "-o", str(tmp_path / "out")]
    for asked in (trials, [*trials, "--held-out", "beacon"], ["doctor", "--memory", "coupled", "-r", ruleset]):
        assert main(asked) == 2
        assert "ruleset 'mine': accumulate: batch norm couples the rows of a batch of 'coupled'" in (
            capsys.readouterr().err
        )
    assert main([*trials, "--accumulate", "4"]) == 2
    assert "timetrial: --accumulate: batch norm couples" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_campaign_goes_on_only_as_it_was_begun(tmp_path: Path):
    begun = Campaign(out=tmp_path / "out", ruleset=rules(), sources=(write(tmp_path, SGD),), seed=0)
    open_folder(begun, resume=False)
    with pytest.raises(UserError, match="begun with another --accumulate"):
        open_folder(dataclasses.replace(begun, accumulate=2), resume=True)
    with pytest.raises(UserError, match="begun with another --processes"):
        open_folder(dataclasses.replace(begun, processes=2), resume=True)
    with pytest.raises(UserError, match="begun with another ruleset, or other options that change it"):
        open_folder(dataclasses.replace(begun, ruleset=restrict(two(accumulate=2), workloads=["toy"])), resume=True)
    (tmp_path / "out" / "campaign.json").write_text(
        json.dumps({k: v for k, v in begun.to_json().items() if k not in ("processes", "accumulate", "remat")})
    )
    open_folder(begun, resume=True)


def deep() -> Workload:
    """The toy behind ten layers whose activations are what fills the memory."""

    def apply(params: Any, model_state: Any, batch: Any, key: Any, *, train: bool, dropout_rate: Any = None) -> Any:
        x = jnp.tile(batch["x"], (1, 64))
        for _ in range(10):
            x = jnp.tanh(x) + jnp.sin(x)
        return x[:, :8] @ params["dense"]["kernel"] + params["dense"]["bias"] + 0 * x.sum(), model_state

    return dataclasses.replace(TOY, apply=apply)


def test_memory_grows_with_the_batch_and_less_of_it_is_needed_in_parts():
    mesh = Mesh.local()
    small, large = (step_memory(deep(), rows, mesh) for rows in (64, 512))
    parts = step_memory(economical(deep(), accumulate=8), 512, mesh)
    assert large["temporaries"] > 4 * small["temporaries"]
    assert parts["temporaries"] < large["temporaries"] / 2
    assert small["params"] == parts["params"] == 4 * (8 * 4 + 4)
    assert small["optimizer"] >= 2 * small["params"]
    assert large["batch"] == 512 * (8 * 4 + 4)
    for found in (small, large, parts):
        assert found["peak"] >= found["params"] + found["optimizer"] + found["batch"] + found["temporaries"]
