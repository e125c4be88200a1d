"""Where does an update lie in the singular basis of the weight that it is added to?

With ``W = U diag(S) V^T`` the diagonal of ``U^T delta_W V`` rescales what W does, and the rest mixes W's directions. The
shares of delta_W in W's leading directions, how far it turns them, and whether the entries that it changes are those where
W's leading part is large, each beside what a random update of the same size gives. None of these numbers says how an
adapter was trained.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from subspace.adapters import dora
from subspace.adapters.place import place
from subspace.adapters.update import LowRankUpdate, Update
from subspace.analysis.against_base import Against, Scope, Site, against_base
from subspace.analysis.resolve import Loading
from subspace.errors import InconclusiveError, ValueRangeError
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
from subspace.results.alignment import Alignment, ModuleAlignment

__all__ = ["align"]

_EQUAL = 1e-12  # of the largest singular value: values as near as this are equal
_UNDETERMINED = 30.0  # degrees by which a random update of the same norm turns a span that is not determined


def align(
    base: Any,
    delta: Any,
    *,
    k: int = 16,
    mask_share: float = 0.1,
    scale: float | None = None,
    adapter_name: str | None = None,
    enable_lora: Sequence[bool] | None = None,
    layout: str | None = None,
    rename: Mapping[str, str] | None = None,
    modules: Sequence[str] = (),
    layers: Sequence[int] = (),
    jobs: int = 1,
    device: str = "cpu",
    resume: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Alignment:
    """Shares of an update in its base weight's own singular directions, and how far it turns and rescales them.

    Parameters
    ----------
    base : base weights, as `load_base` takes them
    delta : the adapter, as `load_adapter` takes it
    k : how many of W's leading directions are taken
    mask_share : share of all entries of W that are in its principal mask, in (0, 1)
    scale, adapter_name, enable_lora, layout, rename : how the adapter is read, as `load_adapter` takes them
    modules, layers, jobs, device, resume : which modules are measured and how, as `Scope` takes them
    progress : called with (modules done, modules in all)

    Raises
    ------
    InconclusiveError : the base has no module of the adapter, or none has numbers: all are untrained or not finite
    ShapeError : a base weight does not have the shape of its update
    SubspaceError : a file cannot be read

    Notes
    -----
    A weight whose smaller side is at most 1024, and which has at most 8.4 million entries, is factored in full. Of a
    larger one only the k leading directions are found, by Krylov iteration: its re-weighting is that of those directions,
    and its spectral shift lies between two bounds. Without a scale there are shares only.

    References
    ----------
    Zhu et al., arXiv 2511.08567: spectral shift, rotation, principal mask. github.com/elias-gaeros/resize_lora,
    docs/refs/diffw_metrics.md: structural alignment.

    Examples
    --------
    Half of the leading part of W, as an update, only re-weights it.

    >>> W = np.diag([4.0, 2.0, 1.0])
    >>> (row,) = align(W, {"A": np.eye(1, 3), "B": 2 * np.eye(3, 1)}, scale=1.0, k=1)
    >>> float(row.reweighting), float(row.input_share), row.input_rotation
    (1.0, 1.0, 0.0)
    """
    if k < 1:
        raise ValueRangeError(f"k = {k} is too small: give `k` a whole number of at least 1")
    if not 0 < mask_share < 1:
        raise ValueRangeError(f"`mask_share` is {mask_share}: give a number between 0 and 1, such as 0.1")
    found = against_base(
        base,
        delta,
        partial(_rows, k=k, mask_share=mask_share),
        without_numbers=_without_numbers,
        loading=Loading(None, scale, adapter_name, enable_lora, rename, layout),
        scope=Scope(modules, layers, jobs, device, resume),
        progress=progress,
    )
    return _concluded(found)


def _rows(site: Site, *, k: int, mask_share: float) -> tuple[ModuleAlignment]:
    change = _change(site.update)
    flags = tuple(flag for flag in site.update.flags if flag != Flag.DENSE)
    if change.norm == 0:
        return (_row(site, flags=(*flags, Flag.UNTRAINED)),)
    found = _Measured(site, change, k, mask_share)
    row = _row(site, flags=(*flags, *found.flags()), **found.numbers())
    return (replace(row, norm_whole=dora.norm_whole(site.update, site.adapter, site.weight)),)


def _without_numbers(site: Site) -> tuple[ModuleAlignment]:
    return (_row(site, flags=(*site.update.flags, Flag.NOT_FINITE)),)


def _row(site: Site, *, flags: tuple[Flag, ...], **numbers: Any) -> ModuleAlignment:
    return ModuleAlignment(
        module=site.update.module,
        d_out=site.update.d_out,
        d_in=site.update.d_in,
        scale=site.update.scale.value,
        scale_source=site.update.scale.source,
        base_key=site.weight.key,
        orientation=site.weight.orientation,
        flags=flags,
        **numbers,
    )


def _change(update: Update) -> Change:
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

    W is used as it is stored, (d_in, d_out) where it is `transposed`; its right singular vectors are then of the output.
    """

    def __init__(self, site: Site, change: Change, k: int, mask_share: float) -> None:
        self.site, self.mask_share, self.wanted = site, mask_share, k
        self.W = site.weight.streamed()
        self.change = change.T if site.weight.transposed else change
        self.base = exact_basis(self.W) if is_small(self.change.shape) else leading_basis(self.W, k)
        self.k = min(k, len(self.base.S))
        self.scaled = _scaled(self.change, site.update.scale.value)
        self.undetermined = self.k > 0 and self._is_tied(self.k)
        self.unchanged = False

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
        return {**found, "norm_delta_W": self.scaled.norm, **self._moved(self.scaled), **self._mask(self.scaled)}

    def flags(self) -> Iterator[Flag]:
        """What to know of them; asked for after `numbers`."""
        if self.k == 0:
            yield Flag.BASE_ZERO
        elif self.k < min(self.wanted, *self.change.shape):
            yield Flag.BASE_RANK_BELOW_K
        if self.site.update.scale.value is None:
            yield Flag.SCALE_UNKNOWN
        elif self.scaled is None:
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
        base, k = self.base, self.k
        if base.exact:
            changed = changed_exact_basis(self.W, change)
        else:
            base, changed = both_leading(self.W, base, change)
        low, high = shift_bounds(base, changed, change, self.W)
        shifts = {"spectral_shift": low, "spectral_shift_most": high}
        if len(changed.S) < k:
            self.undetermined = True
            return shifts
        return {**shifts, **self._turned(base, changed, change)}

    def _turned(self, base: Basis, changed: Basis, change: Change) -> dict[str, Any]:
        k = self.k
        theta = self._sides(*(angles(*pair) for pair in _leading_pairs(base, changed, k)))
        random = self._sides(*random_rotation(self.base, k, change.norm))
        self.undetermined |= max(random) >= _UNDETERMINED
        largest = max(_spectral(change.of_right(changed.V[:, :k])), _spectral(change.of_left(changed.U[:, :k])))
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

    def _mask(self, change: Change) -> dict[str, Any]:
        found = mask_overlap(self.W, self.base, self.k, change, share=self.mask_share)
        self.unchanged = found.changed == 0
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


def _concluded(found: Against[ModuleAlignment]) -> Alignment:
    """The result; an answer that does not exist is an error."""
    if not any(row.input_share is not None for row in found.rows):
        damaged = found.damage.notes()
        zero = any(Flag.BASE_ZERO in row.flags for row in found.rows)
        why = "; ".join(damaged) or ("every base weight is zero" if zero else "")
        raise InconclusiveError(
            f"No module can be aligned: {why}"
            if why
            else f"Every delta_W is exactly zero (untrained), in {place(found.adapter.path)}; train it first"
        )
    return Alignment(found.base.path, found.adapter.path, found.rows, found.missing, found.notes())
