"""Values of a result as they stand in strict JSON, in a CSV file and in a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from subspace.text import shown

__all__ = ["cell", "flat", "plain"]

_PLAIN = frozenset({str, int, bool})  # by far the most, and as they should be


def flat(value: Any) -> Any:
    """A value as one cell of a CSV file."""
    if isinstance(value, tuple | list):
        return ";".join(map(str, value))
    return plain(value)


def cell(value: Any) -> str:
    """A value as a table shows it: four significant digits, a dash for one that does not exist.

    Examples
    --------
    >>> cell(0.0104167), cell(None), cell(["a", "b"]), cell(64), cell(1e-30)
    ('0.01042', '-', 'a b', '64', '1e-30')
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(cell(item) for item in value)
    return shown(value)


def plain(value: Any) -> Any:
    """A value as strict JSON has it: lists for arrays, None for what is not finite.

    Examples
    --------
    >>> plain({"phi": np.array([1.0, np.nan])})
    {'phi': [1.0, None]}
    """
    if value is None or type(value) in _PLAIN:
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
