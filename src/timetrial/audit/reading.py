"""The trials of folders of runs, with the campaigns that they belong to. Whatever cannot be read is a finding."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from timetrial import fields
from timetrial.audit.findings import Finding
from timetrial.campaign import CAMPAIGN_NAME, read_campaign
from timetrial.errors import UserError
from timetrial.loading import SOURCE_FOLDER, Source
from timetrial.record import RECORD_NAME, EndLine, EvalLine, RecordError, ResumeLine, RunHeader, RunRecord, read_record
from timetrial.registry import SUBMISSION_FILE
from timetrial.ruleset import Ruleset

_MOST = 100_000
"""Studies, and trials a study, that a campaign may say it has."""


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """What a campaign.json says was asked for."""

    path: Path
    seed: int
    ruleset: Ruleset
    ruleset_sha256: str
    submission_sha256: Mapping[str, str]
    self_tuning: Mapping[str, bool]
    accumulate: int
    remat: bool


@dataclass(frozen=True, kw_only=True)
class AuditedTrial:
    """A record and what stands beside it."""

    folder: Path
    record: RunRecord
    lines: tuple[bytes, ...]
    """Of the record, newlines included."""
    campaign: Campaign | None

    @property
    def path(self) -> Path:
        return self.record.path

    @property
    def run(self) -> RunHeader:
        return self.record.run

    @property
    def name(self) -> str:
        return f"{self.run.submission}/{self.run.workload}/study_{self.run.study}/trial_{self.run.trial}"

    @cached_property
    def numbered(self) -> tuple[tuple[int, EvalLine | ResumeLine | EndLine], ...]:
        """The lines after the first, each with its number in the file."""
        rest = {"eval": iter(self.record.evals), "resume": iter(self.record.resumes), "end": iter([self.record.end])}
        kinds = [json.loads(line)["kind"] for line in self.lines]
        found = [(number, next(rest[kind])) for number, kind in enumerate(kinds[1:], start=2)]
        return tuple((number, line) for number, line in found if line is not None)

    @cached_property
    def eval_lines(self) -> tuple[int, ...]:
        """The number in the file of each eval."""
        return tuple(number for number, line in self.numbered if isinstance(line, EvalLine))

    @property
    def result(self) -> EndLine | None:
        """The end line; None where the trial has no result: interrupted, or killed."""
        end = self.record.end
        return None if end is None or end.status == "interrupted" else end

    @cached_property
    def source(self) -> Source | None:
        """The submission as it was run; None where there is no copy of it, or more than one file it could be."""
        folder = self.folder / SOURCE_FOLDER
        if (folder / SUBMISSION_FILE).is_file():
            return Source(self.run.submission, folder / SUBMISSION_FILE)
        files = sorted(folder.glob("*.py")) if folder.is_dir() else []
        return Source(self.run.submission, files[0]) if len(files) == 1 else None

    def wanted(self) -> tuple[int, ...]:
        """Positions of the evals whose parameters must stand beside the record: the crossing's, and the last."""
        end = self.result
        if end is None or end.status not in ("reached", "budget") or not self.record.evals:
            return ()
        last = len(self.record.evals) - 1
        crossing = last if end.crossing is None else end.crossing.eval_index
        return tuple(sorted({crossing, last} & set(range(last + 1))))


@dataclass(frozen=True, kw_only=True)
class Runs:
    """What was found in the folders to audit."""

    trials: list[AuditedTrial] = field(default_factory=list[AuditedTrial])
    campaigns: list[Campaign] = field(default_factory=list[Campaign])
    findings: list[Finding] = field(default_factory=list[Finding])
    imported: list[Path] = field(default_factory=list[Path])
    """Records made of AlgoPerf's logs: they carry nothing that could be audited."""


def read_runs(folders: Sequence[Path]) -> Runs:
    """All trials in these folders and below. Raises UserError where there is none."""
    runs = Runs()
    campaigns: dict[Path, Campaign | None] = {}
    seen: set[Path] = set()
    for top in folders:
        if not top.is_dir():
            raise UserError(f"no folder {str(top)!r}; give folders that hold runs")
        for where, below, files in os.walk(top.resolve()):
            below.sort()
            folder = Path(where)
            if CAMPAIGN_NAME in files:
                _campaign(folder / CAMPAIGN_NAME, campaigns, runs)
            if RECORD_NAME in files:
                below.clear()
                if folder not in seen:
                    seen.add(folder)
                    _read_trial(folder, campaigns, runs)
    if not (runs.trials or runs.imported or runs.findings or runs.campaigns):
        raise UserError(f"nothing to audit in {', '.join(map(str, folders))}: no {RECORD_NAME} there or below")
    runs.campaigns.extend(campaign for campaign in campaigns.values() if campaign is not None)
    return runs


def _read_trial(folder: Path, campaigns: dict[Path, Campaign | None], runs: Runs) -> None:
    path = folder / RECORD_NAME
    asked = folder.parents[min(3, len(folder.parents) - 1)] / CAMPAIGN_NAME
    campaign = _campaign(asked, campaigns, runs) if asked.is_file() else None
    try:
        record = read_record(path)
        whole = path.read_bytes().rpartition(b"\n")[0]
    except (RecordError, OSError) as error:
        line, _, message = str(error).removeprefix(f"{path}:").partition(": ")
        number = int(line) if line.isdigit() else None
        runs.findings.append(
            Finding(kind="malformed", message=message if number else str(error), path=path, line=number)
        )
        return
    count = 1 + len(record.evals) + len(record.resumes) + (record.end is not None)
    lines = tuple(line + b"\n" for line in whole.split(b"\n")[:count])  # a running trial may have written another
    run = record.run
    if run.api == "algoperf" and not (run.workload_sha256 or run.submission_sha256 or asked.is_file()):
        runs.imported.append(path)
        return
    runs.trials.append(AuditedTrial(folder=folder, record=record, lines=lines, campaign=campaign))
    expected = (run.submission, run.workload, f"study_{run.study}", f"trial_{run.trial}")
    if folder.parts[-4:] != expected:
        message = "the record does not belong in this folder"
        where, found = "/".join(expected), "/".join(folder.parts[-4:])
        runs.findings.append(
            Finding(kind="place", message=message, path=path, line=1, field="study", expected=found, found=where)
        )


def _campaign(path: Path, campaigns: dict[Path, Campaign | None], runs: Runs) -> Campaign | None:
    if path not in campaigns:
        try:
            campaigns[path] = _read_campaign(path)
        except (UserError, LookupError, ValueError, TypeError, ArithmeticError, RecursionError) as error:
            campaigns[path] = None
            missing = " is missing" if isinstance(error, KeyError) else ""
            message = f"not a campaign's description: {error}{missing}"
            runs.findings.append(Finding(kind="malformed", message=message, path=path))
    return campaigns[path]


def _read_campaign(path: Path) -> Campaign:
    data = read_campaign(path)
    ruleset = Ruleset.from_json(fields.mapping(data["ruleset"]), where="ruleset")
    fields.text(ruleset.name)
    for self_tuning, board in ((False, ruleset.external), (True, ruleset.self_tuning)):
        if board is not None and max(board.studies, board.trials) > _MOST:
            raise ValueError(f"more than {_MOST} studies or trials")
        for name in ruleset.workloads if board is not None else ():
            fields.duration(ruleset.budget(name, self_tuning=self_tuning))
    return Campaign(
        path=path,
        seed=fields.whole(data["seed"]),
        ruleset=ruleset,
        ruleset_sha256=fields.text(data["ruleset_sha256"]),
        submission_sha256={k: fields.text(v) for k, v in fields.mapping(data["submission_sha256"]).items()},
        self_tuning={k: fields.flag(v) for k, v in fields.mapping(data["self_tuning"]).items()},
        accumulate=fields.count(data.get("accumulate", 1)),
        remat=fields.flag(data.get("remat", False)),
    )
