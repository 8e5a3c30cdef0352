"""The cockpit says what the gauges show, with its evidence, and shows nothing that is not there."""

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from synthetic_looks import ARRAYS, everything, looked, write_looks
from timetrial_scoring.cockpit import command
from timetrial_scoring.cockpit.drawing import Scale, Series, heat_map, line_chart
from timetrial_scoring.cockpit.hints import hints
from timetrial_scoring.cockpit.page import render_page
from timetrial_scoring.cockpit.run import read_run

from timetrial.cli import main


def said(folder: Path, values: Any, **options: Any) -> list[str]:
    return [f"{hint.says} | {hint.because}" for hint in hints(looked(folder, values, **options))]


@pytest.mark.parametrize(
    ("alpha", "expected"),
    [
        (lambda i: -0.2 if i % 5 == 0 else 0.4, "Step size too large: .* Alpha > 0 for 80% of 40 looks, median 0.40"),
        (lambda i: 1.5, "Step size far too large: .* Alpha > 1 for 100% of 40 looks"),
        (lambda i: -0.9, "Step size small: .* -1 <= Alpha < -0.75 for 100%"),
    ],
)
def test_a_step_size_that_does_not_fit_is_named_with_the_share_of_looks(tmp_path: Path, alpha: Any, expected: str):
    (hint,) = said(tmp_path, {"alpha": alpha})
    assert re.search(expected, hint)


@pytest.mark.parametrize(
    "alpha",
    [lambda i: -0.3 if i % 4 == 0 else 0.4, lambda i: -0.2, lambda i: float("nan")],
    ids=["mixed", "short", "none"],
)
def test_a_step_size_that_fits_well_enough_is_not_spoken_of(tmp_path: Path, alpha: Any):
    assert said(tmp_path, {"alpha": alpha}) == []


def test_a_few_looks_say_nothing(tmp_path: Path):
    assert said(tmp_path, {"alpha": lambda i: 2.0, "cosine": lambda i: -1.0}, looks=7) == []


def test_updates_that_point_uphill_are_named(tmp_path: Path):
    (hint,) = said(tmp_path, {"cosine": lambda i: 0.5 if i < 20 else -0.2})
    assert "uphill" in hint
    assert "100% of 20 looks in the second half, median -0.20" in hint


@pytest.mark.parametrize(("signal", "expected"), [(1.0, "mostly noise"), (1e5, "larger than the noise"), (40.0, None)])
def test_the_batch_size_is_compared_with_the_noise_scale_of_means(tmp_path: Path, signal: float, expected: str | None):
    """Single looks scatter around zero; their mean does not."""
    values = {"gradient_variance": lambda i: 5000.0, "gradient_square": lambda i: signal + (30.0 if i % 2 else -30.0)}
    found = said(tmp_path, values)
    assert len(found) == (expected is not None)
    assert (expected or "") in "".join(found)
    if expected == "mostly noise":
        assert "noise scale about 5,000" in found[0]
        assert "batch size 128" in found[0]


def test_a_gradient_without_signal_is_named(tmp_path: Path):
    (hint,) = said(tmp_path, {"early_stopping": lambda i: -2.0 if i < 20 else 0.3})
    assert "no more than noise" in hint


@pytest.mark.parametrize(
    ("quantity", "momentum", "bound"),
    [("preconditioned_max_eigenvalue", "b1", 38 / 0.1), ("hessian_max_eigenvalue", "momentum", 3.8 / 0.1)],
)
def test_the_edge_of_stability_is_that_of_the_optimizer(tmp_path: Path, quantity: str, momentum: str, bound: float):
    """(2 + 2b) / ((1 - b) rate) for Adam, (2 + 2b) / rate for heavy-ball momentum; here b is 0.9."""
    known = {"learning_rate": 0.1, momentum: 0.9}
    (hint,) = said(tmp_path / "at", {quantity: lambda i: bound}, hyperparameters=known)
    assert "edge of stability" in hint
    assert "median 1.00 of it" in hint
    assert said(tmp_path / "below", {quantity: lambda i: 0.5 * bound}, hyperparameters=known) == []
    assert said(tmp_path / "unknown", {quantity: lambda i: bound}, hyperparameters={"learning_rate": 0.1}) == []


def test_a_saddle_is_named(tmp_path: Path):
    values = {"hessian_max_eigenvalue": lambda i: 2.0, "hessian_min_eigenvalue": lambda i: -1.5}
    (hint,) = said(tmp_path, values)
    assert "saddle" in hint


def test_parameters_that_no_gradient_reaches_and_those_that_change_much_are_named(tmp_path: Path):
    arrays = {
        "gradient_norm": lambda i: [0.0, 1.0],
        "update_size": lambda i: [0.01, 1.0],
        "param_norm": lambda i: [1.0, 4.0],
    }
    silent, fast = said(tmp_path, {}, arrays=arrays)
    assert "No gradient reaches some parameters" in silent
    assert f"throughout the second half in {ARRAYS[0]}" in silent
    assert f"{ARRAYS[1]} (0.25)" in fast


def test_the_step_at_which_training_left_the_numbers_is_named_first(tmp_path: Path):
    values = {"probe_loss": lambda i: 1.0 if i < 30 else float("nan"), "alpha": lambda i: 2.0}
    assert "not finite at step 480" in said(tmp_path, values)[0]


def test_the_page_shows_every_gauge_that_has_something_and_no_other(tmp_path: Path):
    full = render_page([read_run(everything(tmp_path / "full"))])
    for title in ("Alpha", "Gradient norm", "CABS", "Gradient elements against parameters", "TIC, diagonal"):
        assert f"<h3>{title}</h3>" in full
    basic = render_page([looked(tmp_path / "basic", {"update_size": lambda i: 1.0}, absent={"cabs": "batch norm"})])
    assert "<h3>Update size</h3>" in basic
    assert "<h3>Gradient norm</h3>" not in basic
    assert "<b>cabs</b>: batch norm" in basic
    assert "<script" not in full
    assert "http://" not in full.replace("http://www.w3.org", "")


def test_two_runs_are_drawn_over_each_other(tmp_path: Path):
    runs = [read_run(everything(tmp_path / name, wide=wide)) for name, wide in (("a", 1.0), ("b", 2.0))]
    page = render_page(runs)
    chart = page[page.index("<h3>Alpha</h3>") :]
    chart = chart[: chart.index("</figure>")]
    assert chart.count("series run0") == chart.count("series run1") == 1
    assert chart.count("<svg") == 1


def test_what_a_run_is_called_cannot_become_markup(tmp_path: Path):
    hostile = "<img src=x onerror=run()>"
    page = render_page([read_run(everything(tmp_path, submission=hostile, absent={hostile: hostile}))])
    assert "<img" not in page


def test_a_trial_that_goes_on_reloads_its_page_and_one_that_is_over_does_not(tmp_path: Path):
    run = read_run(everything(tmp_path))
    assert run.over
    assert 'http-equiv="refresh"' in render_page([run], live=True)
    assert 'http-equiv="refresh"' not in render_page([run])


def test_the_command_finds_the_only_trial_below_a_folder_and_writes_the_page_beside_its_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    trial = everything(tmp_path / "runs" / "sgd" / "toy")
    assert main(["cockpit", str(tmp_path / "runs")]) == 0
    assert capsys.readouterr().out.strip() == str(trial / "cockpit.html")
    assert "timetrial cockpit" in (trial / "cockpit.html").read_text()
    assert [path.name for path in trial.iterdir() if path.suffix == ".tmp"] == []


def test_the_command_says_what_is_missing_or_too_many(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["cockpit", str(tmp_path)]) == 2
    assert "--instruments" in capsys.readouterr().err
    for name in ("a", "b"):
        write_looks(tmp_path / name, {})
    assert main(["cockpit", str(tmp_path)]) == 2
    assert "2 trials below" in capsys.readouterr().err
    assert main(["cockpit", *[str(tmp_path / "a")] * 3]) == 2
    assert "one trial, or two" in capsys.readouterr().err


def test_live_waits_for_the_first_look_follows_the_trial_and_ends_with_it(tmp_path: Path):
    folder = tmp_path / "out"
    pages: list[str] = []

    def wait(seconds: float) -> None:
        """What happens between two looks of the cockpit."""
        if len(pages) == 0:
            write_looks(folder, {"alpha": lambda i: 0.5}, status=None)
        elif len(pages) == 1:
            for path in folder.glob("*.jsonl"):
                path.unlink()
            write_looks(folder, {"alpha": lambda i: 0.5})
        pages.append((folder / "cockpit.html").read_text() if (folder / "cockpit.html").exists() else "")

    assert command._live([folder], None, wait=wait) == 0
    assert pages[0] == ""
    assert 'http-equiv="refresh"' in pages[1]
    assert 'http-equiv="refresh"' not in (folder / "cockpit.html").read_text()


def test_the_terminal_shows_the_newest_values_and_the_hints(tmp_path: Path):
    run = looked(tmp_path, {"alpha": lambda i: 1.0 + i})
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(command._panel([run], tmp_path / "cockpit.html"))
    text = console.export_text()
    assert "40" in text
    assert "Step size far too large" in text


def test_a_chart_holds_each_finite_value_as_a_dot_and_no_other():
    y = np.array([1.0, np.nan, 3.0, np.inf, 2.0])
    chart = line_chart([Series("run", 0, 0, np.arange(5.0), y)], label="x")
    assert chart.count("<circle") == 3
    assert chart.count("<path") == 1


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("values", [[1.0], [1.0, 1.0], [1e-9, 1e9], [5.0, 5.0000001], [0.0, 0.0], [-1.0, 1.0]])
def test_every_value_is_drawn_within_its_chart(values: list[float], log: bool):
    y = np.array(values)
    chart = line_chart([Series("run", 0, 0, np.arange(len(y)) * 1.0, y)], label="x", log=log)
    places = [(float(x), float(y)) for x, y in re.findall(r'cx="([-\d.]+)" cy="([-\d.]+)"', chart)]
    assert len(places) == len(values)
    assert all(0 <= x <= 400 and 0 <= y <= 190 for x, y in places)


@pytest.mark.parametrize("log", [False, True])
def test_ticks_are_round_and_few_and_within_the_range(log: bool):
    scale = Scale(0.003, 700.0, 0.0, 100.0, log)
    ticks = scale.ticks()
    assert 3 <= len(ticks) <= 8
    assert all(0.003 <= tick <= 700 for tick in ticks)
    assert all(tick == float(f"{tick:.2g}") for tick in ticks)


def test_a_heat_map_of_many_looks_has_no_more_columns_than_there_is_room_for():
    picture = heat_map(np.full((1000, 3), 0.5), np.arange(1000.0), ["a", "b", "c"], label="x")
    assert picture.count("<rect") == 3 * 56
