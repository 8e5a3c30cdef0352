"""Rulesets are read from TOML, refuse what they do not understand, and are identified by what they say."""

import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from timetrial.campaign import restrict
from timetrial.errors import UserError
from timetrial.ruleset import Ruleset, load_ruleset, ruleset_names

TOML = """
description = "two workloads and a variant"
version = 1
clock = "examples"
confirmation = 1

[external]
studies = 3
trials = 5

[self_tuning]
studies = 3
trials = 1
budget_factor = 1.5

[workloads.a]
budget = 1001
eval_every = 100
target = { metric = "error_rate", value = 0.1, better = "lower" }

[workloads.b]
budget = 10

[workloads.a_wide]
budget = 10
variant_of = "a"
"""


def parse(text: str = TOML) -> Ruleset:
    return Ruleset.from_json({"name": "r", **tomllib.loads(text)})


def changed(old: str, new: str) -> str:
    assert old in TOML
    return TOML.replace(old, new)


@pytest.mark.parametrize("name", ruleset_names())
def test_every_shipped_ruleset_reads_and_describes_itself(name: str):
    rules = load_ruleset(name)
    assert rules.name == name
    assert rules.description
    assert rules.base_workloads


def test_a_ruleset_is_the_same_after_json():
    rules = parse()
    again = Ruleset.from_json(rules.to_json())
    assert again == rules
    assert again.sha256 == rules.sha256


def test_the_hash_changes_with_anything_it_says():
    rules = parse()
    others = [
        replace(rules, confirmation=0),
        replace(rules, modified=("studies 3 -> 1",)),
        parse(changed("budget = 1001", "budget = 1002")),
        parse(changed("value = 0.1", "value = 0.2")),
        parse(changed("confirmation = 1", 'confirmation = 1\nmatmul_precision = "float32"')),
        parse(changed("budget = 1001", "budget = 1001\naccumulate = 2")),
        parse(changed("budget = 1001", "budget = 1001\nremat = true")),
    ]
    assert len({rules.sha256, *(other.sha256 for other in others)}) == 8


def test_what_saves_memory_is_said_by_workload_and_a_variant_s_is_its_own():
    rules = parse(changed("budget = 1001", "budget = 1001\naccumulate = 8\nremat = true"))
    said = {name: (found.accumulate, found.remat) for name, found in rules.workloads.items()}
    assert said == {"a": (8, True), "b": (1, False), "a_wide": (1, False)}
    assert Ruleset.from_json(rules.to_json()) == rules


def test_saying_that_nothing_saves_memory_changes_no_hash():
    assert parse(changed("budget = 1001", "budget = 1001\naccumulate = 1\nremat = false")).sha256 == parse().sha256


def test_the_rules_of_the_committed_results_still_have_the_hash_they_ran_under():
    campaign = json.loads((Path(__file__).parents[2] / "results" / "mini-v1" / "campaign.json").read_text())
    today = restrict(load_ruleset("mini-v1"), trials=1, points="default")
    assert today.sha256 == campaign["ruleset_sha256"]


def test_base_workloads_and_variants_are_told_apart():
    assert parse().base_workloads == ("a", "b")
    assert parse().variants("a") == ("a_wide",)
    assert parse().variants("b") == ()


def test_self_tuning_submissions_get_a_larger_budget_in_whole_examples():
    assert parse().budget("a", self_tuning=False) == 1001
    assert parse().budget("a", self_tuning=True) == 1501
    assert parse(changed('"examples"', '"seconds"')).budget("a", self_tuning=True) == 1501.5


def test_a_missing_board_is_a_clear_error():
    rules = replace(parse(), self_tuning=None)
    with pytest.raises(UserError, match="'r' has no board for self-tuning submissions"):
        rules.tuning(self_tuning=True)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (changed('"examples"', '"hours"'), "clock must be one of seconds, steps, examples, not 'hours'"),
        (
            changed("studies = 3\ntrials = 5", "studies = 0\ntrials = 5"),
            "studies must be a whole number, at least 1, not 0",
        ),
        (changed("studies = 3\ntrials = 5", "studies = 3\ntrials = 2.5"), "trials must be a whole number"),
        (changed("studies = 3\ntrials = 5", "studies = true\ntrials = 5"), "studies must be a whole number"),
        (changed("budget_factor = 1.5", "budget_factor = nan"), "budget_factor must be a finite number above 0"),
        (changed("trials = 5", 'trials = 5\npoints = "grid"'), "points must be"),
        (changed("trials = 5", "trials = 5\nrepeats = 2"), "repeats"),
        (changed("confirmation = 1", "confirmation = -1"), "confirmation must be a whole number, at least 0"),
        (changed("confirmation = 1", "confirmations = 1"), "confirmations"),
        (changed("confirmation = 1", 'matmul_precision = "half"'), "matmul_precision must be one of float32, tenso"),
        (changed("budget = 1001", "budget = 0"), "workload 'a': budget must be a finite number above 0, not 0"),
        (changed("budget = 1001", "budget = inf"), "budget must be a finite number"),
        (changed("budget = 1001", 'budget = "1001"'), "budget must be a finite number above 0, not '1001'"),
        (changed("eval_every = 100", "eval_every = 0"), "eval_every must be a finite number above 0"),
        (
            changed("budget = 1001", "budget = 1001\naccumulate = 0"),
            "workload 'a': accumulate must be a whole number, at ",
        ),
        (
            changed("budget = 1001", "budget = 1001\naccumulate = 2.0"),
            "workload 'a': accumulate must be a whole number",
        ),
        (changed("budget = 1001", "budget = 1001\nremat = 1"), "workload 'a': remat must be true or false, not 1"),
        (changed('variant_of = "a"', 'variant_of = "c"'), "'a_wide' is a variant of 'c', which the ruleset does not"),
        (changed('better = "lower"', 'better = "less"'), "better must be"),
        (changed('metric = "error_rate", ', ""), "metric"),
        (TOML.split("[external]")[0] + "[workloads.a]\nbudget = 1\n", "needs a table"),
        (TOML.split("[workloads.a]")[0], "workloads"),
    ],
)
def test_what_is_missing_unknown_or_out_of_range_is_named(text: str, what: str):
    with pytest.raises(UserError, match=what) as error:
        parse(text)
    assert str(error.value).startswith("ruleset: ")


def test_a_ruleset_is_read_from_a_path_and_named_after_its_file(tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text(TOML)
    assert load_ruleset(str(path)).name == "mine"


@pytest.mark.parametrize("content", [b"clock = ", b"\xff", None])
def test_a_file_that_is_no_ruleset_is_named(tmp_path: Path, content: Any):
    path = tmp_path / "mine.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"cannot read ruleset .*mine\.toml"):
        load_ruleset(str(path))


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UserError, match="no ruleset 'dem'; did you mean 'demo'"):
        load_ruleset("dem")
