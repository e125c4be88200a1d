import numpy as np
import pytest

from subspace.analysis.all_pairs import all_pairs
from subspace.errors import FileError, ValueRangeError
from subspace.index import Index
from subspace.index import neighbours as module
from subspace.index.neighbours import neighbours, sketches


@pytest.fixture(scope="module")
def whole(planted, tmp_path_factory):
    index = Index(tmp_path_factory.mktemp("whole") / "index")
    index.add(planted.paths)
    return index


def _exact(index, side, k):
    found = all_pairs(index, sides=[side], controls="none", cosine=False, z=False, precision="float64")
    phi = found.square(found.sides[side].phi_full, diagonal=-1)[0]
    return np.argsort(-phi, axis=1)[:, :k], -np.sort(-phi, axis=1)[:, :k]


@pytest.mark.parametrize("side", ["a", "left"])
def test_a_shortlist_of_all_is_exact(whole, side):
    found = neighbours(whole, k=5, side=side, shortlist=59, size=16)
    _, phi = _exact(whole, side, 5)
    np.testing.assert_allclose(found.phi, phi, atol=1e-6)
    assert (found.modules == 4).all()


@pytest.mark.parametrize("search", ["products", "usearch"])
def test_what_was_planted_is_found_on_a_short_list(whole, planted, search):
    if search == "usearch":
        pytest.importorskip("usearch")
    found = neighbours(whole, k=3, side="a", shortlist=12, search=search)
    _, phi = _exact(whole, "a", 3)
    groups = [*planted.start_groups, *planted.clusters]
    grouped = {
        number: set().union(*(group for group in groups if number in group))
        for group in groups
        for number in group
    }
    for number, others in grouped.items():
        mates = min(3, len(others) - 1)
        assert set(found.nearest[number, :mates]) <= others, number
        np.testing.assert_allclose(found.phi[number, :mates], phi[number, :mates], atol=1e-6)


def test_sketches_are_kept_and_one_more_costs_one(whole, planted, tmp_path, monkeypatch):
    with Index(tmp_path / "index") as index:
        index.add(planted.paths[:10])
        first = sketches(index, size=64)
        index.add(planted.paths[10:12])
        computed = []
        real = module._computed
        monkeypatch.setattr(module, "_computed", lambda *a: computed.append(a[1].new) or real(*a))
        second = sketches(index, size=64)
        assert computed == [(10, 11)]
        np.testing.assert_array_equal(second[:10], first)
        np.testing.assert_array_equal(second, sketches(whole, size=64)[:12])


def test_few_members_and_wrong_values(planted, tmp_path, monkeypatch):
    with Index(tmp_path / "index") as index:
        assert neighbours(index).nearest.shape == (0, 10)
        index.add(planted.paths[:2])
        found = neighbours(index, [1], k=3)
        assert found.nearest.tolist() == [[0, -1, -1]]
        assert np.isnan(found.phi[0, 1:]).all() and found.modules.tolist() == [[4, 0, 0]]
        for wrong in ({"numbers": [2]}, {"k": 0}, {"side": "c"}, {"search": "faiss"}):
            with pytest.raises(ValueRangeError):
                neighbours(index, **wrong)
        monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
        with pytest.raises(FileError, match=r"pip install lora-subspace\[search\]"):
            neighbours(index, search="usearch")
