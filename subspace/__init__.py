"""subspace: what did this adapter learn?

Reads trained LoRA adapters and measures the subspaces they span, beside chance. The public names are loaded on first
use, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from subspace.adapters import Adapter, BaseWeights, load_adapter, load_base
    from subspace.analysis.amplification import Amplification
    from subspace.analysis.amplify import amplify
    from subspace.analysis.compare import compare
    from subspace.analysis.comparison import Comparison
    from subspace.analysis.convert import Conversion, convert
    from subspace.analysis.inspect import inspect
    from subspace.analysis.inspection import Inspection
    from subspace.analysis.truncate import truncate
    from subspace.analysis.truncation import Truncation
    from subspace.errors import InconclusiveError, SubspaceError

__version__ = "0.1.0"

_WHERE = {
    "Adapter": "subspace.adapters",
    "Amplification": "subspace.analysis.amplification",
    "BaseWeights": "subspace.adapters",
    "Comparison": "subspace.analysis.comparison",
    "Conversion": "subspace.analysis.convert",
    "InconclusiveError": "subspace.errors",
    "Inspection": "subspace.analysis.inspection",
    "SubspaceError": "subspace.errors",
    "Truncation": "subspace.analysis.truncation",
    "amplify": "subspace.analysis.amplify",
    "compare": "subspace.analysis.compare",
    "convert": "subspace.analysis.convert",
    "inspect": "subspace.analysis.inspect",
    "load_adapter": "subspace.adapters",
    "load_base": "subspace.adapters",
    "truncate": "subspace.analysis.truncate",
}

__all__ = [
    "Adapter",
    "Amplification",
    "BaseWeights",
    "Comparison",
    "Conversion",
    "InconclusiveError",
    "Inspection",
    "SubspaceError",
    "Truncation",
    "amplify",
    "compare",
    "convert",
    "inspect",
    "load_adapter",
    "load_base",
    "truncate",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'subspace' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
