"""What a person reads when a name does not exist."""

from timetrial.errors import UserError, unknown


def test_the_nearest_name_is_suggested():
    error = unknown("workload", "lobs", ["flights", "lobes"], "Do this.")
    assert isinstance(error, UserError)
    assert str(error) == "no workload 'lobs'; did you mean 'lobes'? Do this."


def test_a_few_known_names_are_listed_where_none_is_near():
    assert str(unknown("verb", "zzz", ["b", "a"], "Do this.")) == "no verb 'zzz'. Known: a, b. Do this."


def test_many_known_names_are_not_listed():
    known = [f"name_{i}" for i in range(13)]
    assert str(unknown("verb", "zzz", known, "Do this.")) == "no verb 'zzz'. Do this."
    assert str(unknown("verb", "zzz", [], "Do this.")) == "no verb 'zzz'. Do this."
