"""The singular directions of one module of an adapter, on any side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from subspace.adapters import Adapter
from subspace.adapters.place import place
from subspace.analysis.frames import SIDES, is_untrained, spanning
from subspace.analysis.resolve import Loading
from subspace.errors import InconclusiveError, ValueRangeError, located
from subspace.geometry.agreement import frames_of
from subspace.text import listed, module_shown, shown

if TYPE_CHECKING:
    from subspace.geometry.frame import Frame

__all__ = ["directions"]


def directions(
    source: Any,
    module: str | None = None,
    *,
    side: str = "a",
    k: int | None = None,
    base: Any = None,
    scale: float | None = None,
    adapter_name: str | None = None,
    enable_lora: Sequence[bool] | None = None,
    layout: str | None = None,
    rename: Mapping[str, str] | None = None,
) -> Frame:
    """The singular directions of a module, by descending singular value.

    Parameters
    ----------
    source : the adapter, as `load_adapter` takes it
    module : its name or the end of its dotted path; None where the adapter has one module
    side : "a" (right singular vectors of A), "b" (left ones of B), "left" or "right" (of delta_W)
    k : how many at most, of a dense delta_W; None for all
    base, scale, adapter_name, enable_lora, layout, rename : how the adapter is read, as `load_adapter` takes them

    Returns
    -------
    Frame
        ``frame.vectors()`` are orthonormal columns (d, k) in float64, ``frame.S`` the singular values (k,), of A, B or
        B A without the scale

    Raises
    ------
    ValueRangeError : no such module or side, or several modules whose paths end so
    InconclusiveError : the module is untrained

    Examples
    --------
    >>> import numpy as np
    >>> found = directions({"q.lora_A": np.diag([3.0, 4.0]), "q.lora_B": np.eye(3, 2)}, "q")
    >>> found.S, abs(found.vectors())
    (array([4., 3.]), array([[0., 1.],
           [1., 0.]]))
    """
    if side not in SIDES:
        raise ValueRangeError(f"Unknown side {shown(repr(side))}: `side` is one of {', '.join(SIDES)}")
    adapter = Loading(base, scale, adapter_name, enable_lora, rename, layout).adapter(source)
    update = adapter[_name(adapter, module)]
    with located(f"{place(adapter.path, update.module)}"):
        if is_untrained(update):
            raise InconclusiveError("An untrained module has no directions: delta_W is exactly zero")
        return frames_of(spanning(update, [side], directions=k))[side]


def _name(adapter: Adapter, module: str | None) -> str:
    names = list(adapter)
    if module is None:
        found = names
    else:
        found = [name for name in names if name == module] or [
            n for n in names if f".{n}".endswith(f".{module}")
        ]
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} modules" if found else "No module"
    called = "" if module is None else f" called {shown(repr(module))}"
    raise ValueRangeError(
        f"{what}{called} in {place(adapter.path)}; name one as `module`: {listed(map(module_shown, names), most=8)}"
    )
