"""Variants change the model of a workload; they are found by name, and drawn alike by whoever knows the seed."""

import sys

import pytest
from shelf import Shelf

from timetrial import registry, variants
from timetrial.errors import UserError

VARIED = """\
import dataclasses
from toys import toy_workload

@dataclasses.dataclass(frozen=True)
class Net:
    width: int = 8
    activation: str = "relu"

AXES = {"activation": ("relu", "tanh"), "width": (8, 4, 16)}
VARIANTS = {"alpha_tanh": {"activation": "tanh"}}

def build(model):
    return toy_workload(name="alpha", default_batch_size=model.width)

MODEL = Net()
WORKLOAD = build(MODEL)
"""


@pytest.fixture(autouse=True)
def alpha(shelf: Shelf) -> None:
    """A workload with two axes and one fixed variant."""
    sys.modules.pop("timetrial.workloads.alpha", None)
    shelf.add_workload("alpha", VARIED)


def test_a_fixed_variant_is_found_by_its_name_and_names_its_base():
    workload = registry.load_workload("alpha_tanh")
    assert (workload.name, workload.variant_of) == ("alpha_tanh", "alpha")


def test_a_composition_is_found_by_what_it_changes():
    workload = registry.load_workload("alpha+activation=tanh+width=16")
    assert (workload.variant_of, workload.default_batch_size) == ("alpha", 16)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("alpha_tanc", "no workload 'alpha_tanc'; did you mean 'alpha_tanh'"),
        ("alpha+wide=4", "no axis 'wide'; did you mean 'width'"),
        ("alpha+width=5", "width can become 4, 16, not '5'"),
        ("alpha+width=8", "width can become 4, 16, not '8'"),
        ("alpha+width=4+activation=tanh", "is called 'alpha+activation=tanh+width=4'"),
        ("alpha+width=4+width=16", "is called 'alpha+width=16'"),
        ("beta", "no workload 'beta'"),
    ],
)
def test_a_name_that_means_no_variant_is_refused_with_what_could_be_meant(name: str, said: str):
    with pytest.raises(UserError) as refused:
        registry.load_workload(name)
    assert said in str(refused.value)


def test_a_longer_folder_name_is_not_taken_for_a_variant_of_a_shorter(shelf: Shelf):
    shelf.add_workload("alpha_two", "")
    assert registry.base_of("alpha_two") == "alpha_two"
    assert registry.base_of("alpha_two_tanh") == "alpha_two"


def test_all_names_are_the_bases_each_with_its_fixed_variants():
    assert registry.all_workload_names() == ["alpha", "alpha_tanh"]


def test_drawn_variants_are_distinct_new_and_the_same_for_the_same_seed():
    names = variants.drawn("alpha", "seed", 4)
    assert sorted(names) == sorted(
        ["alpha+width=4", "alpha+width=16", "alpha+activation=tanh+width=4", "alpha+activation=tanh+width=16"]
    )
    assert variants.drawn("alpha", "seed", 2) == names[:2]
    assert [registry.load_workload(name).name for name in names] == names


def test_seeds_draw_different_variants():
    assert len({variants.drawn("alpha", str(seed))[0] for seed in range(40)}) == 4


def test_more_variants_than_there_are_cannot_be_drawn():
    with pytest.raises(UserError, match="'alpha' has no more than 4 variants"):
        variants.drawn("alpha", "seed", 5)
