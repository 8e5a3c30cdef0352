"""What a submission's Python does to the harness that imports it: isolated, it has only itself to do it to."""

import contextlib
import io
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import pytest
from apart import sandboxed
from audited import ask_here, toy_rules
from toy_trials import SGD, custom, rules, run, write
from toys import toy_splits, toy_workload

from timetrial.audit.run import run_audit
from timetrial.campaign import Campaign, open_folder
from timetrial.clock import Stopwatch
from timetrial.evaluate import Evaluator
from timetrial.judge import Judge
from timetrial.record import RecordWriter, RunRecord, read_record
from timetrial.trial import Trial, run_trial

CONFIG: Any = jax.config
LABELS = int(toy_splits()["test"]["label"].sum())


@dataclass(frozen=True)
class Lie:
    """What a submission does as it is imported, and how to tell from the record, the log and this process."""

    name: str
    text: str
    succeeded: Callable[[RunRecord, str], bool]


def reached(record: RunRecord, said: str) -> bool:
    """The toy's target here is out of reach."""
    return record.end is not None and record.end.status == "reached"


LIES = [
    Lie(
        "calls every eval a success",
        """
from timetrial.judge import Judge
Judge._meets = lambda self, line: line.step > 0
""",
        reached,
    ),
    Lie(
        "moves the target",
        """
import gc
for thing in gc.get_objects():
    if type(thing).__name__ == "Target" and thing.value in (0.0, 0.3):
        object.__setattr__(thing, "value", thing.value + 0.4)
""",
        reached,
    ),
    Lie(
        "answers for the evaluation",
        """
from timetrial.evaluate import Evaluator
evaluated, asked = Evaluator.__call__, []
def praise(self, params, model_state, splits):
    asked.append(splits)
    metrics = evaluated(self, params, model_state, splits)
    return metrics if len(asked) == 1 else {name: 0.0 for name in metrics}
Evaluator.__call__ = praise
""",
        reached,
    ),
    Lie(
        "writes better metrics into the record",
        """
from dataclasses import replace
from timetrial.record import RecordWriter
written = RecordWriter.eval
RecordWriter.eval = lambda self, line: written(
    self, replace(line, metrics={name: 0.01 * value for name, value in line.metrics.items()}) if line.step else line)
""",
        lambda record, said: record.evals[-1].metrics["valid/loss"] < 0.1,  # honestly it comes to 0.4
    ),
    Lie(
        "stops the clock",
        """
from timetrial.clock import Stopwatch
Stopwatch.seconds = property(lambda self: 0.0)
""",
        lambda record, said: record.end is not None and record.end.seconds == 0.0,
    ),
    Lie(
        "stops time",
        """
import time
time.perf_counter = time.monotonic = lambda: 0.0
""",
        lambda record, said: time.perf_counter() == time.monotonic() == 0.0,
    ),
    Lie(
        "takes the labels of the test split out of the frames that call it",
        """
import sys
frame = sys._getframe()
while frame is not None:
    for thing in list(frame.f_locals.values()):
        workload = getattr(thing, "workload", None) or getattr(thing, "_workload", None)
        if hasattr(workload, "split"):
            print("found", int(workload.split("test")["label"].sum()), file=sys.stderr)
    frame = frame.f_back
""",
        lambda record, said: f"found {LABELS}" in said,
    ),
    Lie(
        "sets XLA's flags",
        """
import os
os.environ["XLA_FLAGS"] = "--xla_cpu_enable_fast_math=true"
""",
        lambda record, said: "fast_math" in os.environ.get("XLA_FLAGS", ""),
    ),
    Lie(
        "sets the precision of all that jax computes",
        """
import jax
jax.config.update("jax_default_matmul_precision", "float32")
""",
        lambda record, said: CONFIG.jax_default_matmul_precision == "float32",
    ),
    Lie(
        "puts a module of its own in the place of one of the harness",
        """
import sys, types
sys.modules["timetrial.audit.compare"] = types.ModuleType("mine")
""",
        lambda record, said: sys.modules["timetrial.audit.compare"].__name__ == "mine",
    ),
    Lie(
        "hooks all imports to come",
        """
import sys
class Mine:
    def find_spec(self, name, path=None, target=None):
        return None
sys.meta_path.insert(0, Mine())
""",
        lambda record, said: any(type(finder).__name__ == "Mine" for finder in sys.meta_path),
    ),
]
HOOKED = custom("""
    def on_eval(state, feedback):
        return state
    hooks = {"on_eval": on_eval}
""")
ALL_AT_ONCE = f"""
import sys
for text in {[lie.text for lie in LIES]!r}:
    try:
        exec(text, {{}})
    except Exception as error:
        print(type(error).__name__, error, file=sys.stderr)
"""


@contextlib.contextmanager
def undone() -> Iterator[None]:
    """Undoes what a lie does to this process."""
    owners: tuple[Any, ...] = (Judge, Evaluator, RecordWriter, Stopwatch, time)
    before = [dict(vars(owner)) for owner in owners]
    modules, finders, environment = dict(sys.modules), list(sys.meta_path), dict(os.environ)
    precision = CONFIG.jax_default_matmul_precision
    try:
        yield
    finally:
        for owner, was in zip(owners, before, strict=True):
            for name, value in was.items():
                if vars(owner)[name] is not value:
                    setattr(owner, name, value)
        sys.modules.update(modules)
        sys.meta_path[:] = finders
        os.environ.clear()
        os.environ.update(environment)
        jax.config.update("jax_default_matmul_precision", precision)


def submission(lie: str, text: str = SGD) -> str:
    return lie + "\0" + text


def tried(folder: Path, text: str, **options: Any) -> tuple[RunRecord, str]:
    """A trial's record and log."""
    with contextlib.redirect_stderr(io.StringIO()) as log:
        record = run(folder, text, ruleset=rules(budget=1600), **options)
    return record, log.getvalue()


@pytest.fixture(scope="module")
def as_programs(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunRecord, str]:
    return tried(tmp_path_factory.mktemp("programs"), submission(ALL_AT_ONCE), isolated=sandboxed())


@pytest.fixture(scope="module")
def in_a_process(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunRecord, str]:
    return tried(tmp_path_factory.mktemp("process"), submission(ALL_AT_ONCE, HOOKED), isolated=sandboxed())


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.name)
def test_as_programs_no_submission(lie: Lie, as_programs: tuple[RunRecord, str]):
    record, said = as_programs
    assert record.end is not None
    assert record.end.status == "budget", record.end.message
    assert record.run.trainer == "program"
    assert not lie.succeeded(record, said)


@pytest.mark.slow
@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.name)
def test_in_a_process_of_its_own_no_submission(lie: Lie, in_a_process: tuple[RunRecord, str]):
    record, said = in_a_process
    assert record.end is not None
    assert record.end.status == "budget", record.end.message
    assert record.run.trainer == "process"
    assert not lie.succeeded(record, said)


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.name)
def test_in_the_harness_s_process_a_submission(lie: Lie, tmp_path: Path):
    with undone():
        record, said = tried(tmp_path, submission(lie.text))
        assert lie.succeeded(record, said)


NAN = custom("""
    def step(problem, state, batch, key):
        return state._replace(params=[p * jnp.nan for p in state.params]), {"loss": jnp.float32(0)}
""")


def test_a_model_that_is_not_a_number_reaches_no_target_though_its_error_rate_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    easy = rules(budget=1600, target=0.75)
    ends = [run(tmp_path, NAN, ruleset=easy).end]
    monkeypatch.setattr(Judge, "_finite", lambda self, line: True)
    ends.append(run(tmp_path, NAN, ruleset=easy).end)

    assert [end.status for end in ends if end is not None] == ["diverged", "reached"]


LEFT_IN_THE_RECORD = {
    "moves the target": "target",
    "writes better metrics into the record": "metrics",
    "answers for the evaluation": "metrics",
    "stops the clock": "clocks",
}


@pytest.mark.parametrize(
    "name",
    [name if name == "moves the target" else pytest.param(name, marks=pytest.mark.slow) for name in LEFT_IN_THE_RECORD],
)
def test_an_audit_finds_that_a_submission(name: str, tmp_path: Path):
    lie = next(lie for lie in LIES if lie.name == name)
    source = write(tmp_path, submission(lie.text))
    campaign = Campaign(out=tmp_path / "out", ruleset=toy_rules(), sources=(source,), seed=5)
    open_folder(campaign, resume=False)
    folder = campaign.out / source.name / "toy" / "study_0" / "trial_0"
    with undone():
        place = Trial(seed=5, study=0, trial=0, self_tuning=False)
        run_trial(toy_workload(), source, campaign.ruleset, place, folder, workload_sha256="f" * 64)

    assert reached(read_record(folder / "record.jsonl"), "")  # which is what a board would show
    found = run_audit([campaign.out], ask=ask_here()).all_findings()
    assert LEFT_IN_THE_RECORD[name] in {finding.kind for finding in found}
