"""One trial as the cockpit sees it: the instruments' log, and the record beside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from timetrial.errors import UserError
from timetrial.instrument_log import LOG_NAME, Log, Look, read_log
from timetrial.record import RECORD_NAME, RunRecord, read_record


@dataclass(frozen=True)
class Run:
    """A trial with instruments. Arrays have T looks."""

    record: RunRecord
    log: Log

    @property
    def title(self) -> str:
        run = self.record.run
        return f"{run.submission} on {run.workload}, study {run.study}, trial {run.trial}"

    @property
    def looks(self) -> Sequence[Look]:
        return self.log.looks

    @property
    def batch_size(self) -> int:
        return self.log.headers[-1].batch_size

    @property
    def arrays(self) -> list[str]:
        """Names of the parameter arrays."""
        return [str(array["name"]) for array in self.log.headers[-1].params]

    @property
    def over(self) -> bool:
        end = self.record.end
        return end is not None and end.status != "interrupted"

    @cached_property
    def steps(self) -> np.ndarray:
        return np.array([look.step for look in self.looks], float)

    def values(self, name: str) -> np.ndarray:
        """A quantity, or a hyperparameter, over the looks, (T,); NaN where a look does not have it."""
        found = [look.values.get(name, look.hyperparameters.get(name, np.nan)) for look in self.looks]
        return np.array(found, float)

    def by_array(self, name: str) -> np.ndarray:
        """A quantity of each parameter array, (T, L); NaN where a look does not have it."""
        nothing = [np.nan] * len(self.arrays)
        return np.array([look.arrays.get(name, nothing) for look in self.looks], float).reshape(-1, len(nothing))

    def histograms(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """The steps that have a histogram, and their counts."""
        found = [(look.step, look.histograms[name]) for look in self.looks if name in look.histograms]
        return np.array([step for step, _ in found], float), np.array([counts for _, counts in found], float)

    def metric(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps and values of a metric that the record holds, as `valid/error_rate`."""
        evals = [line for line in self.record.evals if name in line.metrics]
        return np.array([line.step for line in evals], float), np.array([line.metrics[name] for line in evals])


def read_run(folder: Path) -> Run:
    """The trial in `folder`, or the only one with instruments below it; raises UserError."""
    found = find_run(folder)
    return Run(read_record(found / RECORD_NAME), read_log(found / LOG_NAME))


def find_run(folder: Path) -> Path:
    """The folder of the trial that `folder` names: itself, or the only one with instruments below it."""
    if (folder / LOG_NAME).is_file():
        return folder
    found = sorted(path.parent for path in folder.rglob(LOG_NAME))
    if not found:
        raise UserError(
            f"no {LOG_NAME} in {folder}, nor below it: run a trial with `timetrial run --instruments economy`"
        )
    if len(found) > 1:
        listed = "\n  ".join(map(str, found[:20]))
        raise UserError(f"{len(found)} trials below {folder} have instruments; name one of them (or two):\n  {listed}")
    return found[0]
