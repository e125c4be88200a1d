"""Every method of merging against its dense definition, and what none of them may depend on."""

from __future__ import annotations

import numpy as np
import pytest

from subspace.errors import ShapeError, ValueRangeError
from subspace.geometry import entries, mergers
from subspace.geometry.largest_entries import threshold
from subspace.geometry.merger import Part, Settings

D_OUT, D_IN = 30, 22
SHAPES = [(3, 2.0, 1.0), (5, 0.5, -0.7), (4, -1.0, 0.4)]  # rank, scale, weight


def _parts(rng, shapes=SHAPES, d_out=D_OUT, d_in=D_IN):
    return [
        Part(rng.standard_normal((d_out, r)), rng.standard_normal((r, d_in)), scale, weight, n)
        for n, (r, scale, weight) in enumerate(shapes)
    ]


def _updates(parts):
    return [part.scale * part.B @ part.A for part in parts]


def _weights(parts):
    return [part.weight for part in parts]


def _sum(parts):
    return sum(w * dW for w, dW in zip(_weights(parts), _updates(parts), strict=True))


def _best(M, k):
    U, S, Vh = np.linalg.svd(M, full_matrices=False)
    return (U[:, :k] * S[:k]) @ Vh[:k]


def _trimmed(M, density):
    """The int(density * size) entries of the largest magnitude."""
    kept = np.zeros(M.size)
    order = np.argsort(-np.abs(M).ravel(), kind="stable")[: int(density * M.size)]
    kept[order] = M.ravel()[order]
    return kept.reshape(M.shape)


def _ties(matrices, weights, density, frequency=False):
    """TIES, entry by entry."""
    trimmed = [_trimmed(M, density) for M in matrices]
    out = np.zeros(trimmed[0].shape)
    for at in np.ndindex(*out.shape):
        values = [M[at] for M in trimmed]
        total = sum(np.sign(values)) if frequency else sum(values)
        wins = 1.0 if total >= 0 else -1.0
        chosen = [w * v for w, v in zip(weights, values, strict=True) if np.sign(v) == wins]
        out[at] = np.mean(chosen) if chosen else 0.0
    return out


def _knots(parts, density, inner="ties", frequency=False):
    """[dW_1 ... dW_n] = U S [V_1.T ... V_n.T], the V merged, from the dense SVD."""
    updates = _updates(parts)
    U, S, Vh = np.linalg.svd(np.hstack(updates), full_matrices=False)
    k = int((S[0] * 1e-10 < S).sum())
    # the sign of a pair of singular vectors is free: the largest entry of V is positive
    signs = np.array([np.sign(row[np.abs(row).argmax()]) for row in Vh[:k]])
    U, Vh = U[:, :k] * signs, signs[:, None] * Vh[:k]
    blocks = np.split(Vh, len(parts), axis=1)
    if inner == "sum":
        V = sum(w * block for w, block in zip(_weights(parts), blocks, strict=True))
    else:
        V = _ties(blocks, _weights(parts), density, frequency)
    return (U[:, :k] * S[:k]) @ V


def _iso(parts):
    U, S, Vh = np.linalg.svd(_sum(parts), full_matrices=False)
    k = int((S[0] * 1e-10 < S).sum())
    return S[:k].mean() * U[:, :k] @ Vh[:k]


def _polar(M):
    P, _, Qh = np.linalg.svd(M, full_matrices=False)
    return P @ Qh


def _tsv(parts, each=None):
    """All triplets side by side, both sides replaced by their nearest orthonormal matrices."""
    triplets = [np.linalg.svd(w * dW) for w, dW in zip(_weights(parts), _updates(parts), strict=True)]
    ks = [min(part.r, each or part.r) for part in parts]
    U = np.hstack([U[:, :k] for (U, _, _), k in zip(triplets, ks, strict=True)])
    S = np.concatenate([S[:k] for (_, S, _), k in zip(triplets, ks, strict=True)])
    V = np.vstack([Vh[:k] for (_, _, Vh), k in zip(triplets, ks, strict=True)]).T
    return _polar(U) @ np.diag(S) @ _polar(V).T


def _product(merged):
    return merged.B @ merged.A


def _merged(method, parts, **settings):
    return mergers.named(method).merged(parts, Settings(**settings))


def _near(found, wanted, tolerance=1e-12):
    return np.linalg.norm(found - wanted) <= tolerance * np.linalg.norm(wanted)


DENSE = {
    "sum": _sum,
    "cat": _sum,
    "svd": lambda parts: _best(_sum(parts), 5),
    "knots": lambda parts: _knots(parts, 0.2),
    "iso": _iso,
    "tsv": _tsv,
    "ties": lambda parts: _best(_ties(_updates(parts), _weights(parts), 0.2), 5),
    "magnitude_prune": lambda parts: _best(
        sum(w * _trimmed(dW, 0.2) for w, dW in zip(_weights(parts), _updates(parts), strict=True)), 5
    ),
}
ON_ENTRIES = ("ties", "dare", "dare_ties", "magnitude_prune")


@pytest.mark.parametrize("method", DENSE)
@pytest.mark.parametrize("seed", range(3))
def test_a_method_is_its_dense_definition(method, seed):
    parts = _parts(np.random.default_rng(seed))
    # the entries of delta_W are computed in float32
    tolerance = 1e-6 if method in ON_ENTRIES else 1e-12
    assert _near(_product(_merged(method, parts)), DENSE[method](parts), tolerance)


def test_every_method_is_tested():
    assert set(mergers.names()) == {*DENSE, *ON_ENTRIES, "linear"}
    assert all(mergers.named(name).name == name for name in mergers.names())
    with pytest.raises(
        ValueRangeError, match="Unknown method of merging 'sums'; give `method` one of sum, cat"
    ):
        mergers.named("sums")


@pytest.mark.parametrize("frequency", [False, True])
def test_signs_are_elected_by_the_sum_or_by_their_number(frequency):
    parts = _parts(np.random.default_rng(1))
    word = "frequency" if frequency else "total"
    wanted = _ties(_updates(parts), _weights(parts), 0.5, frequency)
    assert _near(_merged("ties", parts, density=0.5, sign_method=word).target, wanted, 1e-6)
    other = _merged("ties", parts, density=0.5, sign_method="total" if frequency else "frequency")
    assert not _near(other.target, wanted, 1e-3)
    aligned = _merged("knots", parts, density=0.5, sign_method=word)
    assert _near(_product(aligned), _knots(parts, 0.5, frequency=frequency))


def test_knots_of_a_sum_is_the_sum():
    parts = _parts(np.random.default_rng(2))
    assert _near(_product(_merged("knots", parts, inner="sum")), _sum(parts))
    assert _near(_knots(parts, 0.2, inner="sum"), _sum(parts))


def test_peft_linear_by_hand():
    parts = _parts(np.random.default_rng(3), [(3, 2.0, 1.0), (3, 0.5, -0.7)])
    roots = [np.sqrt(2.0), np.sqrt(0.35)]
    A = roots[0] * parts[0].A - roots[1] * parts[1].A
    B = roots[0] * parts[0].B + roots[1] * parts[1].B
    found = _merged("linear", parts)
    assert _near(_product(found), B @ A)
    assert not _near(_product(found), _sum(parts), 0.1)
    with pytest.raises(
        ShapeError,
        match=r"different ranks \(3, 4, 5\) cannot be merged entry by entry; choose the `method` svd",
    ):
        _merged("linear", _parts(np.random.default_rng(3)))


# random entries


def test_dare_is_the_sum_on_average_and_its_entries_are_the_scaled_ones():
    parts = _parts(np.random.default_rng(4), [(2, 1.0, 1.0), (2, 1.0, 0.5)], 12, 10)
    first, second = _updates(parts)
    found = [_merged("dare", parts, density=0.25, seed=seed).target for seed in range(500)]
    wanted = _sum(parts)
    # each entry has the variance (1 - p) / p of the squares
    sd = np.sqrt(3 * (first**2 + (0.5 * second) ** 2) / len(found))
    assert np.abs(np.mean(found, axis=0) - wanted).max() < 5 * sd.max()
    values = np.stack([0 * first, 4 * first, 2 * second, 4 * first + 2 * second])
    assert np.abs(values - found[0]).min(axis=0).max() < 1e-5


def test_the_share_of_random_entries_is_the_density():
    part = Part(np.ones((200, 1)), np.ones((1, 150)))
    for density in (0.1, 0.6):
        found = _merged("dare", [part, Part(part.B, part.A, 1.0, 0.0, 1)], density=density)
        share = (found.target != 0).mean()
        assert abs(share - density) < 5 * np.sqrt(density * (1 - density) / found.target.size)


def test_random_entries_are_those_of_the_seed_and_of_the_adapter():
    parts = _parts(np.random.default_rng(5))
    one, same, other = (_merged("dare", parts, seed=seed).target for seed in (0, 0, 1))
    assert np.array_equal(one, same) and not np.array_equal(one, other)
    alike = [Part(parts[0].B, parts[0].A, 1.0, 1.0, n) for n in (0, 1)]
    masks = [_merged("dare", [part], density=0.5).target != 0 for part in alike]
    assert not np.array_equal(*masks)


def test_dare_ties_is_ties_of_the_random_entries():
    parts = _parts(np.random.default_rng(6))
    sampled = [_merged("dare", [Part(p.B, p.A, p.scale, 1.0, p.number)], density=0.5).target for p in parts]
    wanted = _ties(sampled, _weights(parts), 1.0)
    assert _near(_merged("dare_ties", parts, density=0.5).target, wanted, 1e-6)


# the k-th largest


@pytest.mark.parametrize("seed", range(4))
def test_the_threshold_is_that_of_a_sort(seed):
    rng = np.random.default_rng(seed)
    M = np.abs(rng.standard_normal((40, 25)) * 10.0 ** rng.integers(-30, 30, (40, 25))).astype(np.float32)
    M[rng.random(M.shape) < 0.3] = np.float32(0.25)
    ordered = np.sort(M.ravel())[::-1]
    for k in (1, 2, 17, 300, 700, M.size):
        found = threshold(lambda: np.split(M, 8), k)
        assert found.magnitude == ordered[k - 1]
        assert found.ties == k - int((ordered[k - 1] < M).sum())


@pytest.mark.parametrize("method", ["ties", "dare", "dare_ties", "magnitude_prune"])
def test_how_many_rows_are_read_at_once_changes_nothing(method, monkeypatch):
    parts = _parts(np.random.default_rng(7))
    whole = _merged(method, parts).target
    monkeypatch.setattr(entries, "_CHUNK", 3 * D_IN)
    assert np.allclose(_merged(method, parts).target, whole, rtol=1e-5, atol=1e-6)


def test_exactly_as_many_equal_entries_stay_as_asked():
    part = Part(np.ones((10, 1)), np.ones((1, 10)))
    for density in (0.01, 0.37, 1.0):
        found = _merged("magnitude_prune", [part], density=density)
        assert (found.target != 0).sum() == int(density * 100)


# what nothing may depend on, and what does


def _refactored(parts, rng):
    """The same updates from other factors, of other sizes."""
    turned = []
    for part in parts:
        G = rng.standard_normal((part.r, part.r)) + 2 * np.eye(part.r)
        size = 10.0 ** rng.integers(-6, 7)
        turned.append(
            Part(size * part.B @ np.linalg.inv(G), G @ part.A / size, part.scale, part.weight, part.number)
        )
    return turned


@pytest.mark.parametrize("method", mergers.names())
def test_the_factorisation_matters_where_it_is_said_to(method):
    rng = np.random.default_rng(8)
    shapes = [(3, 2.0, 1.0), (3, 0.5, -0.7)]
    parts = _parts(rng, shapes)
    turned = _refactored(parts, rng)
    found, again = _product(_merged(method, parts)), _product(_merged(method, turned))
    chosen = mergers.named(method)
    assert _near(again, found, 1e-5 if method in ON_ENTRIES else 1e-8) == chosen.invariant
    if "entries" in chosen.settings:
        pair = [_product(_merged(method, each, entries="factors")) for each in (parts, turned)]
        assert not _near(*pair, 0.1)


@pytest.mark.parametrize("method", [name for name in mergers.names() if "dare" not in name])
def test_the_order_of_the_adapters_does_not_matter(method):
    parts = _parts(np.random.default_rng(9), [(3, 2.0, 1.0), (3, 0.5, -0.7), (3, 1.0, 2.0)])
    found, again = (_product(_merged(method, each)) for each in (parts, parts[::-1]))
    assert _near(again, found, 1e-5)


@pytest.mark.parametrize("method", [name for name in mergers.names() if "dare" not in name])
def test_twice_the_scales_is_twice_the_merge(method):
    parts = _parts(np.random.default_rng(10), [(3, 2.0, 1.0), (3, 0.5, -0.7)])
    doubled = [Part(p.B, p.A, 2 * p.scale, p.weight, p.number) for p in parts]
    assert _near(_product(_merged(method, doubled)), 2 * _product(_merged(method, parts)), 1e-5)


# cuts


@pytest.mark.parametrize("method", ["svd", "ties", "dare", "knots"])
def test_a_rank_is_the_best_one_of_its_target(method):
    parts = _parts(np.random.default_rng(11))
    whole = _merged(method, parts, rank=2)
    target = whole.target[0] @ whole.target[1] if isinstance(whole.target, tuple) else whole.target
    assert whole.B.shape[1] == 2
    assert _near(_product(whole), _best(target, 2), 1e-5)
    if whole.rest is not None:
        assert _near(target - _product(whole), whole.rest[0] @ whole.rest[1], 1e-9)


@pytest.mark.parametrize("method", ["svd", "ties", "knots"])
@pytest.mark.parametrize("energy", [0.5, 0.9, 0.999])
def test_an_energy_is_kept_by_the_least_rank(method, energy):
    parts = _parts(np.random.default_rng(12))
    found = _merged(method, parts, energy=energy)
    target = found.target[0] @ found.target[1] if isinstance(found.target, tuple) else found.target
    shares = np.cumsum(np.linalg.svd(target, compute_uv=False) ** 2) / np.linalg.norm(target) ** 2
    assert found.B.shape[1] == int(np.searchsorted(shares, energy * (1 - 1e-9))) + 1


def test_iso_has_a_flat_spectrum_and_its_mean():
    parts = _parts(np.random.default_rng(13))
    S = np.linalg.svd(_product(_merged("iso", parts)), compute_uv=False)
    assert np.allclose(S[:12], np.linalg.svd(_sum(parts), compute_uv=False)[:12].mean(), rtol=1e-12)
    assert S[12] < 1e-12 * S[0]
    assert _merged("iso", parts, rank=4).B.shape[1] == 4


def test_tsv_of_orthogonal_updates_is_their_sum_and_of_more_than_fit_keeps_as_many_of_each():
    Q, P = (
        np.linalg.qr(np.random.default_rng(n).standard_normal((d, 7)))[0] for n, d in enumerate((D_OUT, D_IN))
    )
    parts = [Part(Q[:, :3], P[:, :3].T, 2.0, 1.0, 0), Part(Q[:, 3:], P[:, 3:].T, 0.5, -1.0, 1)]
    assert _near(_product(_merged("tsv", parts)), _sum(parts))
    wide = _parts(np.random.default_rng(14), [(9, 1.0, 1.0)] * 3)  # 27 directions in 22 dimensions
    assert _near(_product(_merged("tsv", wide)), _tsv(wide, each=D_IN // 3))
    assert _near(_product(_merged("tsv", wide, rank=6)), _tsv(wide, each=2))


def test_tsv_of_one_update_twice_is_twice_that_update_made_once():
    part = _parts(np.random.default_rng(15))[0]
    found = _merged("tsv", [part, Part(part.B, part.A, part.scale, part.weight, 1)])
    # the whitened halves of a shared direction have the length 1 / sqrt(2) on both sides
    assert found.B.shape[1] == part.r
    assert _near(_product(found), _updates([part])[0])


# odd inputs


@pytest.mark.parametrize("method", [name for name in mergers.names() if name not in ("linear", "cat")])
def test_an_update_that_is_zero_adds_nothing(method):
    rng = np.random.default_rng(16)
    parts = _parts(rng, [(3, 2.0, 1.0), (3, 1.0, 1.0)])
    idle = Part(np.zeros((D_OUT, 3)), parts[0].A, 1.0, 1.0, 2)
    assert _near(_product(_merged(method, [*parts, idle])), _product(_merged(method, parts)), 1e-5)


@pytest.mark.parametrize("method", ["sum", "svd", "iso", "knots"])
def test_updates_that_cancel_leave_no_direction(method):
    part = _parts(np.random.default_rng(17))[0]
    against = Part(1e4 * part.B, part.A / 1e4, part.scale, -part.weight, 1)
    settings = {"inner": "sum"} if method == "knots" else {}
    assert _merged(method, [part, against], **settings).B.shape[1] == 0


@pytest.mark.parametrize("method", ["sum", "svd", "knots", "iso", "tsv"])
def test_all_zero(method):
    nothing = [Part(np.zeros((6, 2)), np.ones((2, 5)), 1.0, 1.0, n) for n in (0, 1)]
    assert _merged(method, nothing).B.shape == (6, 0)


@pytest.mark.parametrize("method", ["sum", "svd", "knots", "iso", "tsv"])
def test_unequal_factors_lose_nothing(method):
    """A part whose B is a million times its A lies next to one that is the other way round."""
    rng = np.random.default_rng(18)
    parts = _parts(rng)
    uneven = [
        Part(p.B * size, p.A / size, p.scale, p.weight, p.number)
        for p, size in zip(parts, (1e6, 1e-6, 1e3), strict=True)
    ]
    assert _near(_product(_merged(method, uneven)), _product(_merged(method, parts)), 1e-10)


@pytest.mark.parametrize("method", ["sum", "cat", "svd", "knots", "iso", "tsv", "linear"])
def test_no_delta_w_is_formed(method):
    """One of 60,000 x 50,000 would be 24 GB."""
    rng = np.random.default_rng(19)
    parts = _parts(rng, [(2, 1.0, 1.0), (2, 1.0, 0.5)], 60_000, 50_000)
    found = _merged(method, parts)
    rows = slice(0, 5)
    if mergers.named(method).linear and method != "svd":
        wanted = sum(p.weight * p.scale * p.B[rows] @ p.A for p in parts)
        assert _near(found.B[rows] @ found.A, wanted, 1e-10)
    assert np.isfinite(found.B).all() and np.isfinite(found.A).all()
