"""What an adapted module has in addition to its own, whatever kind of layer it is and whatever adapts it."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from subspace.errors import ValueRangeError
from subspace.training.method import Method
from subspace.training.methods import every
from subspace.training.unsupported import is_offloaded

__all__ = ["AdaptedLayer", "taken_name"]


class AdaptedLayer(nn.Module):
    """What an adapted module has in addition to its own.

    The parameters of the active adapter are the module's own, by the names in the method's `parts`: ``lora_A`` and
    ``lora_B`` as loralib's layers have them, ``ia3_l`` of IA3. Those of any other adapter are there as ``lora_A@name``.
    Those that are not trained (`Method.fixed`) are buffers by the same names.

    Attributes
    ----------
    original_class : the module's class without adapters
    layer_kind : "linear", "conv1d", "embedding" or "conv"; see `kind_of`
    own_forward : whether a linear layer computes something else than ``W x + bias``
    methods : the method of each adapter
    remembered : what each adapter's method has to know of this layer; see `Method.remembered`
    active : name of the adapter that is applied, None for the base alone
    merged : whether the active adapter is in the weights now
    merge_on_eval : whether ``eval()`` merges and ``train()`` unmerges, as loralib's ``merge_weights``
    loaded_starts : parameters at the start of each adapter that was loaded and not started here; None where unknown
    replaced_forward : a forward that was set on the module itself, as hooks of device maps do; it goes on to be used
    """

    original_class: type[nn.Module]
    layer_kind: str
    own_forward: bool

    methods: dict[str, Method]
    remembered: dict[str, Any]
    active: str | None
    merged: bool
    merge_on_eval: bool
    original: tuple[nn.Parameter, nn.Parameter | None] | None
    loaded_starts: dict[str, dict[str, Tensor] | None]
    replaced_forward: Any

    weight: nn.Parameter
    bias: nn.Parameter | None

    def begin(self) -> None:
        """Make room for adapters."""
        self.methods, self.remembered, self.active, self.merged = {}, {}, None, False
        self.merge_on_eval, self.original, self.loaded_starts = False, None, {}
        self.replaced_forward = self.__dict__.pop("forward", None)

    def end(self) -> None:
        """Remove everything that `begin` set."""
        replaced = self.replaced_forward
        for name in _STATE:
            del self.__dict__[name]
        if replaced is not None:
            self.__dict__["forward"] = replaced

    def hold(self, name: str, method: Method, module: str, start: dict[str, Tensor]) -> None:
        """Add an adapter, which is not active yet.

        Parameters
        ----------
        name : of the adapter
        method : what it does
        module : name of this module in the model
        start : its parameters by their names in `Method.parts`
        """
        self.methods[name], self.remembered[name] = method, method.remembered(module)
        for part, value in start.items():
            if part in method.fixed:
                self.register_buffer(f"{part}@{name}", value)
            else:
                self.register_parameter(f"{part}@{name}", nn.Parameter(value))

    def drop(self, name: str) -> None:
        """Remove an adapter."""
        if self.active == name:
            self.use(None)
        del self.remembered[name]
        self.loaded_starts.pop(name, None)
        for part in self.methods.pop(name).parts:
            for held in (self._parameters, self._buffers):
                held.pop(f"{part}@{name}", None)

    def use(self, name: str | None) -> None:
        """Apply one adapter from now on, or none; one that is merged is taken out of the weights first.

        Of all adapters' parameters this one's alone require gradients then. Where the layer does not have it, none is
        active.
        """
        self.unmerge()
        self._rename_parts("", f"@{self.active}", trained=False)
        self.active = name if name in self.methods else None
        self._rename_parts(f"@{name}", "", trained=True)

    def _rename_parts(self, old_end: str, new_end: str, *, trained: bool) -> None:
        """Rename the parameters of the active adapter."""
        for part in self.methods[self.active].parts if self.active is not None else ():
            tables: tuple[dict[str, Any], ...] = self._parameters, self._buffers
            for held in tables:
                value = held.pop(f"{part}{old_end}", None)
                if value is None:
                    continue
                held[f"{part}{new_end}"] = value
                if isinstance(value, nn.Parameter):
                    value.requires_grad_(trained)

    def factors(self, name: str) -> dict[str, Tensor]:
        """Return the parameters of one adapter, in the order of the method's `parts`."""
        end = "" if name == self.active else f"@{name}"
        own: dict[str, Any] = self._parameters
        found = {
            part: own.get(f"{part}{end}", self._buffers.get(f"{part}{end}"))
            for part in self.methods[name].parts
        }
        return {part: value for part, value in found.items() if value is not None}

    @property
    def base_weight(self) -> Tensor:
        """The weight without any adapter, also while one is merged into it."""
        return self.weight if self.original is None else self.original[0]

    @property
    def scaling(self) -> float:
        """Scale of the active adapter, 1 where it has none; under the name that loralib's layers have."""
        return float(getattr(self.methods.get(self.active or ""), "scale", 1.0))

    @property
    def enable_lora(self) -> list[bool]:
        """Which groups of rows the active adapter adapts, under loralib's name; of unequal ones of q, k and v."""
        groups = getattr(self.methods.get(self.active or ""), "groups", None) or (True,)
        return [name in groups for name in "qkv"] if isinstance(groups[0], str) else list(groups)

    def train(self, mode: bool = True) -> Any:
        """Set the mode; merge or unmerge where `merge_on_eval` is set."""
        super().train(mode)
        if self.merge_on_eval:
            self.unmerge() if mode else self.merge()
        return self

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the output with the active adapter."""
        name = self.active
        if name is None or self.merged:
            return self.plain(*args, **kwargs)
        if self.training and torch.is_grad_enabled() and is_offloaded(self):
            raise ValueRangeError(
                "The adapter cannot be trained: accelerate has offloaded its parameters (cpu_offload, disk_offload or "
                "a device map), so that no gradient reaches them; load the model without offloading, or call it in "
                "eval()"
            )
        x, args, kwargs = self._input(args, kwargs)
        return self.methods[name].output(self, name, x, *args, **kwargs)

    def plain(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the output without an adapter, by the forward that the module has of its own."""
        own = self.replaced_forward
        out: Tensor = super().forward(*args, **kwargs) if own is None else own(*args, **kwargs)
        return out

    def _input(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
        """The input, apart from other arguments, also where it is given by name."""
        if args:
            return args[0], args[1:], kwargs
        name = list(inspect.signature(self.original_class.forward).parameters)[1]
        if name not in kwargs:
            raise TypeError(f"forward() is missing its input, {name}")
        return kwargs[name], (), {key: value for key, value in kwargs.items() if key != name}

    @torch.no_grad()
    def delta_weight(self, name: str) -> Tensor:
        """Return ``delta_W`` of one adapter in the layout of this module's own weight, in float32 at least."""
        return self.methods[name].delta_weight(self, name)

    def merge(self) -> None:
        """Put the active adapter into the weights; the weights from before are kept, and come back with `unmerge`.

        Raises
        ------
        ValueRangeError : the layer does not hold its weight as numbers that can be added to, or would not give merged
            what it gives unmerged; it stays as it is
        """
        if self.active is None or self.merged:
            return
        method, weight = self.methods[self.active], self._floating_weight()
        bias = self._parameters.get("bias")
        with torch.no_grad():
            delta_W = self.delta_weight(self.active)
            merged = (weight + delta_W).to(weight.dtype)
        # a parameter of its own: a weight that is tied to another module's must not change there
        new = nn.Parameter(merged, requires_grad=weight.requires_grad)
        method.require_mergeable(self, new, delta_W)
        self.original, self.weight = (weight, bias), new
        if bias is not None and (value := method.merged_bias(self, self.active, bias.detach())) is not None:
            self.bias = nn.Parameter(value, requires_grad=bias.requires_grad)
        self.merged = True

    def _floating_weight(self) -> nn.Parameter:
        weight = self._parameters.get("weight")
        if is_offloaded(self):
            raise ValueRangeError(
                "This layer cannot be merged: accelerate has offloaded its weight; load the model without "
                "offloading, or leave the adapter unmerged"
            )
        if weight is None or not weight.is_floating_point():
            kind = "is computed from other parameters" if weight is None else f"is of type {weight.dtype}"
            raise ValueRangeError(
                f"This layer cannot be merged: its weight {kind} and is no floating-point parameter; make it one, or "
                "leave the adapter unmerged"
            )
        return weight

    def unmerge(self) -> None:
        """Put back the very weights that were there before `merge`."""
        if not self.merged or self.original is None:
            return
        self.weight, bias = self.original
        if bias is not None:
            self.bias = bias
        self.merged, self.original = False, None

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Move the weights that `unmerge` puts back along with the others."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.original is not None:
            weight, bias = self.original
            self.original = _moved(weight, fn), None if bias is None else _moved(bias, fn)
        return self

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        """Take a state; refuse weights while they are merged, since `unmerge` would throw them away."""
        if self.merged and f"{prefix}weight" in state_dict:
            errors: list[str] = args[-1]
            errors.append(
                f"{prefix}weight cannot be loaded while an adapter is merged into it: unmerge first"
            )
            return
        super()._load_from_state_dict(state_dict, prefix, *args)


def _moved(parameter: nn.Parameter, fn: Any) -> nn.Parameter:
    """A parameter after what ``nn.Module.to`` and its like do; the same object where torch allows that."""
    with torch.no_grad():
        value = fn(parameter)
    try:
        parameter.data = value
    except RuntimeError:  # of a device without storage
        return nn.Parameter(value, requires_grad=parameter.requires_grad)
    return parameter


_STATE = (
    "methods",
    "remembered",
    "active",
    "merged",
    "merge_on_eval",
    "original",
    "loaded_starts",
    "replaced_forward",
)
_CLASS = ("original_class", "layer_kind", "own_forward")
_OWN = [name for name in vars(AdaptedLayer) if not (name.startswith("_") or hasattr(nn.Module, name))]


def taken_name(module: nn.Module) -> str | None:
    """Return an attribute of a module without adapters whose name an adapted layer needs, None where there is none."""
    parts = [part for method in every().values() for part in method.parts]
    return next((name for name in (*parts, *_CLASS, *_STATE, *_OWN) if hasattr(module, name)), None)
