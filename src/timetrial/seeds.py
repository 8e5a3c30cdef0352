"""One seed tree for a campaign. Standard library only.

A seed is a pure function of who asks for it, and never of the submission: every submission meets the same initial
weights and the same order of the data, so that their times can be compared pair by pair.
"""

import hashlib
import json

PURPOSES = ("init", "opt_state", "data", "step", "eval_params", "eval_data", "select", "tuning", "instruments")
"""What a seed may be asked for. A purpose of its own keeps one use of randomness from moving another."""


def seed(campaign: int, workload: str, study: int, trial: int | None, purpose: str) -> int:
    """An integer in [0, 2**64), from SHA-256. `trial` is None for what all trials of a study share (tuning points)."""
    if purpose not in PURPOSES:
        raise ValueError(f"no seed purpose {purpose!r}; choose one of {', '.join(PURPOSES)}")
    name = json.dumps([campaign, workload, study, trial, purpose])
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
