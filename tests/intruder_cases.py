"""Base weights of many spectra with updates that do or do not intrude, and the definition of an intruder, densely."""

import numpy as np

KINDS = ("bulk", "spikes", "power", "cluster", "tied", "deficient")


def haar(n, p, rng):
    return np.linalg.qr(rng.standard_normal((n, p)))[0]


def base(kind, shape, rng):
    """W, its largest singular value about 2 to 9."""
    m, n = shape
    p = min(m, n)
    if kind in {"bulk", "spikes"}:
        W = rng.standard_normal(shape) / np.sqrt(n)
        return W if kind == "bulk" else W + haar(m, 4, rng) * [9, 7, 5, 4] @ haar(n, 4, rng).T
    S = {
        "power": 4 * np.arange(1, p + 1.0) ** -0.7,
        "cluster": np.concatenate([np.linspace(3, 3.001, 25), np.linspace(1, 0.01, p - 25)]),
        "tied": np.concatenate([[4] * 3, [2] * 30, np.linspace(1, 0.01, p - 33)]),
        "deficient": np.concatenate([np.linspace(3, 0.5, 30), np.zeros(p - 30)]),
    }[kind]
    return haar(m, p, rng) * np.sort(S)[::-1] @ haar(n, p, rng).T


def update(W, strength, rng, r=4):
    """B and A of directions of their own, the largest singular value of B A a multiple of that of W."""
    m, n = W.shape
    sizes = strength * np.linalg.norm(W, 2) * np.linspace(1, 0.4, r)
    return haar(m, r, rng) * sizes, haar(n, r, rng).T


def cosines(W, delta_W, k, side="left"):
    """The definition: largest |cos| of the k leading singular vectors of W + delta_W with all of W (2410.21228)."""
    (U0, _, Vh0), (U, _, Vh) = (np.linalg.svd(M, full_matrices=False) for M in (W, W + delta_W))
    return np.abs(U[:, :k].T @ U0 if side == "left" else Vh[:k] @ Vh0.T).max(axis=1)


def first_scale(W, delta_W, k, epsilon, most, side="left"):
    """Bisection with dense decompositions, from the first of scales sqrt(2) apart at which there is an intruder."""
    least = np.linalg.svd(W)[1][k - 1] / np.linalg.norm(delta_W, 2) / 16
    grid = [s for s in least * 2 ** (np.arange(40) / 2) if s < most] + [most]
    hit = next((n for n, s in enumerate(grid) if cosines(W, s * delta_W, k, side).min() < epsilon), None)
    if hit is None:
        return None
    low, high = grid[hit - 1], grid[hit]
    while high / low > 1.005:
        middle = np.sqrt(low * high)
        low, high = (low, middle) if cosines(W, middle * delta_W, k, side).min() < epsilon else (middle, high)
    return np.sqrt(low * high)
