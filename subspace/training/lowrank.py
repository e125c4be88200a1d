"""``x W^T + bias + scale * (x A^T) B^T`` with its gradients, the update added in place and nothing kept twice."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["Rows", "low_rank_linear"]

Rows = tuple[tuple[int, int], ...]


def low_rank_linear(
    x: Tensor, W: Tensor, bias: Tensor | None, A: Tensor, B: Tensor, *, scale: float, rows: Rows
) -> Tensor:
    """Output (..., d_out) of a linear layer with a low-rank update in each of some groups of its rows.

    Parameters
    ----------
    x : (..., d_in)
    W, bias : (d_out, d_in) and (d_out,) or None
    A : (r * groups, d_in), the A of each group under one another
    B : (sum of the groups' rows, r), likewise
    rows : first and last + 1 of the rows of each group; ``((0, d_out),)`` for a layer that is one

    Notes
    -----
    One pass over the output fewer than autograd's composition each way, and no copy of it: the update is accumulated by
    the matrix product itself. Under autocast all operands are in its type, as those of torch's linear are.
    """
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else W.dtype
    operands = [t if t is None or t.dtype == dtype else t.to(dtype) for t in (x, W, bias, A, B)]
    out: Tensor = _LowRankLinear.apply(*operands, scale, rows)
    return out


class _LowRankLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, W: Tensor, bias: Tensor | None, A: Tensor, B: Tensor, scale: float, rows: Rows
    ) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        y = flat @ W.t() if bias is None else torch.addmm(bias, flat, W.t())
        h = flat @ A.t()  # (n, r * groups)
        for out, part, B_g in _groups(y, h, B, rows):
            out.addmm_(part, B_g.t(), alpha=scale)
        ctx.save_for_backward(flat, h, W, A, B)
        ctx.scale, ctx.rows, ctx.shape = scale, rows, x.shape
        return y.view(*x.shape[:-1], y.shape[-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
        x, h, W, A, B = ctx.saved_tensors
        need_x, need_W, need_bias, need_A, need_B = ctx.needs_input_grad[:5]
        dy = dy.reshape(-1, dy.shape[-1])
        dx = dW = dA = dB = None
        if need_B:
            dB = torch.empty_like(B)
            for (out, part, _), into in zip(_groups(dy, h, B, ctx.rows), _blocks(dB, ctx.rows), strict=True):
                torch.mm(out.t(), part, out=into)
            dB.mul_(ctx.scale)
        if need_x or need_A:
            dh = torch.empty_like(h)
            for out, into, B_g in _groups(dy, dh, B, ctx.rows):
                into.copy_(out @ B_g)
            dh.mul_(ctx.scale)
            dA = dh.t() @ x if need_A else None
            dx = (dy @ W).addmm_(dh, A).view(ctx.shape) if need_x else None
        if need_W:
            dW = dy.t() @ x
        return dx, dW, dy.sum(0) if need_bias else None, dA, dB, None, None


def _groups(y: Tensor, h: Tensor, B: Tensor, rows: Rows) -> list[tuple[Tensor, Tensor, Tensor]]:
    """For each group its columns of y, its columns of h and its B."""
    r = B.shape[1]
    blocks = _blocks(B, rows)
    return [(y[:, slice(*place)], h[:, k * r : (k + 1) * r], blocks[k]) for k, place in enumerate(rows)]


def _blocks(B: Tensor, rows: Rows) -> list[Tensor]:
    return list(B.split([stop - start for start, stop in rows]))
