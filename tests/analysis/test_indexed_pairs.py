import dataclasses

import numpy as np
import pytest
from synthetic_library import plant_library

from subspace.analysis import indexed_pairs as indexed
from subspace.analysis.all_pairs import all_pairs
from subspace.index import Index


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return plant_library(tmp_path_factory.mktemp("library") / "l", 60, ranks=(4, 6))


def _assert_equal(one, other):
    for name in ("members", "by", "groups", "group_of", "control_kinds"):
        assert getattr(one, name) == getattr(other, name), name
    np.testing.assert_array_equal([one.first, one.second], [other.first, other.second])
    arrays = [{name: getattr(each, name) for name in indexed._OF_PAIRS} for each in (one, other)]
    for found, each in zip(arrays, (one, other), strict=True):
        for side, of_side in each.sides.items():
            for field in dataclasses.fields(of_side):
                value = getattr(of_side, field.name)
                of_field = value if isinstance(value, dict) else {"": value}
                found.update({(side, field.name, key): array for key, array in of_field.items()})
    assert arrays[0].keys() == arrays[1].keys()
    for name, array in arrays[1].items():
        if array is None:
            assert arrays[0][name] is None
        else:
            np.testing.assert_allclose(
                arrays[0][name], array, atol=3e-6, rtol=3e-6, equal_nan=True, err_msg=name
            )


@pytest.mark.parametrize(
    "options", [{}, {"by": "module", "geodesic": True, "leading": [(1, 1), (2, 1)]}, {"by": "layer"}]
)
def test_what_is_kept_and_added_is_what_is_computed_at_once(tmp_path, planted, options, monkeypatch):
    monkeypatch.setattr(indexed, "_AT_ONCE", 4)
    computed = []
    real = indexed.all_pairs

    def counting(*arguments, **others):
        found = real(*arguments, **others)
        computed.append(len(found))
        return found

    monkeypatch.setattr(indexed, "all_pairs", counting)
    with Index(tmp_path / "index") as index:
        index.add(planted.paths[:10])
        _assert_equal(indexed.indexed_pairs(index, **options), all_pairs(index, **options))
        assert computed == [6, 4 * 4 + 6, 8 * 2 + 1]
        index.add(planted.paths[10:11])
        _assert_equal(indexed.indexed_pairs(index, **options), all_pairs(index, **options))
        assert computed[3:] == [10]
        indexed.indexed_pairs(index, **options)
        assert len(computed) == 4
        index.remove([3])
        _assert_equal(indexed.indexed_pairs(index, **options), all_pairs(index, **options))
        assert len(computed) == 4


def test_a_module_that_is_new_changes_controls_and_so_all_pairs(tmp_path, planted):
    rng = np.random.default_rng(0)
    more = {
        f"model.layers.{layer}.self_attn.{name}.lora_{part}": rng.standard_normal(shape)
        for layer in (0, 3) for name in ("k_proj", "q_proj") for part, shape in (("A", (3, 64)), ("B", (64, 3)))
    }  # fmt: skip
    with Index(tmp_path / "index") as index:
        index.add(planted.paths[:4])
        for _ in range(2):
            _assert_equal(indexed.indexed_pairs(index, by="module"), all_pairs(index, by="module"))
            index.add([more])


def test_an_index_of_one_has_no_pairs(tmp_path, planted):
    with Index(tmp_path / "index") as index:
        index.add(planted.paths[:1])
        assert len(indexed.indexed_pairs(index)) == 0
