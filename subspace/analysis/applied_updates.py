"""Adapters put onto a model for the time of a computation.

Each changed parameter is computed when its module is called and given up when the module has answered: the model's own
parameters are never touched, tied ones stay what they are elsewhere, and one weight is held twice at any time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from subspace.analysis.weight_changes import Change
from subspace.errors import FormatError
from subspace.text import shown

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["applied"]


@contextmanager
def applied(model: nn.Module, changes: Mapping[str, list[Change]]) -> Iterator[list[str]]:
    """Compute with changed parameters within the block.

    Parameters
    ----------
    model : which is as it was after the block, to the bit
    changes : key in the state dict -> changes of that parameter

    Yields
    ------
    list of str
        At the end of the block, the keys of the parameters whose modules were not called: their changes had no effect.

    Raises
    ------
    FormatError : a bias that the layer does not have and cannot be given
    """
    callers: dict[nn.Module, dict[str, _Site]] = defaultdict(dict)
    for key, some in changes.items():
        callers[_caller(model, key)][key] = _Site(model, key, some)
    swaps = [_Swap(list(sites.values())) for sites in callers.values()]
    handles: list[Any] = []
    unused: list[str] = []
    try:
        for module, swap in zip(callers, swaps, strict=True):
            handles.append(module.register_forward_pre_hook(swap.put))
            handles.append(module.register_forward_hook(swap.take, always_call=True))
        yield unused
    finally:
        for handle in handles:
            handle.remove()
        for swap in swaps:
            swap.take()
            unused += [] if swap.called else [site.key for site in swap.sites]


def _caller(model: nn.Module, key: str) -> nn.Module:
    """The module whose call uses a parameter: its own, or one around it that reads it past the module's call."""
    from torch import nn

    words = key.split(".")[:-1]
    around = [model.get_submodule(".".join(words[:n])) for n in range(len(words) + 1)]
    readers = (nn.MultiheadAttention, nn.TransformerEncoderLayer)
    return next((module for module in around if isinstance(module, readers)), around[-1])


class _Site:
    """One parameter or buffer: where it is, its own value, and its changes."""

    def __init__(self, model: nn.Module, key: str, changes: list[Change]) -> None:
        path, _, self.name = key.rpartition(".")
        self.key, self.changes = key, changes
        module = model.get_submodule(path)
        held: Any = module._parameters if self.name in module._parameters else module._buffers
        if self.name not in held:
            raise FormatError(
                f"The model has no parameter {shown(key)}, which the adapter changes; give the model that it was "
                "trained on"
            )
        self.held, self.own = held, held[self.name]
        # a layer without a bias can be given one for the time of a call
        self.like: Tensor = self.own if self.own is not None else next(iter(module.parameters(recurse=False)))

    def changed(self) -> Tensor:
        """The changed value, computed in float32 at least, in the type of the own one."""
        import torch

        own = self.like.new_zeros(len(self.like)) if self.own is None else self.own.detach()
        wide = torch.promote_types(own.dtype, torch.float32) if own.is_floating_point() else own.dtype
        new = own.to(wide, copy=True, memory_format=torch.contiguous_format)
        for change in self.changes:
            change(new, own)
        return new.to(own.dtype)

    def put(self) -> None:
        """Put the changed value in the place of the own one."""
        from torch import nn

        new = self.changed()
        self.held[self.name] = (
            nn.Parameter(new, requires_grad=False) if isinstance(self.like, nn.Parameter) else new
        )

    def take(self) -> None:
        """Put the own value back: the very same tensor."""
        self.held[self.name] = self.own


class _Swap:
    """The hooks of one module that is called."""

    def __init__(self, sites: list[_Site]) -> None:
        self.sites, self.called, self._in_place = sites, False, False

    def put(self, *_: Any) -> None:
        """Before the call."""
        self.called = self._in_place = True
        for site in self.sites:
            site.put()

    def take(self, *_: Any) -> None:
        """After the call, also of one that failed."""
        if self._in_place:
            for site in self.sites:
                site.take()
        self._in_place = False
