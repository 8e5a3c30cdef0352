"""The official rehearsal: the check, then one short trial on every workload, both with the submission kept apart."""

import json
import os
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from timetrial.campaign import Campaign, open_folder
from timetrial.check.report import Report, Status, Verdict, report_of
from timetrial.check.static import check_static
from timetrial.errors import UserError
from timetrial.isolation.guard import Guard
from timetrial.isolation.policy import SUBMISSION, Isolation, Mounts, Policy, command, owner, require
from timetrial.isolation.process import drain, readable_copy
from timetrial.launchers.local import Watcher, run_campaign
from timetrial.loading import Source
from timetrial.record import EndLine
from timetrial.ruleset import Ruleset
from timetrial.worker import Job

_STATUSES: Mapping[str, Status] = {status: status for status in get_args(Status)}
_CHECK_SECONDS = 1800
_CHECK_POLICY = Policy(memory_bytes=16 << 30, file_bytes=64 << 20, seconds=_CHECK_SECONDS)
_LONGEST = 4 << 20
"""Bytes of a report, at most."""


@dataclass(frozen=True)
class Rehearsed:
    """One trial of a rehearsal, and what it says of the submission."""

    workload: str
    end: EndLine

    @property
    def passed(self) -> bool:
        """Whether it trained until it was stopped, or to the target."""
        return self.end.status in ("reached", "budget") and self.end.step > 0


def best_isolation() -> tuple[Isolation, str]:
    """What this machine can do: the sandbox, else Docker, else nothing; and why not better."""
    why: list[str] = []
    for isolation in ("sandbox", "docker"):
        try:
            require(isolation)
        except UserError as error:
            why.append(str(error))
        else:
            return isolation, "; ".join(why)
    return "none", "; ".join(why)


def rehearsal_rules(ruleset: Ruleset, fraction: float) -> Ruleset:
    """The ruleset with one study of one trial, at the default point, so much of each budget, and an eval halfway."""
    external = ruleset.external and replace(ruleset.external, studies=1, trials=1, points="default", budget_factor=1.0)
    own = ruleset.self_tuning and replace(ruleset.self_tuning, studies=1, trials=1, budget_factor=1.0)
    return replace(
        ruleset,
        external=external,
        self_tuning=own,
        confirmation=0,
        workloads={
            name: replace(rules, budget=fraction * rules.budget, eval_every=fraction * rules.budget / 2, anchor=None)
            for name, rules in ruleset.workloads.items()
        },
        modified=(*ruleset.modified, f"rehearsal: {fraction:g} of each budget"),
    )


def isolated_check(source: Source, workloads: Sequence[str], isolation: Isolation) -> Report:
    """The static rules here, the dynamic ones where the submission is kept apart, without data.

    What the isolated half says comes from a process that ran the submission: it can only help its author.
    """
    verdicts = list(check_static(source))
    if isolation == "none":
        from timetrial.check.conformance import check
        from timetrial.registry import load_workload

        return report_of(source, [*verdicts, *check(source, [load_workload(name) for name in workloads])])
    name = f"timetrial-{uuid.uuid4().hex[:12]}"
    with tempfile.TemporaryDirectory(prefix=f"{name}-") as scratch:
        folder, exchange = Path(scratch) / "submission", Path(scratch) / "exchange"
        Path(scratch).chmod(0o755)
        exchange.touch(mode=0o600)
        if (own := owner()) is not None:
            os.chown(exchange, *own)
        mounts = Mounts(submission=readable_copy(source, folder), exchange=exchange)
        path = f"{SUBMISSION}/{source.path.name}"
        module = ("-m", "timetrial", "check", path, "--format", "json", "--dynamic", "--workload", *workloads)
        words, environment = command(isolation, _CHECK_POLICY, mounts, module, name=name)
        container = name if isolation == "docker" else None
        kept: tuple[list[bytes], list[bytes]] = ([], [])
        with (
            subprocess.Popen(
                words, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            ) as process,
            Guard(process, Path(scratch), container=container),
        ):
            pipes = zip((process.stdout, process.stderr), kept, strict=True)
            readers = [threading.Thread(target=drain, args=(pipe, into, _LONGEST), daemon=True) for pipe, into in pipes]
            for reader in readers:
                reader.start()
            try:
                process.wait(_CHECK_SECONDS)
            except subprocess.TimeoutExpired:
                failed = Verdict(
                    rule="dynamic rules", status="fail", message=f"no report within {_CHECK_SECONDS} s",
                    todo="`timetrial check` shows how far it comes; does the machine do other work as well?",
                )  # fmt: skip
                return report_of(source, [*verdicts, failed])
            for reader in readers:
                reader.join()
    return report_of(source, [*verdicts, *_verdicts(b"".join(kept[0]), b"".join(kept[1]))])


def _verdicts(output: bytes, said: bytes) -> list[Verdict]:
    """The verdicts in a report that is not trusted to be one."""
    try:
        found = json.loads(output)["verdicts"]
        verdicts = [_verdict(item) for item in found]
        if not verdicts:
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        lines = [line for line in said.decode(errors="replace").splitlines() if line.strip()]
        last = f"; it last said: {lines[-1][:300]}" if lines else ""
        return [Verdict(rule="dynamic rules", status="fail", message=f"the check was ended without a report{last}")]
    return verdicts


def _verdict(item: Mapping[str, Any]) -> Verdict:
    texts = {k: v for k, v in item.items() if k in ("workload", "where", "todo") and isinstance(v, str)}
    status: Status | None = _STATUSES.get(item["status"])
    if status is None:
        raise ValueError
    return Verdict(rule=str(item["rule"]), status=status, message=str(item["message"]), **texts)


def rehearse(campaign: Campaign, watcher: Watcher) -> list[Rehearsed]:
    """One trial on every workload of a campaign of `rehearsal_rules`; their records are in its folder."""
    open_folder(campaign, resume=False)
    ended: Sequence[tuple[Job, EndLine]] = run_campaign(campaign, watcher, retries=1)
    return [Rehearsed(job.workload, end) for job, end in ended]


def to_json(trials: Sequence[Rehearsed]) -> list[Mapping[str, Any]]:
    """What a manifest says of a rehearsal."""
    return [
        {
            "workload": trial.workload,
            "passed": trial.passed,
            "status": trial.end.status,
            "message": trial.end.message,
            "steps": trial.end.step,
            "seconds": trial.end.seconds,
            "compile_seconds": trial.end.compile_seconds,
        }
        for trial in trials
    ]
