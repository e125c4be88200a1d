"""A pair of tensors that holds the updates of all experts of a layer, in two dimensions or in three.

PEFT's ``ParamWrapper`` of ``target_parameters`` (peft/tuners/lora/layer.py, 0.21) keeps ``A`` as (experts * r, d_in),
the rows of an expert together, and ``B`` as (d_out, r * experts), the columns of an expert ``experts`` apart. Others
stack the factors: ``A`` (experts, r, d_in) and ``B`` (experts, d_out, r).
"""

from __future__ import annotations

from dataclasses import replace

from subspace.adapters.update import Factor, LowRankUpdate, Scale
from subspace.flags import Flag

__all__ = ["are_stacked", "by_expert", "of_stack", "stacked"]


def by_expert(update: LowRankUpdate, experts: int) -> list[LowRankUpdate]:
    """The update of each expert, named ``module[0]``, ``module[1]``, ..."""
    r = update.r // experts
    return [
        replace(
            update,
            module=f"{update.module}[{n}]",
            A_factor=update.A_factor.rows(n * r, (n + 1) * r),
            B_factor=update.B_factor.every(experts, n),
            flags=(*update.flags, Flag.EXPERT),
        )
        for n in range(experts)
    ]


def are_stacked(A: tuple[int, ...], B: tuple[int, ...], *, rank: int | None = None) -> bool:
    """Whether shapes are of a stack of pairs, A (experts, r, d_in) and B (experts, d_out, r), not of a convolution.

    A convolution of one dimension has A (r, d_in, k) and B (d_out, r, 1). Where both fit, `rank` decides if it is
    known, and otherwise the pair is a convolution.

    Examples
    --------
    >>> are_stacked((4, 2, 8), (4, 6, 2)), are_stacked((2, 8, 3), (6, 2, 1)), are_stacked((6, 1, 8), (6, 6, 1), rank=1)
    (True, False, True)
    """
    if len(A) != 3 or len(B) != 3 or A[0] != B[0] or A[1] != B[2]:
        return False
    is_convolution = B[2] == 1 and A[0] == B[1]
    return not is_convolution or (rank == A[1] and rank != A[0])


def of_stack(
    module: str, A: Factor, B: Factor, shapes: tuple[tuple[int, ...], tuple[int, ...]], scale: Scale
) -> list[LowRankUpdate]:
    """The update of each expert of a stack, whose tensors are given as flattened matrices with their `shapes`."""
    (count, r, d_in), (_, d_out, _) = shapes
    A, B = stacked(A, (count * r, d_in)), stacked(B, (count * d_out, r))
    return [
        LowRankUpdate(
            f"{module}[{n}]",
            A.rows(n * r, (n + 1) * r),
            B.rows(n * d_out, (n + 1) * d_out),
            scale,
            flags=(Flag.EXPERT,),
        )
        for n in range(count)
    ]


def stacked(tensor: Factor, shape: tuple[int, int]) -> Factor:
    """A flattened tensor as a matrix of another shape, with its numbers in the same order."""
    return Factor(shape, tensor.dtype, lambda: tensor.load().reshape(shape))
