"""The numbers of `align` for one module: shares in W's directions, rotation, spectral shift, principal mask."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from subspace.adapters.update import LowRankUpdate, Update
from subspace.analysis.against_base import Site
from subspace.errors import ValueRangeError
from subspace.flags import Flag
from subspace.geometry import alignment, factored, lapack
from subspace.geometry.change import Change, DenseChange, LowRankChange
from subspace.geometry.principal_mask import mask_overlap
from subspace.geometry.rotation import angles, average, random_rotation, wedin_bound
from subspace.geometry.rounding import exchanged, row_coupling
from subspace.geometry.singular_basis import (
    Basis,
    both_leading,
    changed_exact_basis,
    exact_basis,
    is_small,
    leading_basis,
)
from subspace.geometry.spectral_shift import shift_bounds
from subspace.geometry.topk import Leading

__all__ = ["change_of", "measured"]

_EQUAL = 1e-12  # of the largest singular value: values as near as this are equal
_FIRST_ORDER = (
    0.25  # of W's k-th singular value: a random change that is no larger turns its span as to first order
)
_UNDETERMINED = 30.0  # degrees by which a random update of the same norm turns a span that is not determined


def measured(
    site: Site, change: Change, *, k: int, mask_share: float
) -> tuple[dict[str, Any], tuple[Flag, ...]]:
    """The columns of `ModuleAlignment` that exist for one module, and what to know of them.

    Parameters
    ----------
    site : the module and its weight
    change : its delta_W without the scale, not zero
    k, mask_share : as `align` takes them
    """
    module = _Measured(site, change, k, mask_share)
    numbers = module.numbers()
    return numbers, tuple(module.flags())


def change_of(update: Update) -> Change:
    """delta_W without its scale."""
    if isinstance(update, LowRankUpdate):
        return LowRankChange(*factored.svd(update.B, update.A))
    M = update.matrix.load()
    change = DenseChange(M)
    if not math.isfinite(change.norm):
        lapack.refuse(M, name="delta_W")
        raise ValueRangeError("The norm of delta_W is above 1.8e308, the largest float64; rescale it")
    return change


class _Measured:
    """The numbers of one module.

    W is used as it is stored, (d_in, d_out) where it is `transposed`: its right singular vectors are then of the
    output.
    """

    def __init__(self, site: Site, change: Change, k: int, mask_share: float) -> None:
        self.site, self.mask_share, self.wanted = site, mask_share, k
        self.W = site.weight.streamed()
        self.change = change.T if site.weight.transposed else change
        known = partial(_known, site)
        small = is_small(self.change.shape)
        self.base = exact_basis(self.W) if small else leading_basis(self.W, k, search=known)
        self.k = min(k, len(self.base.S))
        self.scaled = _scaled(self.change, site.update.scale.value)
        self.undetermined = self.k > 0 and self._is_tied(self.k)
        self.unchanged = self.overflow = False

    def numbers(self) -> dict[str, Any]:
        """All columns that exist."""
        if self.k == 0:
            return {"norm_W": 0.0, "norm_delta_W": self.scaled.norm if self.scaled else None}
        found = {
            "norm_W": self.base.norm,
            "k": self.k,
            "directions": len(self.base.S),
            "base_error": self.base.error,
            "next_over_last": self.base.after_first(self.k) / float(self.base.S[self.k - 1]),
            **self._shares(),
        }
        if self.scaled is None:
            return found
        return {
            **found,
            "norm_delta_W": self.scaled.norm,
            **self._moved(self.scaled),
            **self._mask(self.scaled),
        }

    def flags(self) -> Iterator[Flag]:
        """What to know of them; asked for after `numbers`."""
        if self.k == 0:
            yield Flag.BASE_ZERO
        elif self.k < min(self.wanted, *self.change.shape):
            yield Flag.BASE_RANK_BELOW_K
        if self.site.update.scale.value is None:
            yield Flag.SCALE_UNKNOWN
        elif self.scaled is None or self.overflow:
            yield Flag.OVERFLOW
        if self.k == 0:
            return
        if not self.base.exact:
            yield Flag.BASE_LEADING
        if self._has_equal_values():
            yield Flag.BASE_TIES
        if self.undetermined:
            yield Flag.SPAN_UNDETERMINED
        if self.unchanged:
            yield Flag.UNCHANGED_IN_BF16

    def _sides(self, left: Any, right: Any) -> tuple[Any, Any]:
        """What is of the left and right singular vectors of the stored matrix, as (input, output)."""
        return (left, right) if self.site.weight.transposed else (right, left)

    def _shares(self) -> dict[str, Any]:
        found, k = alignment.align(self.change, self.base.U, self.base.V), self.k
        shape, directions = self.change.shape, len(self.base.S)
        curves = self._curves(found)
        at = curves["i"].index(k)
        return {
            **{f"{name}_share": curves[name][at] for name in ("input", "output", "subspace")},
            **{f"{name}_isotropic": curves[f"{name}_isotropic"][at] for name in ("input", "output")},
            **{f"{name}_sd": curves[f"{name}_sd"][at] for name in ("input", "output")},
            "subspace_isotropic": alignment.block_mean(k, *shape),
            "reweighting": None if self._has_equal_values() else float(found.diagonal[-1]),
            "reweighting_isotropic": alignment.diagonal_mean(directions, *shape),
            "curves": curves,
        }

    def _curves(self, found: alignment.Alignment) -> dict[str, list[Any]]:
        grid = _grid(len(self.base.S), self.k)
        d_in, d_out = self._sides(*self.change.shape)
        concentration = self.change.concentration
        shares = {"subspace": found.block, "reweighting": found.diagonal}
        shares["input"], shares["output"] = self._sides(found.left, found.right)
        return {
            "i": grid,
            **{name: [float(each[i]) for i in grid] for name, each in shares.items()},
            "input_isotropic": [alignment.share_mean(i, d_in) for i in grid],
            "input_sd": [alignment.share_sd(i, d_in, concentration) for i in grid],
            "output_isotropic": [alignment.share_mean(i, d_out) for i in grid],
            "output_sd": [alignment.share_sd(i, d_out, concentration) for i in grid],
        }

    def _moved(self, change: Change) -> dict[str, Any]:
        """Spectral shift and rotation."""
        k = self.k
        base, changed = _with_change(self.W, self.base, change)
        low, high = shift_bounds(base, changed, change, self.W)
        self.overflow = not math.isfinite(low + high)
        shifts = {} if self.overflow else {"spectral_shift": low, "spectral_shift_most": high}
        if len(changed.S) < k:
            self.undetermined = True
            return shifts
        return {**shifts, **self._turned(base, changed, change)}

    def _turned(self, base: Basis, changed: Basis, change: Change) -> dict[str, Any]:
        k = self.k
        theta = self._sides(*(angles(*pair) for pair in _leading_pairs(base, changed, k)))
        random = self._random_rotation(change)
        self.undetermined |= max(random) >= _UNDETERMINED
        largest = max(
            _spectral(change.of_right(changed.V[:, :k])), _spectral(change.of_left(changed.U[:, :k]))
        )
        gap = float(changed.S[k - 1]) - base.after_first(k)
        return {
            "input_rotation": average(theta[0]),
            "output_rotation": average(theta[1]),
            "input_rotation_isotropic": random[0],
            "output_rotation_isotropic": random[1],
            "rotation_most": wedin_bound(largest, gap),
            "input_angles": theta[0].tolist(),
            "output_angles": theta[1].tolist(),
        }

    def _random_rotation(self, change: Change) -> tuple[float, float]:
        """Of input and output, to first order; by one draw where a low-rank change is too large for that."""
        if isinstance(change, DenseChange) or change.largest <= _FIRST_ORDER * self.base.S[self.k - 1]:
            return self._sides(*random_rotation(self.base, self.k, change.norm))
        drawn = change.turned(np.random.default_rng(0))
        pairs = _leading_pairs(*_with_change(self.W, self.base, drawn), self.k)
        return self._sides(*(average(angles(*pair)) for pair in pairs))

    def _mask(self, change: Change) -> dict[str, Any]:
        found = mask_overlap(self.W, self.base, self.k, change, share=self.mask_share)
        self.unchanged = found.changed == 0
        self.overflow |= not (self.unchanged or math.isfinite(found.gaussian))
        return {
            "mask_overlap": None if self.unchanged else found.overlap,
            "mask_gaussian": found.gaussian if math.isfinite(found.gaussian) else None,
            "mask_share": self.mask_share,
            "changed_in_bf16": found.changed,
        }

    def _is_tied(self, k: int) -> bool:
        """Whether the rounding of the stored numbers can exchange the k-th direction and the next."""
        S = np.append(self.base.S, self.base.after)
        shape = self.change.shape
        coupling = row_coupling(S, shape, self.site.weight.factor().resolution, squared=False)
        return k < min(shape) and k in exchanged(S, coupling)

    def _has_equal_values(self) -> bool:
        return bool(np.any(-np.diff(self.base.S) <= _EQUAL * self.base.S[0]))


def _known(site: Site, W: Any, k: int, *, tol: float) -> Leading:
    """The leading directions of the weight of a module, looked up where an earlier run has found them."""
    return site.leading(k, tol=tol, W=W)


def _with_change(W: Any, base: Basis, change: Change) -> tuple[Basis, Basis]:
    """The basis of W, and that of W with a change."""
    return (base, changed_exact_basis(W, change)) if base.exact else both_leading(W, base, change)


def _leading_pairs(base: Basis, changed: Basis, k: int) -> Iterator[tuple[Any, Any]]:
    yield base.U[:, :k], changed.U[:, :k]
    yield base.V[:, :k], changed.V[:, :k]


def _scaled(change: Change, scale: float | None) -> Change | None:
    if scale is None or not math.isfinite(change.norm * abs(scale)):
        return None
    return change.times(scale)


def _spectral(M: Any) -> float:
    return float(lapack.singular_values(M)[0])


def _grid(most: int, k: int) -> list[int]:
    """1, 2, 3, 4, 6, 8, 12, ... up to `most`, with `k` and `most`."""
    powers = [start << n for n in range(most.bit_length()) for start in (1, 3)]
    return sorted({*(each for each in powers if each <= most), k, most})
