"""A sweep's specification, its ledger, and what tuning makes of its rows."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from timetrial.errors import UserError
from timetrial.sweeps.cell import missing, row_of, winner
from timetrial.sweeps.ledger import Cell, Row, Trial, open_folder, read_folder
from timetrial.sweeps.spec import Sweep, from_json, load_spec, points, points_of

SPEC = {
    "name": "small",
    "description": "",
    "seed": 0,
    "optimizers": ["adam", "sgd"],
    "problems": [{"name": "rosenbrock", "steps": 20, "evals": 2, "lanes": 4, "loop": "scan"}],
    "schedules": ["constant", "cosine"],
    "budgets": [1, 2, 3],
    "reruns": 2,
}
REPOSITORY = Path(__file__).parents[2]


def sweep(**changes: Any) -> Sweep:
    return from_json({**SPEC, **changes}, where="here")


def row(trial: Trial, best: float, **changes: Any) -> Row:
    given: dict[str, Any] = {
        "status": "completed",
        "initial": 9.0,
        "best_step": 10,
        "final": best,
        "test": best + 1,
        **changes,
    }
    return Row(trial.schedule, trial.point, trial.seed, best=best, **given)


def rows(**bests: tuple[float, ...]) -> dict[Trial, Row]:
    """The tuning trials' rows: of each schedule the best metric by point."""
    trials = [row(Trial(s, i, 0), best) for s, values in bests.items() for i, best in enumerate(values)]
    return {each.trial: each for each in trials}


def test_the_committed_specifications_are_the_study_s_grid_and_its_reduction():
    full, reduced = (
        load_spec(REPOSITORY / "sweeps" / f"{n}.toml") for n in ("crowded_valley", "crowded_valley_reduced")
    )
    assert full.configurations == reduced.configurations == 1920
    assert full.most_trials == 53_760
    assert full.budgets == (1, 25, 50, 75)
    assert reduced.budgets == (1, 5, 10, 15)
    assert max(problem.steps for problem in reduced.problems) <= 500


def test_a_budget_of_one_is_the_defaults_and_larger_ones_are_prefixes_of_the_draws():
    assert list(points_of(1)) == [0]
    assert list(points_of(3)) == [1, 2, 3]
    few, many = points(sweep(), "adam"), points(sweep(budgets=[1, 50]), "adam")
    assert few[0] == {"learning_rate": 0.001, "b1": 0.9, "b2": 0.999}
    assert few == many[:4]
    assert len({point["learning_rate"] for point in many}) == 51


def test_the_draws_fill_their_bounds_evenly_in_logarithms():
    drawn = [math.log10(float(p["learning_rate"])) for p in points(sweep(budgets=[1, 2000]), "sgd")[1:]]
    tenths = Counter(int((x + 4) / 4 * 10) for x in drawn)
    assert set(tenths) == set(range(10))
    assert all(abs(n - 200) < 70 for n in tenths.values())  # five standard deviations


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budgets": []}, "budgets must be a list of at least one"),
        ({"budgets": [0]}, "budgets must be at least 1"),
        ({"budgets": [5, 5]}, "budgets has something twice"),
        ({"reruns": -1}, "reruns must be"),
        ({"problems": [{**SPEC["problems"][0], "evals": 3}]}, "20 steps, which 3 evals do not divide"),  # type: ignore[index]
        ({"problems": [{**SPEC["problems"][0], "stepz": 3}]}, "'stepz', which means nothing"),  # type: ignore[index]
    ],
)
def test_what_is_wrong_with_a_specification_is_named(changes: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        sweep(**changes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optimizers = [", "no TOML file"),
        ("optimizer = ['adam']", "no key 'optimizer'.*did you mean 'optimizers'"),
        ("optimizers = ['adma']", "no optimizer 'adma'.*did you mean 'adam'"),
        ("schedules = ['cosin']", "no schedule 'cosin'.*did you mean"),
        ("budgets = 3", "budgets must be a list"),
        ("steps = 'many'", "steps must be"),
        ("problems = { branin = 3 }", "problems must be a list of names, or a table"),
        ("problems = ['brannin']", "no problem 'brannin'.*did you mean 'branin'"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, text: str, message: str):
    whole = {
        "optimizers": "['adam']",
        "schedules": "['cosine']",
        "budgets": "[1]",
        "steps": "4",
        "evals": "1",
        "problems": "{ branin = {} }",
    }
    whole.pop(text.split(" ")[0], None)
    path = tmp_path / "spec.toml"
    path.write_text("\n".join([text, *(f"{key} = {value}" for key, value in whole.items())]))
    with pytest.raises(UserError, match=message):
        load_spec(path)


def test_the_winner_of_a_budget_is_the_first_of_its_best_points():
    held = rows(constant=(1.0, 7.0, 5.0, 5.0))
    assert [winner(held, "constant", budget, better="lower") for budget in (1, 2, 3)] == [0, 2, 2]
    assert [winner(held, "constant", budget, better="higher") for budget in (1, 2, 3)] == [0, 1, 1]


def test_what_is_missing_is_tuning_first_and_then_each_winner_once_for_each_seed():
    wanted = sweep()
    first = missing(wanted, {}, better="lower")
    assert first == [Trial(s, p, 0) for s in ("constant", "cosine") for p in range(4)]
    held = rows(constant=(4.0, 3.0, 2.0, 1.0), cosine=(4.0, 1.0, 2.0, 3.0))
    again = missing(wanted, held, better="lower")
    expected = [("constant", 0), ("constant", 2), ("constant", 3), ("cosine", 0), ("cosine", 1)]
    assert again == [Trial(s, p, seed) for s, p in expected for seed in (1, 2)]
    held.update({trial: row(trial, 1.0) for trial in again})
    assert missing(wanted, held, better="lower") == []


def test_a_row_tells_the_best_eval_and_the_test_metric_there():
    values = [(9.0, 90.0), (3.0, 30.0), (2.0, 20.0), (math.nan, math.nan)]
    curve = [{"valid/loss": v, "test/loss": t} for v, t in values]
    found = row_of(Trial("cosine", 1, 0), curve, metric="loss", better="lower", stretch=10)
    assert (found.status, found.initial, found.best, found.best_step, found.test) == ("diverged", 9.0, 2.0, 20, 20.0)
    found = row_of(Trial("cosine", 1, 0), curve[:3], metric="loss", better="higher", stretch=10)
    assert (found.status, found.best, found.best_step, found.final) == ("completed", 9.0, 0, 2.0)


def test_a_row_has_the_digits_that_the_results_show():
    curve = [{"valid/loss": 123456.789012, "test/loss": 1 / 3}]
    found = row_of(Trial("cosine", 1, 0), curve, metric="loss", better="lower", stretch=10)
    assert (found.best, found.test) == (123456.8, 0.3333333)


def test_a_process_that_was_killed_while_it_wrote_loses_its_last_line_alone(tmp_path: Path):
    cell = Cell(tmp_path, "branin", "adam")
    one, two = (row(Trial("constant", i, 0), float(i), final=math.nan, status="diverged") for i in (1, 2))
    cell.append([one], seconds=1.0)
    path = cell.folder / "lines.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + json.dumps({"seconds": 1.0, "rows": []}).encode()[:-5])
    assert list(cell.rows()) == [one.trial]
    cell.append([two], seconds=2.0)
    assert list(cell.rows()) == [one.trial, two.trial]
    assert path.read_bytes().startswith(whole)
    assert math.isnan(cell.rows()[two.trial].final)


def test_a_folder_is_taken_up_by_its_own_sweep_alone(tmp_path: Path):
    open_folder(sweep(), tmp_path / "out")
    open_folder(sweep(), tmp_path / "out")
    assert read_folder(tmp_path / "out") == sweep()
    with pytest.raises(UserError, match="another specification"):
        open_folder(sweep(seed=1), tmp_path / "out")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something else"):
        open_folder(sweep(), tmp_path)
    with pytest.raises(UserError, match="is no sweep"):
        read_folder(tmp_path)
