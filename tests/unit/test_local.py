"""Trials on this machine: what stands in the way of one is said, and what to do."""

from pathlib import Path

import pytest
from toy_trials import SGD, rules, write

from timetrial.audit.retime import Nobody
from timetrial.campaign import Campaign
from timetrial.errors import UserError
from timetrial.launchers.local import run_campaign


def test_a_trial_s_folder_that_cannot_be_written_is_named_with_what_goes_on(tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    campaign = Campaign(out=out, ruleset=rules(), sources=(write(tmp_path, SGD),), seed=0)
    (out / "mine").write_text("in the way of the folder")

    with pytest.raises(UserError, match=r"toy/study_0/trial_0 cannot be run: Not a directory; .* --resume"):
        run_campaign(campaign, Nobody())
