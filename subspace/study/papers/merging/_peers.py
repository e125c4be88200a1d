"""What other packages and papers compute of two adapters to say whether they can be merged, as they compute it.

References
----------
Gradience 0.11.0, ``merge/spectral_compat.py``; mergelens 2.0.3; vlora-dev 1.0.0, ``analysis.py``; Stoica et al., arXiv
2410.19735 (KnOTS), figure 2, for CKA, of which no code was published.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.geometry import lapack
from subspace.geometry.canonical import Canonical, canonical

if TYPE_CHECKING:
    from subspace.adapters import Adapter
    from subspace.geometry.lapack import Floats

__all__ = ["angle_cosine", "cka", "peers", "root_overlap"]


def peers(adapters: Mapping[str, Adapter]) -> dict[str, Floats]:
    """Return each number of every pair of adapters, (N, N); of modules, their mean."""
    every = list(adapters.values())
    modules = [module for module in every[0] if all(module in each for each in every)]
    forms = [[_form(each[module]) for module in modules] for each in every]
    measures = {"angle_cosine": angle_cosine, "cka": cka, "root_overlap": root_overlap}
    found = {
        name: np.array(
            [
                [np.mean([of(*pair) for pair in zip(one, other, strict=True)]) for other in forms]
                for one in forms
            ]
        )
        for name, of in measures.items()
    }
    flat = np.array([np.concatenate([_stored(each[module]) for module in modules]) for each in every])
    unit = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    return {**found, "flattened": unit @ unit.T}


def angle_cosine(first: Canonical, second: Canonical) -> float:
    """Mean cosine of the principal angles on the left, of the directions that hold 90 % of either energy."""
    G = _leading(first) @ _leading(second).T
    return float(np.mean(lapack.singular_values(G))) if G.size else float("nan")


def cka(first: Canonical, second: Canonical) -> float:
    """Linear CKA of the two updates without centring: the cosine of ``delta_W delta_W.T`` and that of the other."""
    one, other = first.S**2, second.S**2
    cross = (first.left[: first.k] @ second.left[: second.k].T) ** 2
    return float(one @ cross @ other) / float(np.linalg.norm(one) * np.linalg.norm(other))


def root_overlap(first: Canonical, second: Canonical) -> float:
    """``||V_1.T V_2||_F / sqrt(k)`` on the right, which mergelens calls the interference of task singular vectors."""
    G = first.right[: first.k] @ second.right[: second.k].T
    return float(np.linalg.norm(G)) / float(np.sqrt(min(G.shape))) if G.size else float("nan")


def _leading(form: Canonical) -> Floats:
    energy = np.cumsum(form.S**2)
    k = int(np.searchsorted(energy, 0.9 * energy[-1])) + 1 if form.k else 0
    return form.left[:k]


def _form(update: Any) -> Canonical:
    return canonical(update.B, update.A)


def _stored(update: Any) -> Floats:
    """The factors as they are stored, one after the other."""
    return np.concatenate([np.ravel(update.A), np.ravel(update.B)]).astype(np.float64)
