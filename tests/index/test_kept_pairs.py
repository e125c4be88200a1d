import itertools

import numpy as np
import pytest

from subspace.errors import FileError, ShapeError
from subspace.index import Index
from subspace.index.batches import Batch

SETTINGS = {"measure": "sum", "sides": ["a", "b"]}


def _sums(index, batch):
    """A result that says which pair it is of: the paths of both."""
    first, second = batch.pairs()
    marks = np.array([int(member.sha256[:8], 16) for member in index.members], np.float64)
    return (
        first,
        second,
        {"sum": marks[first] + marks[second], "rows": np.stack([marks[first], marks[second]])},
    )


def _filled(index):
    pairs = index.pairs
    for batch in pairs.missing(SETTINGS):
        assert pairs.put(SETTINGS, batch, *_sums(index, batch))


def _assert_all(index, count):
    found = index.pairs.read(SETTINGS)
    assert sorted(zip(found.first, found.second, strict=True)) == list(
        itertools.combinations(range(count), 2)
    )
    marks = np.array([int(member.sha256[:8], 16) for member in index.members], np.float64)
    np.testing.assert_array_equal(found.arrays["sum"], marks[found.first] + marks[found.second])
    np.testing.assert_array_equal(
        np.sort(found.arrays["rows"], axis=0), np.sort([marks[found.first], marks[found.second]], axis=0)
    )


def _files(index):
    return sorted((index.folder / "pairs").rglob("*.safetensors"))


def test_adding_one_needs_the_pairs_with_those_that_are_there(index, planted):
    (batch,) = index.pairs.missing(SETTINGS)
    assert (len(batch), batch.old) == (28, ())
    _filled(index)
    assert index.pairs.missing(SETTINGS) == []
    index.add([planted.paths[8]])
    (batch,) = index.pairs.missing(SETTINGS)
    assert (batch.new, batch.old, len(batch)) == ((8,), tuple(range(8)), 8)
    _filled(index)
    small, large = sorted(path.stat().st_size for path in _files(index))
    assert large - small == 3 * 8 * (28 - 8)
    _assert_all(index, 9)
    assert index.pairs.settings() == [SETTINGS]
    assert index.pairs.read({"measure": "other"}) is None


def test_pairs_come_in_any_order_and_more_than_those_wanted(index):
    (batch,) = index.pairs.missing(SETTINGS)
    first, second, arrays = _sums(index, batch)
    order = np.random.default_rng(0).permutation(len(first))
    shuffled = {name: array[..., order] for name, array in arrays.items()}
    assert index.pairs.put(SETTINGS, batch.leading(5), second[order], first[order], shuffled)
    (rest,) = index.pairs.missing(SETTINGS)
    assert (rest.new, rest.old) == ((5, 6, 7), (0, 1, 2, 3, 4))
    with pytest.raises(ShapeError, match="Pairs of the batch are missing"):
        index.pairs.put(
            SETTINGS, rest, first[:7], second[:7], {name: array[..., :7] for name, array in arrays.items()}
        )
    with pytest.raises(ShapeError, match="The last axis is not that of the members or pairs"):
        index.pairs.put(SETTINGS, rest, first, second, {"sum": arrays["sum"][:-1]})
    _filled(index)
    _assert_all(index, 8)


@pytest.mark.parametrize("how", ["gone", "cut", "flipped", "another's"])
def test_a_block_that_is_damaged_is_computed_again_alone(index, planted, how):
    for path in planted.paths[8:11]:
        _filled(index)
        index.add([path])
    _filled(index)
    path = _files(index)[1]
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(
            {"cut": content[:-4], "flipped": content, "another's": _files(index)[0].read_bytes()}[how]
        )
    (batch,) = index.pairs.missing(SETTINGS)
    assert batch.block is not None
    assert len(index.pairs.read(SETTINGS).first) == 55 - len(batch)
    _filled(index)
    _assert_all(index, 11)


def test_members_that_are_removed_take_their_pairs_along(index, planted):
    _filled(index)
    index.remove([2, 5])
    assert index.pairs.missing(SETTINGS) == []
    _assert_all(index, 6)
    index.add([planted.paths[9]])
    (batch,) = index.pairs.missing(SETTINGS)
    assert len(batch) == 6
    _filled(index)
    _assert_all(index, 7)


def test_of_two_that_compute_the_same_one_is_kept(index, planted):
    (batch,) = index.pairs.missing(SETTINGS)
    with Index(index.folder) as other:
        _filled(other)
        assert not index.pairs.put(SETTINGS, batch, *_sums(index, batch))
        _assert_all(index, 8)
        other.add([planted.paths[8]])
        _filled(other)
        with pytest.raises(FileError, match="grew while it was in use"):
            index.pairs.missing(SETTINGS)
        index.refresh()
        assert index.pairs.missing(SETTINGS) == []
        _assert_all(index, 9)


def test_files_that_no_row_needs_are_swept_away(index):
    _filled(index)
    kept = _files(index)
    stray = kept[0].with_name(f"{kept[0].name[:2]}{'0' * 38}.safetensors")
    stray.write_bytes(b"x")
    index.repair()
    assert _files(index) == kept


def test_the_order_of_a_batch():
    first, second = Batch(new=(2, 4), old=(0, 1)).pairs()
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == [(0, 2), (1, 2), (0, 4), (1, 4), (2, 4)]
    assert len(Batch(new=(), old=(0, 1))) == 0 and len(Batch(new=(3,), old=())) == 0
    assert [len(each) for each in Batch(new=(3,), old=()).pairs()] == [0, 0]


def test_rows_of_members_are_kept_alike(index, planted):
    def fill():
        for batch in index.rows.missing(SETTINGS):
            marks = [int(index.members[number].sha256[:8], 16) for number in batch.new]
            assert index.rows.put_rows(SETTINGS, batch, {"mark": np.array([marks, marks], np.float64)})

    assert index.rows.read_rows(SETTINGS) is None
    fill()
    index.add([planted.paths[8]])
    assert [batch.new for batch in index.rows.missing(SETTINGS)] == [(8,)]
    fill()
    index.remove([4])
    _files(index)[0].write_bytes(b"")
    fill()
    numbers, arrays = index.rows.read_rows(SETTINGS)
    order = np.argsort(numbers)
    assert numbers[order].tolist() == list(range(8))
    assert arrays["mark"][0, order].tolist() == [int(member.sha256[:8], 16) for member in index.members]
