"""Dense definitions of what `align` measures; nothing here imports the package."""

import numpy as np
import oracles
import torch


def spectra(p):
    """Singular values of four kinds of weights, p each: name -> values, descending."""
    i = np.arange(1, p + 1)
    bulk = np.sort(np.sqrt(np.linspace(0.1, 1, p)))[::-1]
    return {
        "power law": 5 * i**-0.8,
        "bulk and spikes": np.concatenate([[8.0, 6.5, 5.0, 4.0], bulk[4:]]),
        "clusters": np.where(i <= 4, 6.0, np.where(i <= 12, 2.0, 0.4)) * (1 - 1e-3 * i / p),
        "rank-deficient": np.where(i <= p // 2, 5 * i**-0.5, 0.0),
    }


def weight(m, n, S, rng):
    """A matrix (m, n) with these singular values and random frames."""
    p = min(m, n)
    return (oracles.haar(m, p, rng) * S) @ oracles.haar(n, p, rng).T


def alignment(W, delta_W, k, *, share=0.1):
    """Every number by its definition, from dense decompositions."""
    U, S, Vh = np.linalg.svd(W, full_matrices=False)
    rank = int(np.sum(1e-12 * S[0] < S))
    U, V = U[:, :rank], Vh[:rank].T
    U1, S1, Vh1 = np.linalg.svd(W + delta_W, full_matrices=False)
    core, energy = U.T @ delta_W @ V, np.sum(delta_W**2)
    part = np.abs((U[:, :k] * S[:k]) @ V[:, :k].T)
    # the largest entries in full, and a part of the next where their number is not whole
    mask = np.zeros(part.size)
    mask[np.argsort(-part.ravel())] = np.clip(share * part.size - np.arange(part.size), 0, 1)
    changed = changed_in_bfloat16(W, delta_W)
    return {
        "input_share": np.sum((delta_W @ V[:, :k]) ** 2) / energy,
        "output_share": np.sum((U[:, :k].T @ delta_W) ** 2) / energy,
        "subspace_share": np.sum(core[:k, :k] ** 2) / energy,
        "reweighting": np.sum(np.diag(core) ** 2) / energy,
        "spectral_shift": np.linalg.norm(S1 - S) / np.linalg.norm(S),
        "input_rotation": rotation(V[:, :k], Vh1[:k].T),
        "output_rotation": rotation(U[:, :k], U1[:, :k]),
        "mask_overlap": mask[changed.ravel()].sum() / changed.sum(),
        "changed_in_bf16": changed.mean(),
        "norm_W": np.linalg.norm(W),
        "norm_delta_W": np.linalg.norm(delta_W),
    }


def rotation(U, V):
    """The angle of the mean sin^2 of the principal angles, in degrees."""
    return np.degrees(np.arcsin(np.sqrt(np.mean(np.sin(oracles.angles(U, V)) ** 2))))


def changed_in_bfloat16(W, delta_W):
    """Which entries differ once both matrices are rounded by torch."""
    before, after = (torch.tensor(M, dtype=torch.float64).to(torch.bfloat16) for M in (W, W + delta_W))
    return (before != after).numpy()
