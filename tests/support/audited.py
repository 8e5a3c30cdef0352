"""Campaigns on the toy that are run in this process, and ways to forge what they leave."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from toy_trials import SGD, rules, write
from toys import toy_workload

from timetrial.audit.reading import AuditedTrial
from timetrial.audit.recompute import Recomputer
from timetrial.audit.run import Ask, question
from timetrial.campaign import Campaign, open_folder
from timetrial.ruleset import Ruleset
from timetrial.trial import Trial, run_trial
from timetrial.workload import Workload

FAST = SGD.replace("hparams.learning_rate, momentum=0.9", "0.02 + 0.01 * hparams.learning_rate")
"""Reaches the target of `toy_rules` after a few evals, the second trial as the first."""
SLOW = SGD.replace("optax.sgd(hparams.learning_rate, momentum=0.9)", "optax.sgd(1e-6 * hparams.learning_rate)")
"""Never reaches a target."""


def toy_rules() -> Ruleset:
    board = {"studies": 1, "trials": 2, "points": "halton"}
    return rules(budget=3200, eval_every=200, target=0.3, confirmation=1, external=board)


def run_campaign_here(folder: Path) -> Path:
    """Two trials of `fast`, which reach the target, one of `slow`, which does not. Returns the campaign's folder."""
    sources = (write(folder, FAST, "fast"), write(folder, SLOW, "slow"))
    campaign = Campaign(out=folder / "out", ruleset=toy_rules(), sources=sources, seed=5)
    open_folder(campaign, resume=False)
    for source, trial in ((sources[0], 0), (sources[0], 1), (sources[1], 0)):
        run_trial(
            toy_workload(),
            source,
            campaign.ruleset,
            Trial(seed=5, study=0, trial=trial, self_tuning=False),
            folder / "out" / source.name / "toy" / "study_0" / f"trial_{trial}",
            workload_sha256="f" * 64,
        )
    return folder / "out"


def ask_here(workload: Workload | None = None) -> Ask:
    """Evaluates in this process, and each question once; None for the toy."""
    recomputer = Recomputer((toy_workload() if workload is None else workload, "f" * 64, []))
    known: dict[str, Any] = {}

    def ask(name: str, cores: tuple[int, ...], trials: Sequence[AuditedTrial]) -> Iterator[Mapping[str, Any]]:
        del name, cores
        yield {"workload": recomputer.workload()}
        for trial in trials:
            asked = question(trial)
            contents = [path.read_bytes() for path in sorted((trial.folder / "evaluated").rglob("*")) if path.is_file()]
            key = json.dumps(asked) + hashlib.sha256(b"\0".join(contents)).hexdigest()
            if key not in known:
                known[key] = json.loads(json.dumps(recomputer.trial(asked)))
            yield {"trial": str(trial.folder), **known[key]}

    return ask


Lines = list[dict[str, Any]]


def forge(path: Path, change: Callable[[Lines], Lines | None], *, relink: bool) -> None:
    """Changes the lines of a record; `relink` makes the chain anew, as whoever knows the format can."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines = change(lines) or lines
    path.write_text(chained(lines) if relink else "".join(map(dumped, lines)))


def dumped(line: Mapping[str, Any]) -> str:
    return json.dumps(line, separators=(",", ":")) + "\n"


def chained(lines: Lines) -> str:
    """The lines with links as docs/results-format.md describes them."""
    text = before = ""
    for data in lines:
        line = {name: value for name, value in data.items() if name not in ("prev", "self")}
        if before:
            line["prev"] = hashlib.sha256(before.encode()).hexdigest()[:32]
            if line["kind"] == "end":
                line["self"] = hashlib.sha256(dumped(line).encode()).hexdigest()[:32]
        before = dumped(line)
        text += before
    return text
