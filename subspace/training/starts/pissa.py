"""PiSSA: A and B are the leading singular triplets of the weight, from which they are taken off.

``scale * B A`` is the best approximation of rank r of W, so the leading part of W is what is trained, and the rest of W
is what stays. A and B share the singular values: each has their roots. Every seed has the same start.

References
----------
Meng, Wang & Zhang, PiSSA, arXiv 2404.02948, equations 2 to 4; huggingface/peft 0.21, tuners/lora/layer.py:
``pissa_init``.
"""

from __future__ import annotations

from typing import Any

from subspace.errors import ValueRangeError
from subspace.training.start import Factors, Start

__all__ = ["START"]

_SMALL = 512
_TOL = 1e-6


def _fill(at: Factors) -> None:
    import torch

    for (A, B), W in zip(at.pairs, at.weights(), strict=True):
        if not bool(torch.isfinite(W).all()):
            raise ValueRangeError("The start pissa needs a weight of finite numbers, and this one has others")
        U, S, Vh = map(torch.from_numpy, _leading(W.detach().cpu().numpy(), at.r))
        roots = (S / abs(at.scale)).sqrt()
        A.copy_(roots[:, None] * Vh)
        B.copy_(U * roots * (1 if at.scale > 0 else -1))


def _leading(W: Any, r: int) -> tuple[Any, Any, Any]:
    """The first r singular triplets: of a large weight by block Krylov iteration, which reads it a few times."""
    from subspace.geometry import lapack
    from subspace.geometry.topk import leading

    if min(W.shape) <= max(_SMALL, 4 * r):
        U, S, Vh = lapack.svd(W)
        return U[:, :r], S[:r].copy(), Vh[:r]
    found = leading(W, r, tol=_TOL)
    return found.U, found.S, found.V.T


START = Start("pissa", "leading singular triplets of W, the rest of which is frozen", _fill, of_weight=True)
