"""`timetrial submit` and `validate`: what is said, what is written, and that nothing is lost on the way."""

import errno
import json
import re
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from timetrial import cli
from timetrial.campaign import Campaign
from timetrial.check.report import Report, Verdict, report_of
from timetrial.errors import UserError
from timetrial.loading import Source
from timetrial.record import EndLine
from timetrial.validation import bundle, rehearsal
from timetrial.validation.rehearsal import Rehearsed

GOOD = Verdict(rule="finite", status="pass", message="finite", workload="lobes")
BAD = Verdict(
    rule="finite", status="fail", message="not \x1b[2J finite", workload="lobes", where="submission.py:7", todo="x"
)


class Stage:
    """A machine on which the check and the rehearsal say what a test wants."""

    def __init__(self) -> None:
        self.verdicts: Sequence[Verdict] = [GOOD]
        self.status: Any = "budget"
        self.meanwhile: Callable[[], object] = lambda: None
        self.checked: list[Source] = []

    def check(self, source: Source, workloads: Sequence[str], isolation: str) -> Report:
        self.checked.append(source)
        return report_of(source, self.verdicts)

    def rehearse(self, campaign: Campaign, watcher: Any) -> list[Rehearsed]:
        self.meanwhile()
        end = EndLine(
            status=self.status, message="told", step=7, examples=64, seconds=1.0, compile_seconds=0.1,
            data_seconds=0.0, crossing=None, examples_exact=True,
        )  # fmt: skip
        return [Rehearsed(name, end) for name in campaign.ruleset.workloads]


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Stage:
    there = Stage()
    monkeypatch.setattr(rehearsal, "isolated_check", there.check)
    monkeypatch.setattr(rehearsal, "rehearse", there.rehearse)
    monkeypatch.setattr(rehearsal, "require", lambda isolation: None)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["new", "submission", "mine"]) == 0
    return there


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    capsys.readouterr()
    code = cli.main(arguments)
    out, err = capsys.readouterr()
    return code, out + err


def test_a_bundle_is_written_of_what_passes(stage: Stage, capsys: pytest.CaptureFixture[str]):
    code, text = said(capsys, "submit", "./mine")

    assert code == 0
    assert "mine.zip is ready to be handed in" in text
    with zipfile.ZipFile("mine.zip") as opened:
        assert json.loads(opened.read("manifest.json"))["isolation"] == "sandbox"
    assert sorted(path.name for path in Path().iterdir()) == ["mine", "mine.zip"]


def test_a_file_of_it_that_cannot_be_read_is_said(
    stage: Stage, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Source, "files", lambda source: [source.folder / "gone.py"])
    code, text = said(capsys, "submit", "./mine")

    assert code == 2
    assert "mine/gone.py: cannot be read: No such file or directory" in text


def test_a_rule_that_fails_is_named_with_its_place_and_its_workload(stage: Stage, capsys: pytest.CaptureFixture[str]):
    stage.verdicts = [GOOD, BAD]
    code, text = said(capsys, "submit", "./mine")

    assert code == 1
    assert "FAIL finite on lobes: submission.py:7: not \\x1b[2J finite" in text
    assert not Path("mine.zip").exists()


def test_a_workload_on_which_it_fails_is_named_with_what_shows_why(stage: Stage, capsys: pytest.CaptureFixture[str]):
    stage.status = "error"
    code, text = said(capsys, "submit", "./mine", "--workload", "lobes")

    assert code == 1
    assert "it fails on lobes" in text
    assert "timetrial run --submission ./mine --ruleset mini-v1 --workload lobes --sandbox --out DIR" in text


def test_part_of_a_rehearsal_is_not_said_to_be_ready(stage: Stage, capsys: pytest.CaptureFixture[str]):
    code, text = said(capsys, "submit", "./mine", "--workload", "lobes")

    assert code == 0
    assert "no whole rehearsal (workloads: lobes)" in text
    assert "mine.zip was written, and `timetrial verify` will not take it" in text


def test_a_machine_without_isolation_is_told_what_it_lacks(
    stage: Stage, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def lacks(isolation: str) -> None:
        raise UserError(f"--{isolation} needs something")

    monkeypatch.setattr(rehearsal, "require", lacks)
    code, text = said(capsys, "validate", "./mine")

    assert code == 0
    assert "without isolation. --sandbox needs something; --docker needs something" in text
    assert "no whole rehearsal (no isolation)" in text


def test_what_is_edited_meanwhile_is_not_handed_in(stage: Stage):
    before = Path("mine/submission.py").read_text()
    stage.meanwhile = lambda: Path("mine/submission.py").write_text("half an idea (")
    assert cli.main(["submit", "./mine"]) == 0

    with zipfile.ZipFile("mine.zip") as opened:
        assert opened.read("submission/submission.py").decode() == before


def test_a_folder_that_cannot_be_written_is_said_before_the_rehearsal(
    stage: Stage, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    code, text = said(capsys, "submit", "./mine")

    assert (code, stage.checked) == (2, [])
    assert "cannot write to .: Read-only file system; name a file elsewhere with --out" in text


def test_a_ruleset_that_no_submission_can_follow_is_said_before_the_check(
    stage: Stage, capsys: pytest.CaptureFixture[str]
):
    Path("small.toml").write_text(
        'version = 1\ndescription = ""\nclock = "examples"\n[external]\nstudies = 1\ntrials = 1\n'
        "[workloads.lobes]\nbudget = 320\neval_every = 160\nhorizon_examples = 320\naccumulate = 2\n"
    )
    code, text = said(capsys, "validate", "./mine", "--ruleset", "small.toml")

    assert (code, stage.checked) == (2, [])
    assert "batch norm couples the rows of a batch of 'lobes'" in text


def test_a_bundle_for_which_the_disk_has_no_room_is_kept_elsewhere(
    stage: Stage,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("temporary")))
    write = zipfile.ZipFile.writestr

    def full(self: zipfile.ZipFile, *args: Any, **kwargs: Any) -> None:
        if Path(str(self.filename)).parent == Path():
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, *args, **kwargs)

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    code, text = said(capsys, "submit", "./mine")

    assert code == 2
    kept = re.search(r"cannot write mine\.zip: No space left on device; the bundle is (\S+),", text)
    assert kept is not None
    assert bundle.read_bundle(Path(kept[1]))[0]["submission"] == "mine"
    assert [path.name for path in Path().iterdir()] == ["mine"]


def test_who_stops_it_is_told_that_it_begins_anew(stage: Stage, capsys: pytest.CaptureFixture[str]):
    def stopped() -> None:
        raise KeyboardInterrupt

    stage.meanwhile = stopped
    code, text = said(capsys, "submit", "./mine")

    assert code == 130
    assert "the same command begins it anew" in text
    assert [path.name for path in Path().iterdir()] == ["mine"]
