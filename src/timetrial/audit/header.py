"""What identifies a run, against what it claims to follow from: campaign, ruleset, workload, source and seed."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

from timetrial.audit.facts import WorkloadFacts
from timetrial.audit.findings import Finding
from timetrial.audit.reading import AuditedTrial, Campaign
from timetrial.audit.space import search_space
from timetrial.errors import UserError
from timetrial.registry import base_of
from timetrial.ruleset import Ruleset, load_ruleset, ruleset_names
from timetrial.seeds import seed as seed_of
from timetrial.tuning import prescribed_point


def check_campaign(campaign: Campaign) -> Iterator[Finding]:
    """The rules of a campaign hash to what it says, and are those of the installed ruleset of that name."""

    def wrong(field: str, message: str, expected: object, found: object) -> Finding:
        return Finding(kind="rules", message=message, path=campaign.path, field=field, expected=expected, found=found)

    ruleset = campaign.ruleset
    if ruleset.sha256 != campaign.ruleset_sha256:
        yield wrong("ruleset_sha256", "not the hash of its ruleset", ruleset.sha256, campaign.ruleset_sha256)
    installed = installed_ruleset(ruleset)
    if installed is None or installed.version != ruleset.version:
        return
    for field in ("clock", "confirmation", "test_evals", "hang_seconds", "matmul_precision", "external", "self_tuning"):
        old, new = getattr(installed, field), getattr(ruleset, field)
        if ruleset.modified and old is not None and new is not None and field in ("external", "self_tuning"):
            new = replace(new, studies=old.studies, trials=old.trials)  # `run` may ask for fewer, and says so
        if old != new:
            yield wrong(f"ruleset.{field}", f"not what the installed ruleset {ruleset.name!r} says", old, new)
    replaced = {words.partition(":")[0] for words in ruleset.modified}
    for name, rules in ruleset.workloads.items():
        base = _base(name, installed.workloads)
        if base is None:
            message = f"not a workload of the installed ruleset {ruleset.name!r}"
            yield wrong(f"ruleset.workloads.{name}", message, ", ".join(installed.workloads), name)
            continue
        # A variant that was added, or held out, has its base's budget, and targets and anchors of its own.
        compared = ("budget", "eval_every", "horizon_examples")
        compared += ("target", "test_target", "anchor", "milestones") if base == name else ()
        compared += tuple(field for field in ("accumulate", "remat") if field not in replaced)
        old, new = asdict(installed.workloads[base]), asdict(rules)
        for field in compared:
            if old[field] != new[field]:
                message = f"not what the installed ruleset {ruleset.name!r} says"
                yield wrong(f"ruleset.workloads.{name}.{field}", message, old[field], new[field])


def installed_ruleset(ruleset: Ruleset) -> Ruleset | None:
    """The ruleset of that name in this installation."""
    return load_ruleset(ruleset.name) if ruleset.name in ruleset_names() else None


def _base(name: str, workloads: Mapping[str, Any]) -> str | None:
    if name in workloads:
        return name
    try:
        base = base_of(name)
    except UserError:
        return None
    return base if base in workloads else None


def check_rules(trial: AuditedTrial) -> Iterator[Finding]:
    """Every rule in the header is that of the campaign."""
    run, campaign = trial.run, trial.campaign
    if campaign is None:
        yield _wrong(
            trial,
            "rules",
            "ruleset_sha256",
            "no readable campaign.json above it says what the rules are",
            "one",
            "none",
        )
        return
    ruleset = campaign.ruleset
    expected: dict[str, Any] = {
        "seed": campaign.seed,
        "ruleset": ruleset.name,
        "ruleset_version": ruleset.version,
        "ruleset_sha256": ruleset.sha256,
        "clock": ruleset.clock,
        "confirmation": ruleset.confirmation,
        "matmul_precision": ruleset.matmul_precision,
        "submission_sha256": campaign.submission_sha256.get(run.submission, "not one of its submissions"),
    }
    self_tuning = campaign.self_tuning.get(run.submission)
    if self_tuning is not None:
        expected["tuning"] = "self" if self_tuning else "external"
    rules = ruleset.workloads.get(run.workload)
    if rules is None:
        expected["workload"] = f"one of {', '.join(ruleset.workloads)}"
    else:
        expected["eval_every"] = rules.eval_every
        expected["accumulate"], expected["remat"] = rules.economy(campaign.accumulate, campaign.remat)
        tuning = ruleset.self_tuning if run.tuning == "self" else ruleset.external
        if tuning is None:
            expected["tuning"] = "one for which the ruleset has a board"
        else:
            expected["budget"] = ruleset.budget(run.workload, self_tuning=run.tuning == "self")
            for field, number in (("study", tuning.studies), ("trial", tuning.trials)):
                if getattr(run, field) >= number:
                    expected[field] = f"below {number}"
        for field in ("target", "test_target"):
            if getattr(rules, field) is not None and getattr(rules, field) != getattr(run, field):
                message = "not the target of the ruleset"
                yield _wrong(trial, "target", field, message, getattr(rules, field), getattr(run, field))
    for field, value in expected.items():
        if getattr(run, field) != value:
            kind = {"submission_sha256": "source", "seed": "seeds"}.get(field, "rules")
            yield _wrong(trial, kind, field, "not what campaign.json says", value, getattr(run, field))


def check_workload(trial: AuditedTrial, facts: WorkloadFacts) -> Iterator[Finding]:
    """The workload and its targets are those of this installation."""
    run = trial.run
    for field, value in (("workload_sha256", facts.sha256), ("workload_version", facts.version)):
        if getattr(run, field) != value:
            yield _wrong(trial, "workload", field, "not the workload of this installation", value, getattr(run, field))
    rules = None if trial.campaign is None else trial.campaign.ruleset.workloads.get(run.workload)
    for field in ("target", "test_target"):
        if getattr(rules, field, None) is None and getattr(facts, field) != getattr(run, field):
            message = "not the target that the evidence beside the workload derives"
            yield _wrong(trial, "target", field, message, getattr(facts, field), getattr(run, field))


def check_source(trial: AuditedTrial) -> Iterator[Finding]:
    """The copied source hashes to what the header says, and is of the kind that it says."""
    run, source, folder = trial.run, trial.source, trial.folder / "source"

    def wrong(field: str, message: str, expected: object, found: object) -> Finding:
        return Finding(kind="source", message=message, path=folder, field=field, expected=expected, found=found)

    if source is None:
        if trial.record.evals:
            yield wrong("submission_sha256", "no copy of the submission", run.submission_sha256, "none")
        return
    try:
        links = [path for path in folder.rglob("*") if path.is_symlink()]
        found = {"submission_sha256": source.sha256, "api": source.api}
        found["tuning"] = "self" if source.self_tuning else "external"
    except (UserError, OSError, RecursionError, MemoryError) as error:
        yield wrong("submission_sha256", f"cannot be read: {error}", run.submission_sha256, "unknown")
        return
    for field, value in found.items():
        if getattr(run, field) != value:
            yield wrong(field, "the copied source is not what the record says", getattr(run, field), value)
    beside = {path for path in folder.rglob("*") if path.is_file()} - set(source.files())
    for path in sorted({*links, *beside}):
        message = "a file that is no part of the submission"
        yield wrong(path.relative_to(folder).as_posix(), message, "none", "a link" if path in links else "a file")


def check_point(trial: AuditedTrial) -> Iterator[Finding]:
    """The hyperparameters are those of the trial's place, where the search space can be read."""
    run, source, campaign = trial.run, trial.source, trial.campaign
    if not trial.record.evals or campaign is None:  # a submission that failed on import has none yet
        return
    if run.tuning == "self":
        if run.hparams:
            yield _wrong(trial, "hyperparameters", "hparams", "a self-tuning submission has none", {}, run.hparams)
        return
    space = None if source is None else search_space(source)
    if source is None or space is None or campaign.ruleset.external is None:
        return
    tuning = campaign.ruleset.external
    if run.trial >= tuning.trials:  # which `check_rules` names
        return
    seed = seed_of(run.seed, run.workload, run.study, None, "tuning")
    try:
        expected = prescribed_point(space, tuning, trial=run.trial, seed=seed, longer_lists=run.api == "algoperf")
    except UserError as error:
        yield _wrong(trial, "hyperparameters", "hparams", "the search space gives no point", error, run.hparams)
        return
    for name in sorted({*expected, *run.hparams}):
        if not _same(expected.get(name), run.hparams.get(name)):
            message = "not the point that seed, study and trial give"
            yield _wrong(
                trial, "hyperparameters", f"hparams.{name}", message, expected.get(name), run.hparams.get(name)
            )


def _same(expected: Any, found: Any) -> bool:
    if isinstance(expected, float) and isinstance(found, float):
        return math.isclose(expected, found, rel_tol=1e-12)
    return type(expected) is type(found) and expected == found


def _wrong(trial: AuditedTrial, kind: str, field: str, message: str, expected: object, found: object) -> Finding:
    return Finding(kind=kind, message=message, path=trial.path, line=1, field=field, expected=expected, found=found)
