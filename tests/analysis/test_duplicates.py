"""Copies: equal content, and one update stored in other factors, types and scales."""

from __future__ import annotations

import numpy as np

from subspace.analysis.duplicates import duplicates, near_duplicates


def eight_bits(M):
    """Numbers with the eight bits that bfloat16 has."""
    unit = 2.0 ** (np.floor(np.log2(abs(M))) - 7)
    return np.round(M / unit) * unit


def test_equal_content():
    assert duplicates(["x", "y", "x", None, "y", None, "x", "z"]) == [(0, 2, 6), (1, 4)]
    assert duplicates([]) == []


def test_one_update_refactorised_rounded_and_scaled_is_found_and_nothing_else():
    rng = np.random.default_rng(0)
    B, A, G = rng.standard_normal((50, 4)), rng.standard_normal((4, 60)), rng.standard_normal((4, 4))
    rounded = [eight_bits(M) for M in (B, A)]
    later = A + 0.05 * rng.standard_normal(A.shape)
    whole = [B @ A, (B @ G) @ (np.linalg.inv(G) @ A), rounded[0] @ rounded[1], 3 * B @ A, -B @ A, B @ later]
    flat = np.array([D.ravel() / np.linalg.norm(D) for D in whole])
    assert 1e-7 < 1 - flat[0] @ flat[2] < 1e-5 < 1 - flat[0] @ flat[5] < 0.01
    assert near_duplicates(flat @ flat.T) == [(0, 1, 2, 3)]


def test_a_part_of_an_adapter_is_no_copy_of_it():
    cosine = np.ones((3, 3))
    same = np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1]], dtype=bool)
    assert near_duplicates(cosine, same) == [(0, 2)]
    assert near_duplicates(np.full((3, 3), np.nan)) == []


def test_a_chain_of_checkpoints_is_not_one_copy():
    """Each turned by a little from the one before: neighbours are copies, the ends are not."""
    angle = 0.003 * np.arange(8)
    groups = near_duplicates(np.cos(angle[:, None] - angle))
    assert all(max(group) - min(group) <= 3 for group in groups)
