"""Held-out variants of a campaign: drawn by a seed that nobody knew when the submissions were handed in.

The seed is meant to be a public random value (a randomness beacon, say) fixed after the submissions' hashes. Their
targets are derived as those of the fixed variants are, from the evidence of their bases.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from timetrial.derivation import Derivation, Procedure
from timetrial.errors import UserError
from timetrial.evidence import derived_targets, evidence_path, write_evidence
from timetrial.launchers.local import Watcher
from timetrial.launchers.process import WORKER
from timetrial.ruleset import Ruleset
from timetrial.variants import drawn

_DRAWS = 4
"""Variants tried for a base, one after the other, until the target of one is usable."""


def with_held_out(
    ruleset: Ruleset,
    seed: str,
    folder: Path,
    watcher: Watcher,
    *,
    procedure: Procedure = Procedure(),  # noqa: B008  # a frozen value
    side_by_side: int = 1,
    worker: Sequence[str] = WORKER,
    tell: Callable[[str], None] = print,
) -> Ruleset:
    """The ruleset with one more variant of each base workload, and its target.

    The runs and the evidence are kept in `folder`, and serve every campaign of this seed. A variant whose target would
    not be usable (`timetrial.evidence`) makes room for the next one that the seed draws.
    """
    workloads = dict(ruleset.workloads)
    for base in ruleset.base_workloads:
        for name in drawn(base, seed, _DRAWS):
            path = evidence_path(folder, name)
            if not path.is_file():
                tell(f"held-out variant {name}: deriving its target")
                evidence = Derivation(name, ruleset, procedure, folder / name).run(watcher, side_by_side, worker)
                write_evidence(evidence, path)
            target, test_target = derived_targets(path)
            if target is not None:
                rules = ruleset.workloads[base]
                workloads[name] = replace(
                    rules, variant_of=base, target=target, test_target=test_target, milestones=(), anchor=None
                )
                break
            tell(f"held-out variant {name}: its target is not usable (see {path}); the next is drawn")
        else:
            raise UserError(f"{_DRAWS} held-out variants of {base} have no usable target; take another seed")
    return replace(ruleset, workloads=workloads, modified=(*ruleset.modified, f"held-out variants: {seed}"))
