"""The class that a module takes while it carries adapters: derived from its own, so that it stays what it was.

The module stays the same object with the same parameters under the same names, so that whatever refers to it goes on to
work; ``isinstance`` and hooks too. Removing the last adapter gives it its class back.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from subspace.errors import ValueRangeError
from subspace.text import shown
from subspace.training.adapted_layer import AdaptedLayer, taken_name
from subspace.training.layer_shapes import kind_of

__all__ = ["adapted_class"]

_Key = tuple[type[nn.Module], str, bool]
_DERIVED: dict[_Key, type[AdaptedLayer]] = {}


def adapted_class(module: nn.Module, name: str) -> type[AdaptedLayer]:
    """Return the class that a module takes while it carries adapters.

    Parameters
    ----------
    module : the layer
    name : of the module, for errors

    Raises
    ------
    ValueRangeError : not a kind of layer that can be adapted, or one that is not used in the way of its kind
    """
    if isinstance(module, AdaptedLayer):
        return type(module)
    kind = kind_of(module)
    if kind is None or (wrong := _unfit(module, kind)):
        reason = "it is no linear layer, embedding or convolution" if kind is None else wrong
        raise ValueRangeError(
            f"The module {shown(name)} ({type(module).__name__}) cannot be adapted: {reason}; choose other targets"
        )
    own_forward = kind in ("linear", "conv1d") and ("forward" in vars(module) or _is_rewritten(module))
    return _derived(type(module), kind, own_forward)


def _derived(original: type[nn.Module], kind: str, own_forward: bool) -> type[AdaptedLayer]:
    key = original, kind, own_forward
    if key not in _DERIVED:
        members = {
            "original_class": original,
            "layer_kind": kind,
            "own_forward": own_forward,
            "__reduce_ex__": _reduced,
        }
        _DERIVED[key] = type(f"Adapted{original.__name__}", (AdaptedLayer, original), members)
    return _DERIVED[key]


def _reduced(layer: AdaptedLayer, protocol: Any) -> tuple[Any, ...]:
    """How pickle and copy write an adapted layer, whose class has no name to import."""
    return _blank, (layer.original_class, layer.layer_kind, layer.own_forward), layer.__dict__.copy()


def _blank(original: type[nn.Module], kind: str, own_forward: bool) -> nn.Module:
    derived = _derived(original, kind, own_forward)
    return derived.__new__(derived)


def _unfit(module: nn.Module, kind: str) -> str:
    """Why a layer of a kind that can be adapted cannot be, "" where it can."""
    if type(module).__name__ == "NonDynamicallyQuantizableLinear":
        return "it is read by its parent, which would bypass the adapter"
    weight = getattr(module, "weight", None)
    if weight is not None and nn.parameter.is_lazy(weight):
        return "it has no shape before its first input"
    if (taken := taken_name(module)) is not None:
        return f"it has an attribute {taken} of its own, as the layers of other adapters have"
    if kind == "embedding" and getattr(module, "max_norm", None) is not None:
        return "it has a max_norm, which changes its rows as they are read"
    if kind == "embedding" and _is_rewritten(module) and not hasattr(module, "embed_scale"):
        return "it looks up other rows than those of its input"
    return ""


def _is_rewritten(module: nn.Module) -> bool:
    """Whether its class has another forward than the layer that it derives from."""
    plain = next(c for c in reversed(type(module).__mro__) if c is not nn.Module and "forward" in vars(c))
    return type(module).forward is not vars(plain)["forward"]
