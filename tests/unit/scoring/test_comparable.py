"""Seconds of different machines, and of trials that were disturbed, are compared only where somebody asks for it."""

import json

import pytest
from timetrial_scoring.cli import main
from timetrial_scoring.comparable import NOISY
from timetrial_scoring.score import score_folder

from timetrial.errors import UserError

CURVE = [(0.0, 0.9), (10.0, 0.05)]
HERE = {"device_kind": "cpu", "processor": "fast", "cores": 8, "system": "Linux-1", "memory_bytes": 64 * 2**30}


@pytest.fixture
def scored(tmp_path, rules, ruleset_file):
    def run(*, clock="seconds", **options):
        path = ruleset_file({**rules, "clock": clock, "external": {"studies": 3, "trials": 1}})
        return score_folder(tmp_path / "runs", ruleset=path, **options)

    return run


def disturb(path, **noise):
    *lines, end = path.read_text().splitlines()
    path.write_text("\n".join([*lines, json.dumps(json.loads(end) | {"noise": noise})]) + "\n")


def test_one_kind_of_machine_is_comparable_whatever_its_kernel(record, scored):
    record("adam", "digits", CURVE, hardware=HERE)
    record("sgd", "digits", CURVE, hardware={**HERE, "system": "Linux-2"})
    (board,) = scored().boards
    assert board.caveats == ()


def test_seconds_of_two_kinds_of_machine_are_refused_and_what_differs_is_said(record, scored):
    record("adam", "digits", CURVE, hardware=HERE)
    record("adam", "digits", CURVE, hardware=HERE, study=1)
    record("sgd", "digits", CURVE, hardware={**HERE, "processor": "slow"})
    message = r"digits: 2 trials of adam on processor fast; 1 trials of sgd on processor slow(.|\n)*--allow-mixed"
    with pytest.raises(UserError, match=message):
        scored()


def test_workloads_may_have_machines_of_their_own(record, scored):
    for name in ("adam", "sgd"):
        record(name, "digits", CURVE, hardware=HERE)
        record(name, "words", [(10.0, 31.0)], hardware={**HERE, "cores": 2})
    assert scored().boards[0].caveats == ()


@pytest.mark.parametrize("kind", NOISY)
def test_disturbed_trials_are_refused_and_the_worst_is_said(record, scored, kind):
    record("adam", "digits", CURVE)
    for study, share in enumerate((NOISY[kind], NOISY[kind] + 0.01, 0.52)):
        disturb(record("sgd", "digits", CURVE, study=study), **{kind: share, "load": 9.0})
    with pytest.raises(UserError, match=r"2 of 4 trials \(sgd\): up to 52%"):
        scored()


def test_a_failure_has_no_time_that_noise_could_have_changed(record, scored):
    record("adam", "digits", CURVE)
    disturb(record("sgd", "digits", CURVE, status="error"), others=0.9)
    assert scored().boards[0].caveats == ()


def test_a_board_that_charges_examples_asks_for_no_machine(record, scored):
    record("adam", "digits", CURVE, hardware=HERE)
    disturb(record("sgd", "digits", CURVE, hardware={}), others=0.9)
    assert scored(clock="examples").boards[0].caveats == ()


def test_who_asks_for_it_gets_a_board_that_says_so(record, scored, tmp_path, rules, ruleset_file, capsys):
    record("adam", "digits", CURVE, hardware=HERE)
    disturb(record("sgd", "digits", CURVE, hardware={}), others=0.9)
    result = scored(allow_mixed=True)
    assert {"mixed hardware", "noisy trials"} <= {finding.kind for finding in result.findings}
    arguments = [str(tmp_path / "runs"), "--ruleset", ruleset_file(rules)]
    assert main(arguments) == 2
    assert "seconds that are not comparable" in capsys.readouterr().err
    assert main([*arguments, "--allow-mixed"]) == 0
    above, _ = capsys.readouterr().out.split("Time to target")
    assert above.count("its seconds are not comparable (--allow-mixed)") == 2
