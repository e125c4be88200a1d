"""A model's passes over some data, during which the inputs of its layers are added up, and their first gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from subspace.errors import ValueRangeError
from subspace.text import shown
from subspace.training.batches import place_of
from subspace.training.input_passes import Pass
from subspace.training.input_sites import Counting, InputSite, sites_of
from subspace.training.input_sums import InputSum, begun, bytes_of
from subspace.training.layer_shapes import as_matrix, weight_of
from subspace.training.own_batches import feed

__all__ = ["InputReading", "at_rest"]


@contextmanager
def at_rest(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode within the block; modes and what requires gradients are then as they were."""
    modes = [(module, module.training) for module in model.modules()]
    trained = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, requires_grad in trained:
            parameter.requires_grad_(requires_grad)


@dataclass
class InputReading:
    """Sums over the inputs of layers, from one batch to the next.

    Attributes
    ----------
    model : which is as it was after every call
    targets : names of its layers
    k : how many eigenpairs are wanted
    full : the largest dimension of which the whole second moment is summed up
    with_gradients : whether the gradient of the loss by each layer's weight is summed up too
    sites : where inputs are read
    sums : by the name of the layer that is read
    slopes : name of a layer -> sum of the gradients by its weight
    done : how many batches were read
    """

    model: nn.Module
    targets: list[str]
    k: int
    full: int
    with_gradients: bool = False
    sites: list[InputSite] = field(default_factory=list)
    sums: dict[str, InputSum] = field(default_factory=dict)
    slopes: dict[str, Tensor] = field(default_factory=dict)
    padded: set[str] = field(default_factory=set)
    done: int = 0
    _digest: Any = field(default_factory=sha256)
    _known: str = ""

    @property
    def tokens(self) -> int:
        """How many tokens were read: of the layers that saw the most."""
        return max((total.tokens for total in self.sums.values()), default=0)

    @property
    def digest(self) -> str:
        """SHA-256 of all batches so far, in hexadecimal."""
        found: str = self._digest.hexdigest()
        return found

    @property
    def bytes(self) -> int:
        """Memory that the sums take."""
        own = sum(bytes_of(site.d, self.k, full=self.full) for site in self.sites)
        weights = [weight_of(self.model.get_submodule(name)) for name in self._sloped()]
        return own + sum(8 * weight.numel() for weight in weights)

    def look(self, first: Pass) -> None:
        """Find where inputs are read, by a forward pass that is not counted."""
        with at_rest(self.model), torch.no_grad():
            self.sites = sites_of(self.model, self.targets, lambda: first.forward(self.model))

    def begin(self) -> None:
        """Make empty sums."""
        place = place_of(self.model)
        home = torch.device("cpu") if place.type == "mps" else place  # which has no float64
        for site in self.sites:
            self.sums[site.modules[0]] = begun(site.d, self.k, full=self.full, place=home)
        for name in self._sloped():
            weight = weight_of(self.model.get_submodule(name))
            self.slopes[name] = torch.zeros(weight.shape, dtype=torch.float64, device=home)

    def _sloped(self) -> list[str]:
        """Layers whose weights have gradients: numbers, and not packed ones."""
        if not self.with_gradients:
            return []
        weights = {name: weight_of(self.model.get_submodule(name)) for name in self.targets}
        return [name for name, weight in weights.items() if weight.is_floating_point()]

    def read(
        self,
        passes: Iterable[Pass],
        *,
        tokens: int,
        after: Callable[[], None] = lambda: None,
    ) -> None:
        """Read batches until there were enough tokens.

        Parameters
        ----------
        passes : from the first batch on; those that were read already are only compared with what they were
        tokens : how many are enough
        after : called after every batch

        Raises
        ------
        ValueRangeError : the batches are not those that were read before, a loss is not finite
        """
        left = iter(passes)
        self._pass_over(left)
        counting = Counting(self.model, self.sums, self.padded)
        with at_rest(self.model), counting.running():
            while self.tokens < tokens and (each := next(left, None)) is not None:
                feed(self._digest, each.content)
                self._take(each)
                self.done += 1
                after()

    def _pass_over(self, passes: Iterator[Pass]) -> None:
        """Leave out the batches that were read already, which have to be the same."""
        self._digest = sha256()
        for each in islice(passes, self.done):
            feed(self._digest, each.content)
        if self._known and self.digest != self._known:
            raise ValueRangeError(
                "The batches are not those that were read before; give the same data in the same order, or remove the "
                "partial sums"
            )

    def _take(self, each: Pass) -> None:
        if not self.slopes:
            with torch.no_grad():
                each.forward(self.model)
            return
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
        weights = [weight_of(self.model.get_submodule(name)).requires_grad_() for name in self.slopes]
        with torch.enable_grad():
            loss = each.loss(self.model)
            if not bool(torch.isfinite(loss)):
                raise ValueRangeError(
                    f"The loss is not finite, {float(loss):g}, so there is no gradient; check the data and the model"
                )
            found = torch.autograd.grad(loss, weights, allow_unused=True)
        for total, slope in zip(self.slopes.values(), found, strict=True):
            if slope is not None:
                total.add_(slope.to(total.device, torch.float64))

    def state(self) -> dict[str, Tensor]:
        """Return all sums by name, on the processor."""
        found = {
            f"sum/{name}/{key}": value
            for name, total in self.sums.items()
            for key, value in total.state().items()
        }
        found |= {f"gradient/{name}": total for name, total in self.slopes.items()}
        return {name: value.detach().cpu() for name, value in found.items()}

    def restore(self, state: Mapping[str, Tensor], *, done: int, digest: str) -> None:
        """Go on from sums that `state` gave after `done` batches of that digest."""
        for name, total in self.sums.items():
            start = f"sum/{name}/"
            total.restore(
                {key.removeprefix(start): value for key, value in state.items() if key.startswith(start)}
            )
        for name, slope in self.slopes.items():
            slope.copy_(state[f"gradient/{name}"])
        self.done, self._known = done, digest

    def gradient(self, name: str) -> Any:
        """Return the mean gradient by a layer's weight over the batches, (d_out, d_in), as NumPy; None without one."""
        if name not in self.slopes:
            return None
        slope = self.slopes[name] / max(1, self.done)
        return as_matrix(self.model.get_submodule(name), slope).cpu().numpy()

    def require_finite(self) -> None:
        """Refuse inputs that are not finite.

        Raises
        ------
        ValueRangeError : there are some; the layer is named
        """
        for name, total in self.sums.items():
            if not bool(torch.isfinite(total.state()["sum"]).all()):
                raise ValueRangeError(
                    f"An input is not a finite number, in module {shown(name)}; check the weights of the model, or "
                    "compute in float32"
                )
