"""What a collection knows of an adapter before any product is formed: its modules, shapes, and what is usable."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from subspace.adapters.update import DenseUpdate, Update
from subspace.analysis.canonical_update import canonical_of
from subspace.analysis.collection import Member
from subspace.analysis.frames import is_untrained
from subspace.analysis.split_layers import Parts, with_parts
from subspace.errors import InconclusiveError
from subspace.flags import Flag
from subspace.index.checkpoint_step import step_of

if TYPE_CHECKING:
    from subspace.adapters import Adapter
    from subspace.adapters.update import Factor
    from subspace.analysis.resolve import Loading
    from subspace.geometry.canonical import Canonical

__all__ = ["ModuleSurvey", "Surveyed", "surveyed"]


class ModuleSurvey(NamedTuple):
    """One module of one adapter.

    Attributes
    ----------
    shape : (d_out, d_in)
    r : declared rank
    scale : NaN where it is unknown
    norm : ``||B @ A||_F``, the scale left out; NaN where it has no directions
    flags : what is so of it
    """

    shape: tuple[int, int]
    r: int
    scale: float
    norm: float = math.nan
    flags: tuple[Flag, ...] = ()

    @property
    def usable(self) -> bool:
        """Whether it has directions: it is trained, finite, and needs no base that is not there."""
        return not {Flag.UNTRAINED, Flag.NOT_FINITE, Flag.NEEDS_BASE} & set(self.flags)


@dataclass(frozen=True, eq=False)
class Surveyed:
    """One adapter.

    Attributes
    ----------
    member : its path and hash
    source : what it is read from again
    format : as `Adapter` has it
    modules : by their names in the file
    parts : which of its fused layers are split
    rows_kept : whether the file is known to keep the rows of B in the order of the model
    forms : of the modules of an adapter in memory
    notes : of reading it
    """

    member: Member
    source: Any
    format: str
    modules: Mapping[str, ModuleSurvey]
    parts: Parts = field(default_factory=dict)
    rows_kept: bool = False
    forms: Mapping[str, Canonical] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def layout(self) -> tuple[str, ...]:
        """Names of its modules."""
        return tuple(self.modules)

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Module -> (d_out, d_in)."""
        return {name: module.shape for name, module in self.modules.items()}


def surveyed(
    source: Any, loading: Loading, *, parts: Parts | None = None, sha256: str | None = None
) -> Surveyed:
    """Read the header of an adapter, hash its file, and look through its numbers.

    Parameters
    ----------
    source : as `load_adapter` takes it
    parts : fused layers to split, see `subspace.analysis.split_layers`
    sha256 : of the file, where it is known

    Raises
    ------
    SubspaceError
        If it cannot be read.
    """
    adapter = with_parts(loading.adapter(source), parts or {})
    modules = {name: _module(update, adapter) for name, update in adapter.items()}
    path = os.fspath(source) if isinstance(source, str | os.PathLike) else None
    member = Member(
        path or adapter.path,
        sha256 or adapter.sha256(),
        step_of(adapter.path) or step_of(path or adapter.path),
    )
    forms = (
        {} if path else {name: canonical_of(adapter[name]) for name, seen in modules.items() if seen.usable}
    )
    return Surveyed(
        member,
        path,
        adapter.format,
        modules,
        parts or {},
        _keeps_rows(adapter),
        forms,
        tuple(map(str, adapter.notes)),
    )


def _module(update: Update, adapter: Adapter) -> ModuleSurvey:
    shape = update.d_out, update.d_in
    scale = math.nan if update.scale.value is None else float(update.scale.value)
    found = _fault(update)
    norm = math.nan if found else _norm(update)
    adapter.release()
    unknown = (Flag.SCALE_UNKNOWN,) if math.isnan(scale) and not found else ()
    return ModuleSurvey(shape, update.r, scale, norm, tuple(dict.fromkeys((*update.flags, *found, *unknown))))


def _norm(update: Update) -> float:
    """``||B @ A||_F`` by the products of rows and columns alone."""
    if isinstance(update, DenseUpdate):
        return float(np.linalg.norm(update.matrix.load().astype(np.float64)))
    A, B = update.A.astype(np.float64), update.B.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        return math.sqrt(max(float(np.vdot(A @ A.T, B.T @ B)), 0.0))


def _fault(update: Update) -> tuple[Flag, ...]:
    """Why a module has no directions; () where it has."""
    try:
        if not all(map(_is_finite, _factors(update))):
            return (Flag.NOT_FINITE,)
        return (Flag.UNTRAINED,) if is_untrained(update) else ()
    except InconclusiveError:
        return (Flag.NEEDS_BASE,)


def _factors(update: Update) -> tuple[Factor, ...]:
    return (update.matrix,) if isinstance(update, DenseUpdate) else (update.A_factor, update.B_factor)


def _is_finite(factor: Factor) -> bool:
    return bool(np.isfinite(factor.load()).all())


def _keeps_rows(adapter: Adapter) -> bool:
    if adapter.format != "gguf" or adapter.tensors is None:
        return False
    from subspace.adapters.naming.writers.gguf import UNPERMUTED

    return adapter.tensors.metadata.get("general.architecture") in UNPERMUTED
