"""What an alignment found, for people: a sentence per finding, of medians over modules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import TYPE_CHECKING

from subspace.flags import Flag
from subspace.text import counted

if TYPE_CHECKING:
    from subspace.results.alignment import ModuleAlignment

__all__ = ["alignment_facts"]

_SHARES = ("input_share", "input_isotropic", "output_share", "output_isotropic")


def alignment_facts(modules: Sequence[ModuleAlignment]) -> tuple[str, ...]:
    """Shares, re-weighting, rotation and spectral shift, and the principal mask, as far as they exist."""
    aligned = [row for row in modules if row.input_share is not None]
    if not aligned:
        return ("No module has a delta_W and a base weight with directions.",)
    parts = (_shares(aligned), _reweighting(aligned), _rotation(aligned), _mask(aligned))
    return tuple(fact for part in parts for fact in part)


def _shares(rows: Sequence[ModuleAlignment]) -> Iterator[str]:
    k = {row.k for row in rows}
    which = f"{k.pop()} leading" if len(k) == 1 else "leading"
    shares = {name: _percent(_median(rows, name)) for name in _SHARES}
    yield (
        f"{_median_of(rows)}{shares['input_share']} of ||delta_W||^2 lies in W's {which} input directions (isotropic: "
        f"{shares['input_isotropic']}) and {shares['output_share']} in its {which} output directions (isotropic: "
        f"{shares['output_isotropic']})."
    )


def _reweighting(rows: Sequence[ModuleAlignment]) -> Iterator[str]:
    having = [row for row in rows if row.reweighting is not None]
    if not having:
        return
    partly = any(Flag.BASE_LEADING in row.flags for row in having)
    which = "the leading ones of W's singular values" if partly else "W's singular values"
    rest = "what rescales the others was not computed" if partly else "the rest mixes W's directions"
    yield (
        f"{_median_of(having)}{_percent(_median(having, 'reweighting'))} of ||delta_W||^2 rescales {which} (isotropic: "
        f"{_percent(_median(having, 'reweighting_isotropic'))}); {rest}."
    )


def _rotation(rows: Sequence[ModuleAlignment]) -> Iterator[str]:
    having = [row for row in rows if row.input_rotation is not None and row.spectral_shift is not None]
    if not having:
        return
    low, high = (_median(having, name) for name in ("spectral_shift", "spectral_shift_most"))
    shift = f"{low:.2g}" if f"{low:.2g}" == f"{high:.2g}" else f"between {low:.2g} and {high:.2g}"
    yield (
        f"{_median_of(having)}delta_W turns W's leading directions by {_degrees(having, 'input_rotation')} degrees "
        f"at the input and {_degrees(having, 'output_rotation')} at the output (isotropic: "
        f"{_degrees(having, 'input_rotation_isotropic')} and {_degrees(having, 'output_rotation_isotropic')}), and "
        f"shifts the singular values by {shift} of their norm."
    )


def _mask(rows: Sequence[ModuleAlignment]) -> Iterator[str]:
    having = [row for row in rows if row.mask_overlap is not None and row.mask_gaussian is not None]
    if not having:
        return
    yield (
        f"{_median_of(having)}{_percent(_median(having, 'mask_overlap'))} of the entries that change in bfloat16 are "
        "in the principal mask, "
        f"which has {_percent(_median(having, 'mask_share'))} of all entries (Gaussian updates of this size: "
        f"{_percent(_median(having, 'mask_gaussian'))})."
    )


def _median(rows: Sequence[ModuleAlignment], name: str) -> float:
    return float(median(getattr(row, name) for row in rows))


def _degrees(rows: Sequence[ModuleAlignment], name: str) -> str:
    return f"{_median(rows, name):.2g}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %" if share > 0.1 else f"{100 * share:.2g} %"


def _median_of(rows: Sequence[ModuleAlignment]) -> str:
    return f"In the median of {counted(len(rows), 'module')}, " if len(rows) > 1 else ""
