"""Values of a configuration in memory as JSON has them: what a library holds is often of another type than its file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import is_dataclass
from enum import Enum
from typing import Any

__all__ = ["plain"]


def plain(value: Any) -> Any:
    """A value in the types of JSON, in which it has the same meaning.

    Enums are their values, sets sorted lists, tuples lists, dataclasses and mappings dicts with names as text, paths
    and types such as ``torch.float16`` text; numbers of NumPy and torch are Python's. Any other object is its text.

    Examples
    --------
    >>> import numpy as np
    >>> plain({"target_modules": {"v", "q"}, "layers": (0, 1), "r": np.int64(8)})
    {'target_modules': ['q', 'v'], 'layers': [0, 1], 'r': 8}
    """
    if isinstance(value, Enum):
        return plain(value.value)
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return plain(value.item())
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        value = vars(value)
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | range | set | frozenset):
        values = [plain(inner) for inner in value]
        return sorted(values, key=str) if isinstance(value, set | frozenset) else values
    return os.fsdecode(value) if isinstance(value, os.PathLike) else str(value)
