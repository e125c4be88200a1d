from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np


class Alignment(NamedTuple):
    z: float
    largest: float
    r: int


def row_alignment_of(K11, K12, K22):
    r = min(K12.shape)
    if r < 2:
        return Alignment(math.nan, math.nan, r)
    C = K12 / np.sqrt(np.outer(np.diag(K11), np.diag(K22)))
    n = max(C.shape)
    P = np.zeros((n, n))
    P[: C.shape[0], : C.shape[1]] = C
    D = P - P.mean(0) - P.mean(1)[:, None] + P.mean()
    sd = math.sqrt((D**2).sum() / (n - 1))
    return Alignment((np.trace(P) - n * P.mean()) / sd, n - 1, r)


def combined(al):
    al = [a for a in al if not math.isnan(a.z)]
    if not al:
        return Alignment(math.nan, math.nan, 1)
    n = len(al)
    return Alignment(sum(a.z for a in al) / n**0.5, sum(a.largest for a in al) / n**0.5, al[0].r)


def start_verdict(a):
    if math.isnan(a.z):
        return "cannot_tell"
    return "common" if a.z >= 5 else "different" if a.z < 3 and a.largest > 6 else "cannot_tell"
