"""Runs a campaign's trials as the tasks of Slurm job arrays: one trial a task, on a node of its own, or on several.

The folder that the nodes share holds all that a task needs; what is asked of Slurm stands in a template that a site
edits (`slurm.sh.template`).
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from timetrial.campaign import Campaign, has_result, keep_sources
from timetrial.errors import UserError
from timetrial.worker import Job

TEMPLATE = Path(__file__).with_name("slurm.sh.template")
FOLDER = "slurm"
"""Within the campaign's: for each array its job script, its trials and what its tasks printed."""
_TRIAL = ("timetrial", "trial")
_DEFAULT_ARRAY_SIZE = 1001


@dataclass(frozen=True)
class Array:
    """A job array that was handed to Slurm."""

    job_id: str
    trials: int
    folder: Path


def submit(
    campaign: Campaign, *, at_once: int | None = None, template: Path = TEMPLATE, container: str = ""
) -> list[Array]:
    """Hands every trial that has no result yet to Slurm, as one array, or as many as its limit on arrays demands.

    `at_once` trials run at a time at most. With a `container` image they run in it, in the way of the template.
    Raises `UserError` where the template cannot be filled in or Slurm takes no jobs.
    """
    campaign = keep_sources(campaign)
    waiting = [job for job in campaign.jobs() if not has_result(job)]
    size = _largest_array()
    arrays: list[Array] = []
    for first in range(0, len(waiting), size):
        jobs = waiting[first : first + size]
        folder = _write_array(campaign.out.resolve(), jobs, template, at_once, campaign.processes, container)
        after = [f"--dependency=afterany:{arrays[-1].job_id}"] if arrays and at_once is not None else []
        answer = _slurm("sbatch", "--parsable", *after, str(folder / "job.sh"))
        arrays.append(Array(answer.strip().partition(";")[0], len(jobs), folder))
    return arrays


def task(environment: Mapping[str, str] = os.environ) -> str | None:
    """Slurm's name of the array task that this process belongs to, the same after a restart; None outside of one."""
    job, index = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
    return None if job is None or index is None else f"{job}_{index}"


def _write_array(
    out: Path, jobs: Sequence[Job], template: Path, at_once: int | None, nodes: int, container: str
) -> Path:
    number = 0
    while (folder := out / FOLDER / f"array_{number}").exists():
        number += 1
    values = {
        "name": shlex.quote(f"timetrial-{out.name}"),
        "array": f"0-{len(jobs) - 1}" + (f"%{at_once}" if at_once is not None else ""),
        "nodes": str(nodes),
        "campaign": shlex.quote(str(out)),
        "folder": shlex.quote(str(folder)),
        "container": shlex.quote(container),
        "here": shlex.join((sys.executable, "-P", "-m", *_TRIAL)),
        "inside": shlex.join(_TRIAL),
    }
    script = _fill(template, values)
    folder.mkdir(parents=True)
    (folder / "job.sh").write_text(script)
    (folder / "trials.txt").write_text("".join(f"{Path(job.folder).resolve()}\n" for job in jobs))
    return folder


def _fill(template: Path, values: Mapping[str, str]) -> str:
    try:
        return Template(template.read_text()).substitute(values)
    except OSError as error:
        raise UserError(f"cannot read {template}: {error.strerror}") from None
    except KeyError as error:
        raise UserError(
            f"{template}: unknown variable ${{{error.args[0]}}}; there are {', '.join(values)}, and a dollar of the "
            "shell's is written $$"
        ) from None
    except ValueError as error:
        raise UserError(f"{template}: {error}; a dollar of the shell's is written $$") from None


def _largest_array() -> int:
    """How many tasks an array of this cluster may have."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", _slurm("scontrol", "show", "config"), re.MULTILINE)
    return int(found[1]) if found else _DEFAULT_ARRAY_SIZE


def _slurm(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except FileNotFoundError:
        raise UserError(f"no {command[0]} here; --launcher slurm is for a machine that hands jobs to Slurm") from None
    except subprocess.CalledProcessError as error:
        raise UserError(f"Slurm refused `{shlex.join(command)}`: {error.stderr.strip()}") from None
