"""Full fine-tuning: the weights themselves are trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from subspace.training.method import Method

if TYPE_CHECKING:
    from torch import nn

__all__ = ["METHOD", "Full"]


@dataclass(frozen=True)
class Full(Method):
    """Full fine-tuning: the weights themselves are trained.

    Attributes
    ----------
    everything : train every parameter of the model; else the weights of the targets alone
    """

    name = "full"
    about = "all weights, or those of the targets"
    lr = 3e-4

    everything: bool = True

    @classmethod
    def from_options(cls, given: Mapping[str, Any], *, seed: int, targets: Sequence[str]) -> Full:
        """Return full fine-tuning of everything, or of the targets where some are named."""
        return cls(everything=not targets)

    @property
    def needs_targets(self) -> bool:
        """Whether targets are chosen by default: not where everything is trained."""
        return not self.everything

    def own_parameters(self, model: nn.Module, chosen: Sequence[str]) -> Iterable[nn.Parameter]:
        """Return every parameter that can be trained, or the weights of the targets."""
        if self.everything:
            return [parameter for parameter in model.parameters() if parameter.is_floating_point()]
        return [weight for module in chosen for weight in _weights(model.get_submodule(module))]


def _weights(layer: nn.Module) -> list[nn.Parameter]:
    """The weight of a layer, or what it is computed from."""
    own = layer._parameters.get("weight")
    if own is not None:
        return [own]
    return [parameter for name, parameter in layer.named_parameters() if name != "bias"]


METHOD = Full
