"""Batches of one's own as what a training run needs: each by its number, the same in every run, and a loss of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from subspace.errors import ValueRangeError
from subspace.text import counted, listed, shown
from subspace.training.seeds import start_seed

__all__ = ["Batches", "Loss", "OneBatch", "OwnTask", "feed"]

Loss = Callable[[Any, Any], Tensor]
_TARGETS = ("labels", "label", "targets", "target")


class Batches:
    """Batches in the order in which an iterable gives them, which begins again where it ends.

    torch's random numbers that it draws, for a shuffled order or for augmentation, depend on the seed and on the number
    of the batch alone, so that another run is given the same batches.

    Attributes
    ----------
    taken : how many batches have been taken
    """

    def __init__(self, source: Iterable[Any], *, seed: int) -> None:
        if not isinstance(source, Iterable):
            raise ValueRangeError(
                f"Not batches: {shown(type(source).__name__)} cannot be iterated over; give a list of batches or a "
                "DataLoader"
            )
        self._source, self._seed, self.taken = source, seed, 0
        self._iterator: Iterator[Any] | None = None
        self._last: Any = None
        self._digest = sha256()

    def at(self, number: int) -> Any:
        """Return batch `number`, counted from 0: the last one that was taken, or a later one.

        Raises
        ------
        ValueRangeError : there is no batch, or an iterator ended
        """
        while self.taken <= number:
            with torch.random.fork_rng(devices=()):
                torch.default_generator.manual_seed(start_seed(self._seed, "batch", self.taken))
                self._last = self._next()
            feed(self._digest, self._last)
            self.taken += 1
        return self._last

    def _next(self) -> Any:
        missing = object()
        if self._iterator is not None and (batch := next(self._iterator, missing)) is not missing:
            return batch
        if self._iterator is self._source:
            raise ValueRangeError(
                f"The batches ended after {self.taken}, in the middle of the run: an iterator cannot begin again; give "
                "a list or a DataLoader, or lower `steps`"
            )
        self._iterator = iter(self._source)
        if (batch := next(self._iterator, missing)) is missing:
            raise ValueRangeError("There are no batches: the iterable is empty; give at least one")
        return batch

    def sha256(self) -> str:
        """Return the SHA-256 of all batches that have been taken, in hexadecimal."""
        return self._digest.hexdigest()


@dataclass(frozen=True)
class OneBatch:
    """The same batch at every number.

    Attributes
    ----------
    batch : tensors, or a tuple or dict of them
    """

    batch: Any

    def at(self, number: int) -> Any:
        """Return the batch."""
        return self.batch


@dataclass
class OwnTask:
    """The loss of a model of one's own on batches of one's own; nothing is held out.

    Attributes
    ----------
    batches : by their number
    criterion : of the model's output and the target; None: the model gives the loss
    outer : what is called in place of the model: the same model, compiled or parallel
    """

    batches: Batches | OneBatch
    criterion: Loss | None = None
    outer: nn.Module | None = None

    def loss(self, model: nn.Module, step: int) -> Tensor:
        """Return the loss of batch `step`, a single number."""
        batch = _moved(self.batches.at(step), next(model.parameters()).device)
        called = model if self.outer is None else self.outer
        if self.criterion is None:
            return _single(_own_loss(_output(called, batch)))
        inputs, target = _parted(batch)
        return _single(self.criterion(_output(called, inputs), target))

    def output(self, model: nn.Module, step: int) -> Any:
        """Return what the model gives for batch `step`, of whose target it is not told where there is a criterion."""
        batch = _moved(self.batches.at(step), next(model.parameters()).device)
        return _output(model, batch if self.criterion is None else _parted(batch)[0])

    def held_out(self, model: nn.Module) -> dict[str, float]:
        """Return {}."""
        return {}


def _output(model: nn.Module, inputs: Any) -> Any:
    """What a model gives for a dict of arguments by name, a tuple or list of them, or one."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple | list) else model(inputs)


def _parted(batch: Any) -> tuple[Any, Any]:
    """Inputs and target: the last of a tuple, the labels of a dict; a tensor alone is both."""
    if isinstance(batch, Mapping):
        names = [name for name in _TARGETS if name in batch]
        if len(names) != 1:
            raise ValueRangeError(
                f"No target in a batch with {listed(batch, most=8)}: with `loss` a dict needs one of "
                f"{', '.join(_TARGETS)}; rename its entry, or give no `loss` where the model gives its own"
            )
        return {key: value for key, value in batch.items() if key != names[0]}, batch[names[0]]
    if isinstance(batch, tuple | list) and batch:
        return batch[:-1] or batch, batch[-1]
    return batch, batch


def _own_loss(output: Any) -> Any:
    """The loss that a model gives: its output, or what that calls loss."""
    loss = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    if loss is None and isinstance(output, Tensor) and output.numel() == 1:
        return output
    if loss is None:
        what = (
            f"a tensor of shape {tuple(output.shape)}"
            if isinstance(output, Tensor)
            else type(output).__name__
        )
        raise ValueRangeError(
            f"The model gives no loss: its output is {shown(what)}; give `loss`, a function of output and target"
        )
    return loss


def _single(loss: Any) -> Tensor:
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        found = f"of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
        raise ValueRangeError(f"The loss is not a single number but {shown(found)}; give one that is a mean")
    return loss.reshape(())


def _moved(value: Any, device: torch.device) -> Any:
    """A batch with its tensors on a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {key: _moved(each, device) for key, each in value.items()}
    if isinstance(value, tuple | list):
        moved = [_moved(each, device) for each in value]
        return moved if isinstance(value, list) else tuple(moved)
    return value


def feed(digest: Any, value: Any) -> None:
    """Add a batch to a digest: numbers with type and shape; of an object that is none of these its class alone."""
    if isinstance(value, Tensor) and value.layout == torch.strided:
        plain = value.detach().cpu().contiguous()
        digest.update(f"{plain.dtype}{tuple(plain.shape)}".encode())
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    elif isinstance(value, np.ndarray):
        digest.update(f"{value.dtype}{value.shape}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, Mapping):
        digest.update(f"{counted(len(value), 'entry')}".encode())
        for key, each in value.items():
            digest.update(f"{key!r}:".encode())
            feed(digest, each)
    elif isinstance(value, tuple | list):
        digest.update(f"{len(value)} of".encode())
        for each in value:
            feed(digest, each)
    else:
        plain_value = isinstance(value, str | bytes | int | float | bool | None)
        digest.update((repr(value) if plain_value else type(value).__name__).encode())
