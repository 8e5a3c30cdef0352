"""A trial has one holder at a time; one that stops touching its claim loses it."""

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from timetrial.claims import CLAIM_NAME, Heart, holder, take


def aged(folder: Path, seconds: float) -> None:
    """As if the claim had last been touched that long ago."""
    path = folder / CLAIM_NAME
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


def test_a_trial_is_held_by_one_process_until_it_is_released(tmp_path: Path):
    claim = take(tmp_path)
    assert claim is not None
    assert take(tmp_path) is None
    held = holder(tmp_path)
    assert held is not None
    assert held["pid"] == os.getpid()
    claim.release()
    assert holder(tmp_path) is None
    assert take(tmp_path) is not None


def test_of_many_that_reach_for_a_trial_at_once_one_gets_it(tmp_path: Path):
    for round_ in range(20):
        folder = tmp_path / str(round_)
        start = threading.Barrier(8)

        def reach(folder: Path = folder, start: threading.Barrier = start) -> bool:
            start.wait()
            return take(folder) is not None

        with ThreadPoolExecutor(8) as pool:
            assert sum(future.result() for future in [pool.submit(reach) for _ in range(8)]) == 1


def test_of_many_that_reach_for_a_dead_process_s_trial_at_once_one_gets_it(tmp_path: Path):
    for round_ in range(20):
        folder = tmp_path / str(round_)
        assert take(folder) is not None
        aged(folder, 100)
        start = threading.Barrier(8)

        def reach(folder: Path = folder, start: threading.Barrier = start) -> bool:
            start.wait()
            return take(folder) is not None

        with ThreadPoolExecutor(8) as pool:
            assert sum(future.result() for future in [pool.submit(reach) for _ in range(8)]) == 1
        assert [path.name for path in folder.glob("[!.]*")] == [CLAIM_NAME]
        assert not list(folder.glob(".claim-*"))


def test_a_holder_that_was_away_too_long_learns_that_it_lost_its_trial(tmp_path: Path):
    first = take(tmp_path)
    assert first is not None
    aged(tmp_path, 100)
    assert holder(tmp_path) is None
    second = take(tmp_path)
    assert second is not None
    assert (first.keep(), second.keep()) == (False, True)
    first.release()  # not its own any more
    assert take(tmp_path) is None


def test_a_kept_claim_stays_young(tmp_path: Path):
    claim = take(tmp_path)
    assert claim is not None
    aged(tmp_path, 50)
    assert claim.keep()
    aged(tmp_path, 50)
    assert take(tmp_path) is None


def test_a_heart_renews_claims_and_says_which_are_lost(tmp_path: Path):
    kept, gone = take(tmp_path / "kept"), take(tmp_path / "gone")
    assert kept is not None
    assert gone is not None
    with Heart(lease_seconds=0.04) as heart:
        heart.add(kept)
        lost = heart.add(gone)
        (tmp_path / "gone" / CLAIM_NAME).write_text(json.dumps({"token": "another's"}))
        assert lost.wait(10)
    assert kept.keep()


def test_a_task_that_its_scheduler_restarts_takes_its_own_claim_over_at_once_and_nobody_else_does(tmp_path: Path):
    lost = take(tmp_path, task="12_3")
    assert lost is not None
    assert take(tmp_path) is None
    assert take(tmp_path, task="12_4") is None
    restarted = take(tmp_path, task="12_3")
    assert restarted is not None
    assert (lost.keep(), restarted.keep()) == (False, True)
