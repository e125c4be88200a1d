"""subspace: what did this adapter learn?

Reads trained LoRA adapters and measures the subspaces they span, next to isotropic random ones and to those of other
modules. The public names are loaded on first use, so that importing the package costs nothing. A question is a function
of the same name as its file in `subspace.analysis`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from subspace.adapters import Adapter, BaseWeights, load_adapter, load_base
    from subspace.analysis.align import align
    from subspace.analysis.amplify import amplify
    from subspace.analysis.compare import compare
    from subspace.analysis.convert import convert
    from subspace.analysis.directions import directions
    from subspace.analysis.evaluate import evaluate
    from subspace.analysis.explain import explain
    from subspace.analysis.extract import extract
    from subspace.analysis.inputs import inputs
    from subspace.analysis.inspect import inspect
    from subspace.analysis.intruders import intruders
    from subspace.analysis.mitigate import mitigate
    from subspace.analysis.spectrum import spectrum
    from subspace.analysis.step_recorder import StepRecorder
    from subspace.analysis.track import track
    from subspace.analysis.trainer_callback import TrackCallback
    from subspace.analysis.truncate import truncate
    from subspace.analysis.visibility import visibility
    from subspace.errors import InconclusiveError, SubspaceError
    from subspace.flags import Flag
    from subspace.results.alignment import Alignment
    from subspace.results.amplification import Amplification
    from subspace.results.comparison import Comparison
    from subspace.results.conversion import Conversion
    from subspace.results.evaluation import Evaluation
    from subspace.results.explanation import Explanation
    from subspace.results.extraction import Extraction
    from subspace.results.inputs import Inputs
    from subspace.results.inputs_file import load_inputs
    from subspace.results.inspection import Inspection
    from subspace.results.intrusion import Intruders
    from subspace.results.spectrum import Spectrum
    from subspace.results.track import Track
    from subspace.results.truncation import Truncation
    from subspace.results.visibility import Visibility

__version__ = "0.1.0"

_HOMES = {
    "Adapter": "subspace.adapters",
    "Alignment": "subspace.results.alignment",
    "Amplification": "subspace.results.amplification",
    "BaseWeights": "subspace.adapters",
    "Comparison": "subspace.results.comparison",
    "Conversion": "subspace.results.conversion",
    "Evaluation": "subspace.results.evaluation",
    "Explanation": "subspace.results.explanation",
    "Extraction": "subspace.results.extraction",
    "Flag": "subspace.flags",
    "InconclusiveError": "subspace.errors",
    "Inputs": "subspace.results.inputs",
    "Inspection": "subspace.results.inspection",
    "Spectrum": "subspace.results.spectrum",
    "Intruders": "subspace.results.intrusion",
    "StepRecorder": "subspace.analysis.step_recorder",
    "SubspaceError": "subspace.errors",
    "Track": "subspace.results.track",
    "TrackCallback": "subspace.analysis.trainer_callback",
    "Truncation": "subspace.results.truncation",
    "Visibility": "subspace.results.visibility",
    "load_adapter": "subspace.adapters",
    "load_base": "subspace.adapters",
    "load_inputs": "subspace.results.inputs_file",
}

__all__ = [
    "Adapter",
    "Alignment",
    "Amplification",
    "BaseWeights",
    "Comparison",
    "Conversion",
    "Evaluation",
    "Explanation",
    "Extraction",
    "Flag",
    "InconclusiveError",
    "Inputs",
    "Inspection",
    "Intruders",
    "Spectrum",
    "StepRecorder",
    "SubspaceError",
    "Track",
    "TrackCallback",
    "Truncation",
    "Visibility",
    "align",
    "amplify",
    "compare",
    "convert",
    "directions",
    "evaluate",
    "explain",
    "extract",
    "inputs",
    "inspect",
    "intruders",
    "load_adapter",
    "load_base",
    "load_inputs",
    "mitigate",
    "spectrum",
    "track",
    "truncate",
    "visibility",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module
    from importlib.util import find_spec

    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if not name.startswith("_") and find_spec(f"subspace.analysis.{name}") is not None:
        question = import_module(f"subspace.analysis.{name}")
        if name in question.__all__:
            return getattr(question, name)
    raise AttributeError(f"module 'subspace' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
