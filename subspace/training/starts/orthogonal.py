"""Orthogonal: A and B are random and neither is zero, but ``B A`` is, since they meet in orthogonal spaces.

References
----------
huggingface/peft 0.21, tuners/lora/layer.py: ``orthogonal_init``, whose numbers these are for the same random numbers.
"""

from __future__ import annotations

from subspace.errors import ValueRangeError
from subspace.training.start import Factors, Start

__all__ = ["START"]

_SIZE = 0.1


def _fill(at: Factors) -> None:
    import torch

    from subspace.geometry import lapack

    if at.r % 2:
        raise ValueRangeError(f"The start orthogonal needs an even rank, and `r` is {at.r}; give another")

    def normal(rows: int, columns: int) -> torch.Tensor:
        return torch.randn(rows, columns, generator=at.generator, device="cpu", dtype=torch.float32)

    for A, B in at.pairs:
        Q = torch.from_numpy(lapack.qr(normal(at.r, at.r).numpy())[0]).float()
        A.copy_((normal(A.shape[1], at.r // 2) @ Q[0::2]).t() * _SIZE)
        B.copy_(normal(at.r // 2, B.shape[0]).t() @ Q[1::2] * _SIZE)


START = Start("orthogonal", "random A and B with B A = 0", _fill)
