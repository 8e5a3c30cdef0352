"""The bundle in which a submission is handed in: a zip of its source, check, rehearsal, and a manifest of hashes.

manifest.json         schema, name, hashes of every file, of the source and of the ruleset, isolation, verdict
submission/…          the source
check.json            the report of the check
environment.txt       the packages of the machine that rehearsed, as pip would be given them
rehearsal/…           campaign.json and the records
"""

import hashlib
import json
import stat
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path, PurePosixPath
from typing import Any

import timetrial
from timetrial.campaign import CAMPAIGN_NAME
from timetrial.check.static import check_static
from timetrial.errors import UserError
from timetrial.loading import Source
from timetrial.record import RECORD_NAME, RecordError, read_record
from timetrial.ruleset import Ruleset, load_ruleset, ruleset_names

SCHEMA = 1
KIND = "timetrial_submission"
_FILES, _BYTES = 2000, 64 << 20
"""What a bundle may hold at most, unpacked."""
_EPOCH = (1980, 1, 1, 0, 0, 0)
_TEXTS = ("submission", "file", "submission_sha256", "ruleset", "ruleset_sha256", "isolation")
"""What a manifest says in a text."""


@dataclass(frozen=True)
class Finding:
    """One thing that was verified, and whether it holds."""

    what: str
    holds: bool
    message: str


def write_bundle(
    path: Path,
    source: Source,
    ruleset: Ruleset,
    rehearsal: Path,
    *,
    check: Mapping[str, Any],
    trials: list[Mapping[str, Any]],
    isolation: str,
) -> None:
    """Writes the bundle of a submission that passed, in one rename.

    But for the time in its manifest, the bytes follow from the inputs.
    """
    files: dict[str, bytes] = {
        f"submission/{found.relative_to(source.folder).as_posix()}": found.read_bytes() for found in source.files()
    }
    files["check.json"] = _json(check)
    files["environment.txt"] = environment().encode()
    for found in sorted(rehearsal.rglob("*")):
        if found.name in (CAMPAIGN_NAME, RECORD_NAME):
            files[f"rehearsal/{found.relative_to(rehearsal).as_posix()}"] = found.read_bytes()
    manifest = {
        "schema": SCHEMA,
        "kind": KIND,
        "submission": source.name,
        "file": source.path.name,
        "submission_sha256": source.sha256,
        "api": source.api,
        "ruleset": ruleset.name,
        "ruleset_version": ruleset.version,
        "ruleset_sha256": ruleset.sha256,
        "ruleset_modified": list(ruleset.modified),
        "isolation": isolation,
        "rehearsal": trials,
        "timetrial": timetrial.__version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())},
    }
    scratch = path.with_name(f".{path.name}.part")
    try:
        with zipfile.ZipFile(scratch, "w", zipfile.ZIP_DEFLATED) as bundle:
            for name, content in [("manifest.json", _json(manifest)), *sorted(files.items())]:
                bundle.writestr(zipfile.ZipInfo(name, _EPOCH), content, zipfile.ZIP_DEFLATED)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def environment() -> str:
    """Every installed distribution as name==version, a line each."""
    found = {f"{d.metadata['Name']}=={d.version}" for d in distributions() if d.metadata["Name"]}
    return "".join(f"{line}\n" for line in sorted(found, key=str.lower))


def read_bundle(path: Path) -> tuple[Mapping[str, Any], dict[str, bytes]]:
    """The manifest, and the other files by name; raises `UserError` for what is no bundle, or a dangerous one."""
    try:
        with zipfile.ZipFile(path) as bundle:
            entries = bundle.infolist()
            if len(entries) > _FILES or sum(entry.file_size for entry in entries) > _BYTES:
                raise UserError(f"{path}: more than {_FILES} files or {_BYTES >> 20} MiB; this is no bundle")
            files: dict[str, bytes] = {}
            for entry in entries:
                _check_entry(path, entry)
                if entry.filename in files:
                    raise UserError(f"{path}: {entry.filename!r} is in it twice")
                files[entry.filename] = bundle.read(entry)
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{path}: cannot be read as a bundle: {why}") from None
    try:
        manifest = json.loads(files.pop("manifest.json"))
        if manifest["kind"] != KIND or manifest["schema"] != SCHEMA:
            raise UserError(f"{path}: no bundle of this version of timetrial (schema {SCHEMA})")
        named = [manifest[key] for key in _TEXTS]
        if not all(isinstance(value, str) for value in named) or not isinstance(manifest["files"], dict):
            raise TypeError
        if not isinstance(manifest["ruleset_modified"], list):
            raise TypeError
    except (KeyError, TypeError, ValueError, RecursionError):
        raise UserError(f"{path}: it has no readable manifest.json; `timetrial submit` makes bundles") from None
    return manifest, files


def _check_entry(path: Path, entry: zipfile.ZipInfo) -> None:
    name = PurePosixPath(entry.filename)
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if name.is_absolute() or ".." in name.parts or "\\" in entry.filename or kind not in (0, stat.S_IFREG):
        raise UserError(f"{path}: it holds {entry.filename!r}, which is no plain file inside it")


def verify_bundle(path: Path, scratch: Path) -> list[Finding]:
    """Checks again all that can be checked without running the submission; unpacks its source into `scratch`.

    Raises `UserError` for what is no bundle.
    """
    manifest, files = read_bundle(path)
    findings = [_hashes(manifest, files)]
    if "/" in manifest["file"] or f"submission/{manifest['file']}" not in files:
        findings.append(Finding("source", False, f"submission/{manifest['file']} is missing"))
        return findings
    for name, content in files.items():
        if name.startswith("submission/"):
            try:
                (scratch / name).parent.mkdir(parents=True, exist_ok=True)
                (scratch / name).write_bytes(content)
            except OSError as error:
                raise UserError(f"{path}: {name!r} cannot be unpacked: {error.strerror}") from None
    source = Source(manifest["submission"], scratch / "submission" / manifest["file"])
    found = source.sha256
    same = found == manifest["submission_sha256"]
    findings.append(Finding("source", same, _compared("hash", found, manifest["submission_sha256"])))
    read = {path.relative_to(scratch).as_posix() for path in source.files()}
    if unread := sorted(name for name in files if name.startswith("submission/") and name not in read):
        findings.append(Finding("source", False, f"what no rule reads, and Python may run: {', '.join(unread)}"))
    verdicts = list(check_static(source))
    failing = [verdict for verdict in verdicts if verdict.status == "fail"]
    said = "; ".join(f"{verdict.rule}: {verdict.where or ''} {verdict.message}" for verdict in failing)
    warned = sorted({verdict.rule for verdict in verdicts if verdict.status == "warn"})
    held = f"none is broken; `timetrial check` warns of: {', '.join(warned)}" if warned else "every rule holds"
    findings.append(Finding("static rules", not failing, said or held))
    findings += [_check_report(manifest, files), _ruleset(manifest), *_rehearsal(manifest, files, scratch)]
    return findings


def _hashes(manifest: Mapping[str, Any], files: Mapping[str, bytes]) -> Finding:
    listed = manifest["files"]
    wrong = [name for name in listed if name in files and hashlib.sha256(files[name]).hexdigest() != listed[name]]
    problems = [
        *(f"{name} was changed" for name in wrong),
        *(f"{name} is missing" for name in listed if name not in files),
        *(f"{name} is not in the manifest" for name in files if name not in listed),
    ]
    return Finding("files", not problems, "; ".join(problems) or f"{len(listed)} files as the manifest has them")


def _check_report(manifest: Mapping[str, Any], files: Mapping[str, bytes]) -> Finding:
    try:
        report = json.loads(files["check.json"])
        failing = [verdict["rule"] for verdict in report["verdicts"] if verdict["status"] == "fail"]
        if report["sha256"] != manifest["submission_sha256"]:
            return Finding("check", False, "check.json is of another source")
    except (KeyError, TypeError, ValueError, RecursionError):
        return Finding("check", False, "check.json cannot be read")
    return Finding("check", not failing, f"fails: {', '.join(failing)}" if failing else "its report has no failure")


def _ruleset(manifest: Mapping[str, Any]) -> Finding:
    name = manifest["ruleset"]
    if name not in ruleset_names():
        return Finding("ruleset", False, f"this installation has no ruleset {name!r}")
    if modified := manifest.get("ruleset_modified"):
        return Finding("ruleset", False, f"{name} was not rehearsed whole: {'; '.join(map(str, modified))}")
    found = load_ruleset(name).sha256
    return Finding("ruleset", found == manifest["ruleset_sha256"], _compared(name, found, manifest["ruleset_sha256"]))


def _rehearsal(manifest: Mapping[str, Any], files: Mapping[str, bytes], scratch: Path) -> list[Finding]:
    findings: list[Finding] = []
    names = [name for name in files if name.startswith("rehearsal/") and name.endswith(f"/{RECORD_NAME}")]
    for number, name in enumerate(sorted(names)):
        place = scratch / f"record-{number}.jsonl"
        place.write_bytes(files[name])
        try:
            record = read_record(place)
        except RecordError as error:
            findings.append(Finding(name, False, str(error)))
            continue
        end, run = record.end, record.run
        problems: list[str] = []
        if run.submission_sha256 != manifest["submission_sha256"]:
            problems.append("of another source")
        if run.isolation != manifest["isolation"]:
            problems.append(f"isolation {run.isolation}, where the manifest says {manifest['isolation']}")
        if end is None or end.status not in ("reached", "budget"):
            problems.append("without an end" if end is None else f"{end.status}: {end.message}")
        findings.append(Finding(run.workload, not problems, "; ".join(problems) or f"{end.step if end else 0:,} steps"))
    rehearsed = {finding.what for finding in findings}
    prescribed = load_ruleset(manifest["ruleset"]).workloads if manifest["ruleset"] in ruleset_names() else ()
    if missing := [workload for workload in prescribed if workload not in rehearsed]:
        findings.append(Finding("rehearsal", False, f"there is none on {', '.join(missing)}"))
    if manifest["isolation"] == "none":
        findings.append(Finding("isolation", False, "it was rehearsed without isolation"))
    return findings


def _compared(what: str, found: str, expected: str) -> str:
    return f"{what} {found[:16]}…" + ("" if found == expected else f", where the manifest has {expected[:16]}…")


def _json(data: Any) -> bytes:
    return (json.dumps(data, indent=1) + "\n").encode()
