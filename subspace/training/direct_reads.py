"""Adapters that a model bypasses by computing with the weight of an adapted layer itself, found in its first forward.

Such an adapter has no effect where it is not merged, and some effect where it is: WavLM's attention gives the weights
of its projections to ``multi_head_attention_forward``, an output may be a product with the table of an embedding.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from subspace.errors import ValueRangeError
from subspace.text import shown
from subspace.training.adapted_layer import AdaptedLayer
from subspace.training.module_patterns import ancestors

__all__ = ["unwatch", "watch"]

_NOW = threading.local()  # what watches the forward that runs in this thread
# they say what a weight is like, and take no number from it
_PROPERTIES = frozenset(
    "dtype device shape ndim layout requires_grad is_leaf is_meta is_cuda is_cpu is_quantized is_sparse is_mkldnn "
    "is_mps is_xpu is_nested itemsize nbytes names grad_fn _version grad name output_nr".split()
)
_METHODS = frozenset(
    "size dim numel nelement stride is_floating_point is_complex is_contiguous element_size data_ptr "
    "storage_offset get_device type is_inference is_signed requires_grad_ __len__ __hash__ register_hook".split()
)


def watch(model: nn.Module, adapted: Sequence[str]) -> None:
    """Let the next forward of a model, in training and in evaluation, refuse weights that it reads past their layers.

    Parameters
    ----------
    model : with adapters; the parts of it that hold adapted layers may be called in its place
    adapted : names of the adapted layers
    """
    unwatch(model)
    holders = {"", *(part for name in adapted for part in ancestors(name.rpartition(".")[0]))}
    for name in holders:
        module, watched = model.get_submodule(name), _Watched(f"{name}." if name else "")
        module.register_forward_pre_hook(watched.begin)
        module.register_forward_hook(watched.end, always_call=True)


def unwatch(model: nn.Module) -> None:
    """Remove what `watch` left in a model."""
    for module in model.modules():
        _forget(module)


def _forget(module: nn.Module) -> None:
    for hooks in (module._forward_pre_hooks, module._forward_hooks):
        for key in [
            key for key, hook in hooks.items() if isinstance(getattr(hook, "__self__", None), _Watched)
        ]:
            del hooks[key]
            module._forward_hooks_always_called.pop(key, None)


def _is_translated() -> bool:
    """Whether a forward is run to be compiled or traced, with no eye for modes and hooks."""
    return torch.compiler.is_compiling() or bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]


class _Watched:
    """The hooks of one module: its first forward in each mode, training and evaluation, is watched."""

    def __init__(self, prefix: str) -> None:
        self.prefix, self.seen = prefix, set[bool]()

    def begin(self, module: nn.Module, args: Any) -> None:
        """Before a forward."""
        if _is_translated():
            return
        if module.training not in self.seen and getattr(_NOW, "reads", None) is None:
            _NOW.hooks, _NOW.reads = self, _Reads(module, self.prefix)
            _NOW.reads.__enter__()

    def end(self, module: nn.Module, args: Any, out: Any) -> None:
        """After a forward, also one that raised, whose output is None: the next one is watched then too."""
        if getattr(_NOW, "reads", None) is not None and _NOW.hooks is self:
            reads, _NOW.hooks, _NOW.reads = _NOW.reads, None, None
            reads.__exit__(None, None, None)
        if out is not None and not _is_translated():
            self.seen.add(module.training)
            if len(self.seen) == 2:
                _forget(module)


class _Reads(TorchFunctionMode):
    """Refuses a computation with the weight of an adapted layer outside the forward of a module that has it."""

    def __init__(self, model: nn.Module, prefix: str) -> None:
        super().__init__()
        layers = {
            id(weight): f"{prefix}{name}"
            for name, layer in model.named_modules()
            if isinstance(layer, AdaptedLayer) and layer.active
            if (weight := layer._parameters.get("weight")) is not None
        }
        self.layers: Mapping[int, str] = layers
        # a weight that is tied is also that of a module without an adapter
        self.owners: dict[int, list[nn.Module]] = {}
        for module in model.modules():
            for value in module._parameters.values():
                if id(value) in layers:
                    self.owners.setdefault(id(value), []).append(module)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Look at the arguments of one function of torch."""
        found = next((t for t in _tensors((args, kwargs)) if id(t) in self.layers), None)
        if found is not None and not _is_description(func):
            self._require_own(id(found))
        return func(*args, **(kwargs or {}))

    def _require_own(self, weight: int) -> None:
        callers = list(_callers())
        if any(caller is owner for caller in callers for owner in self.owners[weight]):
            return
        reader = next(
            (type(caller).__name__ for caller in callers if isinstance(caller, nn.Module)), "The model"
        )
        name = shown(self.layers[weight])
        raise ValueRangeError(
            f"The adapter of {name} would be bypassed: {reader} computes with the weight of {name} itself, not "
            "through the layer, so that the adapter would act only once it is merged; choose other targets"
        )


def _is_description(func: Any) -> bool:
    if getattr(func, "__name__", "") == "__get__":
        return getattr(getattr(func, "__self__", None), "__name__", "") in _PROPERTIES
    return getattr(func, "__name__", "") in _METHODS


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in arguments, however they are nested."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(tuple(value.values()))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)


def _callers() -> Iterator[Any]:
    """The objects whose methods are being called, the innermost first."""
    frame = inspect.currentframe()
    while frame is not None:
        code = frame.f_code
        if code.co_argcount and code.co_varnames[0] == "self":
            yield frame.f_locals.get("self")
        frame = frame.f_back
