"""Where the inputs of a model's layers are read: one place for all layers that are given the same tensor."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from subspace.training.input_sums import InputSum
from subspace.training.layer_shapes import sizes

__all__ = ["Counting", "InputSite", "sites_of"]

_RECENT = 16  # tensors that are kept alive meanwhile, so that no other one takes their place in memory


@dataclass(frozen=True)
class InputSite:
    """Layers that are given one tensor.

    Attributes
    ----------
    modules : their names, the one that is called first being the one whose input is read
    d : dimension of the input
    called : whether they were called at all
    """

    modules: tuple[str, ...]
    d: int
    called: bool = True


def sites_of(model: nn.Module, names: Sequence[str], call: Callable[[], object]) -> list[InputSite]:
    """Return where the inputs of layers are read, in the order of `names`.

    Layers are together if they were given the very same tensors, in the same order, in one forward pass. Those that it
    does not call are each alone.

    Parameters
    ----------
    model : any module
    names : of its layers
    call : a forward pass
    """
    seen = _Seen()
    with ExitStack() as hooks:
        for name in names:
            hook = model.get_submodule(name).register_forward_pre_hook(seen.reader(name), with_kwargs=True)
            hooks.callback(hook.remove)
        call()
    groups: dict[Any, list[str]] = {}
    for name in names:
        groups.setdefault(tuple(seen.numbers.get(name, ())) or name, []).append(name)
    called = list(seen.numbers)
    return [
        InputSite(
            tuple(sorted(group, key=lambda name: called.index(name) if name in seen.numbers else -1)),
            sizes(model.get_submodule(group[0]))[1],
            group[0] in seen.numbers,
        )
        for group in groups.values()
    ]


class _Seen:
    """Numbers of the tensors that each layer was given."""

    def __init__(self) -> None:
        self.numbers: dict[str, list[int]] = {}
        self._recent: deque[tuple[Any, Tensor, int]] = deque(maxlen=_RECENT)
        self._next = 0

    def reader(self, name: str) -> Callable[..., None]:
        """Return the hook of a layer."""

        def read(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = _tensor_of(args, kwargs)
            if x is not None:
                self.numbers.setdefault(name, []).append(self._number(x))

        return read

    def _number(self, x: Tensor) -> int:
        key = _identity(x)
        for n, (known, _, number) in enumerate(self._recent):
            if known == key:
                self._recent.append(self._recent[n])  # seen just now, so it is kept longer
                del self._recent[n]
                return number
        self._next += 1
        self._recent.append((key, x, self._next))
        return self._next


def _identity(x: Tensor) -> tuple[Any, ...]:
    """What two views of one tensor have in common, as long as one of them is alive and none is written to."""
    version = 0 if x.is_inference() else x._version
    empty = () if x.numel() else (id(x),)
    return (x.data_ptr(), tuple(x.shape), x.stride(), x.dtype, version, *empty)


def _tensor_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor | None:
    """The input of a layer, by position or by name."""
    return next((each for each in (*args, *kwargs.values()) if isinstance(each, Tensor)), None)


@dataclass
class Counting:
    """Adds the inputs of a model's layers to sums while its forward passes run.

    What an attention mask leaves out does not count. In a model of an encoder and a decoder the mask of the source is
    that of what the encoder works on and gives; of the decoder, its own mask or the labels that count.

    Attributes
    ----------
    model : which is as it was after `running`
    sums : by the name of the layer whose input is read
    padded : layers whose inputs have a shape to which no mask fits, although there was padding: all of it counted
    """

    model: nn.Module
    sums: Mapping[str, InputSum]
    padded: set[str] = field(default_factory=set)
    _mask: Tensor | None = None
    _target: Tensor | None = None
    _encoding: bool = False
    _encoded: Tensor | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count within the block."""
        with ExitStack() as hooks:
            for handle in self._hooks():
                hooks.callback(handle.remove)
            try:
                yield
            finally:
                self._mask = self._target = self._encoded = None

    def _hooks(self) -> Iterator[Any]:
        yield self.model.register_forward_pre_hook(self._begin, with_kwargs=True)
        encoder = self._encoder()
        if encoder is not None:
            yield encoder.register_forward_pre_hook(self._enter)
            yield encoder.register_forward_hook(self._leave)
        for name, total in self.sums.items():
            module = self.model.get_submodule(name)
            yield module.register_forward_pre_hook(self._reader(name, total), with_kwargs=True)

    def _encoder(self) -> Any:
        config = getattr(self.model, "config", None)
        return self.model.get_encoder() if getattr(config, "is_encoder_decoder", False) else None  # type: ignore[operator]

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = {**dict(zip(signature(module.forward).parameters, args, strict=False)), **kwargs}
        self._mask, self._target = _as_mask(given.get("attention_mask")), None
        if self._encoder() is not None:
            labels, own = given.get("labels"), _as_mask(given.get("decoder_attention_mask"))
            self._target = labels != -100 if own is None and isinstance(labels, Tensor) else own
            self._encoded = None

    def _enter(self, *_: Any) -> None:
        self._encoding = True

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self._encoding = False
        states = output if isinstance(output, Tensor) else output[0]
        self._encoded = states if isinstance(states, Tensor) else None

    def _reader(self, name: str, total: InputSum) -> Callable[..., None]:
        def read(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = _tensor_of(args, kwargs)
            if x is not None:
                with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
                    total.add(self._counted(name, x.detach()))

        return read

    def _counted(self, name: str, x: Tensor) -> Tensor:
        """The rows (tokens, d) of an input that count."""
        rows = x.reshape(-1, x.shape[-1])
        mask = self._mask_of(x)
        if mask is None or bool(mask.all()):
            return rows
        if x.dim() > 2 and x.shape[:2] == mask.shape:
            return x[mask].reshape(-1, x.shape[-1])
        if x.dim() == 2 and len(x) == mask.numel():
            return rows[mask.reshape(-1)]
        if not (x.dim() == 2 and len(x) == len(mask)):  # one row for each text has no padding
            self.padded.add(name)
        return rows

    def _mask_of(self, x: Tensor) -> Tensor | None:
        if self._target is None or self._encoding:
            return self._mask
        of_source = self._encoded is not None and x.data_ptr() == self._encoded.data_ptr()
        return self._mask if of_source else self._target


def _as_mask(given: Any) -> Tensor | None:
    """A mask (batch, time) of what counts; None where there is none of this shape."""
    return given != 0 if isinstance(given, Tensor) and given.dim() == 2 else None
