"""Deriving a workload's target: what well-tuned standard algorithms reach by the horizon (docs/targets.md).

The procedure is that of AlgoPerf (Dahl et al. 2023, arXiv:2306.07179, section 4.3), scaled down: four algorithms are
tuned over quasi-random points, the best configurations are rerun, and the best of them runs again with fresh seeds.
Every run goes to the horizon under the examples clock, on the ruleset's eval grid.
"""

import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from timetrial import machine, registry
from timetrial.campaign import Campaign, open_folder
from timetrial.errors import UserError
from timetrial.evidence import SCHEMA, evidence_path, read_evidence
from timetrial.launchers.local import Watcher, run_jobs
from timetrial.launchers.process import WORKER
from timetrial.loading import Source, find_source, load
from timetrial.ruleset import Ruleset, Tuning, WorkloadRules
from timetrial.seeds import seed as seed_of
from timetrial.target import Target
from timetrial.targets import Better, Run, conclusions, read_run, smaller_first
from timetrial.tuning import Point, halton_points
from timetrial.worker import Job

SUBMISSIONS = ("adamw", "nadamw", "nesterov", "sgd_momentum")
"""The algorithms that are tuned: those of AlgoPerf's procedure."""
_UNREACHABLE = {"lower": -sys.float_info.max, "higher": sys.float_info.max}
_TUNING, _RERUNS, _FRESH = 0, 1, 2
"""Studies, which are seeds: that of the points, that of the reruns, and the first of the fresh ones."""


@dataclass(frozen=True, kw_only=True)
class Procedure:
    """How much is run."""

    points: int = 8
    """Quasi-random points for each algorithm."""
    finalists: int = 2
    """Best configurations that are rerun."""
    variant_points: int = 2
    """For a variant, instead of both: new points of its base's best algorithm, beside the base's finalists."""
    seeds: int = 5
    """Fresh seeds of the best configuration."""


@dataclass(frozen=True)
class Configuration:
    """A submission at one point of its search space."""

    submission: str
    hparams: Point

    @staticmethod
    def of(run: Run) -> "Configuration":
        return Configuration(run.submission, run.hparams)


@dataclass(frozen=True)
class Derivation:
    """All that decides which runs are made for the target of one workload or variant, and where they are kept."""

    workload: str
    ruleset: Ruleset
    procedure: Procedure
    out: Path
    seed: int = 0

    def run(self, watcher: Watcher, side_by_side: int = 1, worker: Sequence[str] = WORKER) -> dict[str, Any]:
        """Makes every run that `out` lacks, and returns the evidence.

        Raises `UserError` where the ruleset does not fit, where a variant's base has no evidence yet, where `out` holds
        something else, or where too few runs come to the horizon. KeyboardInterrupt passes; calling again goes on.
        """
        from timetrial.workload import economical

        workload = registry.load_workload(self.workload)
        rules = self.rules(workload.metric, workload.better, workload.variant_of)
        grid = rules.workloads[self.workload]
        economical(workload, accumulate=grid.accumulate, where=f"ruleset {self.ruleset.name!r}: accumulate")
        sources = {name: find_source(name) for name in SUBMISSIONS}
        campaign = Campaign(out=self.out, ruleset=rules, sources=tuple(sources.values()), seed=self.seed)

        def make(planned: Sequence[tuple[Configuration, int, int]], rules: Ruleset = rules) -> list[Run]:
            """A run of each (configuration, study, trial)."""
            jobs = [self._job(rules, sources[c.submission], c.hparams, study, trial) for c, study, trial in planned]
            _, elsewhere = run_jobs(jobs, rules.hang_seconds, watcher, side_by_side=side_by_side, worker=worker)
            if elsewhere:
                raise UserError(f"another process is deriving in {self.out}; wait for its end, or use another --out")
            return [read_run(Path(job.folder), workload.metric, workload.better) for job in jobs]

        def best_first(runs: Sequence[Run]) -> list[Run]:
            return sorted(runs, key=lambda run: smaller_first(run.best, workload.better))

        open_folder(campaign, resume=self.out.exists())
        if workload.variant_of is None:
            tuned = best_first(make(self._base_points(sources)))
            finalists = tuned[: self.procedure.finalists]
            reruns = make([(Configuration.of(run), _RERUNS, i) for i, run in enumerate(finalists)])
        else:
            tuned = best_first(make(self._variant_points(sources, workload.variant_of)))
            finalists, reruns = tuned[:1], list[Run]()
        bests = [[run.best] for run in finalists]
        for found, rerun in zip(bests, reruns, strict=False):
            found.append(rerun.best)
        means = [smaller_first(statistics.fmean(found), workload.better) for found in bests]
        if not math.isfinite(min(means)):
            raise UserError(f"no run of {self.workload} came to its horizon; the records in {self.out} say why")
        winner = Configuration.of(finalists[means.index(min(means))])
        fresh = make(
            [(winner, _FRESH + i, 0) for i in range(self.procedure.seeds)], replace(rules, test_evals="always")
        )
        hashes = {run.workload_sha256 for run in (*tuned, *reruns, *fresh)}
        if len(hashes) > 1:
            raise UserError(f"{self.out} holds runs of different sources of {self.workload}; use another --out")
        return {
            "schema": SCHEMA,
            "kind": "target_evidence",
            "workload": self.workload,
            "variant_of": workload.variant_of,
            "workload_sha256": hashes.pop(),
            **conclusions(workload.metric, workload.better, fresh),
            "best_configuration": asdict(winner),
            "fresh_seeds": [run.to_json() for run in fresh],
            "finalists": [
                {**asdict(Configuration.of(run)), "bests": found} for run, found in zip(finalists, bests, strict=True)
            ],
            "points": [run.to_json() for run in tuned],
            "procedure": {
                **asdict(self.procedure),
                "submissions": list(SUBMISSIONS),
                "clock": "examples",
                "ruleset": self.ruleset.name,
                "horizon_examples": grid.horizon_examples,
                "eval_every": grid.eval_every,
            },
            "command": self.command(),
            "commit": machine.source_commit(),
            "hardware": {"processor": machine.processor(), "cores_a_run": machine.cores() // side_by_side},
            "packages": machine.packages(),
        }

    def rules(self, metric: str, better: Better, base: str | None) -> Ruleset:
        """The ruleset of the runs: one workload, to its horizon, with a target that none can meet."""
        found = self.ruleset.workloads.get(self.workload) or self.ruleset.workloads.get(base or self.workload)
        if found is None or found.eval_every is None or found.horizon_examples is None:
            raise UserError(f"ruleset {self.ruleset.name!r} gives {base or self.workload!r} no eval grid and horizon")
        if self.ruleset.clock != "examples":
            raise UserError(
                f"targets are derived under the examples clock, and ruleset {self.ruleset.name!r} has the clock "
                f"{self.ruleset.clock!r}; name another with --ruleset"
            )
        rules = WorkloadRules(
            budget=found.horizon_examples,
            eval_every=found.eval_every,
            horizon_examples=found.horizon_examples,
            target=Target(metric, _UNREACHABLE[better], better),
            accumulate=found.accumulate,
            remat=found.remat,
        )
        return Ruleset(
            name=f"target-{self.ruleset.name}",
            version=self.ruleset.version,
            description="Runs to the horizon, to derive a target.",
            clock="examples",
            external=Tuning(studies=1, trials=1),
            self_tuning=None,
            workloads={self.workload: rules},
            hang_seconds=self.ruleset.hang_seconds,
            matmul_precision=self.ruleset.matmul_precision,
        )

    def command(self) -> str:
        """What to type for the same evidence."""
        p = self.procedure
        return (
            f"timetrial target {self.workload} --ruleset {self.ruleset.name} --points {p.points} --seeds {p.seeds} "
            f"--seed {self.seed}"
        )

    def _base_points(self, sources: Mapping[str, Source]) -> list[tuple[Configuration, int, int]]:
        """Trial i of every algorithm has the same seeds, and the same place in the quasi-random sequence."""
        return [
            (Configuration(name, point), _TUNING, i)
            for name, source in sources.items()
            for i, point in enumerate(self._halton(source, self.procedure.points))
        ]

    def _variant_points(self, sources: Mapping[str, Source], base: str) -> list[tuple[Configuration, int, int]]:
        evidence = read_evidence(evidence_path(registry.shipped("workloads") / base, base))
        if evidence is None:
            raise UserError(f"{self.workload} starts from the evidence of its base: timetrial target {base}")
        best = evidence["best_configuration"]["submission"]
        known = [Configuration(found["submission"], found["hparams"]) for found in evidence["finalists"]]
        new = [Configuration(best, point) for point in self._halton(sources[best], self.procedure.variant_points)]
        return [(configuration, _TUNING, i) for i, configuration in enumerate([*known, *new])]

    def _halton(self, source: Source, count: int) -> list[Point]:
        seed = seed_of(self.seed, self.workload, _TUNING, None, "tuning")
        return halton_points(load(source).search_space, count, seed)

    def _job(self, rules: Ruleset, source: Source, point: Point, study: int, trial: int) -> Job:
        own = rules.workloads[self.workload]
        return Job(
            submission=source.name,
            path=str(source.path),
            workload=self.workload,
            ruleset=rules.to_json(),
            seed=self.seed,
            study=study,
            trial=trial,
            self_tuning=False,
            folder=str(self.out / source.name / self.workload / f"study_{study}" / f"trial_{trial}"),
            point=point,
            accumulate=own.accumulate,
            remat=own.remat,
        )
