"""Every layer of a model with its state, adapted, kept, trained or frozen, its shapes, parameters and operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from subspace.text import counted, shown
from subspace.training import meters
from subspace.training.adapted_layer import AdaptedLayer
from subspace.training.injection import adapted

__all__ = ["LayerRow", "LayerTable", "layer_table"]

_SCHEMA = "subspace.layers/1"


@dataclass(frozen=True)
class LayerRow:
    """One module that has parameters of its own.

    Attributes
    ----------
    name : of the module; "" for the model itself
    type : name of its class without adapters
    state : "adapted", "kept" (trained whole besides an adapter), "trained" (without any adapter) or "frozen"
    shape : of its weight
    output : shape of its first output in one forward pass; None where it was not called
    parameters : those of the base; one that is tied is counted in the first module that has it
    trainable : parameters that are trained, of the adapter or of the base
    flops : operations of its matrix products and convolutions in one forward pass; None where none was run
    """

    name: str
    type: str
    state: str
    shape: tuple[int, ...]
    output: tuple[int, ...] | None
    parameters: int
    trainable: int
    flops: int | None


@dataclass(frozen=True)
class LayerTable:
    """Every module of a model that has parameters, in the model's order.

    Attributes
    ----------
    layers : the rows
    flops : operations of one forward pass in all, with those outside the layers, such as attention's; None without one
    """

    layers: tuple[LayerRow, ...]
    flops: int | None

    @property
    def parameters(self) -> int:
        """Number of parameters of the base."""
        return sum(row.parameters for row in self.layers)

    @property
    def trainable(self) -> int:
        """Number of parameters that are trained."""
        return sum(row.trainable for row in self.layers)

    def document(self) -> dict[str, Any]:
        """Return the table as plain values by name."""
        return {
            "schema": _SCHEMA,
            "layers": [
                {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(row).items()}
                for row in self.layers
            ],
            "parameters": self.parameters,
            "trainable": self.trainable,
            "flops": self.flops,
        }

    def lines(self) -> list[str]:
        """Return the table for a terminal, and its totals."""
        table = [_HEADINGS, *(_cells(row) for row in self.layers)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ["  ".join(map(_placed, cells, widths, _LEFT)).rstrip() for cells in table]
        states = [row.state for row in self.layers]
        counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(sorted(states)))
        share = 100 * self.trainable / max(1, self.parameters)
        totals = [
            f"{counted(len(states), 'layer')}: {counts}",
            f"{self.parameters:,} parameters, {self.trainable:,} trained ({share:.3g} %)",
        ]
        flops = [f"{self.flops:.4g} FLOPs in the forward pass of one micro-batch"] if self.flops else []
        return [*lines, *totals, *flops]


_HEADINGS = ("layer", "type", "state", "weight", "output", "parameters", "trained", "FLOPs")
_LEFT = (True, True, True, True, True, False, False, False)


def _cells(row: LayerRow) -> tuple[str, ...]:
    sizes = ("x".join(map(str, shape or ())) for shape in (row.shape, row.output))
    flops = f"{row.flops:,}" if row.flops else ""
    return (shown(row.name), row.type, row.state, *sizes, f"{row.parameters:,}", f"{row.trainable:,}", flops)


def _placed(text: str, width: int, left: bool) -> str:
    return text.ljust(width) if left else text.rjust(width)


def layer_table(model: nn.Module, forward: Callable[[], object] | None = None) -> LayerTable:
    """Return every module of a model that has parameters.

    Parameters
    ----------
    model : adapted, or trained itself; its modes are put back
    forward : one forward pass, for the outputs' shapes and the operations; it is run in evaluation mode, without
        gradients
    """
    outputs: dict[str, tuple[int, ...]] = {}
    counts: Mapping[str, int] = {}
    if forward is not None:
        outputs, counts = _run(model, forward)
    rows, seen = [], set[int]()
    trained_itself = not adapted(model)
    for name, module in model.named_modules():
        own = dict(module.named_parameters(recurse=False))
        factors = {id(p) for p in _factors(module)}
        base = {key: p for key, p in own.items() if id(p) not in factors}
        if not own or (not base and not factors):
            continue
        fresh = [p for p in own.values() if id(p) not in seen]
        seen |= {id(p) for p in fresh}
        whole = any(p.requires_grad for p in base.values())
        active = isinstance(module, AdaptedLayer) and module.active
        rows.append(
            LayerRow(
                name=name,
                type=getattr(module, "original_class", type(module)).__name__,
                state="adapted"
                if active
                else ("trained" if trained_itself else "kept")
                if whole
                else "frozen",
                shape=_shape(base or own),
                output=outputs.get(name),
                parameters=sum(p.numel() for p in fresh if id(p) not in factors),
                trainable=sum(p.numel() for p in fresh if p.requires_grad),
                flops=_own(name, module, counts) if forward is not None else None,
            )
        )
    return LayerTable(tuple(rows), counts.get("") if forward is not None else None)


def _factors(module: nn.Module) -> Sequence[Tensor]:
    if not isinstance(module, AdaptedLayer):
        return ()
    return [value for adapter in module.methods for value in module.factors(adapter).values()]


def _shape(parameters: Mapping[str, Tensor]) -> tuple[int, ...]:
    return tuple(parameters.get("weight", next(iter(parameters.values()))).shape)


def _own(name: str, module: nn.Module, counts: Mapping[str, int]) -> int:
    """The operations of a module without those of the modules in it."""
    inner = (f"{name}.{child}" if name else child for child, _ in module.named_children())
    return counts.get(name, 0) - sum(counts.get(child, 0) for child in inner)


@torch.no_grad()
def _run(
    model: nn.Module, forward: Callable[[], object]
) -> tuple[dict[str, tuple[int, ...]], dict[str, int]]:
    """The shape of each module's first output and the operations in it, by the module's name."""
    outputs: dict[str, tuple[int, ...]] = {}

    def noted(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_: nn.Module, args: Any, out: Any) -> None:
            first = out[0] if isinstance(out, tuple | list) and out else out
            if isinstance(first, Tensor):
                outputs.setdefault(name, tuple(first.shape))

        return hook

    modes = [(module, module.training) for module in model.modules()]
    with ExitStack() as undone:
        for name, module in model.named_modules():
            undone.callback(module.register_forward_hook(noted(name)).remove)
        try:
            counts = meters.flops_by_module(model.eval(), forward)
        finally:
            for module, training in modes:
                module.training = training
    return outputs, counts
