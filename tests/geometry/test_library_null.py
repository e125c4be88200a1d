"""The null of a library: ranks by hand, size and power by simulation, and that no search through all pairs can pass."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import false_discovery_control

from subspace.errors import ShapeError
from subspace.geometry.library_null import library_null

N = 39
UPPER = np.triu_indices(N, 1)


def independent(rng):
    M = rng.standard_normal((N, N))
    return M + M.T


def cosines(rng):
    X = rng.standard_normal((N, 40))
    X /= np.linalg.norm(X, axis=1)[:, None]
    return X @ X.T


def hubs(rng):
    """Adapters that are more like all others the longer they were trained."""
    length, M = rng.standard_normal(N), 0.3 * rng.standard_normal((N, N))
    return length[:, None] + length + M + M.T


def plane(rng):
    X = rng.standard_normal((N, 2))
    return -np.linalg.norm(X[:, None] - X, axis=2)


def families(rng):
    X = rng.standard_normal((N, 40)) + 2 * rng.standard_normal((8, 40))[rng.integers(8, size=N)]
    return X @ X.T


MODELS = [independent, cosines, hubs, plane, families]


def test_p_is_the_larger_share_counted_by_hand():
    S = cosines(np.random.default_rng(0))
    p = library_null(S).p
    for i, j in [(0, 1), (5, 30), (38, 2)]:
        row = np.mean([S[i, m] >= S[i, j] for m in range(N) if m != i])
        column = np.mean([S[m, j] >= S[i, j] for m in range(N) if m != j])
        assert p[i, j] == pytest.approx(max(row, column))
    assert np.isnan(np.diag(p)).all() and np.array_equal(p, p.T, equal_nan=True)


@pytest.mark.parametrize("model", MODELS)
def test_size_is_at_most_nominal_though_pairs_share_adapters(model):
    rng = np.random.default_rng(1)
    p = np.array([library_null(model(rng)).p[0, 1] for _ in range(400)])
    for level in (1 / (N - 1), 0.1, 0.3, 0.5):
        most = level + 3 * np.sqrt(level * (1 - level) / len(p))
        assert np.mean(p <= level + 1e-12) <= most


@pytest.mark.parametrize(("alike", "power"), [(0.0, (0.0, 0.05)), (0.4, (0.4, 0.9)), (0.8, (0.98, 1.0))])
def test_power_for_one_pair_that_was_named(alike, power):
    rng = np.random.default_rng(2)
    found = []
    for _ in range(200):
        X = rng.standard_normal((N, 40))
        X[1] = alike * X[0] + np.sqrt(1 - alike**2) * X[1]
        found.append(library_null(X @ X.T).p[0, 1] <= 0.05)
    assert power[0] <= np.mean(found) <= power[1]


def test_a_neighbour_of_everyone_is_no_evidence():
    """A hub is the nearest neighbour of all others, and none of them is especially near for the hub."""
    S = cosines(np.random.default_rng(3))
    S[0, 1:] += 2.0
    S[1:, 0] += 2.0
    p = library_null(S).p[0, 1:]
    assert np.sort(p) == pytest.approx(np.arange(1, N) / (N - 1))


def test_families_make_p_larger_never_smaller():
    rng = np.random.default_rng(4)
    S = cosines(rng) * 0.1
    S[:6, :6] += 0.5
    p = library_null(S).p
    assert p[:6, :6][np.triu_indices(6, 1)].max() == pytest.approx(5 / (N - 1))
    assert np.nanmin(p[:6, 6:]) > 5 / (N - 1)


@pytest.mark.parametrize("model", MODELS)
def test_no_correction_for_all_pairs_can_pass_whatever_the_data(model):
    """The ranks of a row are what they are: at most the share p of all pairs is at or below p."""
    S = model(np.random.default_rng(5))
    S[0, 1] = S[1, 0] = 1e6  # as alike as anything can be
    p = library_null(S).p[UPPER]
    assert p.min() * len(p) >= 1  # Bonferroni, and with it Holm
    for method in ("bh", "by"):
        assert false_discovery_control(p, method=method).min() == pytest.approx(1.0)


def test_without_structure_up_to_a_quarter_as_many_pairs_as_adapters_are_at_the_floor():
    rng = np.random.default_rng(6)
    at_floor = [(library_null(cosines(rng)).p[UPPER] < 1.5 / (N - 1)).sum() for _ in range(40)]
    assert np.mean(at_floor) == pytest.approx(N / 4, rel=0.1)


def test_floor():
    found = library_null(np.eye(100))
    assert found.floor == pytest.approx(1 / 99) and not found.reason
    assert np.nanmax(found.p) == np.nanmin(found.p) == 1.0  # ties are no evidence


def test_a_small_library_has_none_and_says_why():
    found = library_null(np.eye(38))
    assert found.p is None and found.floor is None
    assert found.reason.startswith("38 adapters are too few") and "39" in found.reason


def test_adapters_that_can_be_compared_with_few_others_have_none():
    S = cosines(np.random.default_rng(7))
    S = np.pad(S, (0, 1), constant_values=np.nan)
    S[N, 0] = S[0, N] = 0.5  # an adapter that shares a module with one other
    found = library_null(S)
    assert np.isnan(found.p[N]).all() and np.isfinite(found.p[0, 1])
    S[0, 1] = S[1, 0] = np.nan
    p = library_null(S).p
    assert np.isnan(p[0, 1]) and np.isfinite(p[2, 3]) and np.isnan(p[1, 2])
    assert library_null(np.full((50, 50), np.nan)).p is None


def test_not_square():
    with pytest.raises(ShapeError, match=r"Not a square matrix of similarities: shape \(3, 4\)"):
        library_null(np.ones((3, 4)))
