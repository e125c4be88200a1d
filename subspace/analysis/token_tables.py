"""Where a base model keeps its embedding, its unembedding and the norms between them and a module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from subspace.adapters.base.tied import tied_embedding
from subspace.adapters.naming.residual_stream import EMBEDDINGS, LAST_NORMS, Stream, norm_before, stream_of

if TYPE_CHECKING:
    from subspace.adapters import BaseWeights
    from subspace.adapters.update import Update
    from subspace.geometry.lapack import Floats

__all__ = ["Table", "Tables", "Use", "Without"]

_HEADS = ("lm_head", "embed_out", "output")
_MEAN_FREE = ("cohere", "dbrx")  # whose LayerNorms have no bias
_ONE_PLUS = ("gemma", "recurrent_gemma")  # whose norms multiply by 1 + weight


class Without(NamedTuple):
    """Why tokens are not compared with a module, as a phrase."""

    why: str


@dataclass(frozen=True)
class Table:
    """A matrix (tokens, d) of the base.

    Attributes
    ----------
    key : its name in the file
    tokens, d : its shape
    tied : whether the embedding and the unembedding are one
    """

    key: str
    tokens: int
    d: int
    tied: bool = False


@dataclass(frozen=True)
class Use:
    """How a module is compared with tokens.

    Attributes
    ----------
    table : with whose rows
    side : "input", v with the embedding, or "output", u with the unembedding
    norm : name of the norm between them
    layer : beginning of the name of the module's layer
    centred : whether that norm is a LayerNorm, which takes the mean over channels off
    """

    table: Table
    side: str
    norm: str
    layer: str
    centred: bool


class Tables:
    """Finds the tables of a base model by the names of its tensors.

    Parameters
    ----------
    base : whose tensors they are
    """

    def __init__(self, base: BaseWeights) -> None:
        self.base = base
        layout = base.tensors.layout
        self._vectors = {key.removesuffix(".weight") for key, info in layout.items() if len(info.shape) == 1}

    def use(self, update: Update) -> Use | Without:
        """How a module is compared with tokens, or why it is not."""
        if update.kind != "linear":
            return Without("it is no linear layer")
        weight = self.base.weight(update)
        if weight is None:
            return Without("the base does not have it")
        stream = stream_of(weight.key.replace(".base_layer.", ".").removesuffix(".weight"))
        if not stream.side:
            return Without(stream.why)
        if self._has_norms_behind(stream):
            return Without(
                "norms stand behind the layers of its model, which change what is read and written"
            )
        return self._reading(stream, update) if stream.side == "reads" else self._writing(stream, update)

    def gain(self, norm: str) -> Floats:
        """Factor of every channel of a norm."""
        gain = np.asarray(self.base.tensors.read(self._key(norm)), dtype=np.float64)
        return 1.0 + gain if (self.base.model_type or "").startswith(_ONE_PLUS) else gain

    def _has_norms_behind(self, stream: Stream) -> bool:
        behind = f"{stream.layer}post_feedforward_layernorm" in self._vectors
        before = f"{stream.layer}pre_feedforward_layernorm" in self._vectors
        first = self.base.config.get("do_layer_norm_before") is False
        return first or (behind and (stream.side == "writes" or not before))

    def _reading(self, stream: Stream, update: Update) -> Use | Without:
        norm = norm_before(stream, self._vectors)
        if norm is None:
            return Without("the base has no norm in front of it whose gain is known")
        table = self._embedding(stream)
        return self._checked(table, "input", norm, stream, update.d_in)

    def _writing(self, stream: Stream, update: Update) -> Use | Without:
        names = [stream.model + name for name in LAST_NORMS]
        norm = next((name for name in names if name in self._vectors), None)
        if norm is None:
            return Without("the base has no last norm whose gain is known")
        return self._checked(self._unembedding(stream), "output", norm, stream, update.d_out)

    def _checked(self, table: Table | Without, side: str, norm: str, stream: Stream, d: int) -> Use | Without:
        if isinstance(table, Without):
            return table
        if table.d != d or self.base.tensors.layout[self._key(norm)].shape != (d,):
            return Without(f"the token table of the base is {table.d} wide, and the module's {side} {d}")
        bias = f"{norm}.bias" in self.base.tensors.layout
        centred = bias or (self.base.model_type or "").startswith(_MEAN_FREE)
        return Use(table, side, norm, stream.layer, centred)

    def _key(self, norm: str) -> str:
        return f"{norm}.weight" if f"{norm}.weight" in self.base.tensors.layout else norm

    def _embedding(self, stream: Stream) -> Table | Without:
        names = [stream.model + name for name in EMBEDDINGS]
        key = next((f"{name}.weight" for name in names if f"{name}.weight" in self.base.tensors.layout), None)
        if key is None:
            return Without("the base has no embedding of tokens in front of its layers")
        return self._table(key, tied=not isinstance(self._own_head(), str))

    def _unembedding(self, stream: Stream) -> Table | Without:
        own = self._own_head()
        if own is not None:
            return self._table(own)
        tied = tied_embedding("lm_head", self.base.modules, self.base.config)
        if tied is None:
            return Without(
                "the base has no unembedding, and without a config.json it is not known whether it is the embedding"
            )
        if not self.base.modules[tied].startswith(stream.model):
            return Without("the layers are not those in front of the unembedding")
        return self._table(self.base.modules[tied], tied=True)

    def _own_head(self) -> str | None:
        layout: Any = self.base.tensors.layout
        return next((f"{name}.weight" for name in _HEADS if f"{name}.weight" in layout), None)

    def _table(self, key: str, *, tied: bool = False) -> Table | Without:
        info = self.base.tensors.layout[key]
        if len(info.shape) != 2 or "float" not in info.dtype:
            return Without(f"the token table of the base is stored as {info.dtype}")
        return Table(key, info.shape[0], info.shape[1], tied)
