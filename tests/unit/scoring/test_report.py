"""The report shows what scoring found, and nothing else, and no name can become markup."""

import base64
import csv
import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from synthetic_looks import everything
from synthetic_runs import rules, write_campaign
from timetrial_scoring.board import Campaign, Runs, Trial
from timetrial_scoring.claims import with_claims
from timetrial_scoring.report import command, figures
from timetrial_scoring.report.curves import decimate, shorten
from timetrial_scoring.report.data import flat_rows, report_data
from timetrial_scoring.report.page import render_page
from timetrial_scoring.score import Result, score_folder, score_runs
from timetrial_scoring.tables import to_json

from timetrial.errors import UserError
from timetrial.instrument_log import LOG_NAME
from timetrial.ruleset import Ruleset

HOSTILE = "</script ><img src=x onerror=alert(1)>&amp;"


def claimed(folder: Path) -> Result:
    result = score_folder(folder)
    return replace(result, boards=tuple(with_claims(board) for board in result.boards))


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Result:
    pace = {"muon": 0.3, "adamw": 0.4, HOSTILE: 0.5, "sgd": 3.0}
    return claimed(write_campaign(tmp_path_factory.mktemp("runs"), pace, {"prodigy": 0.6, "free": 0.4}, trials=3))


@pytest.fixture(scope="module")
def data(scored: Result) -> dict[str, Any]:
    return report_data(scored)


@pytest.fixture(scope="module")
def page(data: dict[str, Any]) -> str:
    return render_page(data)


class Seen(HTMLParser):
    """The elements and the text of a page, as a browser would see them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, str] = {}
        self._open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "wbr", "br"):
            self._open.append(dict(attrs).get("id") or tag)

    def handle_endtag(self, tag: str) -> None:
        self._open.pop()

    def handle_data(self, data: str) -> None:
        where = self._open[-1] if self._open else ""
        self.text[where] = self.text.get(where, "") + data


def test_the_leaderboard_is_that_of_score(data: dict[str, Any], scored: Result):
    shown = [line for board in data["boards"] for line in board["leaderboard"]]
    assert shown == to_json(scored)["leaderboard"]


def test_the_area_under_a_profile_is_the_score(data: dict[str, Any]):
    for board in data["boards"]:
        scores = {line["submission"]: line["score"] for line in board["leaderboard"]}
        assert [line["submission"] for line in board["profiles"]] == list(scores)
        for line in board["profiles"]:
            ends = [*line["tau"][1:], 4.0]
            steps = zip(line["tau"], ends, line["share"], strict=True)
            area = sum((end - start) * share for start, end, share in steps)
            assert area / 3 == pytest.approx(scores[line["submission"]])


def test_a_run_time_distribution_ends_at_the_share_of_milestones_targets_and_studies_that_were_met(
    data: dict[str, Any], scored: Result
):
    for board, of_score in zip(data["boards"], to_json(scored)["runtime_distributions"], strict=True):
        assert board["tuning"] == of_score["tuning"]
        assert [line["submission"] for line in board["ecdf"]] == list(of_score["shares"]) == board["submissions"]
        for line in board["ecdf"]:
            shares = of_score["shares"][line["submission"]]
            assert len(shares) == 5 * 3 * 3  # workloads, studies, two milestones and the target
            assert (line["budget"][0], line["share"][0]) == (0, 0)
            for budget, height in zip(line["budget"], line["share"], strict=True):
                below = sum(share is not None and share <= budget * 1.001 for share in shares)
                assert height == pytest.approx(below / len(shares), rel=1e-3)
    never = next(line for line in data["boards"][0]["ecdf"] if line["submission"] == "sgd")
    assert 0 < never["share"][-1] < 1, "sgd reaches no target, but some milestones"


def test_without_milestones_or_with_one_trial_a_study_there_is_nothing_to_show_for_them(
    log: Callable[..., Path], ruleset_file: Callable[..., str], rules: dict[str, Any], tmp_path: Path
):
    log("adam", "digits", [(10.0, 0.05)])
    data = report_data(score_folder(tmp_path / "logs", ruleset=ruleset_file(rules)))
    titles = Seen(render_page(data)).text["h3"]
    assert "Training curves" in titles
    assert "Run-time distributions" not in titles
    assert "Sensitivity" not in titles


def test_sensitivity_gives_the_trials_that_reached_and_their_fastest_median_and_slowest(
    log: Callable[..., Path], ruleset_file: Callable[..., str], rules: dict[str, Any], tmp_path: Path
):
    rules["external"]["trials"] = 4
    for trial, seconds in enumerate((10.0, 30.0, 80.0), 1):
        log("adam", "digits", [(seconds, 0.05)], trial=trial)
    log("adam", "digits", [(5.0, 0.5)], trial=4)
    page = render_page(report_data(score_folder(tmp_path / "logs", ruleset=ruleset_file(rules))))
    assert "3 / 4<small>10 · <b>30</b> · 80</small>" in page
    assert "0 / 0" in page


def test_the_bold_curve_crosses_the_target_at_the_time_on_the_board(data: dict[str, Any]):
    for board in data["boards"]:
        times = {(row["submission"], row["workload"]): row["seconds"] for row in board["times"]}
        assert set(times) == {(s, w["name"]) for s in board["submissions"] for w in board["workloads"]}
        for chart in board["curves"]:
            bold = {board["submissions"][line["s"]]: line for line in chart["trials"] if line["best"]}
            assert set(bold) == set(board["submissions"])
            for submission, line in bold.items():
                time = times[submission, chart["workload"]]
                assert (None if line["crossing"] is None else line["crossing"][0]) == (time and shorten(time))


def test_a_curve_is_the_record_s_own(data: dict[str, Any], scored: Result):
    chart = data["boards"][0]["curves"][0]
    trial = next(t for t in scored.runs.trials if t.submission == "muon" and (t.study, t.trial) == (1, 2))
    (line,) = (
        line
        for line in chart["trials"]
        if (data["boards"][0]["submissions"][line["s"]], line["study"], line["trial"]) == ("muon", 1, 2)
    )
    assert line["x"] == pytest.approx(trial.seconds, rel=1e-3)
    assert line["y"] == pytest.approx(trial.metrics["valid/error_rate"], rel=1e-3)


def test_the_matrix_is_what_the_paired_tests_say(data: dict[str, Any], scored: Result):
    board = scored.boards[0]
    assert board.assessment is not None
    assert board.assessment.separation is not None
    shown = data["boards"][0]["separation"]
    assert any(any(row) for row in shown["faster"])
    for i, one in enumerate(shown["submissions"]):
        for j, other in enumerate(shown["submissions"]):
            at = board.names.index(one), board.names.index(other)
            assert shown["faster"][i][j] == board.assessment.separation.faster[at]
            assert shown["p_value"][i][j] == board.assessment.separation.p_value[at]


def test_only_hyperparameters_that_a_submission_varied_are_charted(data: dict[str, Any]):
    external, self_tuned = (board["tuning_points"] for board in data["boards"])
    assert dict(zip(external["names"], external["log"], strict=True)) == {"learning_rate": True, "nesterov": False}
    assert len(external["points"]) == 4 * 5 * 3 * 3
    assert self_tuned["points"] == []


def test_self_tuned_submissions_have_a_section_of_their_own(data: dict[str, Any], page: str):
    assert [(b["tuning"], len(b["submissions"])) for b in data["boards"]] == [("external", 4), ("self", 2)]
    sections = [attributes.get("id") for tag, attributes in Seen(page).elements if tag == "section"]
    assert sections == ["external", "self", "findings", "environment"]


def test_the_environment_names_rules_machine_versions_and_seeds(data: dict[str, Any]):
    environment = {title: dict(rows) for title, rows in data["environment"].items()}
    assert environment["Rules"]["ruleset"].startswith("synthetic, version 1")
    assert environment["Workloads"]["digits"].startswith("error_rate <= 0.1; budget 100 s")
    assert "processor a processor" in environment["Hardware"]["210 trials"]
    assert environment["Packages"]["jax"] == "0.10.2"
    assert environment["Seeds"] == {"campaign seed 7": "210 trials"}


def test_names_from_records_stay_text(page: str, data: dict[str, Any]):
    seen = Seen(page)
    tags = [tag for tag, _ in seen.elements]
    assert "img" not in tags
    assert tags.count("script") == 2
    assert HOSTILE in seen.text["button"]
    assert not set("<>&") & set(seen.text["data"])
    assert json.loads(seen.text["data"]) == json.loads(json.dumps(data))


def test_the_page_needs_nothing_beside_it_and_runs_no_script_but_its_own(page: str):
    seen = Seen(page)
    assert not {"src", "srcset", "data", "action"} & {name for _, attributes in seen.elements for name in attributes}
    assert all(a["href"] is not None and a["href"].startswith("#") for tag, a in seen.elements if tag == "a")
    assert "@import" not in page
    assert "url(" not in page.replace("`url(#", "")
    (policy,) = (a["content"] for _, a in seen.elements if a.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(seen.text["script"].encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def test_one_study_makes_no_claim(tmp_path: Path):
    data = report_data(claimed(write_campaign(tmp_path, {"muon": 0.3, "adamw": 0.5}, studies=1, trials=1)))
    (board,) = data["boards"]
    assert [(line["score_ci"], line["rank_ci"], line["p_first"]) for line in board["leaderboard"]] == [(None,) * 3] * 2
    assert board["separation"] is None
    assert flat_rows(board)["separation"] == []
    seen = Seen(render_page(data))
    assert seen.text["span"].count("no claim") == 6
    assert not any("whisker" in (attributes.get("class") or "") for _, attributes in seen.elements)
    assert "one study supports no order claim" in seen.text["p"]


def test_a_workload_that_nobody_finishes_is_never_in_every_cell(tmp_path: Path):
    data = report_data(claimed(write_campaign(tmp_path, {"muon": 3.0, "adamw": 4.0}, studies=2, trials=1)))
    assert [(row["seconds"], row["ratio"]) for row in data["boards"][0]["times"]] == [(None, None)] * 10
    assert Seen(render_page(data)).text["td"].count("never") == 10


def test_a_board_charged_in_examples_is_data_efficiency_with_seconds_beside_it(tmp_path: Path):
    data = report_data(claimed(write_campaign(tmp_path, {"muon": 0.3}, studies=1, trials=1, clock="examples")))
    page = render_page(data)
    assert "This is data efficiency, not time." in page
    row = data["boards"][0]["times"][0]
    assert f"{row['examples']:g}<span" in page
    assert f"<small>{row['seconds']:g} s</small>" in page


def big_runs(evals: int) -> Runs:
    """A board of the size of AlgoPerf's: 11 submissions, 14 workloads, 5 studies of 5 trials."""
    entry = rules(5, 5)
    (digits,) = (entry["workloads"][name] for name in ["digits"])
    entry["workloads"] = {f"workload_{i}": digits for i in range(14)}
    ruleset = Ruleset.from_json(entry)
    chance = np.random.default_rng(0)
    seconds = np.linspace(0.0, 99.0, evals)
    trials = [
        Trial(
            source=Path(f"{s}/{w}/{k}/{t}"),
            submission=f"submission_{s}",
            workload=f"workload_{w}",
            study=k,
            trial=t,
            seconds=seconds,
            steps=np.arange(evals, dtype=np.float64),
            examples=None,
            metrics={"valid/error_rate": chance.random(evals)},
            hparams={f"hyperparameter_{i}": float(chance.random()) for i in range(8)},
            seed=None,
            hardware=None,
            status=None,
            recorded=None,
        )
        for s in range(11)
        for w in range(14)
        for k in range(5)
        for t in range(5)
    ]
    return Runs(Path(), tuple(trials), (), (Campaign(Path("campaign.json"), ruleset, ()),))


def test_a_board_of_3850_trials_stays_under_5_megabytes():
    page = render_page(report_data(score_runs(big_runs(evals=300))))
    assert 1_000_000 < len(page.encode()) < 5_000_000


@given(
    arrays(np.float64, st.integers(1, 500), elements=st.floats(-10, 10) | st.just(np.nan)),
    st.integers(10, 60),
    st.data(),
)
def test_a_thinned_curve_keeps_ends_extremes_and_crossing(values: Any, limit: int, drawn: st.DataObject):
    crossing = drawn.draw(st.integers(0, values.size - 1))
    kept = decimate(values, limit, [crossing])
    assert len(kept) <= max(limit, 0)
    assert list(kept) == sorted(set(kept))
    assert {0, values.size - 1, crossing} <= set(kept.tolist())
    if not np.isnan(values).all():
        assert (np.nanmin(values[kept]), np.nanmax(values[kept])) == (np.nanmin(values), np.nanmax(values))


def as_text(value: Any) -> str:
    return "" if value is None else str(value)


@pytest.fixture(scope="module")
def drawn(data: dict[str, Any], scored: Result, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("figures")
    assert figures.write_figures(scored, data, folder) is None
    return folder


def test_every_figure_is_a_csv_with_the_numbers_of_the_page(data: dict[str, Any], drawn: Path):
    for board in data["boards"]:
        tables = {name: rows for name, rows in flat_rows(board).items() if rows}
        found = {}
        for path in (drawn / board["tuning"]).glob("*.csv"):
            with open(path, newline="", encoding="utf-8") as file:
                found[path.stem] = list(csv.DictReader(file))
        assert found == {
            name: [{key: as_text(value) for key, value in row.items()} for row in rows] for name, rows in tables.items()
        }
    curve = data["boards"][0]["curves"][0]["trials"][0]
    rows = flat_rows(data["boards"][0])["curves"][: len(curve["x"])]
    assert [(row["charge"], row["value"]) for row in rows] == list(zip(curve["x"], curve["y"], strict=True))


def test_every_figure_is_a_png_and_an_svg(drawn: Path):
    pictures = {"leaderboard", "profiles", "ecdf", "times", "curves", "tuning", "separation"}
    assert {path.stem for path in (drawn / "external").glob("*.svg")} == pictures
    for name in pictures:
        assert (drawn / "external" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
        assert "<path" in (drawn / "external" / f"{name}.svg").read_text()


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write_campaign(tmp_path / "runs", {"muon": 0.3, "adamw": 0.5}, studies=1, trials=1)


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*arguments: str) -> tuple[int, str, str]:
        code = command.main(list(arguments))
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def test_the_command_writes_the_page_beside_the_runs_and_says_where(small: Path, report: Command):
    assert report(str(small)) == (0, f"{small / 'report' / 'report.html'}\n", "")
    assert (small / "report" / "report.html").read_text().startswith("<!doctype html>")


def test_without_matplotlib_page_and_csv_are_written_and_the_rest_is_named(
    small: Path, tmp_path: Path, report: Command, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, errors = report(str(small), "--out", str(tmp_path / "out"))
    assert (code, errors) == (0, "wrote no PNG and no SVG of the figures: pip install matplotlib\n")
    assert (tmp_path / "out" / "report.html").is_file()
    assert {path.suffix for path in (tmp_path / "out" / "figures" / "external").iterdir()} == {".csv"}


def test_a_place_that_cannot_be_written_is_a_user_s_mistake(small: Path, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to"):
        command.run(command_arguments(str(small), "--out", str(tmp_path / "file")))


def command_arguments(*arguments: str) -> Any:
    import argparse

    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(arguments)


def test_the_report_holds_a_cockpit_for_each_submission_and_workload_that_had_instruments(tmp_path: Path):
    root = write_campaign(tmp_path / "runs", {"muon": 0.3, "sgd": 3.0}, {}, trials=1)
    assert command.main([str(root)]) == 0
    assert "cockpit" not in (root / "report/report.html").read_text()
    log = everything(tmp_path / "looks") / LOG_NAME
    first = root / "muon" / next(iter(rules(1, 1)["workloads"]))
    other = root / "sgd" / first.name / "study_0" / "trial_0"
    for folder in (first / "study_0" / "trial_0", first / "study_1" / "trial_0", other):
        shutil.copy(log, folder)
    assert command.main([str(root)]) == 0
    page = (root / "report/report.html").read_text()
    assert page.count('<details class="cockpit">') == 2
    assert "1 other trial with instruments" in page
    (other / LOG_NAME).write_text("no log")
    assert command.main([str(root)]) == 0
    page = (root / "report/report.html").read_text()
    assert page.count('<details class="cockpit">') == 1
    assert f"{other.relative_to(root)}: " in page
