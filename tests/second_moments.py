"""Second moments of inputs whose eigenvalues are known."""

from __future__ import annotations

import numpy as np

from subspace.geometry.second_moment import SecondMoment, leading_pairs


def moment(C, k, mean=None):
    """The k leading eigenpairs of C, with its trace."""
    values, vectors = leading_pairs(C, k)
    mean = np.zeros(len(C)) if mean is None else mean
    return SecondMoment(1000, mean, values, vectors, float(np.trace(C)), float(np.sum(C**2)))


def covariance(d, power=1.0, seed=0):
    """A matrix with eigenvalues k^-power and random eigenvectors."""
    Q = np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))[0]
    return (Q * np.arange(1, d + 1.0) ** -power) @ Q.T
