"""A submission that is kept apart gives the same curve, and nothing that it does gets out."""

import itertools
from collections.abc import Iterable
from pathlib import Path

import algoperf_toys
import pytest
from apart import curve, sandboxed
from jax import export
from toy_trials import PICKY, SGD, STRICT, custom, rules, run
from toys import toy_workload

from timetrial import machine
from timetrial.errors import UserError
from timetrial.isolation import policy, process
from timetrial.workload import economical

AVERAGED = """
    import optax
    from timetrial import Choice, LogUniform, from_optax
    SEARCH_SPACE = {"rate": LogUniform(1e-3, 1.0, default=0.1), "batch_size": Choice((16, 24), default=24)}
    def make(hparams, task):
        return from_optax(optax.adam(hparams.rate), batch_size=hparams.batch_size, weight_average=0.9,
                          label_smoothing=0.1)
"""
TWO_GRADIENTS = custom("""
    def step(problem, state, batch, key):
        def twice(state, _):
            state, report = gradient_step(problem, state, batch, key)
            return state, report
        state, report = jax.lax.scan(twice, state, None, length=2)
        return state, {"loss": report["loss"][-1]}
""")


@pytest.mark.parametrize("text", [SGD, AVERAGED, TWO_GRADIENTS], ids=["sgd", "averaged", "two gradients"])
def test_a_pure_submission_gives_the_same_bits_as_programs(tmp_path: Path, text: str):
    here = run(tmp_path, text, ruleset=rules(budget=1600))
    apart = run(tmp_path, text, ruleset=rules(budget=1600), isolated=sandboxed())

    assert apart.end is not None
    assert apart.end.status == "budget", apart.end.message
    assert apart.run.trainer == "program"
    assert apart.run.isolation == "sandbox"
    assert curve(apart) == curve(here)
    assert apart.end is not None
    assert apart.end.examples_exact


def test_the_precision_of_a_ruleset_holds_for_programs_too(tmp_path: Path):
    ruleset = rules(budget=800, matmul_precision="float32")
    apart = run(tmp_path, STRICT, ruleset=ruleset, isolated=sandboxed())

    assert apart.end is not None
    assert apart.end.status == "budget", apart.end.message
    assert (apart.run.trainer, apart.run.matmul_precision) == ("program", "float32")


@pytest.mark.parametrize("clock", ["examples", "steps"])
def test_a_submission_with_hooks_gives_the_same_bits_in_a_process_of_its_own(tmp_path: Path, clock: str):
    ruleset = rules(clock, budget=1600) if clock == "examples" else rules(clock, budget=80, eval_every=20)
    here = run(tmp_path, PICKY, ruleset=ruleset)
    apart = run(tmp_path, PICKY, ruleset=ruleset, isolated=sandboxed())

    assert apart.run.trainer == "process"
    assert curve(apart) == curve(here)


def test_a_submission_with_hooks_is_refused_where_its_process_would_lack_the_device(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(export, "default_export_platform", lambda: "tpu")
    with pytest.raises(UserError, match="can have processors and NVIDIA's GPUs, and this trial is one of tpu"):
        run(tmp_path, PICKY, isolated=sandboxed())


def machine_of_a_gpu(monkeypatch: pytest.MonkeyPatch, usage: Iterable[int]) -> None:
    """This machine, as if it had a GPU, which is `usage` per cent at work each time that its driver is asked."""
    told = iter(usage)
    monkeypatch.setattr(export, "default_export_platform", lambda: "cuda")
    monkeypatch.setattr(process, "visible_gpus", lambda: ("GPU-aaaa-1",))
    monkeypatch.setattr(process, "at_work", lambda gpus: next(told) > 0)
    monkeypatch.setattr(process, "_SETTLE_SECONDS", 0.05)


def test_a_process_that_does_not_get_the_judge_s_gpu_does_not_start(tmp_path: Path, monkeypatch):
    machine_of_a_gpu(monkeypatch, [])
    monkeypatch.setattr(machine, "devices", lambda: ["gpu", "NVIDIA H100", 1])
    with pytest.raises(UserError, match=r"has the devices \['cpu', .*, and this one \['gpu', 'NVIDIA H100', 1\]"):
        run(tmp_path, PICKY, isolated=sandboxed())


def test_a_judge_waits_for_the_gpu_before_each_evaluation_and_the_bits_are_the_same(tmp_path: Path, monkeypatch):
    here = run(tmp_path, PICKY, ruleset=rules(budget=1600))
    asked = itertools.count()
    machine_of_a_gpu(monkeypatch, (100 * (next(asked) % 2 == 0) for _ in itertools.count()))
    monkeypatch.setattr(policy, "_for_xla", lambda gpus: {"JAX_PLATFORMS": "cpu"})
    apart = run(tmp_path, PICKY, ruleset=rules(budget=1600), isolated=sandboxed())

    assert apart.run.trainer == "process"
    assert curve(apart) == curve(here)
    assert next(asked) == 2 * (len(apart.evals) + 1), "the test rows, at the end, are evaluated by themselves"


def test_a_process_that_leaves_its_gpu_at_work_ends_the_trial(tmp_path: Path, monkeypatch):
    machine_of_a_gpu(monkeypatch, itertools.chain([0], itertools.repeat(100)))
    monkeypatch.setattr(policy, "_for_xla", lambda gpus: {"JAX_PLATFORMS": "cpu"})
    apart = run(tmp_path, PICKY, isolated=sandboxed())

    assert apart.end is not None
    assert (apart.end.status, len(apart.evals)) == ("error", 1)
    assert "left its device at work" in apart.end.message


def test_an_algoperf_submission_gives_the_same_bits_in_a_process_of_its_own(tmp_path: Path):
    source = algoperf_toys.write(tmp_path, algoperf_toys.JIT)
    here = run(tmp_path, source=source)
    apart = run(tmp_path, source=source, isolated=sandboxed())

    assert apart.run.trainer == "process"
    assert curve(apart) == curve(here)


def test_a_program_that_asks_for_a_setting_that_the_workload_lacks_has_it_noted(tmp_path: Path):
    text = SGD.replace("momentum=0.9)", "momentum=0.9), dropout_rate=0.3")
    apart = run(tmp_path, text, ruleset=rules(budget=800), isolated=sandboxed())

    assert apart.end is not None
    assert apart.end.ignored == ("dropout_rate",)


def test_under_the_seconds_clock_a_process_is_stopped_at_the_budget(tmp_path: Path):
    apart = run(tmp_path, PICKY, ruleset=rules("seconds", budget=4.0, eval_every=2.0), isolated=sandboxed())

    assert apart.end is not None
    assert apart.end.status == "budget"
    assert 4.0 <= apart.end.seconds < 5.0
    assert apart.end.step > 10


def test_what_goes_wrong_in_the_submission_is_told_as_it_is_without_isolation(tmp_path: Path):
    broken = custom("""
        def step(problem, state, batch, key):
            raise ValueError("no idea")
    """)
    here = run(tmp_path, broken)
    apart = run(tmp_path, broken, isolated=sandboxed())

    assert here.end is not None
    assert apart.end is not None
    assert apart.end.status == here.end.status == "error"
    assert "ValueError" in apart.end.message
    assert "no idea" in apart.end.message


def test_a_trial_that_was_stopped_goes_on_from_its_checkpoint(tmp_path: Path):
    whole = run(tmp_path, PICKY, ruleset=rules(budget=3200), workload=toy_workload())
    out, evals, ticks = tmp_path / "resumed", [0], itertools.count()
    stopped = run(
        tmp_path,
        PICKY,
        ruleset=rules(budget=3200),
        isolated=sandboxed(),
        out=out,
        watch=lambda progress: evals.append(progress.evals),
        leave=lambda: evals[-1] >= 3,
        now=lambda: 0.3 * next(ticks),  # so that whether to leave is asked at every step
    )
    resumed = run(tmp_path, PICKY, ruleset=rules(budget=3200), isolated=sandboxed(), out=out)

    assert stopped.end is not None
    assert stopped.end.status == "interrupted"
    assert len(resumed.resumes) == 1
    assert curve(resumed) == curve(whole)


@pytest.mark.parametrize("text", [SGD, PICKY], ids=["a program", "a process"])
def test_what_saves_memory_saves_it_apart_as_well(tmp_path: Path, text: str):
    workload = economical(toy_workload(), accumulate=2, remat=True)
    here = run(tmp_path, text, ruleset=rules(budget=800), workload=workload)
    apart = run(tmp_path, text, ruleset=rules(budget=800), workload=workload, isolated=sandboxed())
    whole = run(tmp_path, text, ruleset=rules(budget=800))

    assert apart.run.accumulate == 2
    assert curve(apart) == curve(here) != curve(whole)
