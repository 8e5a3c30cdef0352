"""Campaigns run every trial in a process of its own, and nothing that a trial does stops them."""

import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from rich.console import Console
from toy_trials import SGD, custom, rules, write

from timetrial import machine
from timetrial.campaign import Campaign, open_folder, restrict
from timetrial.display import Display
from timetrial.errors import UserError
from timetrial.launchers import process
from timetrial.launchers.local import run_campaign
from timetrial.record import read_record
from timetrial.ruleset import load_ruleset

SUPPORT = Path(__file__).parents[1] / "support"
WORKER = (sys.executable, str(SUPPORT / "toy_worker.py"))
pytestmark = pytest.mark.usefixtures("cache", "ctrl_c")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """One folder of compiled programs for all trials of this file."""
    old = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if old is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = old


class Log:
    """A watcher that remembers, and may act when a trial makes progress."""

    def __init__(self, on_progress):
        self.ends = []
        self.on_progress = on_progress

    def began(self, job, number, total):
        pass

    def progressed(self, job, progress):
        del progress
        self.on_progress(job)

    def noted(self, job, text):
        pass

    def ended(self, job, end):
        self.ends.append((job.submission, job.trial, end.status))


def start(tmp_path, *texts, resume=False, on_progress=lambda job: None, side_by_side=1, retries=0, **changes):
    """Runs submissions called s0, s1, … on the toy and returns the log."""
    sources = tuple(write(tmp_path, text, f"s{i}") for i, text in enumerate(texts))
    changes = {"budget": 320, "eval_every": 160, **changes}
    ruleset = rules("examples", **changes)
    campaign = Campaign(out=tmp_path / "out", ruleset=ruleset, sources=sources, seed=3)
    open_folder(campaign, resume=resume)
    log = Log(on_progress)
    run_campaign(campaign, log, side_by_side=side_by_side, retries=retries, worker=WORKER)
    return log


def record_of(tmp_path, name, trial=0):
    return read_record(tmp_path / "out" / name / "toy" / "study_0" / f"trial_{trial}" / "record.jsonl")


def test_a_grid_runs_every_trial_and_leaves_a_record_of_each(tmp_path):
    log = start(tmp_path, SGD, SGD, external={"studies": 1, "trials": 2, "points": "halton"})
    assert log.ends == [("s0", 0, "budget"), ("s1", 0, "budget"), ("s0", 1, "budget"), ("s1", 1, "budget")]
    first, second = record_of(tmp_path, "s0"), record_of(tmp_path, "s1")
    assert first.run.hparams == second.run.hparams
    assert [e.metrics for e in first.evals] == [e.metrics for e in second.evals]  # bit for bit, in two processes


def test_parts_that_the_ruleset_wants_are_those_of_the_flag_bit_for_bit(tmp_path):
    source, plain = write(tmp_path, SGD), rules(budget=320, eval_every=160)
    in_parts = {"toy": dataclasses.replace(plain.workloads["toy"], accumulate=2)}
    records = []
    for name, ruleset, flag in (("rules", dataclasses.replace(plain, workloads=in_parts), 1), ("flag", plain, 2)):
        campaign = Campaign(out=tmp_path / name, ruleset=ruleset, sources=(source,), seed=3, accumulate=flag)
        open_folder(campaign, resume=False)
        run_campaign(campaign, Log(lambda job: None), worker=WORKER)
        records.append(read_record(tmp_path / name / "mine" / "toy" / "study_0" / "trial_0" / "record.jsonl"))
    by_rules, by_flag = records
    assert by_rules.run.accumulate == by_flag.run.accumulate == 2
    assert [(e.step, e.metrics, e.parameters_sha256) for e in by_rules.evals] == [
        (e.step, e.metrics, e.parameters_sha256) for e in by_flag.evals
    ]
    assert (
        json.loads((tmp_path / "rules" / "campaign.json").read_text())["ruleset"]["workloads"]["toy"]["accumulate"] == 2
    )


WITHOUT_DATA = f"""
import sys
sys.path.insert(0, {str(SUPPORT)!r})
from toys import toy_workload
from timetrial.errors import UserError
from timetrial.worker import main

def load(name):
    if name == "toy":
        raise UserError("data set toys: put its files into place")
    return toy_workload(name=name), "f" * 64

sys.exit(main(load))
"""


def test_where_the_data_of_a_workload_are_missing_one_trial_says_so_and_the_other_workloads_are_run(tmp_path):
    worker = tmp_path / "worker.py"
    worker.write_text(WITHOUT_DATA)
    ruleset = rules(budget=320, eval_every=160, external={"studies": 1, "trials": 2, "points": "halton"})
    ruleset = dataclasses.replace(ruleset, workloads=dict.fromkeys(("toy", "other"), ruleset.workloads["toy"]))
    campaign = Campaign(out=tmp_path / "out", ruleset=ruleset, sources=(write(tmp_path, SGD),), seed=3)
    open_folder(campaign, resume=False)
    for _ in range(2):  # nothing of the first keeps the second from trying anew
        ended = run_campaign(campaign, Log(lambda job: None), retries=2, worker=(sys.executable, str(worker)))
        lacking = [end for job, end in ended if job.workload == "toy"]
        assert [(end.status, end.message) for end in lacking] == [
            ("interrupted", "data set toys: put its files into place")
        ]
        assert [end.status for job, end in ended if job.workload == "other"] in ([], ["budget"] * 2)
    assert sum(1 for _ in tmp_path.glob("out/mine/other/*/*/record.jsonl")) == 2
    assert not list(tmp_path.glob("out/mine/toy/*/*/record.jsonl"))


two_cores = pytest.mark.skipif(machine.cores() < 2, reason="needs two cores")


@two_cores
def test_trials_side_by_side_have_cores_of_their_own_and_the_results_of_trials_in_turn(tmp_path):
    board = {"studies": 1, "trials": 4, "points": "halton"}
    (tmp_path / "turn").mkdir()
    start(tmp_path / "turn", SGD, external=board)
    log = start(tmp_path, SGD, side_by_side=2, external=board)
    assert sorted(log.ends) == [("s0", trial, "budget") for trial in range(4)]
    for trial in range(4):
        alone, beside = record_of(tmp_path / "turn", "s0", trial), record_of(tmp_path, "s0", trial)
        assert beside.run.hardware["cores"] == machine.cores() // 2
        assert [e.metrics for e in beside.evals] == [pytest.approx(e.metrics, rel=1e-5) for e in alone.evals]


@two_cores
def test_trials_side_by_side_see_gpus_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    tells = custom('import os\nraise ValueError("sees " + os.environ["CUDA_VISIBLE_DEVICES"])')
    start(tmp_path, tells, tells, side_by_side=2)
    ends = [record_of(tmp_path, name).end for name in ("s0", "s1")]
    assert {end.message.rpartition("sees ")[2][0] for end in ends if end is not None} == {"3", "5"}


@two_cores
def test_ctrl_c_finishes_the_records_of_all_running_trials_and_starts_no_other(tmp_path):
    begun = set()

    def interrupt(job):
        if job.trial not in begun and begun.add(job.trial) is None and begun == {0, 1}:
            os.kill(os.getpid(), signal.SIGINT)

    board = {"studies": 1, "trials": 3, "points": "halton"}
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path, SGD, side_by_side=2, on_progress=interrupt, external=board, budget=10**9, eval_every=10**8)
    ends = [record_of(tmp_path, "s0", trial).end for trial in (0, 1)]
    assert [end and end.status for end in ends] == ["interrupted", "interrupted"]
    assert not (tmp_path / "out" / "s0" / "toy" / "study_0" / "trial_2").exists()


@pytest.mark.parametrize(
    ("crash", "status", "message"),
    [
        ("import os\nos.kill(os.getpid(), 11)", "error", "crashed in native code (SIGSEGV)"),
        ("import os\nos.abort()", "error", "crashed in native code (SIGABRT)"),
        ("import os\nos._exit(0)", "error", "the submission ended the process (exit code 0)"),
        ("import os\nos.kill(os.getpid(), 9)", "interrupted", "killed (SIGKILL)"),
    ],
)
def test_a_crash_ends_its_trial_and_the_grid_goes_on(tmp_path, crash, status, message):
    log = start(tmp_path, custom(crash), SGD)
    assert [end[2] for end in log.ends] == [status, "budget"]
    end = record_of(tmp_path, "s0").end
    assert end is not None
    assert message in end.message


def test_a_crash_in_the_middle_keeps_the_evals_before_it(tmp_path):
    crash = custom("""
        import os
        def on_eval(state, feedback):
            if feedback.charge >= 160:
                os.abort()
            return state
        hooks = {"on_eval": on_eval}
    """)
    start(tmp_path, crash, budget=3200)
    record = record_of(tmp_path, "s0")
    assert record.end is not None
    assert (record.end.status, record.end.examples, len(record.evals)) == ("error", 160, 2)


@pytest.mark.parametrize(
    "endless",
    [
        "def step(problem, state, batch, key):\n    while True: pass",
        "def select(batches, state, key):\n    while True: pass\nhooks = {'select': select}",
        "import threading\nthreading.Event().wait()",
    ],
    ids=["step", "select", "import"],
)
def test_a_submission_that_never_ends_is_given_up_as_hung(tmp_path, endless):
    log = start(tmp_path, custom(endless), hang_seconds=8.0)
    assert log.ends == [("s0", 0, "hung")]
    end = record_of(tmp_path, "s0").end
    assert end is not None
    assert "no step finished for 8 s" in end.message


def test_an_output_folder_that_exists_is_refused_without_resume(tmp_path):
    start(tmp_path, SGD)
    with pytest.raises(UserError, match="exists; add --resume"):
        start(tmp_path, SGD)


def test_resume_runs_only_what_has_no_result(tmp_path):
    start(tmp_path, SGD)
    again = start(tmp_path, SGD, SGD, resume=True)
    assert again.ends == [("s1", 0, "budget")]
    assert json.loads((tmp_path / "out" / "campaign.json").read_text())["submissions"] == ["s0", "s1"]


@pytest.mark.parametrize(
    ("text", "changes", "message"),
    [(SGD, {"budget": 640}, "another ruleset"), (SGD + "\n    # changed", {}, "'s0' has changed")],
)
def test_resume_refuses_another_campaign(tmp_path, text, changes, message):
    start(tmp_path, SGD)
    with pytest.raises(UserError, match=message):
        start(tmp_path, text, resume=True, **changes)


def test_two_processes_on_one_campaign_share_its_trials_and_do_none_twice(tmp_path):
    other = []

    def join(job):
        if not other:
            other.append(None)
            other[0] = start(tmp_path, SGD, resume=True, external=board).ends

    board = {"studies": 1, "trials": 3, "points": "halton"}
    first = start(tmp_path, SGD, on_progress=join, external=board).ends
    assert first == [("s0", 0, "budget")]
    assert other == [[("s0", 1, "budget"), ("s0", 2, "budget")]]


def test_a_trial_that_was_killed_by_what_is_not_its_doing_is_tried_again(tmp_path):
    """The first attempt is killed once it has begun, as by a scheduler; the second goes on."""
    kills = []

    def kill(job):
        if not kills:
            kills.append(job)
            pids = Path("/proc").glob("[0-9]*/cmdline")
            workers = [int(p.parent.name) for p in pids if b"toy_worker" in p.read_bytes()]
            own = [pid for pid in workers if str(os.getpid()) in Path(f"/proc/{pid}/status").read_text()]
            os.kill(own[0], signal.SIGKILL)

    log = start(tmp_path, SGD, on_progress=kill, retries=2)
    assert log.ends == [("s0", 0, "budget")]
    record = record_of(tmp_path, "s0")
    assert record.end is not None
    assert [line.step for line in record.evals] == sorted({line.step for line in record.evals})


def test_resume_refuses_a_folder_that_is_no_campaign(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="no campaign of timetrial"):
        start(tmp_path, SGD, resume=True)


def test_ctrl_c_leaves_a_checkpoint_and_resume_goes_on_from_it(tmp_path):
    sent = []

    def interrupt(job):
        if not sent:
            sent.append(True)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        start(tmp_path, SGD, budget=10**9, eval_every=10**8, on_progress=interrupt)
    record = record_of(tmp_path, "s0")
    assert record.end is not None
    assert record.end.status == "interrupted"
    sent.clear()
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path, SGD, budget=10**9, eval_every=10**8, on_progress=interrupt, resume=True)
    resumed = record_of(tmp_path, "s0")
    assert [line.step for line in resumed.resumes] == [record.end.step]
    assert resumed.end is not None
    assert resumed.end.step >= record.end.step


def test_a_thread_that_outlives_its_trial_holds_up_no_campaign(tmp_path):
    leaves = custom("import threading\nthreading.Thread(target=threading.Event().wait).start()")
    log = start(tmp_path, leaves, SGD, hang_seconds=8.0)
    assert log.ends == [("s0", 0, "budget"), ("s1", 0, "budget")]


def test_a_second_ctrl_c_waits_no_longer_and_leaves_no_worker_behind(tmp_path, monkeypatch):
    deaf = custom("""
        import os, signal
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        open(os.environ["PID_FILE"], "w").write(str(os.getpid()))
    """)
    monkeypatch.setenv("PID_FILE", str(tmp_path / "pid"))
    presses = iter((0.5, 2.5))

    def interrupt(job):
        for delay in presses:
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT)).start()

    with pytest.raises(KeyboardInterrupt):
        start(tmp_path, deaf, budget=10**9, eval_every=10**8, on_progress=interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    end = record_of(tmp_path, "s0").end
    assert end is not None
    assert end.status == "interrupted"


def test_a_trial_whose_campaign_is_killed_is_interrupted_and_not_the_submissions_failure(tmp_path):
    source, ruleset = write(tmp_path, SGD), rules(budget=10**9, eval_every=10**8)
    (job,) = Campaign(out=tmp_path / "out", ruleset=ruleset, sources=(source,), seed=0).jobs()
    worker = subprocess.Popen(WORKER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert worker.stdin is not None
    assert worker.stdout is not None
    with worker.stdin:
        worker.stdin.write(json.dumps(dataclasses.asdict(job)).encode())
    with worker.stdout:
        while json.loads(worker.stdout.readline()).get("progress", {"step": 0})["step"] == 0:
            pass
    worker.wait(60)
    end = read_record(Path(job.folder) / "record.jsonl").end
    assert end is not None
    assert end.status == "interrupted"


def test_a_full_disk_is_reported_and_the_grid_goes_on(tmp_path):
    """The worker may write 4 KiB a file, which is where the system says that there is no room left."""
    worker = (sys.executable, "-c", LIMITED.format(path=str(SUPPORT)))
    sources = (write(tmp_path, SGD, "s0"), write(tmp_path, SGD, "s1"))
    campaign = Campaign(out=tmp_path / "out", ruleset=rules(budget=32000, eval_every=160), sources=sources, seed=0)
    open_folder(campaign, resume=False)
    log = Log(lambda job: None)
    ended = run_campaign(campaign, log, worker=worker)
    assert [end.status for _, end in ended] == ["interrupted", "interrupted"]
    assert "the record cannot be written" in ended[0][1].message
    assert len(record_of(tmp_path, "s0").evals) >= 1


LIMITED = """
import resource, signal, sys
sys.path.insert(0, {path!r})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
import toys, timetrial.worker, timetrial.compilation
timetrial.compilation.use_cache = lambda folder: None
from timetrial.record import RecordWriter
begin = RecordWriter.run
def run(self, header):
    begin(self, header)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
RecordWriter.run = run
sys.exit(timetrial.worker.main(lambda name: (toys.toy_workload(name=name), "f" * 64)))
"""


def test_two_submissions_of_one_name_are_refused(tmp_path):
    source = write(tmp_path, SGD)
    with pytest.raises(UserError, match="two submissions are called 'mine'"):
        Campaign(out=tmp_path, ruleset=rules(), sources=(source, source), seed=0)


def test_a_module_of_the_folder_one_stands_in_is_not_taken_for_a_dependency(tmp_path, monkeypatch):
    (tmp_path / "jax.py").write_text("raise SystemExit('the wrong jax')")
    monkeypatch.chdir(tmp_path)
    (job,) = Campaign(out=tmp_path / "out", ruleset=rules(), sources=(write(tmp_path, SGD),), seed=0).jobs()
    ended = subprocess.run(
        process.WORKER, input=json.dumps(dataclasses.asdict(job)).encode(), capture_output=True, check=False
    )
    assert b"no workload 'toy'" in ended.stderr


def test_a_restriction_of_the_self_tuning_board_alone_is_said_too():
    ruleset = rules(external=None, self_tuning={"studies": 3, "trials": 1})
    assert restrict(ruleset, studies=2).modified == ("studies: 2",)


def test_a_panel_is_shown_for_a_ruleset_with_one_board(tmp_path):
    ruleset = rules("seconds", external=None)
    campaign = Campaign(out=tmp_path / "out", ruleset=ruleset, sources=(write(tmp_path, custom("")),), seed=0)
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=100)
    with Display(console) as display:
        display.began(campaign.jobs()[0], 1, 2)
    assert "mine on toy" in shown.getvalue()


def test_an_output_folder_inside_a_submission_is_refused(tmp_path):
    source = write(tmp_path, SGD)
    with pytest.raises(UserError, match="would be a part of submission 'mine'"):
        Campaign(out=source.folder / "runs", ruleset=rules(), sources=(source,), seed=0)


def test_a_restricted_ruleset_says_what_was_changed():
    demo = load_ruleset("demo")
    changed = restrict(demo, workloads=["lobes"], studies=2, trials=4)
    assert list(changed.workloads) == ["lobes"]
    assert changed.external is not None
    assert (changed.external.studies, changed.external.trials) == (2, 4)
    assert changed.modified == ("workloads: lobes", "studies: 2", "trials: 4")
    assert restrict(demo) == demo
    with pytest.raises(UserError, match="did you mean 'lobes'"):
        restrict(demo, workloads=["lobe"])


def test_a_variant_may_be_asked_for_with_its_base_s_rules_and_its_own_target():
    demo = load_ruleset("demo")
    for name in ("lobes_tanh", "lobes+width=24"):
        asked = restrict(demo, workloads=["lobes", name]).workloads
        assert (asked[name].budget, asked[name].eval_every) == (asked["lobes"].budget, asked["lobes"].eval_every)
        assert (asked[name].variant_of, asked[name].target) == ("lobes", None)
        assert restrict(demo, workloads=[name]).workloads[name].variant_of is None
