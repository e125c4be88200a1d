"""Near ties: those that rounding can turn, found by rounding the numbers again and again; exact ones on every route."""

import numpy as np
import oracles
import pytest

from subspace.geometry import product_frames, row_frame
from subspace.geometry.dense_frames import dense_frame
from subspace.geometry.frame_pairs import row_frames

FLOAT16 = 2.0**-10


def close_pairs(r, d, rng):
    """An (r, d) matrix whose singular values come in pairs, at relative distances from 1e-5 to 0.1."""
    distances = np.geomspace(1e-5, 0.1, r // 2)
    S = np.stack([np.geomspace(4, 1, r // 2), np.geomspace(4, 1, r // 2) * (1 - distances)], axis=1).ravel()
    return (oracles.haar(r, r, rng) * np.sort(S)[::-1]) @ oracles.haar(d, r, rng).T


def rounded(M, rng):
    """The matrix with the rounding of another training run: off by up to half a step of float16."""
    step = FLOAT16 * 2.0 ** np.floor(np.log2(np.abs(M)))
    return M + step * rng.uniform(-0.5, 0.5, M.shape)


def turned(V, W):
    """Largest angle between the spans of the leading i columns, for every i but the last, in radians."""
    cosines = (np.linalg.svd(V[:, :i].T @ W[:, :i], compute_uv=False)[-1] for i in range(1, V.shape[1]))
    return np.arccos(np.clip(list(cosines), 0, 1))


FRAMES = {
    "rows": lambda A: row_frame(A, resolution=FLOAT16),
    "product": lambda B, A: product_frames(B, A, resolution=FLOAT16)[0],
    "dense": lambda M: dense_frame(M, resolution=FLOAT16, k=16),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_spans_that_rounding_turns_are_the_flagged_ones(kind):
    rng = np.random.default_rng(5)
    flagged, moved = [], []
    for _ in range(8):
        A = close_pairs(16, 256, rng)
        B = oracles.haar(200, 16, rng) @ oracles.haar(16, 16, rng)
        M = (B, A) if kind == "product" else (B @ A,) if kind == "dense" else (A,)
        frame = FRAMES[kind](*M)
        again = [FRAMES[kind](*(rounded(each, rng) for each in M)) for _ in range(12)]
        V = frame.vectors()
        moved.append(np.median([turned(V, other.vectors()) for other in again], axis=0))
        flagged.append([i in frame.ties for i in range(1, frame.k)])
    moved, flagged = np.concatenate(moved), np.concatenate(flagged)
    assert 8 <= flagged.sum() <= len(flagged) / 2
    assert flagged[moved > 0.2].all()
    assert moved[flagged].min() > 0.01
    assert moved[~flagged].max() < 0.2


def haar_pairs(r, d, kappa, rng):
    """Every singular value twice, exactly: the same block on two sets of columns, which are then shuffled."""
    half = oracles.with_condition(r // 2, d // 2, kappa, rng)
    return np.kron(np.eye(2), half)[:, rng.permutation(d)]


@pytest.mark.parametrize("kappa", [1.5, 1e2, 1e4, 1e5, 1e8])
def test_exact_ties_are_found_on_every_route(kappa):
    """A Gram matrix, two Cholesky passes and a QR, by rows, products and dense matrices stored in float64."""
    rng = np.random.default_rng(0)
    A = haar_pairs(12, 96, kappa, rng)
    B = np.kron(np.eye(2), oracles.haar(40, 6, rng))
    once = np.kron(np.eye(2), oracles.with_condition(6, 40, 30, rng)).T
    others = row_frames(A, rng.standard_normal((12, 96)))[0], row_frames(rng.standard_normal((12, 96)), A)[1]
    frames = {
        "rows": row_frame(A),
        "mixed rows": row_frame(oracles.haar(12, 12, rng) @ A),
        "first of two": others[0],
        "second of two": others[1],
        "left": product_frames(B, A)[0],
        "right": product_frames(B, A)[1],
        "dense, float64": dense_frame(B @ A),
        "dense, computed": dense_frame(B @ A, resolution=FLOAT16, noise=0.0),
        "dense, some": dense_frame(B @ A, k=5),
        "dense, float32": dense_frame(B @ A, resolution=2.0**-23),
    }
    for name, frame in frames.items():
        assert set(range(1, frame.k, 2)) <= set(frame.ties), name
        assert kappa > 1e4 or name == "dense, float32" or frame.k == (5 if name == "dense, some" else 12), (
            name
        )
    assert row_frame(once.T).ties == (1, 3, 5, 7, 9, 11)


@pytest.mark.parametrize("kappa", [1.5, 1e2, 1e4, 1e6])
def test_values_that_differ_are_no_ties(kappa):
    rng = np.random.default_rng(0)
    A = oracles.with_condition(8, 96, kappa, rng)
    B = oracles.haar(60, 8, rng)
    for frame in (row_frame(A), *product_frames(B, A), dense_frame(B @ A), dense_frame(B @ A, k=4)):
        assert frame.ties == ()
