"""The command: what it prints and writes, how it ends, and that it needs no jax."""

import csv
import io
import json
import subprocess
import sys

import pytest
from timetrial_scoring.cli import main


@pytest.fixture
def small(log, ruleset_file, rules, tmp_path):
    """Arguments to score two submissions on two workloads."""
    for name, seconds, words in (("adam", 10.0, 200.0), ("sgd", 30.0, 100.0)):
        log(name, "digits", [(seconds / 2, 0.5), (seconds, 0.05)])
        log(name, "words", [(words / 2, 5.0), (words, 31.0)])
    return [str(tmp_path / "logs"), "--ruleset", ruleset_file(rules)]


def test_text_shows_leaderboard_times_and_findings_within_100_columns(small, capsys):
    assert main(small) == 0
    out = capsys.readouterr().out
    assert out.index("Leaderboard") < out.index("Time to target [s]") < out.index("No findings")
    assert max(len(line) for line in out.splitlines()) <= 100
    assert [line.split()[:3] for line in out.splitlines()[4:6]] == [["1", "adam", "0.8333"], ["2", "sgd", "0.6667"]]


def test_json_is_versioned_and_leaves_null_where_no_claim_is_made(small, capsys):
    assert main([*small, "--format", "json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["schema"] == 1
    first, second = data["leaderboard"]
    assert (first["submission"], first["rank"], first["score"]) == ("adam", 1, pytest.approx(5 / 6))
    assert (second["submission"], second["rank"], second["score"]) == ("sgd", 2, pytest.approx(2 / 3))
    assert first["score_ci"] is first["rank_ci"] is first["p_first"] is None
    cell = next(row for row in data["times"] if (row["submission"], row["workload"]) == ("sgd", "digits"))
    assert (cell["seconds"], cell["steps"], cell["examples"]) == (30.0, 20.0, None)
    assert (cell["ratio"], cell["credit"]) == (3.0, pytest.approx(1 / 3))
    assert cell["studies"][0]["charge_before"] == 15.0
    assert data["findings"] == []


def test_csv_has_a_line_for_each_submission(small, capsys):
    assert main([*small, "--format", "csv", "--reference", "sgd"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["submission"] for row in rows] == ["adam", "sgd"]
    assert float(rows[0]["speedup"]) == pytest.approx((3 * 0.5) ** 0.5)


def test_markdown_has_tables(small, capsys):
    assert main([*small, "--format", "md"]) == 0
    assert "| rank | submission | score |" in capsys.readouterr().out


def test_a_board_charged_in_examples_speaks_of_data_efficiency_and_shows_seconds_beside_it(
    record, rules, ruleset_file, tmp_path, capsys
):
    record("adam", "digits", [(1.0, 0.5), (7.5, 0.05)])
    rules["clock"] = "examples"
    assert main([str(tmp_path), "--ruleset", ruleset_file(rules)]) == 0
    out = capsys.readouterr().out
    assert "Data efficiency: examples to target [examples]" in out
    assert "Time to target" not in out
    assert "Charged seconds of the same trials [s]; they do not rank" in out
    assert "7.5" in out


@pytest.mark.parametrize("form", ["text", "md"])
def test_clocks_shows_seconds_steps_and_examples_side_by_side_where_asked(small, capsys, form):
    assert main([*small, "--format", form]) == 0
    assert "Three clocks" not in capsys.readouterr().out
    assert main([*small, "--format", form, "--clocks"]) == 0
    table = capsys.readouterr().out.partition("Three clocks side by side")[2]
    rows = [cells for line in table.splitlines() if len(cells := line.replace("|", " ").split()) == 5]
    assert ["submission", "workload", "seconds", "steps", "examples"] in rows
    assert ["adam", "digits", "10", "20", "?"] in rows
    assert ["sgd", "words", "100", "20", "?"] in rows


@pytest.mark.parametrize("form", ["text", "md"])
def test_sensitivity_is_shown_where_a_study_has_more_than_one_trial(small, log, rules, ruleset_file, capsys, form):
    assert main([*small, "--format", form]) == 0
    assert "Sensitivity" not in capsys.readouterr().out
    rules["external"]["trials"] = 3
    ruleset_file(rules)
    log("sgd", "digits", [(75.0, 0.05)], trial=2)
    log("sgd", "digits", [(5.0, 0.5)], trial=3)
    assert main([*small, "--format", form]) == 0
    table = capsys.readouterr().out.partition("Sensitivity to hyperparameters")[2]
    assert "2/3, 2.50 x" in table
    assert "1/1" in table


def test_json_has_the_run_time_distributions_of_boards_with_milestones(small, rules, ruleset_file, capsys):
    assert main([*small, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["runtime_distributions"] == []
    rules["workloads"]["digits"]["milestones"] = [0.5]
    rules["workloads"]["words"]["milestones"] = [30.5]
    rules["workloads"]["words"]["target"]["value"] = 31.5
    ruleset_file(rules)
    assert main([*small, "--format", "json"]) == 0
    (board,) = json.loads(capsys.readouterr().out)["runtime_distributions"]
    assert board["tuning"] == "external"
    # adam: 0.5 at 5 s and 0.1 at 10 s of 100, 30.5 at 200 s of 1000; nobody gets to 31.5.
    assert board["shares"] == {"adam": [0.05, 0.1, 0.2, None], "sgd": [0.1, 0.15, 0.3, None]}


def test_published_mode_shows_what_differs_from_the_exact_one(small, capsys):
    assert main([*small, "--mode", "published"]) == 0
    assert "What differs between the published and the exact mode" in capsys.readouterr().out


def test_out_writes_scores_times_and_the_profile(small, tmp_path, capsys):
    assert main([*small, "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr()
    assert "profile.png" in printed.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "profile.png",
        "profile.svg",
        "scores.json",
        "times.csv",
    ]
    assert json.loads((tmp_path / "out" / "scores.json").read_text())["schema"] == 1
    rows = list(csv.DictReader((tmp_path / "out" / "times.csv").read_text().splitlines()))
    assert {(row["submission"], row["workload"], row["charge"]) for row in rows} >= {("adam", "digits", "10.0")}


def test_a_board_on_which_nobody_is_ranked_is_printed_and_drawn_all_the_same(
    record, rules, ruleset_file, tmp_path, capsys
):
    record("adam", "digits", [(1.0, 0.5), (7.5, 0.05)], status=None)
    assert main([str(tmp_path), "--ruleset", ruleset_file(rules), "--out", str(tmp_path / "out")]) == 0
    assert "adam is not ranked: has interrupted trials" in capsys.readouterr().out


def test_strict_turns_findings_into_exit_1(small, tmp_path, capsys):
    assert main([*small, "--strict"]) == 0
    (tmp_path / "logs" / "adam" / "study_0" / "digits_jax" / "trial_2").mkdir()
    assert main(small) == 0
    assert main([*small, "--strict"]) == 1
    assert "stray (1)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "no folder 'nowhere'"),
        (["{logs}"], "pass --ruleset"),
        (["{logs}", "--ruleset", "algoperf-v05-externa"], "did you mean 'algoperf-v05-external'"),
        (["{logs}", "--ruleset", "{rules}", "--reference", "adan"], "did you mean 'adam'"),
        (["{logs}", "--ruleset", "{rules}", "--out", "{rules}"], "cannot write"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_2(small, capsys, arguments, message):
    arguments = [argument.format(logs=small[0], rules=small[2]) for argument in arguments]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("options", [[], ["--no-intervals"]])
def test_scoring_leaves_jax_out_and_without_intervals_scipy_too(small, options):
    unwanted = {"jax", "flax", "matplotlib", "rich"} | ({"scipy"} if options else set())
    code = (
        "import sys, timetrial_scoring.cli\n"
        "assert 'numpy' not in sys.modules, 'the parser needs no numpy'\n"
        "timetrial_scoring.cli.main(sys.argv[1:])\n"
        f"assert not {unwanted} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *small, *options], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_it_runs_as_a_module(small):
    command = [sys.executable, "-m", "timetrial_scoring", *small, "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [line["submission"] for line in json.loads(done.stdout)["leaderboard"]] == ["adam", "sgd"]
