"""The commands as a person types them, on the quickest workload, each in a process of its own."""

import json
import subprocess
import sys

import pytest
from toy_trials import custom, write

WORKLOAD = "flights"


def timetrial(*arguments, cwd):
    command = [sys.executable, "-m", "timetrial", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    """A campaign of two baselines under `smoke`."""
    folder = tmp_path_factory.mktemp("campaign")
    arguments = ("--submission", "sgd_momentum", "sam", "--workload", WORKLOAD, "--ruleset", "smoke", "--out", "runs")
    return folder, timetrial("run", *arguments, cwd=folder)


def test_run_reports_every_trial_and_what_to_do_next(campaign):
    _, ran = campaign
    assert ran.returncode == 0, ran.stderr
    assert "[1/2] budget    sgd_momentum on flights, study 0, trial 0" in ran.stdout
    assert "2 of 2 trials run: 2 budget. Records in runs; next: timetrial score runs" in ran.stdout


def test_what_ran_can_be_scored(campaign):
    folder, _ = campaign
    scored = timetrial("score", "runs", "--format", "json", cwd=folder)
    assert scored.returncode == 0, scored.stderr
    board = json.loads(scored.stdout)["leaderboard"]
    assert {line["submission"] for line in board} == {"sgd_momentum", "sam"}


def test_running_again_is_refused_and_resuming_runs_nothing(campaign):
    folder, _ = campaign
    same = ("--submission", "sgd_momentum", "sam", "--workload", WORKLOAD, "--ruleset", "smoke", "--out", "runs")
    refused = timetrial("run", *same, cwd=folder)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "runs exists; add --resume" in refused.stderr
    resumed = timetrial("run", *same, "--resume", "--format", "json", cwd=folder)
    assert json.loads(resumed.stdout) == {"out": "runs", "trials": 2, "ran": 0, "statuses": {}}


def test_the_same_seed_gives_the_same_record_in_another_process(campaign, tmp_path):
    folder, _ = campaign
    again = timetrial(
        "run", "-s", "sgd_momentum", "-w", WORKLOAD, "-r", "smoke", "-o", "again", "--seed", "0", cwd=tmp_path
    )
    assert again.returncode == 0, again.stderr
    place = f"sgd_momentum/{WORKLOAD}/study_0/trial_0/record.jsonl"
    first, second = (
        [json.loads(line) for line in (root / place).read_text().splitlines()]
        for root in (folder / "runs", tmp_path / "again")
    )
    deterministic = ("step", "examples", "metrics")
    assert [[line.get(key) for key in deterministic] for line in first] == [
        [line.get(key) for key in deterministic] for line in second
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-s", "adamv", "-r", "smoke"), "no submission 'adamv'; did you mean 'adamw'"),
        (("-s", "adamw", "-r", "smok"), "no ruleset 'smok'; did you mean 'smoke'"),
        (("-s", "adamw", "-r", "smoke", "-w", "flight"), "no workload 'flight'; did you mean 'flights'"),
        (("-s", "adamw", "-r", "smoke", "--studies", "0"), "--studies must be at least 1, not 0"),
        (("-s", "adamw", "-r", "algoperf-v06-external"), "ruleset 'algoperf-v06-external' is for scoring logs"),
        (("-s", "adamw", "-r", "smoke", "--out", "/proc/none"), "cannot write to /proc/none"),
    ],
)
def test_a_mistake_is_one_line_with_exit_code_2_and_leaves_nothing(tmp_path, arguments, message):
    out = () if "--out" in arguments else ("--out", "runs")
    failed = timetrial("run", *arguments, *out, cwd=tmp_path)
    assert failed.returncode == 2
    assert failed.stderr.startswith(f"timetrial: {message}")
    assert failed.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_ruleset_that_only_scores_logs_runs_nothing(tmp_path):
    head = 'description = ""\nversion = 1\nclock = "seconds"\n[external]\nstudies = 1\ntrials = 1\n'
    (tmp_path / "logs.toml").write_text(f"{head}[workloads.{WORKLOAD}]\nbudget = 10\n")
    refused = timetrial("run", "-s", "adamw", "-r", "logs.toml", "-o", "runs", cwd=tmp_path)
    assert refused.returncode == 2
    assert "ruleset 'logs' is for scoring logs" in refused.stderr
    assert not (tmp_path / "runs").exists()


def test_a_failing_submission_is_a_finding(tmp_path):
    source = write(tmp_path, custom("def step(problem, state, batch, key):\n    raise ValueError('too bad')"))
    arguments = ("-s", source.folder, "-w", WORKLOAD, "-r", "smoke", "-o", "runs")
    failed = timetrial("run", *arguments, cwd=tmp_path)
    assert failed.returncode == 1
    assert "error     mine on flights, study 0, trial 0: step raised ValueError at submission.py:" in failed.stdout
    assert "Traceback" not in failed.stdout + failed.stderr
    log = tmp_path / "runs" / "mine" / WORKLOAD / "study_0" / "trial_0" / "trial.log"
    assert "ValueError: too bad" in log.read_text()
    checked = timetrial("check", source.folder, "-w", WORKLOAD, "--format", "json", cwd=tmp_path)
    assert checked.returncode == 1
    verdicts = json.loads(checked.stdout)["verdicts"]
    assert {v["workload"]: v["status"] for v in verdicts if v["rule"] == "contract"} == {
        "canary": "fail",
        WORKLOAD: "fail",
    }
    assert "Traceback" not in checked.stderr
    told = timetrial("check", source.folder, "-w", WORKLOAD, "--traceback", cwd=tmp_path)
    assert "ValueError: too bad" in told.stderr


def test_a_new_submission_passes_its_check_as_it_is(tmp_path):
    made = timetrial("new", "submission", "mine", cwd=tmp_path)
    assert made.returncode == 0
    checked = timetrial("check", "mine", "-w", WORKLOAD, cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "mine: keeps the rules" in checked.stdout
    assert timetrial("new", "submission", "mine", cwd=tmp_path).returncode == 2
    assert timetrial("new", "submission", "No Good", cwd=tmp_path).returncode == 2


@pytest.mark.slow
def test_a_new_submission_keeps_the_rules_on_the_whole_track(tmp_path):
    assert timetrial("new", "submission", "mine", cwd=tmp_path).returncode == 0
    checked = timetrial("check", "mine", cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_new_package_is_found_by_its_name_once_it_is_installed(tmp_path):
    made = timetrial("new", "submission", "packaged_optimizer", "--package", cwd=tmp_path)
    assert made.returncode == 0
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(site), str(tmp_path / "packaged_optimizer")], check=True, capture_output=True)
    script = "import sys; sys.path.insert(0, sys.argv.pop(1)); from timetrial.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", script, str(site), "check", "packaged_optimizer", "-w", WORKLOAD]
    checked = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "packaged_optimizer: keeps the rules" in checked.stdout
