"""``x W^T + bias + scale * (x A^T) B^T`` with its gradients, the update added in place and nothing kept twice."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

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
    B : (sum of the groups' rows, r), the B of each group under one another
    rows : first and last + 1 of the rows of each group; ``((0, d_out),)`` for a layer that is one

    Notes
    -----
    One pass over the output fewer than autograd's composition each way, and no copy of it: the update is accumulated by
    the matrix product itself. What is thin lies in rows, (r, n), with n the vectors of x: on tall matrices of r columns
    MKL took 5 times (d = 384) to 17 times (d = 1024) as long for the gradient of B in float32. Under autocast all
    operands are in its type, as those of torch's linear are; W is cast to it once more on the way back, and not kept.
    """
    kind = x.device.type
    # as torch's linear: what is float64 stays so
    casts = kind != "meta" and W.dtype != torch.float64 and torch.is_autocast_enabled(kind)
    dtype = torch.get_autocast_dtype(kind) if casts else W.dtype
    x, A, B = (t.to(dtype) for t in (x, A, B))
    bias = None if bias is None else bias.to(dtype)
    if torch.jit.is_tracing() or _in_transform():  # type: ignore[attr-defined, no-untyped-call]
        return _composed(x, W.to(dtype), bias, A, B, scale, rows)
    out: Tensor = _LowRankLinear.apply(x, W, bias, A, B, scale, rows)  # type: ignore[no-untyped-call]
    return out


def _in_transform() -> bool:
    """Whether torch.func differentiates or vectorises, which needs operations that it knows."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def _composed(
    x: Tensor, W: Tensor, bias: Tensor | None, A: Tensor, B: Tensor, scale: float, rows: Rows
) -> Tensor:
    """The same of operations that torch.jit can trace and torch.func transform."""
    y = functional.linear(x, W, bias)
    blocks = B.split([stop - start for start, stop in rows])
    for (start, stop), A_g, B_g in zip(rows, A.chunk(len(rows)), blocks, strict=True):
        update = functional.linear(functional.linear(x, A_g), B_g) * scale
        y = y + functional.pad(update, (start, y.shape[-1] - stop))
    return y


class _LowRankLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, W: Tensor, bias: Tensor | None, A: Tensor, B: Tensor, scale: float, rows: Rows
    ) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        Wt = W.to(x.dtype).t()
        # allocated in its final shape: a view that leaves here could not be changed in place by what follows
        out = x.new_empty(*x.shape[:-1], Wt.shape[1])
        y = out.view(-1, Wt.shape[1])
        torch.mm(flat, Wt, out=y) if bias is None else torch.addmm(bias, flat, Wt, out=y)
        h = A @ flat.t()  # (r * groups, n)
        for y_g, part, B_g in _groups(y, h, B, rows):
            y_g.addmm_(part.t(), B_g.t(), alpha=scale)
        ctx.save_for_backward(flat, h, W, A, B)
        ctx.scale, ctx.rows, ctx.shape = scale, rows, x.shape
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
        x, h, W, A, B = ctx.saved_tensors
        need_x, need_W, need_bias, need_A, need_B = ctx.needs_input_grad[:5]
        dy = dy.reshape(-1, dy.shape[-1])
        groups = _groups(dy, h, B, ctx.rows)
        dx = dW = dA = dB = None
        if need_B:
            dB = torch.cat([part @ out for out, part, _ in groups], dim=1).mul_(ctx.scale).t()
        if need_x or need_A:
            dh = torch.cat([B_g.t() @ out.t() for out, _, B_g in groups]).mul_(ctx.scale)
            dA = dh @ x if need_A else None
            dx = (dy @ W.to(dy.dtype)).addmm_(dh.t(), A).view(ctx.shape) if need_x else None
        if need_W:
            dW = (dy.t() @ x).to(W.dtype)
        return dx, dW, dy.sum(0) if need_bias else None, dA, dB, None, None


def _groups(y: Tensor, h: Tensor, B: Tensor, rows: Rows) -> list[tuple[Tensor, Tensor, Tensor]]:
    """For each group its columns of y, its rows of h and its B."""
    outs = [y[:, start:stop] for start, stop in rows]
    blocks = B.split([stop - start for start, stop in rows])
    return list(zip(outs, h.split(B.shape[1]), blocks, strict=True))
