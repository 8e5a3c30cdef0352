"""Seeds are a pure function of who asks."""

import itertools

import pytest

from timetrial.seeds import PURPOSES, seed


def test_a_seed_never_changes():
    # printf '[0, "lobes", 0, 0, "init"]' | sha256sum | cut -c1-16
    assert seed(0, "lobes", 0, 0, "init") == 0x6F37E82620992BD0


def test_no_two_askers_share_a_seed():
    asked = itertools.product((0, 1, -1), ("a", "b"), (0, 1), (None, 0, 1), PURPOSES)
    seeds = [seed(*who) for who in asked]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= value < 2**64 for value in seeds)


def test_an_unknown_purpose_is_a_bug():
    with pytest.raises(ValueError, match="no seed purpose 'luck'"):
        seed(0, "a", 0, 0, "luck")
