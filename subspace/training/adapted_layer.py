"""What an adapted module has beside its own, whatever kind of layer it is."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from subspace.errors import ValueRangeError
from subspace.training.layer_shapes import group_rows, sizes
from subspace.training.methods import IA3, LoRA

__all__ = ["PARTS", "AdaptedLayer", "taken_name"]

PARTS = ("lora_A", "lora_B", "ia3_l")


class AdaptedLayer(nn.Module):
    """What an adapted module has beside its own.

    The factors of the active adapter are its parameters ``lora_A`` and ``lora_B`` (IA3: ``ia3_l``), as loralib's layers
    have them; those of any other adapter are there as ``lora_A@name``.

    Attributes
    ----------
    methods : the `LoRA` or `IA3` of each adapter
    active : name of the adapter that is applied, None for the base alone
    merged : whether the active adapter is in the weights now
    feedforward : names of the IA3 adapters that rescale this layer's inputs rather than its outputs
    merge_on_eval : whether ``eval()`` merges and ``train()`` unmerges, as loralib's ``merge_weights``
    replaced_forward : a forward that was set on the module itself, as hooks of device maps do; it goes on to be used
    """

    at_once = False  # whether `_with_update` makes the output and the update together
    original_class: type[nn.Module]

    methods: dict[str, LoRA | IA3]
    active: str | None
    merged: bool
    merge_on_eval: bool
    feedforward: set[str]
    original: tuple[nn.Parameter, nn.Parameter | None] | None
    replaced_forward: Any

    def begin(self) -> None:
        """Make room for adapters."""
        self.methods, self.active, self.merged, self.original = {}, None, False, None
        self.merge_on_eval, self.feedforward = False, set()
        self.replaced_forward = self.__dict__.pop("forward", None)

    def end(self) -> None:
        """Take everything away that `begin` made."""
        replaced = self.replaced_forward
        for name in _STATE:
            del self.__dict__[name]
        if replaced is not None:
            self.__dict__["forward"] = replaced

    def hold(self, name: str, method: LoRA | IA3, factors: dict[str, Tensor]) -> None:
        """Take a new adapter, which is not active yet."""
        self.methods[name] = method
        for part, value in factors.items():
            self.register_parameter(f"{part}@{name}", nn.Parameter(value))

    def drop(self, name: str) -> None:
        """Forget an adapter."""
        if self.active == name:
            self.use(None)
        del self.methods[name]
        self.feedforward.discard(name)
        for part in PARTS:
            self._parameters.pop(f"{part}@{name}", None)

    def use(self, name: str | None) -> None:
        """Apply one adapter from now on, or none; one that is merged leaves the weights first.

        Of all factors this adapter's alone require gradients then. Where the layer does not have it, none is active.
        """
        self.unmerge()
        for part in PARTS:
            if part in self._parameters:
                self._parameters[f"{part}@{self.active}"] = self._parameters.pop(part).requires_grad_(False)
        self.active = name if name in self.methods else None
        for part in PARTS:
            if self.active is not None and f"{part}@{name}" in self._parameters:
                self._parameters[part] = self._parameters.pop(f"{part}@{name}").requires_grad_(True)

    def factor(self, part: str, name: str) -> nn.Parameter:
        """``lora_A``, ``lora_B`` or ``ia3_l`` of one adapter."""
        found: nn.Parameter = self._parameters[part if name == self.active else f"{part}@{name}"]
        return found

    weight: nn.Parameter
    bias: nn.Parameter | None

    @property
    def scaling(self) -> float:
        """Scale of the active adapter, 1 without one; under the name that loralib's layers have."""
        method = self.methods.get(self.active or "")
        return method.scale if isinstance(method, LoRA) else 1.0

    @property
    def enable_lora(self) -> list[bool]:
        """Which groups of rows the active adapter adapts; under the name that loralib's layers have."""
        method = self.methods.get(self.active or "")
        return list(method.groups) if isinstance(method, LoRA) and method.groups else [True]

    def train(self, mode: bool = True) -> Any:
        """Set the mode; merge or unmerge, if that was asked for."""
        super().train(mode)
        if self.merge_on_eval:
            self.unmerge() if mode else self.merge()
        return self

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the output with the active adapter."""
        method = self.methods.get(self.active or "")
        if method is None or self.merged:
            return self.plain(*args, **kwargs)
        x, args, kwargs = self._input(args, kwargs)
        if isinstance(method, IA3):
            return self._rescaled(x, *args, **kwargs)
        A, B = self.lora_A, self.lora_B
        if self.at_once and not (method.dropout and self.training):
            return self._with_update(x, A, B, method)
        out = self.plain(x, *args, **kwargs)
        return out + self._update(x, A, B, method).to(out.dtype)

    def plain(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the output without an adapter, by the forward that the module has of its own."""
        own = self.replaced_forward
        out: Tensor = super().forward(*args, **kwargs) if own is None else own(*args, **kwargs)
        return out

    def _input(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
        """What goes in, apart from other arguments, also where it is given by name."""
        if args:
            return args[0], args[1:], kwargs
        name = list(inspect.signature(self.original_class.forward).parameters)[1]
        if name not in kwargs:
            raise TypeError(f"forward() is missing its input, {name}")
        return kwargs[name], (), {key: value for key, value in kwargs.items() if key != name}

    def _with_update(self, x: Tensor, A: Tensor, B: Tensor, method: LoRA) -> Tensor:
        """The output with the update, of a kind that makes both at once."""
        raise NotImplementedError

    def _update(self, x: Tensor, A: Tensor, B: Tensor, method: LoRA) -> Tensor:
        """What the adapter adds to the output, with dropout in training."""
        raise NotImplementedError

    def _rescaled(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Output of an IA3 layer."""
        factors = self.ia3_l
        if self.is_feedforward():
            return self.plain((x * self.along_inputs(factors)).to(x.dtype), *args, **kwargs)
        out = self.plain(x, *args, **kwargs)
        return (out * self.along_outputs(factors)).to(out.dtype)

    def is_feedforward(self) -> bool:
        """Whether the active IA3 adapter rescales inputs."""
        return self.active in self.feedforward

    def along_inputs(self, factors: Tensor) -> Tensor:
        """IA3's factors in the shape in which they multiply an input."""
        return factors.flatten()

    def along_outputs(self, factors: Tensor) -> Tensor:
        """IA3's factors in the shape in which they multiply an output."""
        return factors.flatten()

    @torch.no_grad()
    def delta_weight(self, name: str) -> Tensor:
        """``delta_W`` of one adapter in the layout of this module's own weight, in float32 at least."""
        method, weight = self.methods[name], self.weight
        if isinstance(method, IA3):
            return self._rescaling(self.factor("ia3_l", name), weight, inputs=name in self.feedforward)
        factors = self.factor("lora_A", name), self.factor("lora_B", name)
        A, B = (factor.to(torch.promote_types(factor.dtype, torch.float32)) for factor in factors)
        return self._composed(A, B, method)

    def _composed(self, A: Tensor, B: Tensor, method: LoRA) -> Tensor:
        """``scale * B A`` in the layout of the weight."""
        d_out, d_in = sizes(self)
        delta_W = A.new_zeros(d_out, d_in)
        blocks = B.split([stop - start for start, stop in group_rows(self, method)])
        for place, A_g, B_g in zip(group_rows(self, method), A.split(method.r), blocks, strict=True):
            delta_W[slice(*place)] = method.scale * (B_g @ A_g)
        return delta_W

    def _rescaling(self, factors: Tensor, weight: Tensor, *, inputs: bool) -> Tensor:
        return weight * (factors.to(weight.dtype) - 1)

    def merge(self) -> None:
        """Put the active adapter into the weights; the weights that were are kept, and come back with `unmerge`.

        Raises
        ------
        ValueRangeError : the layer does not hold its weight as numbers that can be added to, or would not give merged
            what it gives unmerged; it stays as it is
        """
        if self.active is None or self.merged:
            return
        weight: nn.Parameter | None = self._parameters.get("weight")
        if weight is None or not weight.is_floating_point():
            kind = "is computed from others" if weight is None else f"holds {weight.dtype}"
            raise ValueRangeError(
                f"a layer must hold its weight as floating-point numbers to be merged: got one that {kind}; make it so "
                "first, or leave the adapter unmerged"
            )
        bias = self._parameters.get("bias")
        with torch.no_grad():
            delta_W = self.delta_weight(self.active)
            merged = (weight + delta_W).to(weight.dtype)
        # a parameter of its own: a weight that is tied to another module's must not change there
        new = nn.Parameter(merged, requires_grad=weight.requires_grad)
        if isinstance(self.methods[self.active], LoRA):
            self._require_same_output(weight, new, delta_W)
        self.original = weight, bias
        self.weight = new
        if bias is not None and self.ia3_rescales_bias():
            factors = self.ia3_l.detach().flatten().to(bias.dtype)
            self.bias = nn.Parameter(bias.detach() * factors, requires_grad=bias.requires_grad)
        self.merged = True

    def _require_same_output(self, weight: nn.Parameter, merged: nn.Parameter, delta_W: Tensor) -> None:
        """Refuse a forward to which a change of the weight is not that change of the output."""

    def ia3_rescales_bias(self) -> bool:
        """Whether the active adapter multiplies the output, and so the bias."""
        return isinstance(self.methods[self.active or ""], IA3) and not self.is_feedforward()

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
        super()._apply(fn, recurse)
        if self.original is not None:
            weight, bias = self.original
            self.original = _moved(weight, fn), None if bias is None else _moved(bias, fn)
        return self

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        """Take a state; refuse weights while they are merged, since `unmerge` would throw them away."""
        if self.merged and f"{prefix}weight" in state_dict:
            errors: list[str] = args[-1]
            errors.append(
                f"{prefix}weight must not be loaded while an adapter is merged into it: unmerge first"
            )
            return
        super()._load_from_state_dict(state_dict, prefix, *args)


def _moved(parameter: nn.Parameter, fn: Any) -> nn.Parameter:
    """A parameter after what ``nn.Module.to`` and its kin do; the same object where torch allows that."""
    with torch.no_grad():
        value = fn(parameter)
    try:
        parameter.data = value
    except RuntimeError:  # of a device without storage
        return nn.Parameter(value, requires_grad=parameter.requires_grad)
    return parameter


_STATE = ("methods", "active", "merged", "merge_on_eval", "feedforward", "original", "replaced_forward")
_OWN = [name for name in vars(AdaptedLayer) if not (name.startswith("_") or hasattr(nn.Module, name))]
_TAKEN = (*PARTS, *_STATE, *_OWN)


def taken_name(module: nn.Module) -> str | None:
    """An attribute of a module without adapters whose name an adapted layer needs, None where there is none."""
    return next((name for name in _TAKEN if hasattr(module, name)), None)
