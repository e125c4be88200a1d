"""Ranks by a knee and by the optimal hard threshold, on spectra whose rank is planted."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad

from subspace.errors import ValueRangeError
from subspace.geometry.rank_rules import _marchenko_pastur_median, hard_threshold, knee


def _planted(rng, strengths, shape, noise=1.0):
    """Singular values of a signal of these strengths in white noise whose largest singular value is about 1 or 2."""
    m, n = shape
    U = np.linalg.qr(rng.standard_normal((m, len(strengths))))[0]
    V = np.linalg.qr(rng.standard_normal((n, len(strengths))))[0]
    X = noise * rng.standard_normal(shape) / math.sqrt(max(shape)) + U * np.asarray(strengths) @ V.T
    return np.linalg.svd(X, compute_uv=False)


@pytest.mark.parametrize(
    "strengths",
    [(30.0,), (9.0, 8.0, 7.0), (300.0, 20.0, 12.0, 8.0), tuple(np.linspace(9, 5, 12))],
)
@pytest.mark.parametrize("r", [32, 64])
def test_a_planted_rank_has_its_knee_behind_it(strengths, r):
    S = _planted(np.random.default_rng(len(strengths)), strengths, (256, r))
    # the noise itself bends by a value or so
    assert knee(S) in (len(strengths), len(strengths) + 1)
    assert knee(1e-9 * S) == knee(S)


@pytest.mark.parametrize(("r", "d"), [(8, 128), (16, 128), (32, 128)])
def test_a_product_of_random_factors_has_no_knee_but_rarely(r, d):
    rng = np.random.default_rng(r)
    products = (rng.standard_normal((d, r)) @ rng.standard_normal((r, d)) for _ in range(40))
    found = [knee(np.linalg.svd(M, compute_uv=False)[:r]) for M in products]
    assert sum(k is not None for k in found) <= 4  # 5 % of r = 8


@pytest.mark.parametrize(
    "S", [[], [1.0], [2.0, 1.0], [1.0] * 9, 0.5 ** np.arange(12.0), np.arange(12.0, 0.0, -1)]
)
def test_what_does_not_bend_has_no_knee(S):
    assert knee(S) is None


# Gavish & Donoho 2014, table IV
@pytest.mark.parametrize(
    ("beta", "omega"),
    [(0.05, 1.5194), (0.1, 1.6089), (0.25, 1.8371), (0.5, 2.1711), (0.75, 2.5011), (1.0, 2.8582)],
)
def test_the_threshold_is_the_published_multiple_of_the_median(beta, omega):
    shape = (round(1000 * beta), 1000)
    assert hard_threshold([5.0, 2.0, 1.0], shape) == pytest.approx(2 * omega, abs=1e-3)
    assert hard_threshold([5.0, 2.0, 1.0], shape[::-1]) == hard_threshold([5.0, 2.0, 1.0], shape)


@pytest.mark.parametrize("beta", [0.01, 0.3, 0.9, 1.0])
def test_the_median_of_the_law_halves_its_mass(beta):
    low, high = (1 - math.sqrt(beta)) ** 2, (1 + math.sqrt(beta)) ** 2
    mass, _ = quad(
        lambda t: math.sqrt(max(0.0, (high - t) * (t - low))) / (2 * math.pi * beta * t),
        _marchenko_pastur_median(beta), high, limit=200,
    )  # fmt: skip
    assert mass == pytest.approx(0.5, abs=1e-5)


@pytest.mark.parametrize("shape", [(200, 40), (120, 120), (30, 200)])
def test_the_threshold_recovers_a_signal_of_low_rank_and_finds_none_in_noise(shape):
    rng = np.random.default_rng(0)
    counts = [
        [
            int(np.sum(hard_threshold(S, shape) < S))
            for S in (_planted(rng, strengths, shape) for _ in range(10))
        ]
        for strengths in ((8.0, 6.0, 5.0), ())
    ]
    assert counts == [[3] * 10, [0] * 10]


def test_half_of_the_values_or_more_are_never_kept():
    S = [
        100.0,
        90.0,
        80.0,
        70.0,
        60.0,
        1e-3,
        1e-3,
        1e-3,
    ]  # five of eight are signal: the median is one of them
    assert sum(s > hard_threshold(S, (8, 4096)) for s in S) < 4


def test_no_values_are_an_error():
    with pytest.raises(ValueRangeError, match="No singular values to threshold"):
        hard_threshold([], (4, 4))
