"""The command line: exit codes, messages, help, and what it prints."""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from shelf import Shelf

import timetrial
from timetrial import cli
from timetrial.errors import UserError

LOCK = """\
[alpha]
version = 1
track = "mini"
task = "classify"
parameters = 1234567
parameter_arrays = 2
default_batch_size = 16
metric = "error_rate"
target = { metric = "error_rate", value = 0.25, better = "lower" }
source_sha256 = "00"
fingerprint = { loss = 1.0 }
"""


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., int]], None]:
    """Installs a function as the verb `probe`."""

    def install(run: Callable[..., int]) -> None:
        module = SimpleNamespace(add_arguments=lambda parser: parser.add_argument("--n", type=int), run=run)
        monkeypatch.setitem(sys.modules, "probe_verb", module)  # pyright: ignore[reportArgumentType]
        monkeypatch.setitem(cli.VERBS, "probe", cli.Verb("probe", "probe_verb", "timetrial probe --n 1"))

    return install


def raising(error: BaseException) -> Callable[..., int]:
    def run(_: Any) -> int:
        raise error

    return run


def test_a_verb_gets_its_arguments_and_its_exit_code_is_returned(verb: Any):
    verb(lambda args: args.n)
    assert cli.main(["probe", "--n", "1"]) == 1


def test_a_user_s_mistake_is_one_message_and_exit_code_2(verb: Any, capsys: pytest.CaptureFixture[str]):
    verb(raising(UserError("no such thing; do that")))
    assert cli.main(["probe"]) == 2
    assert capsys.readouterr().err == "timetrial: no such thing; do that\n"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "runs/x"), "timetrial: runs/x: Permission denied; "),
        (OSError(errno.ENOSPC, "No space left on device"), "timetrial: No space left on device; "),
        (FileNotFoundError(errno.ENOENT, "No usable temporary directory found"), "timetrial: No usable temporary dir"),
    ],
)
def test_what_room_or_rights_forbid_is_one_message_and_exit_code_2(
    verb: Any, capsys: pytest.CaptureFixture[str], error: OSError, said: str
):
    verb(raising(error))
    assert cli.main(["probe"]) == 2
    assert capsys.readouterr().err.startswith(said)


def test_a_file_that_we_forgot_is_no_matter_of_rights(verb: Any):
    verb(raising(FileNotFoundError(errno.ENOENT, "No such file or directory", "template")))
    with pytest.raises(FileNotFoundError):
        cli.main(["probe"])


def test_control_c_is_exit_code_130_without_a_traceback(verb: Any, capsys: pytest.CaptureFixture[str]):
    verb(raising(KeyboardInterrupt()))
    assert cli.main(["probe"]) == 130
    assert capsys.readouterr().err == "timetrial: interrupted\n"


def test_a_termination_signal_stops_the_command_with_the_exit_code_that_says_run_me_again(verb: Any):
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        verb(lambda args: signal.raise_signal(signal.SIGTERM) or 0)
        assert cli.main(["probe"]) == 75
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_bug_keeps_its_traceback(verb: Any):
    verb(raising(ZeroDivisionError("a bug")))
    with pytest.raises(ZeroDivisionError, match="a bug"):
        cli.main(["probe"])


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_stops_reading_is_no_error(unbuffered: str):
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run(
        [sys.executable, "-m", "timetrial", "list"],
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert (result.returncode, "Broken" in result.stderr) == (0, False)


def test_an_unknown_verb_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["scor"]) == 2
    assert "no verb 'scor'; did you mean 'score'?" in capsys.readouterr().err


def test_wrong_arguments_are_exit_code_2(verb: Any):
    verb(lambda _: 0)
    with pytest.raises(SystemExit) as stop:
        cli.main(["probe", "--n", "one"])
    assert stop.value.code == 2


def test_no_verb_shows_the_help_and_is_wrong_usage(capsys: pytest.CaptureFixture[str]):
    assert cli.main([]) == 2
    assert "verbs:" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"timetrial {timetrial.__version__}\n"


@pytest.mark.parametrize("name", sorted(cli.VERBS))
def test_every_verb_s_help_is_clean_and_ends_with_an_example(name: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        cli.main([name, "--help"])
    printed = capsys.readouterr().out
    assert stop.value.code == 0
    assert printed.splitlines()[-1].startswith(f"  timetrial {name} ")
    assert "verbosity" not in printed
    assert "helpfull" not in printed


def test_every_verb_takes_absl_s_logging_flags(verb: Any):
    verb(lambda args: args.n)
    assert cli.main(["probe", "--verbosity", "0", "--n", "0"]) == 0


def test_list_prints_what_the_lock_says_without_the_locks(shelf: Shelf, capsys: pytest.CaptureFixture[str]):
    (shelf.root / "workloads" / "LOCK.toml").write_text(LOCK)
    shelf.add_submission("sgd", '"""Plain SGD.\n\nMore."""\nSEARCH_SPACE: dict = dict(rate=1)\nraise SystemExit\n')
    shelf.add_submission("selfish", '"""Tunes itself."""\nspace = "SEARCH_SPACE"\n')
    shelf.add_submission("empty", "SEARCH_SPACE = {}\n")
    shelf.add_submission("broken", "def (\n")
    assert cli.main(["list", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["workloads"] == [
        {
            "name": "alpha",
            "variant_of": None,
            "version": 1,
            "track": "mini",
            "task": "classify",
            "parameters": 1234567,
            "parameter_arrays": 2,
            "default_batch_size": 16,
            "metric": "error_rate",
            "target": {"metric": "error_rate", "value": 0.25, "better": "lower"},
        }
    ]
    tuning = {submission["name"]: submission["tuning"] for submission in found["submissions"]}
    assert tuning == {"sgd": "external", "selfish": "self", "empty": "self", "broken": None}
    assert "demo" in [ruleset["name"] for ruleset in found["rulesets"]]


def test_list_prints_tables_and_names_what_has_no_lock(shelf: Shelf, capsys: pytest.CaptureFixture[str]):
    (shelf.root / "workloads" / "LOCK.toml").write_text(LOCK)
    shelf.add_workload("fresh", "")
    assert cli.main(["list"]) == 0
    printed = capsys.readouterr()
    assert "1,234,567" in printed.out
    assert "error_rate <= 0.25" in printed.out
    assert "not frozen, so not listed: fresh" in printed.err
