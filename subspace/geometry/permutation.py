from typing import NamedTuple

import numpy as np


def layers_p(Ms, *, seed=0):
    M = np.mean(Ms, axis=0)
    L = len(M)
    rng = np.random.default_rng(0)
    t = np.trace(M)
    n = 999
    c = sum(M[np.arange(L), rng.permutation(L)].sum() >= t for _ in range(n))
    return (1 + c) / (n + 1), 1 / (n + 1)


class R(NamedTuple):
    p_first: float
    p_second: float
    floor: float
    p_permuted: float
    permuted_floor: float


def reference_p(S):
    n = len(S) - 2
    v = S[0, 1]
    iu = np.triu_indices(len(S), 1)
    return R(
        (1 + (S[1, 2:] >= v).sum()) / (n + 1),
        (1 + (S[0, 2:] >= v).sum()) / (n + 1),
        1 / (n + 1),
        (S[iu] >= v).mean(),
        1 / len(iu[0]),
    )
