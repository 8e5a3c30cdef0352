"""A campaign: the grid submissions x workloads x studies x trials, and the folder that is its ledger.

A trial is done when its record has a result, and being run while a process claims it. Who runs them: `launchers`.
"""

import json
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from timetrial.claims import LOCK_NAME, locked
from timetrial.errors import UserError, unknown
from timetrial.evidence import derived_targets, evidence_path
from timetrial.instrument_log import Choice
from timetrial.isolation.policy import Isolation
from timetrial.loading import Source
from timetrial.record import RECORD_NAME, RecordError, Status, read_record
from timetrial.registry import SUBMISSION_FILE, base_of, shipped
from timetrial.ruleset import Ruleset, WorkloadRules
from timetrial.worker import Job

CAMPAIGN_NAME = "campaign.json"
SOURCES_FOLDER = ".submissions"
"""Hidden, so that whoever looks for records passes it by: a submission's folder may hold anything."""
SCHEMA = 1
FAILURES: frozenset[Status] = frozenset({"error", "out_of_memory", "hung"})
"""Ends of a trial that are the submission's doing and that somebody should look into."""


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """All that decides which trials are run, and where they are kept."""

    out: Path
    ruleset: Ruleset
    sources: tuple[Source, ...]
    seed: int
    checkpoint_seconds: float = 30.0
    """Wall seconds between a trial's checkpoints."""
    instruments: Choice | None = None
    """What looks at the trials' steps; changes no result, and is no part of `campaign.json`."""
    isolation: Isolation = "none"
    """What keeps a submission apart from its trials."""
    processes: int = 1
    """How many processes each trial is split over."""
    accumulate: int = 1
    remat: bool = False
    """How memory is saved on all workloads (`timetrial.workload.economical`); 1 and False: as the ruleset says."""

    def __post_init__(self) -> None:
        repeated = [name for name, n in Counter(source.name for source in self.sources).items() if n > 1]
        if repeated:
            raise UserError(f"two submissions are called {repeated[0]!r}; rename the folder of one")
        if self.processes > 1:
            self._require_splittable()
        self._require_own_loss()
        for source in self.sources:
            if source.path.name == SUBMISSION_FILE and self.out.resolve().is_relative_to(source.folder.resolve()):
                raise UserError(f"{self.out} would be a part of submission {source.name!r}; name a folder outside it")

    def _require_splittable(self) -> None:
        """What looks at one process alone cannot be had where a trial has several."""
        if self.isolation != "none" or self.instruments is not None:
            raise UserError("--processes: trials of several processes are neither isolated nor seen by instruments")
        for source in self.sources:
            if source.api == "algoperf":
                raise UserError(
                    f"--processes: {source.name!r} is written for AlgoPerf, whose functions see a clock of their own; "
                    "only timetrial's submissions run over several processes"
                )

    def _require_own_loss(self) -> None:
        """What saves memory is in `problem.loss`, which AlgoPerf's submissions do not call."""
        rules = self.ruleset.workloads
        saving = [name for name in rules if rules[name].economy(self.accumulate, self.remat) != (1, False)]
        for source in self.sources if saving else ():
            if source.api == "algoperf":
                who, instead = "--accumulate and --remat", ""
                if self.accumulate == 1 and not self.remat:
                    who = f"ruleset {self.ruleset.name!r}, workload {saving[0]!r}: accumulate and remat"
                    instead = "; `timetrial run --accumulate 1 --no-remat` does without"
                raise UserError(
                    f"{who} change the loss that timetrial's submissions are handed; {source.name!r} is written for "
                    f"AlgoPerf and does not call it{instead}"
                )

    def jobs(self) -> list[Job]:
        """Every trial, in the order they are run: submissions take turns, so that none has the machine's best hour."""
        ruleset = self.ruleset.to_json()
        paths = {source.name: str(source.path.resolve()) for source in self.sources}
        self_tuning = {source.name: source.self_tuning for source in self.sources}
        return [
            Job(
                submission=name,
                path=paths[name],
                workload=workload,
                ruleset=ruleset,
                seed=self.seed,
                study=study,
                trial=trial,
                self_tuning=self_tuning[name],
                folder=str(self.out / name / workload / f"study_{study}" / f"trial_{trial}"),
                checkpoint_seconds=self.checkpoint_seconds,
                instruments=None if self.instruments is None else asdict(self.instruments),
                isolation=self.isolation,
                processes=self.processes,
                accumulate=accumulate,
                remat=remat,
            )
            for workload, rules in self.ruleset.workloads.items()
            for accumulate, remat in [rules.economy(self.accumulate, self.remat)]
            for study, trial, name in self._turns(self_tuning)
        ]

    def _turns(self, self_tuning: Mapping[str, bool]) -> list[tuple[int, int, str]]:
        turns: list[tuple[int, int, str]] = []
        for name, tunes_itself in self_tuning.items():
            tuning = self.ruleset.tuning(self_tuning=tunes_itself)
            turns += [(study, trial, name) for study in range(tuning.studies) for trial in range(tuning.trials)]
        return sorted(turns, key=lambda turn: turn[:2])

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "kind": "campaign",
            "seed": self.seed,
            "ruleset": self.ruleset.to_json(),
            "ruleset_sha256": self.ruleset.sha256,
            "submissions": [source.name for source in self.sources],
            "submission_sha256": {source.name: source.sha256 for source in self.sources},
            "self_tuning": {source.name: source.self_tuning for source in self.sources},
            "submission_files": {source.name: source.path.name for source in self.sources},
            "workloads": list(self.ruleset.workloads),
            "checkpoint_seconds": self.checkpoint_seconds,
            "isolation": self.isolation,
            "processes": self.processes,
            "accumulate": self.accumulate,
            "remat": self.remat,
        }


def open_folder(campaign: Campaign, *, resume: bool) -> None:
    """Makes the output folder, or takes up the one that is there; raises `UserError` where that was not asked for.

    Several processes may take up one folder: each trial is run by the one that claims it (`timetrial.claims`).
    """
    if campaign.out.exists() and not campaign.out.is_dir():
        raise UserError(f"{campaign.out} is a file; name a folder for --out")
    if campaign.out.exists() and any(campaign.out.iterdir()) and not resume:
        raise UserError(f"{campaign.out} exists; add --resume to go on with it, or name another folder with --out")
    try:
        campaign.out.mkdir(parents=True, exist_ok=True)
        with locked(campaign.out):
            _write_campaign(campaign)
    except OSError as error:
        raise UserError(f"cannot write to {campaign.out}: {error.strerror}") from None


def _write_campaign(campaign: Campaign) -> None:
    path, new = campaign.out / CAMPAIGN_NAME, campaign.to_json()
    if any(found.name != LOCK_NAME for found in campaign.out.iterdir()):
        old = read_campaign(path)
        for key in ("processes", "accumulate", "remat"):
            if old.get(key, getattr(Campaign, key)) != new[key]:
                raise UserError(f"{campaign.out} was begun with another --{key}; name another folder with --out")
        for key, what in (("seed", "--seed"), ("ruleset_sha256", "ruleset, or other options that change it")):
            if old[key] != new[key]:
                raise UserError(f"{campaign.out} was begun with another {what}; name another folder with --out")
        for name, sha256 in old["submission_sha256"].items():
            if new["submission_sha256"].get(name, sha256) != sha256:
                raise UserError(f"submission {name!r} has changed since {campaign.out} was begun; use another --out")
        for key in ("submission_sha256", "self_tuning", "submission_files"):
            new[key] = {**old.get(key, {}), **new[key]}
        new["submissions"] = list(new["submission_sha256"])
    scratch = path.with_suffix(".tmp")
    scratch.write_text(json.dumps(new, indent=1) + "\n")
    scratch.replace(path)


def read_campaign(path: Path) -> dict[str, Any]:
    """What `campaign.json` says; raises `UserError` where there is none of this version."""
    try:
        data = json.loads(path.read_text())
        if data["schema"] != SCHEMA or data["kind"] != "campaign":
            raise UserError(f"{path} is no campaign of this version of timetrial")
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{path.parent} is no campaign of timetrial: it has no readable {CAMPAIGN_NAME}") from None
    return data


def keep_sources(campaign: Campaign) -> Campaign:
    """The campaign with copies of its submissions, made in its folder: later edits of them change no trial.

    The folder is one that `open_folder` has opened, so copies that are there already are of the same submissions.
    """
    folders = {source: campaign.out / SOURCES_FOLDER / source.name for source in campaign.sources}
    with locked(campaign.out):
        for source, folder in folders.items():
            if not folder.exists():
                scratch = folder.with_name(f".{uuid.uuid4().hex}")
                source.copy_to(scratch)
                scratch.rename(folder)
    kept = (Source(source.name, folder / source.path.name) for source, folder in folders.items())
    return replace(campaign, sources=tuple(kept))


def kept_job(place: Path) -> Job:
    """The trial whose folder is `place`, as its campaign's folder describes it, of the submission that is kept there.

    Raises `UserError` where there is no such trial, or where the copy of the submission has been changed.
    """
    place = place.resolve()
    out, name = Path(*place.parts[:-4]), place.parts[max(0, len(place.parts) - 4)]
    path = out / CAMPAIGN_NAME
    data = read_campaign(path)
    source = Source(name, out / SOURCES_FOLDER / name / data.get("submission_files", {}).get(name, SUBMISSION_FILE))
    if not source.path.is_file():
        raise UserError(f"{out} keeps no submission {name!r}; `timetrial run --launcher slurm` makes copies of them")
    if source.sha256 != data["submission_sha256"][name]:
        raise UserError(f"{source.folder} has been changed since the campaign was begun; begin another")
    campaign = Campaign(
        out=out,
        ruleset=Ruleset.from_json(data["ruleset"], where=str(path)),
        sources=(source,),
        seed=data["seed"],
        checkpoint_seconds=data["checkpoint_seconds"],
        isolation=data["isolation"],
        processes=data.get("processes", 1),
        accumulate=data.get("accumulate", 1),
        remat=data.get("remat", False),
    )
    for job in campaign.jobs():
        if job.folder == str(place):
            return job
    raise UserError(f"{place} is no trial of the campaign in {out}: its ruleset has no such workload, study or trial")


def has_result(job: Job) -> bool:
    try:
        end = read_record(Path(job.folder) / RECORD_NAME).end
    except RecordError:
        return False
    return end is not None and end.status != "interrupted"


def require_runnable(ruleset: Ruleset) -> None:
    """Raises `UserError` where a workload has no grid, no horizon or no target, before anything is begun."""
    if not all(rules.eval_every and rules.horizon_examples for rules in ruleset.workloads.values()):
        raise UserError(
            f"ruleset {ruleset.name!r} is for scoring logs: it gives its workloads no eval grid and horizon"
        )
    for name, rules in ruleset.workloads.items():
        evidence = evidence_path(shipped("workloads") / base_of(name), name)
        if rules.target is None and derived_targets(evidence)[0] is None:
            raise UserError(
                f"workload {name!r} has no target yet: `timetrial target {name}` derives one; "
                "until then name others with --workload"
            )


def require_parts(campaign: Campaign) -> None:
    """Raises `UserError` where a workload's batches cannot go through the loss in parts, before anything is begun."""
    for name, rules in campaign.ruleset.workloads.items():
        accumulate, _ = rules.economy(campaign.accumulate, campaign.remat)
        if accumulate > 1:
            from timetrial.registry import load_workload
            from timetrial.workload import economical

            where = "--accumulate" if campaign.accumulate > 1 else f"ruleset {campaign.ruleset.name!r}: accumulate"
            economical(load_workload(name), accumulate=accumulate, where=where)


def restrict(
    ruleset: Ruleset,
    *,
    workloads: Sequence[str] = (),
    studies: int | None = None,
    trials: int | None = None,
    points: Literal["default", "halton"] | None = None,
    accumulate: int | None = None,
    remat: bool | None = None,
) -> Ruleset:
    """The ruleset with other workloads, studies, trials or points; its `modified` says what was changed.

    A workload may also be a variant of one of the ruleset's: it has its base's budget and grid, and its own target.
    `accumulate` and `remat` replace what the ruleset says; where it says nothing they are the `Campaign`'s alone.
    """
    all_rules = dict(ruleset.workloads)
    for name in workloads:
        if name not in all_rules:
            all_rules[name] = _variant_rules(ruleset, name)
    modified = list(ruleset.modified)
    if workloads and set(workloads) != set(ruleset.workloads):
        kept = {name: rules for name, rules in all_rules.items() if name in workloads}
        modified.append(f"workloads: {', '.join(kept)}")
        lone = {name: replace(r, variant_of=r.variant_of if r.variant_of in kept else None) for name, r in kept.items()}
        ruleset = replace(ruleset, workloads=lone)
    for field, value in (("studies", studies), ("trials", trials)):
        if value is None:
            continue
        if value < 1:
            raise UserError(f"--{field} must be at least 1, not {value}")
        boards = {"external": ruleset.external} | ({"self_tuning": ruleset.self_tuning} if field == "studies" else {})
        changed = {name: replace(board, **{field: value}) for name, board in boards.items() if board is not None}
        if any(changed[name] != boards[name] for name in changed):
            modified.append(f"{field}: {value}")
            ruleset = replace(ruleset, **changed)
    if points is not None and ruleset.external is not None and ruleset.external.points != points:
        modified.append(f"points: {points}")
        ruleset = replace(ruleset, external=replace(ruleset.external, points=points))
    if accumulate is not None and accumulate < 1:
        raise UserError(f"--accumulate must be at least 1, not {accumulate}")
    for field, value in (("accumulate", accumulate), ("remat", remat)):
        said = {getattr(rules, field) for rules in ruleset.workloads.values()}
        if value is not None and said not in ({getattr(WorkloadRules, field)}, {value}):
            modified.append(f"{field}: {json.dumps(value)}")
            changed = {name: replace(rules, **{field: value}) for name, rules in ruleset.workloads.items()}
            ruleset = replace(ruleset, workloads=changed)
    return replace(ruleset, modified=tuple(modified))


def _variant_rules(ruleset: Ruleset, name: str) -> WorkloadRules:
    try:
        base = base_of(name)
    except UserError:
        base = name
    if base not in ruleset.workloads:
        raise unknown("workload", name, ruleset.workloads, f"These are the workloads of ruleset {ruleset.name!r}.")
    rules = ruleset.workloads[base]
    return replace(rules, variant_of=base, target=None, test_target=None, anchor=None, milestones=())
