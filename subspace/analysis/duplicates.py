"""Adapters of a library that are one: equal files by their hash, and equal updates stored in another way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from subspace.geometry.start_groups import groups_of

__all__ = ["SAME_UPDATE", "duplicates", "near_duplicates"]

SAME_UPDATE = 1 - 1e-5  # cosine of one adapter with itself, once it was stored in bfloat16: 1 - 3e-6


def duplicates(hashes: Sequence[str | None]) -> list[tuple[int, ...]]:
    """Groups of two adapters or more with one content hash, in the order of their first member.

    Examples
    --------
    >>> duplicates(["a", "b", "a", None, None])
    [(0, 2)]
    """
    found: dict[str, list[int]] = {}
    for n, content in enumerate(hashes):
        if content is not None:
            found.setdefault(content, []).append(n)
    return [tuple(group) for group in found.values() if len(group) > 1]


def near_duplicates(cosine: Any, same_modules: Any = None) -> list[tuple[int, ...]]:
    """Groups of adapters that are one update up to its scale: refactorised, in another format or stored type.

    Parameters
    ----------
    cosine : array_like, shape (N, N)
        Of the whole delta_W over the modules that two adapters have in common; NaN where there is none. Symmetric; the
        diagonal is not read.
    same_modules : array_like of bool, shape (N, N), optional
        Whether both adapters have the same modules: one that holds only a part of another is no copy of it. None: all
        have.

    Returns
    -------
    list of tuple of int
        The largest first. Files with equal content are among them.

    Notes
    -----
    In a group most pairs have a cosine of at least ``1 - 1e-5``. Neighbouring checkpoints of a run whose learning rate
    has fallen to zero are such a group too, and nothing about their numbers differs from a copy's.

    Examples
    --------
    >>> near_duplicates([[1, 1, 0.9], [1, 1, 0.9], [0.9, 0.9, 1]])
    [(0, 1)]
    """
    cosine = np.asarray(cosine, dtype=float)
    equal = np.where(np.isnan(cosine), 0.0, cosine >= SAME_UPDATE)
    if same_modules is not None:
        equal = equal * np.asarray(same_modules, dtype=bool)
    return groups_of(equal)
