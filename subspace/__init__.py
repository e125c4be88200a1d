"""subspace: what did this adapter learn?

Reads trained LoRA adapters and measures the subspaces they span, beside chance. The public names are loaded on first
use, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from subspace.adapters import Adapter, BaseWeights, load_adapter, load_base
    from subspace.analysis.amplify import amplify
    from subspace.analysis.compare import compare
    from subspace.analysis.convert import Conversion, convert
    from subspace.analysis.inspect import inspect
    from subspace.analysis.truncate import truncate
    from subspace.errors import InconclusiveError, SubspaceError
    from subspace.results.amplification import Amplification
    from subspace.results.comparison import Comparison
    from subspace.results.inspection import Inspection
    from subspace.results.truncation import Truncation

__version__ = "0.1.0"

_WHERE = {
    "Adapter": "subspace.adapters",
    "Amplification": "subspace.results.amplification",
    "BaseWeights": "subspace.adapters",
    "Comparison": "subspace.results.comparison",
    "Conversion": "subspace.analysis.convert",
    "InconclusiveError": "subspace.errors",
    "Inspection": "subspace.results.inspection",
    "SubspaceError": "subspace.errors",
    "Truncation": "subspace.results.truncation",
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
    return list(__all__)
