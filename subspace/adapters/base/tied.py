"""Weights that a file leaves out, since a model ties them to its embedding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["is_head", "tied_embedding"]

_HEADS = (
    ".lm_head",
    ".embed_out",
    ".proj_out",
    ".predictions.decoder",
    ".lm_head.decoder",
    ".vocab_projector",
)
_TABLES = ("embed_tokens", "wte", "shared", "word_embeddings", "embed_in")


def is_head(name: str) -> bool:
    """Whether a module has the name of a head that a model may tie to its embedding."""
    return f".{name}".endswith(_HEADS)


def tied_embedding(name: str, modules: Iterable[str], config: Mapping[str, Any]) -> str | None:
    """The embedding that a head, or another embedding, is tied to; None if it is neither or there is not one.

    Parameters
    ----------
    name : of a module that the base does not have
    modules : of the base
    config : of the model, without which a head is not taken to be tied

    Examples
    --------
    >>> tied_embedding("lm_head", ["transformer.wte", "transformer.h.0.mlp"], {"model_type": "gpt2"})
    'transformer.wte'
    """
    tied = bool(config) and config.get("tie_word_embeddings") is not False
    head, table = is_head(name), f".{name}".endswith(".embed_tokens")
    wanted = _TABLES if head and tied else ("shared",) if table else ()
    tables = [module for module in modules if wanted and module.rpartition(".")[2] in wanted]
    return tables[0] if len(tables) == 1 else None
