"""PiSSA: A and B are the leading singular triplets of the weight, from which they are taken off.

``scale * B A`` is the best approximation of rank r of W, so the leading part of W is what is trained, and the rest of W
is what stays. A and B share the singular values: each has their roots. Every seed has the same start.

References
----------
Meng, Wang & Zhang, PiSSA, arXiv 2404.02948, equations 2 to 4; huggingface/peft 0.21, tuners/lora/layer.py:
``pissa_init``.
"""

from __future__ import annotations

from subspace.errors import ValueRangeError
from subspace.training.start import Factors, Start

__all__ = ["START"]


def _fill(at: Factors) -> None:
    import torch

    for (A, B), W in zip(at.pairs, at.weights(), strict=True):
        if not bool(torch.isfinite(W).all()):
            raise ValueRangeError("The start pissa needs a weight of finite numbers, and this one has others")
        U, S, Vh = torch.linalg.svd(W, full_matrices=False)
        roots = (S[: at.r] / abs(at.scale)).sqrt()
        A.copy_(roots[:, None] * Vh[: at.r])
        B.copy_(U[:, : at.r] * roots * (1 if at.scale > 0 else -1))


START = Start("pissa", "leading singular triplets of W, the rest of which is frozen", _fill, of_weight=True)
