"""What a sweep's report says, against tables small enough to work out by hand."""

import csv
import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from timetrial_scoring.sweeps.figures import figures
from timetrial_scoring.sweeps.load import Results, load_results
from timetrial_scoring.sweeps.numbers import (
    gain_by_budget,
    gain_by_schedule,
    improvement,
    many_or_one,
    progress,
    ranks,
    sensitivity,
)

from timetrial import cli
from timetrial.errors import UserError

Tests = tuple[float, ...]
# By problem, optimizer, schedule and point: the best validation metric on seed 0, and test metrics on seeds 1 and 2.
# Budgets of 1 (the defaults, point 0) and of 2 trials (points 1 and 2).
TABLE: Mapping[tuple[str, str, str, int], tuple[float, Tests]] = {
    ("hill", "a", "constant", 0): (8.0, (8.0, 8.0)),
    ("hill", "a", "constant", 1): (3.0, (6.0, 4.0)),  # chosen of the two: the better by validation
    ("hill", "a", "constant", 2): (4.0, (0.0, 0.0)),
    ("hill", "a", "cosine", 0): (7.0, (7.0, 7.0)),
    ("hill", "a", "cosine", 1): (2.0, (2.0, 2.0)),
    ("hill", "a", "cosine", 2): (9.0, (9.0, 9.0)),
    ("hill", "b", "constant", 0): (4.0, (4.0, 4.0)),
    ("hill", "b", "constant", 1): (6.0, (3.0, 5.0)),
    ("hill", "b", "constant", 2): (6.0, (1.0, 1.0)),  # as good as point 1, which came first
    ("hill", "b", "cosine", 0): (10.0, (10.0, 12.0)),  # worse than untrained
    ("hill", "b", "cosine", 1): (10.0, (math.nan, 10.0)),
    ("hill", "b", "cosine", 2): (10.5, (10.0, 10.0)),
    ("well", "a", "constant", 0): (1e-1, (1e-1, 1e-1)),
    ("well", "a", "constant", 1): (1e-2, (1e-2, 1e-2)),
    ("well", "a", "constant", 2): (1e-1, (1e-1, 1e-1)),
    ("well", "a", "cosine", 0): (1e-2, (1e-2, 1e-2)),
    ("well", "a", "cosine", 1): (1e-4, (1e-4, 1e-4)),
    ("well", "a", "cosine", 2): (1.0, (1.0, 1.0)),
    ("well", "b", "constant", 0): (1.0, (1.0, 1.0)),
    ("well", "b", "constant", 1): (1e-3, (1e-3, 1e-3)),
    ("well", "b", "constant", 2): (1e-1, (1e-1, 1e-1)),
    ("well", "b", "cosine", 0): (1.0, (1.0, 1.0)),
    ("well", "b", "cosine", 1): (1e-2, (1e-2, 1e-2)),
    ("well", "b", "cosine", 2): (1.0, (1.0, 1.0)),
}


def write(folder: Path) -> Path:
    """The table as `timetrial sweep` would leave it. `hill` begins at 10, linear; `well` at 1, logarithmic."""
    spec = {
        "name": "small",
        "description": "by hand",
        "optimizers": ["a", "b"],
        "schedules": ["constant", "cosine"],
        "budgets": [1, 2],
        "reruns": 2,
    }
    problems = {
        "hill": {"metric": "loss", "better": "lower", "scale": "linear", "initial": {"0": 9.0, "1": 11.0}},
        "well": {"metric": "loss", "better": "lower", "scale": "log", "initial": {"0": 1.0}},
    }
    about = {"spec": spec, "configurations": 16, "trials": 72, "training_seconds": 36.0}
    (folder / "sweep.json").write_text(json.dumps({**about, "problems": problems}))
    with (folder / "trials.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(
            ["problem", "optimizer", "schedule", "point", "seed", "status", "best", "best_step", "final", "test"]
        )
        for (problem, optimizer, schedule, point), (best, tests) in TABLE.items():
            status = "diverged" if best > 10 else "completed"
            for seed, test in enumerate((99.0, *tests)):  # of seed 0 the test metric means nothing to anyone
                out.writerow([problem, optimizer, schedule, point, seed, status, best, 10, best, test])
    points = [f"{optimizer},{point},{10.0**-point}" for optimizer in "ab" for point in range(3)]
    (folder / "points.csv").write_text("\n".join(["optimizer,point,learning_rate", *points]) + "\n")
    return folder


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return load_results(write(tmp_path))


def test_a_configuration_is_judged_by_reruns_of_the_point_that_validation_chose(results: Results):
    found = progress(results)
    assert found.winners_opbs[0, 0].tolist() == [[0, 0], [1, 1]]
    assert found.winners_opbs[1, 0].tolist() == [[0, 0], [1, 1]]
    # The best mean on the hill is 2 (a, two trials, cosine), so 10 - 8 s is where share s lies.
    assert found.best_p[0] == pytest.approx(2.0)
    np.testing.assert_allclose(found.shares_opbsr[0, 0, 1, 0], [0.5, 0.75])
    np.testing.assert_allclose(found.shares_opbsr[1, 0, 1, 0], [0.875, 0.625])


def test_a_logarithmic_problem_is_measured_in_ratios(results: Results):
    found = progress(results)
    assert found.best_p[1] == pytest.approx(1e-4)
    np.testing.assert_allclose(found.shares_opbsr[:, 1, 1, 0, 0], [0.5, 0.75])


def test_what_ends_worse_than_it_began_or_nowhere_has_come_no_way(results: Results):
    found = progress(results)
    assert found.shares_opbsr[1, 0, :, 1].tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_the_improvement_is_tuned_less_untuned(results: Results):
    gained = improvement(progress(results))
    # On the hill untuned: a 0.25, b 0.75; tuned: a 0.625, b 0.75.
    np.testing.assert_allclose(gained[:, :, 0], [[0.375, 0.5], [-0.125, 0.0]])
    # In the well untuned: a 0.25, b 0; tuned: a 0.5, b 0.75.
    np.testing.assert_allclose(gained[:, :, 1], [[0.25, 0.5], [0.5, 0.75]])


def test_gains_are_over_the_defaults_and_over_the_first_schedule(results: Results):
    found = progress(results)
    np.testing.assert_allclose(gain_by_budget(found)[:, :, 1], [[0.375, 0.25], [0.0, 0.75]], atol=1e-12)
    np.testing.assert_allclose(gain_by_schedule(found, -1)[:, :, 1], [[0.375, 0.5], [-0.75, -0.25]])
    assert not gain_by_budget(found)[:, :, 0].any()
    assert not gain_by_schedule(found, 0)[:, :, 0].any()


def test_many_untuned_optimizers_are_set_against_one_tuned(results: Results):
    found = many_or_one(results, progress(results))
    # Untuned, validation chooses b on the hill (0.75) and a in the well (0.25).
    assert found.of_untuned == pytest.approx(0.5)
    np.testing.assert_allclose(found.tuned_o, [(0.625 + 0.5) / 2, 0.75])


def test_sensitivity_has_each_tuning_trial_by_its_learning_rate(results: Results):
    held = sensitivity(results)["a"]
    np.testing.assert_allclose(held.rate_n, [1.0, 0.1, 0.01])
    np.testing.assert_allclose(held.share_pn[0], [2 / 8, 7 / 8, 6 / 8])
    np.testing.assert_allclose(held.share_pn[1], [1 / 4, 2 / 4, 1 / 4])
    assert not held.diverged_pn.any()


def test_ranks_are_open_where_one_seed_says_nothing():
    assert ranks(np.array([[0.9], [0.1]])).rank_o2.tolist() == [[1, 2], [1, 2]]


def test_a_difference_that_every_block_shows_makes_a_rank():
    """By paired t tests at 3 degrees of freedom."""
    base = np.array([0.3, 0.7, 0.1, 0.5])
    clear = base + np.array([1.0, 1.1, 0.9, 1.0])  # mean difference 1, standard error 0.041: t = 24.5, p = 0.00015
    assert ranks(np.stack([clear, base])).rank_o2.tolist() == [[1, 1], [2, 2]]
    unclear = base + np.array([1.0, -1.0, 2.0, 0.0])  # 0.5 and 0.645: t = 0.77, p = 0.5
    assert ranks(np.stack([unclear, base])).rank_o2.tolist() == [[1, 2], [1, 2]]


def test_among_optimizers_that_are_alike_false_ranks_are_rare():
    """At most 5 % of 400 boards of 6 by 5 seeds; 34 is where a rate of 5 % has a chance of one in a thousand."""
    rng = np.random.RandomState(0)
    boards = rng.standard_normal((400, 6, 5))
    false = sum(bool((ranks(board).rank_o2 != [1, 6]).any()) for board in boards)
    assert false <= 34


def test_a_sweep_that_is_not_complete_is_not_reported(tmp_path: Path):
    (tmp_path / "sweep.json").write_text(json.dumps({"spec": {}}))
    with pytest.raises(UserError, match="is not complete"):
        load_results(tmp_path)


def test_a_folder_without_results_is_named(tmp_path: Path):
    with pytest.raises(UserError, match="holds no results of a sweep"):
        load_results(tmp_path)
    write(tmp_path)
    (tmp_path / "trials.csv").write_text("problem,optimizer\nhill,a\n")
    with pytest.raises(UserError, match="holds no readable results of a sweep"):
        load_results(tmp_path)


def test_the_report_prints_its_numbers_and_writes_a_page_with_every_figure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert cli.main(["sweep-report", str(write(tmp_path)), "-o", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "16 configurations, 72 trials" in said
    assert "2 trials instead of the defaults gain 31.2 points (median" in said  # of 37.5, 25, 0 and 75
    assert "comes to 50.0 %; one optimizer tuned with 2 trials to 65.6 %" in said
    page = (tmp_path / "out" / "report.html").read_text()
    drawn = figures(results := load_results(tmp_path), progress(results))
    assert page.count("<svg") == len(drawn) == 6
    for figure in drawn:
        assert figure.title in page
        for suffix in (".csv", ".png", ".svg"):
            assert (tmp_path / "out" / "figures" / f"{figure.name}{suffix}").stat().st_size > 0
    gains = list(csv.DictReader((tmp_path / "out" / "figures" / "budgets.csv").read_text().splitlines()))
    assert [float(row["gain"]) for row in gains if row["budget"] == "2"] == pytest.approx([0.375, 0.25, 0.0, 0.75])
