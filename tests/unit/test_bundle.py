"""A bundle says what was handed in; `verify` finds whatever does not hold, and runs nothing of it."""

import hashlib
import json
import random
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fakes
import pytest

from timetrial.campaign import restrict
from timetrial.check.report import report_of
from timetrial.check.static import check_static
from timetrial.errors import UserError
from timetrial.loading import Source, find_source
from timetrial.record import EndLine, RecordWriter
from timetrial.ruleset import load_ruleset
from timetrial.validation.bundle import verify_bundle, write_bundle
from timetrial.validation.rehearsal import rehearsal_rules

RULESET = load_ruleset("mini-v1")
END = EndLine(
    status="budget", message="", step=10, examples=640, seconds=1.0, compile_seconds=0.1, data_seconds=0.0,
    crossing=None, examples_exact=True,
)  # fmt: skip


def record(folder: Path, source: Source, workload: str, **changes: Any) -> None:
    header = replace(
        fakes.header(), workload=workload, submission=source.name, submission_sha256=source.sha256,
        isolation="sandbox", **changes,
    )  # fmt: skip
    place = folder / source.name / workload / "study_0" / "trial_0"
    place.mkdir(parents=True)
    with RecordWriter(place / "record.jsonl") as writer:
        writer.run(header)
        writer.end(END)


def bundle(tmp_path: Path, *, isolation: str = "sandbox", workloads: Any = RULESET.workloads, **changes: Any) -> Path:
    source, path = find_source("nesterov"), tmp_path / "nesterov.zip"
    for workload in workloads:
        record(tmp_path / "rehearsal", source, workload, **changes)
    write_bundle(
        path,
        source,
        restrict(RULESET, workloads=list(workloads)),
        tmp_path / "rehearsal",
        check=report_of(source, check_static(source)).to_json(),
        trials=[],
        isolation=isolation,
    )
    return path


def broken(tmp_path: Path, path: Path) -> dict[str, str]:
    """What does not hold."""
    return {finding.what: finding.message for finding in verify_bundle(path, tmp_path / "verify") if not finding.holds}


def rewrite(path: Path, change: Callable[[dict[str, bytes]], None]) -> None:
    with zipfile.ZipFile(path) as old:
        files = {name: old.read(name) for name in old.namelist()}
    change(files)
    with zipfile.ZipFile(path, "w") as new:
        for name, content in files.items():
            new.writestr(name, content)


def test_a_bundle_as_it_was_made_holds(tmp_path: Path):
    findings = verify_bundle(bundle(tmp_path), tmp_path / "verify")

    assert [finding for finding in findings if not finding.holds] == []
    assert {"files", "source", "static rules", "check", "ruleset"} < {finding.what for finding in findings}


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("submission/submission.py", "source"),
        ("check.json", "files"),
        ("environment.txt", "files"),
        ("rehearsal/nesterov/lobes/study_0/trial_0/record.jsonl", "files"),
    ],
)
def test_a_file_that_was_changed_is_named(tmp_path: Path, name: str, what: str):
    path = bundle(tmp_path)

    def append(files: dict[str, bytes]) -> None:
        files[name] += b"\n"

    rewrite(path, append)
    found = broken(tmp_path, path)

    assert what in found
    assert f"{name} was changed" in found["files"]


def test_files_that_are_missing_or_were_added_are_named(tmp_path: Path):
    path = bundle(tmp_path)

    def swap(files: dict[str, bytes]) -> None:
        del files["environment.txt"]
        files["submission/weights.py"] = b"W = 1\n"

    rewrite(path, swap)

    message = broken(tmp_path, path)["files"]
    assert "environment.txt is missing" in message
    assert "submission/weights.py is not in the manifest" in message


@pytest.mark.parametrize("name", ["__pycache__/submission.cpython-311.pyc", ".venv/hidden.py", "__pycache__/a/b.py"])
def test_a_file_that_neither_the_hash_nor_the_rules_read_is_found_although_the_manifest_has_it(
    tmp_path: Path, name: str
):
    path = bundle(tmp_path)

    def hide(files: dict[str, bytes]) -> None:
        files[f"submission/{name}"] = b"HIDDEN = True\n"
        listed = {n: hashlib.sha256(content).hexdigest() for n, content in files.items() if n != "manifest.json"}
        with_manifest(files=listed)(files)

    rewrite(path, hide)

    assert name in broken(tmp_path, path)["source"]


def bundle_of(tmp_path: Path, text: str) -> Path:
    """A submission that opens sockets, whose report says that it passed."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "submission.py").write_text(f"import socket\n\n{text}")
    source = Source("mine", folder / "submission.py")
    record(tmp_path / "rehearsal", source, "lobes")
    path = tmp_path / "mine.zip"
    report = {"sha256": source.sha256, "verdicts": [{"rule": "imports", "status": "pass"}]}
    write_bundle(path, source, RULESET, tmp_path / "rehearsal", check=report, trials=[], isolation="sandbox")
    return path


def test_a_source_that_breaks_a_static_rule_is_found_although_its_report_says_otherwise(tmp_path: Path):
    path = bundle_of(tmp_path, "def make(hparams, task):\n    ...\n")
    assert "submission.py:1" in broken(tmp_path, path)["static rules"]


def test_of_a_submission_for_algoperf_the_rules_that_warn_are_named(tmp_path: Path):
    path = bundle_of(tmp_path, "def init_optimizer_state():\n    ...\n\ndef update_params():\n    ...\n")
    found = {finding.what: finding for finding in verify_bundle(path, tmp_path / "verify")}
    assert found["static rules"].holds
    assert "imports" in found["static rules"].message


def test_a_rehearsal_of_another_source_or_that_failed_is_found(tmp_path: Path):
    def other(files: dict[str, bytes]) -> None:
        name = "rehearsal/nesterov/lobes/study_0/trial_0/record.jsonl"
        first, rest = files[name].split(b"\n", 1)
        files[name] = json.dumps({**json.loads(first), "submission_sha256": "0" * 64}).encode() + b"\n" + rest

    path = bundle(tmp_path)
    rewrite(path, other)

    assert "of another source" in broken(tmp_path, path)["lobes"]


def test_a_ruleset_that_was_not_rehearsed_whole_is_found(tmp_path: Path):
    found = broken(tmp_path, bundle(tmp_path, workloads=["lobes"]))

    assert "workloads: lobes" in found["ruleset"]
    assert "fashion" in found["rehearsal"]


def test_a_rehearsal_without_isolation_is_found(tmp_path: Path):
    assert "without isolation" in broken(tmp_path, bundle(tmp_path, isolation="none"))["isolation"]


@pytest.mark.parametrize("name", ["../outside.py", "/etc/passwd", "submission\\..\\x.py"])
def test_a_bundle_that_would_write_outside_its_folder_is_refused(tmp_path: Path, name: str):
    path = bundle(tmp_path)
    with zipfile.ZipFile(path, "a") as opened:
        opened.writestr(zipfile.ZipInfo(name), b"x")

    with pytest.raises(UserError, match="no plain file inside it"):
        verify_bundle(path, tmp_path / "verify")


def with_manifest(**changes: Any) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        files["manifest.json"] = json.dumps({**json.loads(files["manifest.json"]), **changes}).encode()

    return change


@pytest.mark.parametrize("name", ["..", ".", "", "/", "a/../..", "a\0b", "x" * 300])
def test_a_submission_s_name_leads_nowhere_but_to_the_folder_it_is_unpacked_in(tmp_path: Path, name: str):
    path, scratch = bundle(tmp_path), tmp_path / "above" / "scratch"
    rewrite(path, with_manifest(submission=name))
    scratch.mkdir(parents=True)
    verify_bundle(path, scratch)

    assert [found.name for found in scratch.parent.iterdir()] == ["scratch"]
    assert (scratch / "submission" / "submission.py").is_file()


@pytest.mark.parametrize("file", ["..", "../submission.py", "deeper/submission.py", "", "a\0b"])
def test_a_file_that_is_not_in_the_submission_s_folder_is_missing(tmp_path: Path, file: str):
    path = bundle(tmp_path)
    rewrite(path, with_manifest(file=file))
    rewrite(path, lambda files: files.update({"submission/deeper/submission.py": b""}))

    assert "is missing" in broken(tmp_path, path)["source"]


@pytest.mark.parametrize("key", ["submission", "file", "isolation", "ruleset_sha256", "ruleset_modified", "files"])
def test_a_manifest_of_another_form_is_refused(tmp_path: Path, key: str):
    path = bundle(tmp_path)
    rewrite(path, with_manifest(**{key: 1}))

    with pytest.raises(UserError, match=r"no readable manifest\.json"):
        verify_bundle(path, tmp_path / "verify")


def test_json_that_is_too_deep_to_read_is_refused(tmp_path: Path):
    path = bundle(tmp_path)
    rewrite(path, lambda files: files.update({"check.json": b"[" * 100_000}))
    assert broken(tmp_path, path)["check"] == "check.json cannot be read"

    rewrite(path, lambda files: files.update({"manifest.json": b"[" * 100_000}))
    with pytest.raises(UserError, match=r"no readable manifest\.json"):
        verify_bundle(path, tmp_path / "again")


@pytest.mark.parametrize("name", ["submission/submission.py/below", "submission/" + "x" * 300])
def test_files_that_no_folder_can_hold_are_refused(tmp_path: Path, name: str):
    path = bundle(tmp_path)
    rewrite(path, lambda files: files.update({name: b""}))

    with pytest.raises(UserError, match="cannot be unpacked"):
        verify_bundle(path, tmp_path / "verify")


def test_a_bundle_that_was_damaged_on_its_way_is_refused_or_its_damage_is_found(tmp_path: Path):
    path = bundle(tmp_path, workloads=["lobes"])
    whole, damage = path.read_bytes(), random.Random(0)
    for _ in range(40):
        damaged = bytearray(whole)
        for _ in range(20):
            damaged[damage.randrange(len(whole))] = damage.randrange(256)
        path.write_bytes(damaged)
        with tempfile.TemporaryDirectory(dir=tmp_path) as scratch:
            try:
                assert not all(finding.holds for finding in verify_bundle(path, Path(scratch)))
            except UserError:
                continue


def test_a_bundle_that_unpacks_to_too_much_is_refused_unread(tmp_path: Path):
    path = bundle(tmp_path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("submission/zeros", bytes(65 << 20))

    with pytest.raises(UserError, match="64 MiB"):
        verify_bundle(path, tmp_path / "verify")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", b"{}"])
def test_what_is_no_bundle_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "x.zip"
    path.write_bytes(content)

    with pytest.raises(UserError, match="cannot be read as a bundle"):
        verify_bundle(path, tmp_path / "verify")


def test_the_same_inputs_give_the_same_bundle(tmp_path: Path):
    first, second = (bundle(tmp_path / name) if not (tmp_path / name).mkdir() else Path() for name in "ab")

    with zipfile.ZipFile(first) as a, zipfile.ZipFile(second) as b:
        names = [name for name in a.namelist() if name != "manifest.json"]
        assert a.namelist() == b.namelist()
        assert all(a.read(name) == b.read(name) for name in names)


def test_a_rehearsal_has_one_short_trial_of_each_workload_at_the_default_point():
    short = rehearsal_rules(RULESET, 0.05)

    assert short.external is not None
    assert (short.external.studies, short.external.trials, short.external.points) == (1, 1, "default")
    assert {name: rules.budget / RULESET.workloads[name].budget for name, rules in short.workloads.items()} == {
        name: pytest.approx(0.05) for name in RULESET.workloads
    }
    assert short.modified
