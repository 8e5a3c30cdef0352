"""Finds the trials in a folder by what is in it, ours or AlgoPerf's, and reads them."""

import json
import os
import re
from pathlib import Path
from typing import Any

from timetrial.errors import UserError
from timetrial.record import RECORD_NAME
from timetrial.ruleset import Ruleset
from timetrial_scoring.algoperf_logs import LOG_NAME, read_log
from timetrial_scoring.board import Campaign, Finding, Runs, Trial
from timetrial_scoring.records import read_run

CAMPAIGN_NAME = "campaign.json"
_KEPT = f"{Path(RECORD_NAME).stem}.interrupted"
"""What the record of an interrupted trial is renamed to before the trial is run again."""
_READERS = {RECORD_NAME: read_run, LOG_NAME: read_log}
_PART_OF_A_RUN = re.compile(r"(study|trial)_\d+")


def load(folder: Path) -> Runs:
    """All trials below `folder`. Raises UserError where there is none."""
    if not folder.is_dir():
        raise UserError(f"no folder {str(folder)!r}; give the folder that holds the runs")
    folder = folder.resolve()
    findings: list[Finding] = []
    trials: list[Trial] = []
    campaigns: list[Campaign] = []
    for where, subfolders, files in os.walk(folder):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        present = [name for name in _READERS if name in files]
        if CAMPAIGN_NAME in files:
            campaigns.append(_read_campaign(Path(where, CAMPAIGN_NAME)))
        for name in present:
            trial = _READERS[name](Path(where), findings)
            trials += [] if trial is None else [trial]
        for name in files:
            if name.startswith(_KEPT):
                message = "an interrupted attempt at this trial, since run again; it does not count"
                findings.append(Finding("rerun", message, str(Path(where, name))))
        if present:
            subfolders.clear()
        elif not subfolders and _PART_OF_A_RUN.search(os.path.relpath(where, folder)):
            findings.append(Finding("stray", "a folder of a run without its measurements or record", where))
    if not trials and not findings and not campaigns:
        raise UserError(f"nothing to score in {str(folder)!r}: no {RECORD_NAME} and no {LOG_NAME} in it or below")
    trials.sort(key=lambda t: (t.submission, t.workload, t.study, t.trial, str(t.source)))
    return Runs(folder, tuple(trials), tuple(findings), tuple(campaigns))


def _read_campaign(source: Path) -> Campaign:
    try:
        data: Any = json.loads(source.read_bytes())
        if data["schema"] != 1 or data["kind"] != "campaign":
            raise ValueError('needs "schema": 1 and "kind": "campaign"; this timetrial reads no other')
        ruleset = Ruleset.from_json(data["ruleset"], where=str(source))
        return Campaign(source, ruleset, tuple(str(name) for name in data["submissions"]))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{source}: not a campaign's description: {type(error).__name__}: {error}") from None
