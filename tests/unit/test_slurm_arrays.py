"""What is handed to Slurm, seen by commands of its names that write down what they are asked. No cluster is needed."""

import dataclasses
import json
import subprocess
from pathlib import Path

import pytest
from toy_trials import SGD, rules, write

from timetrial.campaign import Campaign, kept_job, open_folder
from timetrial.errors import UserError
from timetrial.launchers import slurm

SBATCH = """#!/bin/bash
echo "$*" >> {log}
echo "$(wc -l < {log});cluster"
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What sbatch was called with, a line a call; arrays may have three tasks."""
    log = tmp_path / "calls"
    for name, text in (("sbatch", SBATCH.format(log=log)), ("scontrol", "#!/bin/bash\necho 'MaxArraySize = 3'\n")):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(text)
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    return log


def opened(folder: Path, trials: int) -> Campaign:
    board = {"studies": 1, "trials": trials, "points": "halton"}
    campaign = Campaign(out=folder / "a campaign", ruleset=rules(external=board), sources=(write(folder, SGD),), seed=7)
    open_folder(campaign, resume=campaign.out.exists())
    return campaign


def test_every_trial_is_a_task_of_an_array_that_is_as_large_as_the_cluster_allows(tmp_path: Path, calls: Path):
    campaign = opened(tmp_path, trials=4)
    arrays = slurm.submit(campaign)
    assert [(array.job_id, array.trials) for array in arrays] == [("1", 3), ("2", 1)]
    listed = [(array.folder / "trials.txt").read_text().splitlines() for array in arrays]
    assert [len(trials) for trials in listed] == [3, 1]
    assert [trial for trials in listed for trial in trials] == [job.folder for job in campaign.jobs()]
    assert "#SBATCH --array=0-2\n" in (arrays[0].folder / "job.sh").read_text()
    assert "dependency" not in calls.read_text()


def test_a_trial_of_several_processes_asks_for_as_many_nodes(tmp_path: Path, calls: Path):
    for campaign, line in (
        (opened(tmp_path / "one", trials=1), "#SBATCH --nodes=1\n"),
        (dataclasses.replace(opened(tmp_path / "three", trials=1), processes=3), "#SBATCH --nodes=3\n"),
    ):
        (array,) = slurm.submit(campaign)
        assert line in (array.folder / "job.sh").read_text()


def test_with_a_bound_on_the_trials_at_a_time_arrays_follow_each_other(tmp_path: Path, calls: Path):
    first, second = slurm.submit(opened(tmp_path, trials=4), at_once=2)
    assert "#SBATCH --array=0-2%2\n" in (first.folder / "job.sh").read_text()
    assert calls.read_text().splitlines()[1].startswith("--parsable --dependency=afterany:1 ")
    assert second.folder != first.folder


def test_a_trial_with_a_result_is_not_handed_over(tmp_path: Path, calls: Path):
    campaign = opened(tmp_path, trials=2)
    done = Path(campaign.jobs()[0].folder)
    done.mkdir(parents=True)
    golden = Path(__file__).parents[1] / "golden" / "record-1.jsonl"
    (done / "record.jsonl").write_bytes(golden.read_bytes())
    (array,) = slurm.submit(campaign)
    assert (array.folder / "trials.txt").read_text() == f"{campaign.jobs()[1].folder}\n"


def test_a_task_finds_its_trial_in_the_folder_whatever_becomes_of_the_submission(tmp_path: Path, calls: Path):
    campaign = dataclasses.replace(opened(tmp_path, trials=2), checkpoint_seconds=5.0, isolation="sandbox")
    open_folder(campaign, resume=True)
    slurm.submit(campaign)
    (_, planned) = campaign.jobs()
    campaign.sources[0].path.unlink()
    asked = kept_job(Path(planned.folder))
    kept = Path(asked.path)
    assert kept.is_relative_to(campaign.out)
    assert dataclasses.replace(asked, path=planned.path) == planned
    kept.write_text("changed")
    with pytest.raises(UserError, match="has been changed"):
        kept_job(Path(asked.folder))


@pytest.mark.parametrize(
    "place", ["nobody/toy/study_0/trial_0", "mine/other/study_0/trial_0", "mine/toy/study_0/trial_9"]
)
def test_what_is_no_trial_of_the_campaign_is_a_user_s_mistake(tmp_path: Path, calls: Path, place: str):
    campaign = opened(tmp_path, trials=1)
    slurm.submit(campaign)
    with pytest.raises(UserError, match=r"no trial of the campaign|keeps no submission"):
        kept_job(campaign.out / place)


def test_a_folder_outside_of_any_campaign_is_a_user_s_mistake(tmp_path: Path):
    for place in (tmp_path, Path("/"), Path("/a")):
        with pytest.raises(UserError, match="no campaign of timetrial"):
            kept_job(place)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("echo $HOME\n", r"unknown variable \$\{HOME\}.*name, array.*\$\$"),
        ("echo $(date)\n", r"Invalid placeholder.*\$\$"),
    ],
)
def test_a_template_that_cannot_be_filled_in_says_why(tmp_path: Path, calls: Path, template: str, message: str):
    path = tmp_path / "template"
    path.write_text(template)
    with pytest.raises(UserError, match=message):
        slurm.submit(opened(tmp_path, trials=1), template=path)
    assert not calls.exists()


def test_what_slurm_refuses_is_told_in_its_words(tmp_path: Path, calls: Path):
    (tmp_path / "bin" / "sbatch").write_text("#!/bin/bash\necho 'invalid partition' >&2\nexit 1\n")
    with pytest.raises(UserError, match="invalid partition"):
        slurm.submit(opened(tmp_path, trials=1))


def test_without_slurm_the_launcher_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no scontrol here"):
        slurm.submit(opened(tmp_path, trials=1))


def test_the_shipped_job_script_is_bash_and_names_folder_image_and_command(tmp_path: Path, calls: Path):
    (array,) = slurm.submit(opened(tmp_path, trials=1), container="it's an image.sif")
    script = array.folder / "job.sh"
    subprocess.run(("bash", "-n", str(script)), check=True)
    text = script.read_text()
    for part in ("SLURM_ARRAY_TASK_ID", "'it'\"'\"'s an image.sif'", "timetrial trial"):
        assert part in text
    assert "$$" not in text


def test_a_task_keeps_its_name_when_slurm_restarts_it():
    assert slurm.task({"SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3", "SLURM_JOB_ID": "99"}) == "12_3"
    assert slurm.task({"SLURM_JOB_ID": "99"}) is None


def test_the_campaign_s_description_names_the_files_that_tasks_start_from(tmp_path: Path):
    campaign = opened(tmp_path, trials=1)
    told = json.loads((campaign.out / "campaign.json").read_text())
    assert (told["submission_files"], told["isolation"]) == ({"mine": "submission.py"}, "none")
