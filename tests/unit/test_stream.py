"""The order of the training data: epochs of permutations, one after the other, nothing dropped and nothing twice."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from timetrial.batches import EpochStream, Share, padded_batch, stretch
from timetrial.devices import Mesh
from timetrial.splits import ArraySplit
from timetrial.stream import from_host, on_device


@given(rows=st.integers(1, 60), epoch=st.integers(0, 5), seed=st.integers(0, 2**64 - 1))
def test_each_epoch_holds_every_row_once(rows, epoch, seed):
    indices = EpochStream(rows, seed).indices(epoch * rows, rows)
    assert sorted(indices.tolist()) == list(range(rows))


@given(
    rows=st.integers(1, 30), cuts=st.lists(st.integers(1, 50), min_size=1, max_size=6), seed=st.integers(0, 2**64 - 1)
)
def test_a_batch_size_only_slices_the_same_stream(rows, cuts, seed):
    whole = EpochStream(rows, seed).indices(0, sum(cuts))
    stream, pieces, start = EpochStream(rows, seed), [], 0
    for count in cuts:
        pieces.append(stream.indices(start, count))
        start += count
    assert np.concatenate(pieces).tolist() == whole.tolist()


def test_epochs_and_seeds_give_different_orders():
    stream = EpochStream(100, 0)
    first, second = stream.indices(0, 100).tolist(), stream.indices(100, 100).tolist()
    assert first != second
    assert first != EpochStream(100, 1).indices(0, 100).tolist()
    assert first != EpochStream(100, 2**32).indices(0, 100).tolist(), "all 64 bits of the seed count"


def test_the_order_is_the_one_that_numpy_promised_to_keep():
    """Records of today must be repeatable tomorrow: these numbers come from numpy's documented legacy generator."""
    expected = np.random.RandomState([5, 0, 0]).permutation(8)
    assert EpochStream(8, 5).indices(0, 8).tolist() == expected.tolist()


def test_batches_from_the_host_follow_the_stream_from_any_position():
    stream = EpochStream(10, 3)
    batches = from_host(ArraySplit({"x": np.arange(10)}), stream, Mesh.local(), 4, first=5)
    for number in (5, 6, 7):
        assert next(batches)["x"].tolist() == stream.indices(4 * number, 4).tolist()


@pytest.mark.parametrize(("rows", "weighted"), [(4, False), (8, False), (5, True), (1, True)])
def test_rows_that_the_devices_do_not_divide_are_padded_with_weight_zero(rows, weighted):
    split, stream = ArraySplit({"x": np.arange(100)}), EpochStream(100, 3)
    batch = stretch(split, stream, 7, rows, Share(0, 4, 4))
    assert len(batch["x"]) % 4 == 0
    assert ("weights" in batch) == weighted
    counted = batch["x"] if not weighted else batch["x"][batch["weights"] > 0]
    assert counted.tolist() == stream.indices(7, rows).tolist()


@given(rows=st.integers(1, 40), start=st.integers(0, 30), together=st.integers(1, 3), owned=st.lists(st.integers(1, 3)))
def test_the_shares_of_several_processes_make_up_the_batch(rows, start, together, owned):
    split, stream, devices = ArraySplit({"x": np.arange(17)}), EpochStream(17, 3), sum(owned, 1)
    split.together = together
    firsts = [0, *np.cumsum([1, *owned]).tolist()]
    shares = [Share(first, own, devices) for first, own in zip(firsts, [1, *owned], strict=False)]
    for make in (
        lambda share: stretch(split, stream, start, rows, share),
        lambda share: padded_batch(split, devices * 4, 0, share),
    ):
        whole, parts = make(Share(0, devices, devices)), [make(share) for share in shares]
        assert {name: np.concatenate([part[name] for part in parts]).tolist() for name in whole} == {
            name: array.tolist() for name, array in whole.items()
        }


def test_data_on_the_device_are_no_longer_in_their_file(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((1000, 64), np.float32))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    found = on_device(ArraySplit({"x": mapped}), Mesh.local())
    assert found is not None
    (array,) = found.values()
    assert not np.shares_memory(np.asarray(array.addressable_shards[0].data), mapped)
