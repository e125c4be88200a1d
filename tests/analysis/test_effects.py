"""Cosine and energies of two updates against dense matrices, and their isotropic levels against random ones."""

from __future__ import annotations

import numpy as np
import pytest

import subspace
from subspace.geometry.agreement import Rows, agreements
from subspace.geometry.update_agreement import isotropic_cosine_sd, isotropic_energy, update_agreement


def _pair(rng, r, d_out=24, d_in=40):
    return rng.standard_normal((d_out, r)), rng.standard_normal((r, d_in))


def _spans(M, k):
    U, _, Vh = np.linalg.svd(M)
    return U[:, :k], Vh[:k].T


def _files(*pairs, **more):
    return [
        {f"{name}.lora_{x}": M for name, BA in pair.items() for x, M in zip("BA", BA, strict=True)}
        for pair in pairs
    ]


def _dense(first, second):
    """Cosine and both energies of two matrices, by dense singular value decompositions."""
    norms = [np.linalg.norm(M) for M in (first[0], second[0])]
    cosine = np.sum(first[0] * second[0]) / norms[0] / norms[1]
    energies = []
    for (M, _), (other, k) in ((first, second), (second, first)):
        U, V = _spans(other, k)
        energies.append((np.linalg.norm(U.T @ M @ V) / np.linalg.norm(M)) ** 2)
    return cosine, *energies


@pytest.mark.parametrize("ranks", [(3, 5), (5, 3), (1, 1), (24, 2)])
@pytest.mark.parametrize("condition", [1.0, 1e9])
def test_the_numbers_of_a_module_are_those_of_dense_matrices(ranks, condition):
    rng = np.random.default_rng(sum(ranks))
    (B, A), (B_, A_) = (_pair(rng, r) for r in ranks)
    A = A * np.geomspace(1, 1 / condition, ranks[0])[:, None]
    B_ = B_ + 0.5 * B[:, :1]
    A_ = A_ + 0.5 * A[:1]
    (row,) = subspace.compare(*_files({"q": (B, A)}, {"q": (B_, A_)})).modules
    cosine, first, second = _dense((B @ A, ranks[0]), (B_ @ A_, ranks[1]))
    assert row.cosine == pytest.approx(cosine, abs=1e-10)
    assert row.energy_second_in_first == pytest.approx(second, abs=1e-6)
    if condition == 1.0:
        assert row.energy_first_in_second == pytest.approx(first, abs=1e-10)
    assert row.cosine_isotropic_sd == pytest.approx(1 / np.sqrt(24 * 40))
    assert row.energy_first_in_second_isotropic == pytest.approx(ranks[1] ** 2 / (24 * 40))


def test_the_same_numbers_stand_on_every_side_and_with_the_start_removed():
    rng = np.random.default_rng(1)
    start = {"q": (np.zeros((24, 3)), rng.standard_normal((3, 40)))}
    files = _files({"q": _pair(rng, 3)}, {"q": _pair(rng, 3)}, start)
    rows = subspace.compare(*files[:2], side="all", init=files[2]).modules
    assert len({row.cosine for row in rows}) == 1 and len(rows) == 8


def test_a_negative_scale_turns_the_sign_and_an_unknown_one_does_not():
    rng = np.random.default_rng(2)
    one = _files({"q": _pair(rng, 3)})[0]
    for scales, sign in (((None, None), 1), ((2.0, 3.0), 1), ((-2.0, 3.0), -1), ((-1.0, -1.0), 1)):
        result = subspace.compare(one, one, scale=scales)
        assert result.cosine == pytest.approx(sign) and result.modules[0].cosine == pytest.approx(sign)


def test_the_whole_weighs_each_module_by_its_norm():
    rng = np.random.default_rng(3)
    one, other = ({name: _pair(rng, 2) for name in ("l.0.q", "l.1.q")} for _ in range(2))
    other["l.0.q"] = one["l.0.q"]
    found = subspace.compare(*_files(one, other))
    first, second = (np.concatenate([(B @ A).ravel() for B, A in each.values()]) for each in (one, other))
    cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    assert found.cosine == pytest.approx(cosine, abs=1e-12)
    parts = [_dense((one[n][0] @ one[n][1], 2), (other[n][0] @ other[n][1], 2))[1] for n in one]
    weights = [np.linalg.norm(one[n][0] @ one[n][1]) ** 2 for n in one]
    assert found.whole.energy_first_in_second == pytest.approx(np.average(parts, weights=weights))


def test_a_dense_update_has_the_same_cosine_and_the_same_energy_where_spans_are_known():
    rng = np.random.default_rng(4)
    (B, A), (B_, A_) = _pair(rng, 2), _pair(rng, 3)
    B_ = B_ + np.hstack([B, B[:, :1]])
    dense = {"q.delta_W": B_ @ A_}
    factored = subspace.compare(*_files({"q": (B, A)}, {"q": (B_, A_)})).modules[0]
    for sides in ("a", ("left", "right")):
        row = subspace.compare(*_files({"q": (B, A)}), dense, side=sides, directions=3).modules[0]
        assert row.cosine == pytest.approx(factored.cosine, abs=1e-10)
    assert row.energy_first_in_second == pytest.approx(factored.energy_first_in_second, abs=1e-10)


def test_what_is_not_defined_is_none():
    rng = np.random.default_rng(5)
    one, untrained = _files(
        {"q": _pair(rng, 2), "v": _pair(rng, 2)},
        {"q": (np.zeros((24, 2)), np.ones((2, 40))), "v": _pair(rng, 2)},
    )
    q, v = subspace.compare(one, untrained).modules
    assert q.cosine is None and q.energy_first_in_second is None and v.cosine is not None
    W = {"q.weight": rng.standard_normal((24, 40))}
    base = subspace.compare(W, _files({"q": _pair(rng, 2)})[0])
    assert base.cosine is None and base.modules[0].cosine is None
    assert base.headline().startswith("A: ") and "starts" not in base.headline()


def test_isotropic_levels_are_those_of_random_updates():
    rng = np.random.default_rng(6)
    d_out, d_in, k, r, n = 10, 12, 3, 2, 4000
    cosines, energies = [], []
    B, A = rng.standard_normal((d_out, r)) * [3.0, 1.0], rng.standard_normal((r, d_in))
    for _ in range(n):
        a, b = (
            agreements({"x": Rows(M)}, {"x": Rows(rng.standard_normal((k, M.shape[1])))})["x"]
            for M in (A, B.T)
        )
        found = update_agreement(a, b)
        cosines.append(found.cosine)
        energies.append(found.first_in_second)
    assert np.std(cosines) == pytest.approx(isotropic_cosine_sd(d_out, d_in), rel=0.05)
    assert np.mean(energies) == pytest.approx(isotropic_energy(k, k, d_out, d_in), rel=0.05)


def test_updates_of_other_shapes_have_no_cosine_and_the_headline_says_so():
    rng = np.random.default_rng(7)
    one, other = _files({"q": _pair(rng, 2)}, {"q": _pair(rng, 2, d_out=20)})
    found = subspace.compare(one, other)
    assert found.whole is None and found.modules[0].flags == ("no_cosine",)
    assert found.facts()[-1].startswith("How alike the two updates are is not defined here")
