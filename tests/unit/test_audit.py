"""An audit finds and names what was changed in runs, and says nothing of runs that nobody touched."""

import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from audited import Lines, ask_here, chained, forge, run_campaign_here
from hypothesis import given, settings
from hypothesis import strategies as st

from timetrial import cli
from timetrial.audit import retime, run
from timetrial.audit.board import check_board
from timetrial.audit.compare import Tolerance, agree, tolerance
from timetrial.audit.findings import ADVICE, Finding
from timetrial.audit.grid import check_grid
from timetrial.audit.header import check_campaign, check_rules
from timetrial.audit.reading import AuditedTrial, read_runs
from timetrial.audit.run import Audit, run_audit
from timetrial.audit.space import search_space
from timetrial.errors import UserError, printable
from timetrial.loading import Source
from timetrial.record import EvalLine
from timetrial.ruleset import load_ruleset
from timetrial.tuning import Choice, Integers, LogUniform, Uniform

FAST, OTHER, SLOW = (f"{name}/toy/study_0/trial_{i}" for name, i in (("fast", 0), ("fast", 1), ("slow", 0)))


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from timetrial.compilation import use_cache

    use_cache(tmp_path_factory.mktemp("compiled"))
    return run_campaign_here(tmp_path_factory.mktemp("campaign"))


@pytest.fixture(scope="module")
def ask(untouched: Path) -> run.Ask:
    return ask_here()


@pytest.fixture
def runs(untouched: Path, tmp_path: Path) -> Path:
    """A copy that a test may forge."""
    return shutil.copytree(untouched, tmp_path / "out")


def record(runs: Path, trial: str = FAST) -> Path:
    return runs / trial / "record.jsonl"


def said(audit: Audit) -> set[tuple[str, str | None]]:
    return {(finding.kind, finding.field) for finding in audit.all_findings()}


def snapshot(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def test_runs_that_nobody_touched_are_clean_to_the_bit_and_nothing_is_written(untouched: Path, ask: run.Ask):
    before = snapshot(untouched)
    audit = run_audit([untouched], ask=ask)
    assert audit.all_findings() == []
    assert [audited.compared for audited in audit.trials] == ["bit for bit"] * 3
    assert {audited.trial.record.end.status for audited in audit.trials if audited.trial.record.end} == {
        "reached",
        "budget",
    }
    assert ["is not installed" in note for note in audit.notes] == [True]  # the toy's rules, which no file holds
    assert snapshot(untouched) == before


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where the numbers, strings and booleans of a parsed line are."""
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        yield path
        return
    for key, item in items:
        yield from leaves(item, (*path, key))


def altered(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, (int, float)) else f"{value}0"


@settings(max_examples=60)
@given(st.data())
def test_a_field_that_is_changed_is_found_in_its_file_at_its_line_or_the_next(
    untouched: Path, ask: run.Ask, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
):
    path = record(untouched, data.draw(st.sampled_from([FAST, SLOW])))
    whole = path.read_text()
    lines = [json.loads(line) for line in whole.splitlines()]
    number = data.draw(st.integers(0, len(lines) - 1))
    *outer, last = data.draw(st.sampled_from([where for where in leaves(lines[number]) if where]))
    holder = lines[number]
    for key in outer:
        holder = holder[key]
    holder[last] = altered(holder[last])
    try:
        path.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))
        found = run_audit([untouched / path.relative_to(untouched).parent], ask=ask).all_findings()
    finally:
        path.write_text(whole)
    assert any(finding.path == path.resolve() for finding in found)
    assert {finding.line for finding in found} & {number + 1, number + 2}


WEIRD = (
    10**400,
    -(10**400),
    2**63,
    1e308,
    -1,
    0,
    1e-320,
    "nan",
    "inf",
    "",
    "\ud800",
    "\x1b[2J",
    None,
    True,
    [],
    {},
    [[]],
)


@settings(max_examples=100)
@given(st.data())
def test_no_value_of_a_field_ends_an_audit(untouched: Path, ask: run.Ask, data: st.DataObject):
    name = data.draw(st.sampled_from([f"{FAST}/record.jsonl", "campaign.json"]))
    path = untouched / name
    whole = path.read_text()
    lines = [json.loads(line) for line in (whole.splitlines() if name.endswith("l") else [whole])]
    number = data.draw(st.integers(0, len(lines) - 1))
    *outer, last = data.draw(st.sampled_from([where for where in leaves(lines[number]) if where]))
    holder = lines[number]
    for key in outer:
        holder = holder[key]
    old, holder[last] = holder[last], data.draw(st.sampled_from(WEIRD))
    try:
        path.write_text("\n".join(json.dumps(line, separators=(",", ":")) for line in lines) + "\n")
        audit = run_audit([untouched / FAST], ask=ask)
    finally:
        path.write_text(whole)
    for finding in audit.all_findings():
        printable(str(finding)).encode()
        json.dumps(finding.to_json())
    if name != "campaign.json" and repr(holder[last]) != repr(old):
        assert audit.all_findings()


def at(number: int, *keys: Any, to: Any) -> Callable[[Lines], None]:
    """Sets a field of a line, counted from 0 or from the end."""

    def change(lines: Lines) -> None:
        holder: Any = lines[number]
        for key in keys[:-1]:
            holder = holder[key]
        old = holder[keys[-1]]
        holder[keys[-1]] = to(old) if callable(to) else to

    return change


def and_also(*changes: Callable[[Lines], None]) -> Callable[[Lines], None]:
    def change(lines: Lines) -> None:
        for one in changes:
            one(lines)

    return change


def better_test(lines: Lines) -> None:
    lines[-2]["metrics"]["test/error_rate"] -= 0.05


def every_eval(name: str, change: Callable[[Any], Any]) -> Callable[[Lines], None]:
    def edit(lines: Lines) -> None:
        for line in lines[2:]:
            line[name] = change(line[name])

    return edit


def sooner(lines: Lines) -> Lines:
    """The crossing one eval earlier, with all that follows from it but the parameters."""
    evals = [line for line in lines if line["kind"] == "eval"]
    crossing = lines[-1]["crossing"]["eval_index"]
    kept = evals[: crossing + 1]
    for line in kept[-2:]:
        line["metrics"] = {**evals[crossing]["metrics"], **evals[-1]["metrics"]}
    clocks = ("step", "examples", "seconds", "compile_seconds", "data_seconds")
    end = {**lines[-1], **{name: kept[-1][name] for name in clocks}}
    end["crossing"] = {
        "eval_index": crossing - 1,
        "charge": float(kept[-2]["examples"]),
        "charge_before": float(kept[-3]["examples"]),
    }
    return [lines[0], *kept, end]


FORGERIES: dict[str, tuple[str, Callable[[Lines], Lines | None], str, str]] = {
    "a target that is easier": (FAST, at(0, "target", "value", to=0.5), "target", "target"),
    "another test target": (FAST, at(0, "test_target", "value", to=0.9), "target", "test_target"),
    "a budget that is larger": (SLOW, at(0, "budget", to=6400.0), "rules", "budget"),
    "a coarser grid": (FAST, at(0, "eval_every", to=400.0), "rules", "eval_every"),
    "less confirmation": (FAST, at(0, "confirmation", to=0), "rules", "confirmation"),
    "another precision": (FAST, at(0, "matmul_precision", to="bfloat16"), "rules", "matmul_precision"),
    "parts that the ruleset does not have": (FAST, at(0, "accumulate", to=2), "rules", "accumulate"),
    "less memory than the ruleset's": (FAST, at(0, "remat", to=True), "rules", "remat"),
    "another ruleset": (FAST, at(0, "ruleset_sha256", to="0" * 64), "rules", "ruleset_sha256"),
    "another clock": (FAST, at(0, "clock", to="steps"), "rules", "clock"),
    "another board": (FAST, at(0, "tuning", to="self"), "rules", "tuning"),
    "another workload": (FAST, at(0, "workload_sha256", to="0" * 64), "workload", "workload_sha256"),
    "another version": (FAST, at(0, "workload_version", to=7), "workload", "workload_version"),
    "another source": (FAST, at(0, "submission_sha256", to="0" * 64), "source", "submission_sha256"),
    "another api": (FAST, at(0, "api", to="algoperf"), "source", "api"),
    "another seed": (FAST, at(0, "seed", to=6), "seeds", "seed"),
    "another trial": (FAST, at(0, "trial", to=1), "seeds", "metrics.valid/loss"),
    "a study beyond the board": (FAST, at(0, "study", to=1), "rules", "study"),
    "another point": (
        FAST, at(0, "hparams", "learning_rate", to=0.25), "hyperparameters", "hparams.learning_rate",
    ),
    "a hyperparameter more": (
        FAST, lambda lines: lines[0]["hparams"].update(extra=1), "hyperparameters", "hparams.extra",
    ),
    "no date": (FAST, at(0, "created", to="yesterday"), "clocks", "created"),
    "other packages": (FAST, at(0, "packages", "jax", to="9.9"), "environment", "packages.jax"),
    "another isolation": (FAST, at(0, "isolation", to="docker"), "environment", "isolation"),
    "a better test metric": (FAST, better_test, "metrics", "metrics.test/error_rate"),
    "a better validation metric": (
        SLOW, at(-2, "metrics", "valid/error_rate", to=lambda v: v - 0.01), "metrics", "metrics.valid/error_rate",
    ),
    "a metric the workload lacks": (
        SLOW, lambda lines: lines[-2]["metrics"].update({"valid/bleu": 1.0}), "metrics", "metrics.valid/bleu",
    ),
    "other untrained metrics": (
        FAST, at(1, "metrics", "valid/loss", to=lambda v: v + 1e-6), "seeds", "metrics.valid/loss",
    ),
    "a metric taken out": (FAST, at(2, "metrics", to=lambda m: {"valid/loss": m["valid/loss"]}), "crossing", "metrics"),
    "no test metrics": (
        SLOW, at(-2, "metrics", to=lambda m: {k: v for k, v in m.items() if "test" not in k}), "metrics", "metrics",
    ),
    "other parameters": (FAST, at(-2, "parameters_sha256", to="0" * 64), "parameters", "parameters_sha256"),
    "a crossing before its time": (FAST, sooner, "parameters", "parameters_sha256"),
    "a crossing elsewhere": (FAST, at(-1, "crossing", "eval_index", to=1), "crossing", "crossing"),
    "a charge that is smaller": (FAST, at(-1, "crossing", "charge", to=lambda v: v - 1), "crossing", "crossing"),
    "no crossing": (FAST, at(-1, "crossing", to=None), "crossing", "crossing"),
    "never reached": (SLOW, at(-1, "status", to="reached"), "crossing", "status"),
    "reached and denied": (FAST, at(-1, "status", to="budget"), "crossing", "status"),
    "diverged, with numbers": (SLOW, at(-1, "status", to="diverged"), "crossing", "status"),
    "fewer steps at the end": (FAST, at(-1, "step", to=lambda v: v - 1), "crossing", "step"),
    "less time at the end": (FAST, at(-1, "seconds", to=lambda v: v / 2), "clocks", "seconds"),
    "seconds that go back": (SLOW, at(4, "seconds", to=0.0), "clocks", "seconds"),
    "steps that go back": (SLOW, at(4, "step", to=1), "clocks", "step"),
    "examples that go back": (SLOW, at(4, "examples", to=17), "clocks", "examples"),
    "compilation longer than all": (FAST, at(-2, "compile_seconds", to=1e6), "clocks", "compile_seconds"),
    "data longer than all": (FAST, at(-2, "data_seconds", to=1e6), "clocks", "data_seconds"),
    "a head start": (FAST, at(1, "examples", to=160), "clocks", "examples"),
    "half the examples": (
        FAST, and_also(every_eval("examples", lambda v: v // 2), at(-1, "examples", to=lambda v: v)),
        "grid", "examples",
    ),
    "an eval between grid points": (SLOW, at(4, "examples", to=lambda v: v - 16), "grid", "examples"),
    "an eval late by a step": (
        SLOW, and_also(at(4, "examples", to=lambda v: v + 16), at(4, "step", to=lambda v: v + 1)), "grid", "examples",
    ),
    "a resumption of more evals than there are": (
        SLOW,
        lambda lines: lines.insert(
            3,
            {"schema": 1, "kind": "resume", "step": 1, "examples": 16, "seconds": 0.1, "evals": 9, "lost_seconds": 0.0,
             "created": lines[0]["created"]},
        ),
        "clocks", "evals",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", FORGERIES)
def test_a_forgery_is_found_although_the_chain_was_made_anew(runs: Path, ask: run.Ask, what: str):
    trial, change, kind, field = FORGERIES[what]
    forge(record(runs, trial), change, relink=True)
    audit = run_audit([runs], ask=ask)
    assert (kind, field) in said(audit)
    assert "chain" not in {finding.kind for finding in audit.all_findings()}


def removed(lines: Lines) -> Lines:
    return [*lines[:4], *lines[5:]]


def doubled(lines: Lines) -> Lines:
    return [*lines[:5], lines[4], *lines[5:]]


def exchanged(lines: Lines) -> Lines:
    return [*lines[:4], lines[5], lines[4], *lines[6:]]


def shortened(lines: Lines) -> Lines:
    return [*lines[:-2], lines[-1]]


@pytest.mark.parametrize("relink", [False, True])
@pytest.mark.parametrize("change", [removed, doubled, exchanged, shortened])
def test_evals_taken_out_doubled_or_exchanged_are_found(
    runs: Path, ask: run.Ask, change: Callable[[Lines], Lines], relink: bool
):
    forge(record(runs, SLOW), change, relink=relink)
    found = run_audit([runs], ask=ask).all_findings()
    assert {finding.path for finding in found} == {record(runs, SLOW).resolve()}
    kinds = {finding.kind for finding in found}
    assert kinds & {"grid", "clocks", "crossing"} if relink else "chain" in kinds


def test_a_trial_that_is_another_s_copy_is_found(runs: Path, ask: run.Ask):
    shutil.rmtree(runs / OTHER)
    shutil.copytree(runs / FAST, runs / OTHER)
    forge(record(runs, OTHER), at(0, "trial", to=1), relink=True)
    found = said(run_audit([runs], ask=ask))
    assert ("duplicate", "parameters_sha256") in found
    assert ("seeds", "metrics.valid/loss") in found


def kept(runs: Path, trial: str = FAST) -> list[Path]:
    return sorted((runs / trial / "evaluated").iterdir(), key=lambda path: int(path.name))


def swap(runs: Path) -> None:
    """The parameters of another trial, at the same step."""
    target = kept(runs)[-1]
    shutil.rmtree(target)
    shutil.copytree(kept(runs, OTHER)[-1], target)


def flip(runs: Path) -> None:
    for path in (kept(runs)[-1] / "arrays").rglob("*"):
        if path.is_file():
            path.write_bytes(bytes(byte ^ 1 for byte in path.read_bytes()))


def exchange(runs: Path) -> None:
    """Those of the crossing for those of the end, and the other way round."""
    first, last = kept(runs)
    first.rename(first.parent / "0")
    last.rename(first)
    (first.parent / "0").rename(last)


def a_file(runs: Path) -> None:
    shutil.rmtree(runs / FAST / "evaluated")
    (runs / FAST / "evaluated").write_text("none")


@pytest.mark.parametrize("damage", [swap, flip, exchange, a_file, lambda runs: shutil.rmtree(kept(runs)[0])])
def test_parameters_that_are_not_those_that_were_evaluated_are_found(
    runs: Path, ask: run.Ask, damage: Callable[[Path], None]
):
    damage(runs)
    found = run_audit([runs], ask=ask).all_findings()
    assert ("parameters", "parameters_sha256") in {(finding.kind, finding.field) for finding in found}
    assert {finding.path for finding in found} == {record(runs).resolve()}


def add(path: Path, text: str = "\n") -> Callable[[Path], None]:
    def change(runs: Path) -> None:
        with open(runs / FAST / "source" / path, "a") as file:
            file.write(text)

    return change


def link(runs: Path) -> None:
    (runs / FAST / "source" / "weights.bin").symlink_to("/dev/null")


@pytest.mark.parametrize(
    "damage",
    [
        add(Path("submission.py")),
        add(Path("submission.py"), "\0"),
        add(Path("helper.py")),
        link,
        lambda runs: (runs / FAST / "source" / "submission.py").unlink(),
        lambda runs: shutil.rmtree(runs / FAST / "source"),
    ],
)
def test_a_source_that_was_changed_is_found(runs: Path, ask: run.Ask, damage: Callable[[Path], None]):
    damage(runs)
    found = run_audit([runs], ask=ask).all_findings()
    assert {finding.kind for finding in found} == {"source"}
    assert {finding.path for finding in found} == {(runs / FAST / "source").resolve()}


def edit_campaign(runs: Path, change: Callable[[Any], None]) -> None:
    data = json.loads((runs / "campaign.json").read_text())
    change(data)
    (runs / "campaign.json").write_text(json.dumps(data))


def test_a_target_that_was_moved_in_the_campaign_is_found(runs: Path, ask: run.Ask):
    edit_campaign(runs, lambda data: data["ruleset"]["workloads"]["toy"]["target"].update(value=0.4))
    found = run_audit([runs], ask=ask).all_findings()
    assert ("rules", "ruleset_sha256", (runs / "campaign.json").resolve()) in {(f.kind, f.field, f.path) for f in found}
    assert ("target", "target") in {(f.kind, f.field) for f in found}


def test_rules_of_a_campaign_are_those_of_the_installed_ruleset(runs: Path):
    campaign = read_runs([runs]).campaigns[0]
    demo = load_ruleset("demo")

    def found(ruleset: Any) -> set[str | None]:
        return {f.field for f in check_campaign(replace(campaign, ruleset=ruleset, ruleset_sha256=ruleset.sha256))}

    name = next(iter(demo.workloads))
    rules = demo.workloads[name]
    assert found(demo) == set()
    more = replace(demo, workloads={**demo.workloads, name: replace(rules, budget=2 * rules.budget)})
    assert found(more) == {f"ruleset.workloads.{name}.budget"}
    assert found(replace(demo, confirmation=demo.confirmation + 1)) == {"ruleset.confirmation"}
    assert found(replace(demo, matmul_precision="bfloat16")) == {"ruleset.matmul_precision"}
    parts = replace(demo, workloads={**demo.workloads, name: replace(rules, accumulate=2)})
    assert found(parts) == {f"ruleset.workloads.{name}.accumulate"}
    assert found(replace(parts, modified=("remat: true",))) == {f"ruleset.workloads.{name}.accumulate"}
    assert found(replace(parts, modified=("accumulate: 2",))) == set()
    board = demo.external
    assert board is not None
    fewer = replace(demo, external=replace(board, studies=board.studies + 1))
    assert found(fewer) == {"ruleset.external"}
    assert found(replace(fewer, modified=(f"studies: {board.studies + 1}",))) == set()


def test_a_header_that_saves_memory_otherwise_than_the_campaign_says_is_found_with_both(some: AuditedTrial):
    campaign = some.campaign
    assert campaign is not None
    toy = campaign.ruleset.workloads["toy"]
    says = replace(campaign.ruleset, workloads={"toy": replace(toy, accumulate=4)})
    digest = {"ruleset_sha256": says.sha256}

    def found(run: dict[str, Any], **asked: Any) -> list[tuple[str | None, object, object]]:
        header = replace(some.record, run=replace(some.run, **digest, **run))
        trial = replace(some, record=header, campaign=replace(campaign, ruleset=says, **digest, **asked))
        return [(finding.field, finding.expected, finding.found) for finding in check_rules(trial)]

    assert found({}) == [("accumulate", 4, 1)]
    assert found({"accumulate": 4}) == []
    assert found({"accumulate": 4, "remat": True}) == [("remat", False, True)]
    assert found({"accumulate": 2, "remat": True}, accumulate=2, remat=True) == []


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, '{"schema":1,"kind":"campaign"}', '"\\ud800"', "\0"])
def test_a_broken_campaign_is_a_finding(runs: Path, ask: run.Ask, text: str):
    (runs / "campaign.json").write_text(text)
    found = run_audit([runs], ask=ask).all_findings()
    assert ("malformed", (runs / "campaign.json").resolve()) in {(f.kind, f.path) for f in found}


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\n", b"{}\n", b"[]\n", b'{"schema":2}\n'])
def test_a_broken_record_is_a_finding(runs: Path, ask: run.Ask, content: bytes):
    record(runs).write_bytes(content)
    audit = run_audit([runs], ask=ask)
    assert [(f.kind, f.path) for f in audit.all_findings()] == [("malformed", record(runs).resolve())]
    assert len(audit.trials) == 2


def test_a_trial_in_another_s_place_is_found(runs: Path, ask: run.Ask):
    (runs / OTHER).rename(runs / FAST.replace("trial_0", "trial_7"))
    assert {f.kind for f in run_audit([runs], ask=ask).all_findings()} == {"place"}


def test_records_of_before_there_were_chains_are_clean_and_it_is_said(runs: Path, ask: run.Ask):
    for path in runs.rglob("record.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        old = [{k: v for k, v in line.items() if k not in ("prev", "self", "parameters_sha256")} for line in lines]
        path.write_text("".join(json.dumps(line) + "\n" for line in old))
    audit = run_audit([runs], ask=ask)
    assert audit.all_findings() == []
    assert "3 records have no chain" in audit.notes[0]


def test_records_made_of_algoperf_s_logs_are_left_out_and_it_is_said(runs: Path, ask: run.Ask, tmp_path: Path):
    path = tmp_path / "imported" / "record.jsonl"
    path.parent.mkdir()
    shutil.copy(record(runs), path)
    blank = {"api": "algoperf", "workload_sha256": "", "submission_sha256": ""}
    forge(path, lambda lines: lines[0].update(blank), relink=True)
    audit = run_audit([tmp_path / "imported"], ask=ask)
    assert (audit.trials, audit.all_findings()) == ([], [])
    assert "AlgoPerf's logs" in audit.notes[0]
    shutil.copy(path, record(runs))  # but not where a campaign asked for the trial
    assert ("workload", "workload_sha256") in said(run_audit([runs], ask=ask))


def test_a_trial_that_is_still_running_is_no_finding(runs: Path, ask: run.Ask):
    lines = record(runs).read_text().splitlines(keepends=True)
    record(runs).write_text("".join(lines[:3]) + lines[3][:20])
    audit = run_audit([runs], ask=ask)
    assert audit.all_findings() == []
    assert "3 records, 1 of them without a result" in audit.notes[0]


def test_an_evaluator_that_dies_is_a_finding_and_the_records_are_read_all_the_same(runs: Path):
    forge(record(runs), at(0, "budget", to=1.0), relink=False)
    died = run.process_of(("sh", "-c", "echo no memory >&2; exit 9"))
    audit = run_audit([runs], ask=died)
    assert {("recompute", None), ("rules", "budget"), ("chain", "prev")} <= said(audit)
    assert any("ended with 9: no memory" in finding.message for finding in audit.findings)


def test_a_folder_without_runs_is_a_user_s_mistake(tmp_path: Path):
    with pytest.raises(UserError, match="nothing to audit"):
        run_audit([tmp_path])
    with pytest.raises(UserError, match="no folder"):
        run_audit([tmp_path / "none"])


# The grid, on trials of which only the charges matter.


def trial_with(trial: AuditedTrial, charges: list[tuple[int, int]], every: float, budget: float) -> AuditedTrial:
    """The trial with evals at these (step, examples)."""
    first = trial.record.evals[0]
    evals = tuple(replace(first, step=step, examples=examples) for step, examples in charges)
    header = replace(trial.run, eval_every=every, budget=budget)
    lines = (trial.lines[0], *([trial.lines[1]] * len(evals)))
    return AuditedTrial(
        folder=trial.folder,
        record=replace(trial.record, run=header, evals=evals, end=None),
        lines=lines,
        campaign=None,
    )


def honest(sizes: Iterator[int], each_eval: int, every: float, budget: float) -> list[tuple[int, int]]:
    """Evals of a trial whose steps have these sizes, by the words of rule 4."""
    step = examples = 0
    found = [(0, 0)]
    while examples < budget:
        passed = math.floor(examples / every)
        goal = min((passed + 1) * every, budget)
        while examples < goal:
            step, examples = step + 1, examples + next(sizes)
        examples += each_eval
        found.append((step, examples))
    return found


@pytest.fixture(scope="module")
def some(untouched: Path) -> AuditedTrial:
    return read_runs([untouched / FAST]).trials[0]


@settings(max_examples=200)
@given(st.integers(1, 64), st.integers(0, 200), st.integers(1, 300), st.floats(1, 12), st.booleans(), st.data())
def test_a_grid_that_was_kept_is_never_faulted(
    some: AuditedTrial, default: int, each_eval: int, every: int, times: float, vary: bool, data: st.DataObject
):
    seed = data.draw(st.randoms(use_true_random=False))
    size = data.draw(st.integers(default, 4 * default))
    sizes = iter(lambda: seed.randint(default, 4 * default) if vary else size, None)
    charges = honest(sizes, each_eval, every, budget := float(int(every * times)))
    assert [
        f for f in check_grid(trial_with(some, charges, every, budget), default) if not (vary and len(charges) < 5)
    ] == []


@given(st.integers(1, 64), st.integers(2, 40), st.integers(4, 12), st.data())
def test_an_eval_that_was_taken_out_leaves_a_hole_in_the_grid(
    some: AuditedTrial, size: int, steps: int, points: int, data: st.DataObject
):
    every = size * steps
    charges = honest(iter(lambda: size, None), 0, every, every * points)
    gap = data.draw(st.integers(1, points - 1))
    holed = [*charges[:gap], *charges[gap + 1 :]]
    assert list(check_grid(trial_with(some, holed, every, every * points), size))


def test_an_eval_that_a_whole_interval_of_seconds_is_missing_before_is_found(some: AuditedTrial):
    first = some.record.evals[0]
    times = [0.0, 1.2, 2.01, 3.02, 4.01, 6.02, 7.01]
    evals = tuple(replace(first, step=100 * i, examples=1600 * i, seconds=s) for i, s in enumerate(times))
    header = replace(some.run, clock="seconds", eval_every=1.0, budget=7.0)
    trial = AuditedTrial(
        folder=some.folder,
        record=replace(some.record, run=header, evals=evals, end=None),
        lines=(some.lines[0], *([some.lines[1]] * len(evals))),
        campaign=None,
    )
    assert [(f.line, f.field) for f in check_grid(trial, 16)] == [(7, "seconds")]
    whole = replace(trial, record=replace(trial.record, evals=evals[:5]), lines=trial.lines[:6])
    assert list(check_grid(whole, 16)) == []


# Across a board.


def with_end(trial: AuditedTrial, number: int, *, seconds: float, **header: Any) -> AuditedTrial:
    """Another trial of the board, which took so many seconds."""
    assert trial.record.end is not None
    run_line = replace(trial.run, trial=number, **header)
    evals = tuple(replace(line, parameters_sha256=None) for line in trial.record.evals)
    end = replace(trial.record.end, seconds=seconds, compile_seconds=0.0)
    return replace(trial, record=replace(trial.record, run=run_line, end=end, evals=evals))


def test_a_trial_that_is_several_times_faster_than_its_like_is_found(some: AuditedTrial):
    alike = [with_end(some, i, seconds=10.0 + i) for i in range(4)]
    assert list(check_board(alike)) == []
    found = list(check_board([*alike, with_end(some, 4, seconds=1.1)]))
    assert [(f.kind, f.field) for f in found] == [("rate", "seconds")]


def test_memory_is_saved_alike_on_a_workload_and_by_the_ruleset_on_another(some: AuditedTrial):
    plain = [with_end(some, i, seconds=10.0) for i in range(2)]
    others = [with_end(some, i, seconds=10.0, workload="other", accumulate=8) for i in range(2)]
    assert list(check_board([*plain, *others])) == []
    found = check_board([*plain, *others, with_end(some, 2, seconds=10.0, accumulate=8)])
    assert [(finding.kind, finding.field) for finding in found] == [("environment", "accumulate")]


def test_other_hardware_counts_under_the_seconds_clock_alone(some: AuditedTrial):
    other = {"hardware": {**some.run.hardware, "processor": "another"}}
    for clock, kinds in (("seconds", {"hardware"}), ("examples", set[str]())):
        trials = [
            *(with_end(some, i, seconds=1.0, clock=clock) for i in (0, 1)),
            with_end(some, 2, seconds=1.0, clock=clock, **other),
        ]
        assert {f.kind for f in check_board(trials)} == kinds


# How close is close enough.


def test_bits_must_agree_on_the_same_machine_and_with_the_same_packages_alone(some: AuditedTrial):
    here, packages = some.run.hardware, some.run.packages
    assert tolerance(some.run, here, packages).exact
    assert tolerance(some.run, {**here, "memory_bytes": 1, "system": "another"}, packages).exact
    assert "other cores" in str(tolerance(some.run, {**here, "cores": 99}, packages))
    assert "other jax" in str(tolerance(some.run, here, {**packages, "jax": "0"}))
    assert tolerance(some.run, {**here, "platform": "gpu"}, packages).relative > 1e-3
    gpu = replace(some.run, hardware={**here, "platform": "gpu"})
    assert not tolerance(gpu, gpu.hardware, packages).exact


@pytest.mark.parametrize(
    ("old", "new", "exact", "near"),
    [
        (0.5, 0.5, True, True),
        (math.nan, math.nan, True, True),
        (0.5, math.nan, False, False),
        (0.5, 0.5 + 1e-9, False, True),
        (0.50, 0.515, False, True),
        (0.50, 0.53, False, False),
        (1e6, 1e6 + 500, False, True),
    ],
)
def test_a_tolerance_holds_for_rounding_and_for_a_row_or_two(old: float, new: float, exact: bool, near: bool):
    assert agree(old, new, Tolerance((), 0.0, 0), rows=100) == exact
    assert agree(old, new, Tolerance(("cores",), 1e-3, 2), rows=100) == near


# The search space, from the text alone.


@pytest.mark.parametrize(
    ("text", "space"),
    [
        ("SEARCH_SPACE = {'a': LogUniform(1e-3, 1.0, default=0.1)}", {"a": LogUniform(1e-3, 1.0, default=0.1)}),
        ("SEARCH_SPACE = {'a': t.Integers(low=-1, high=3)}", {"a": Integers(-1, 3)}),
        ("SEARCH_SPACE: dict = {'a': Choice(('x', 2, True)), 'b': Uniform(0, 1)}", None),
        ("SEARCH_SPACE = [{'a': 1.0}, {'a': 2.0}]", [{"a": 1.0}, {"a": 2.0}]),
        ("SEARCH_SPACE = {'a': LogUniform(10**-3, 1.0)}", None),
        ("SEARCH_SPACE = {'a': open('x')}", None),
        ("SEARCH_SPACE = space()", None),
        ("SEARCH_SPACE = {**other}", None),
        ("SEARCH_SPACE = {'a': Uniform(1, 2)}\nSEARCH_SPACE = {}", None),
        ("SEARCH_SPACE = {'a': Uniform(2, 1)}", None),
        ("from other import SEARCH_SPACE", None),
        ("SEARCH_SPACE = (", None),
    ],
)
def test_a_search_space_is_read_where_it_is_written_out_and_no_code_is_run(tmp_path: Path, text: str, space: Any):
    if "Choice" in text:
        space = {"a": Choice(("x", 2, True)), "b": Uniform(0, 1)}
    path = tmp_path / "submission.py"
    path.write_text(text)
    assert search_space(Source("mine", path)) == space


# Trials that are run again.


EXACT, NEAR = Tolerance((), 0.0, 0), Tolerance(("processor",), 1e-3, 2)


def again(trial: AuditedTrial, change: Callable[[EvalLine], EvalLine] = lambda line: line, **end: Any) -> Any:
    assert trial.record.end is not None
    evals = tuple(change(line) for line in trial.record.evals)
    return replace(trial.record, evals=evals, end=replace(trial.record.end, **end))


def moved(share: float) -> Callable[[EvalLine], EvalLine]:
    def change(line: EvalLine) -> EvalLine:
        if line.step == 0:
            return line
        return replace(line, metrics={name: value * (1 + share) for name, value in line.metrics.items()})

    return change


def test_a_trial_that_comes_out_again_is_clean_and_its_time_does_not_matter(some: AuditedTrial):
    assert list(retime.compare(some, again(some), EXACT, 1.5)) == []
    slower = again(some, lambda line: replace(line, seconds=100 * line.seconds), seconds=1e6)
    assert list(retime.compare(some, slower, EXACT, 1.5)) == []


def test_a_trial_that_comes_out_differently_is_named_by_its_first_eval_that_does(some: AuditedTrial):
    (found,) = retime.compare(some, again(some, moved(1e-6)), EXACT, 1.5)
    assert (found.kind, found.line) == ("rerun", some.eval_lines[1])
    assert str(found.field).startswith("metrics.")
    assert list(retime.compare(some, again(some, moved(1e-6)), NEAR, 1.5)) == []
    assert list(retime.compare(some, again(some, moved(0.9)), NEAR, 1.5)) != []
    other_steps = again(some, lambda line: replace(line, examples=2 * line.examples))
    assert [f.field for f in retime.compare(some, other_steps, NEAR, 1.5)] == ["step"]
    assert [f.field for f in retime.compare(some, again(some, status="budget"), EXACT, 1.5)] == ["status"]
    assert [f.field for f in retime.compare(some, again(some, step=1), EXACT, 1.5)] == ["step"]
    assert [f.field for f in retime.compare(some, again(some, crossing=None), EXACT, 1.5)] == ["crossing"]
    assert [f.field for f in retime.compare(some, again(some, examples_exact=False), EXACT, 1.5)] == ["examples_exact"]


def test_times_are_compared_by_a_factor_under_the_seconds_clock_on_the_same_machine(some: AuditedTrial):
    timed = with_end(some, 0, seconds=10.0, clock="seconds")
    crossing = timed.record.end and timed.record.end.crossing
    assert crossing is not None
    for factor, fields in ((1.2, []), (2.0, ["seconds", "crossing"])):
        slower = again(timed, seconds=10.0 * factor, crossing=replace(crossing, charge=crossing.charge * factor))
        assert [f.field for f in retime.compare(timed, slower, EXACT, 1.5)] == fields
        assert list(retime.compare(timed, slower, NEAR, 1.5)) == []


def test_trials_to_run_again_are_drawn_by_a_seed_among_those_with_a_result(runs: Path):
    lines = record(runs).read_text().splitlines(keepends=True)
    record(runs).write_text("".join(lines[:3]))
    trials = read_runs([runs]).trials
    drawn = {tuple(trial.name for trial in retime.choose(trials, 1, seed)) for seed in range(20)}
    assert drawn == {("fast/toy/study_0/trial_1",), ("slow/toy/study_0/trial_0",)}
    assert len(retime.choose(trials, 9, 0)) == 2


# The command.


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, ask: run.Ask, capsys: pytest.CaptureFixture[str]) -> Any:
    def audit(*arguments: str) -> tuple[int, str]:
        return cli.main(["audit", *arguments]), capsys.readouterr().out

    monkeypatch.setattr(run, "process_of", lambda evaluator: ask)
    return audit


def test_the_command_is_quiet_where_all_is_well_and_names_what_is_not(runs: Path, command: Any):
    code, out = command(str(runs))
    assert (code, out.splitlines()[-1]) == (0, "3 trials audited: nothing found")
    assert all(line.startswith("note: ") for line in out.splitlines()[:-1])
    forge(record(runs), at(0, "budget", to=9.0), relink=True)
    code, out = command(str(runs), str(runs / FAST))
    assert code == 1
    first, *_, last = out.splitlines()
    assert first.startswith(
        f"{record(runs).resolve()}:1: budget: not what campaign.json says (expected 3200.0, found 9.0); "
    )
    assert last.startswith("3 trials audited: ")


def test_json_holds_every_trial_and_finding(runs: Path, command: Any):
    forge(record(runs), at(0, "budget", to=9.0), relink=True)
    code, out = command(str(runs), "--format", "json")
    data = json.loads(out)
    assert (code, data["clean"], len(data["trials"])) == (1, False, 3)
    found = [finding for trial in data["trials"] for finding in trial["findings"]]
    assert {"rules"} <= {finding["kind"] for finding in found}
    assert all(finding["advice"] == ADVICE[finding["kind"]] for finding in found)
    assert [trial["compared"] for trial in data["trials"]] == ["bit for bit"] * 3


@pytest.mark.parametrize("wrong", [("--retime", "-1"), ("--factor", "1")])
def test_numbers_that_make_no_sense_are_refused(runs: Path, command: Any, wrong: tuple[str, str]):
    assert command(str(runs), *wrong)[0] == 2


def test_a_finding_says_where_what_and_what_to_do():
    finding = Finding(
        kind="chain", message="broken", path=Path("r"), line=3, field="prev", expected="a" * 200, found=None
    )
    text = str(finding)
    assert text.startswith("r:3: prev: broken (expected aaa")
    assert text.endswith(ADVICE["chain"])
    assert "a" * 101 not in text
    assert printable("\x1b[2J\ud800 ö\n") == "\\x1b[2J\\ud800 ö\\n"


def test_a_chain_made_by_the_tests_is_the_chain_of_the_format(untouched: Path):
    lines = [json.loads(line) for line in record(untouched).read_text().splitlines()]
    assert chained(lines) == record(untouched).read_text()
