"""Files that are known and not read: what they are, for an error that names them."""

from __future__ import annotations

import re
from typing import NamedTuple

from subspace.adapters.format import Source
from subspace.errors import FormatError
from subspace.text import shown

__all__ = ["refused"]


class _Stranger(NamedTuple):
    what: str
    pattern: re.Pattern[str]


_STRANGERS = (
    _Stranger("a UniLoRA adapter (one vector): it has no A and B of its own", re.compile(r"unilora_theta")),
    _Stranger("an OFT adapter of another writer than PEFT 0.16 or later", re.compile(r"\.(oft_|boft_)")),
    _Stranger("a prompt or prefix tuning adapter: it has no A and B", re.compile(r"^prompt_embeddings")),
    _Stranger("a LoRA stored as a list without names", re.compile(r"^\d+$")),
    _Stranger("a textual inversion embedding, not an adapter", re.compile(r"^<[^>]*>$|^emb_params$")),
    _Stranger(
        "a quantised base model, not an adapter", re.compile(r"\.(qweight|SCB|absmax|quant_state\.[^.]+)$")
    ),
)


def refused(source: Source) -> FormatError | None:
    """The error that says what a file is, None if it is not one of the known strangers."""
    peft_type = source.config.get("peft_type") if source.config else None
    if isinstance(peft_type, str) and peft_type != "LORA":
        return _error(source, f"a PEFT adapter of type {shown(peft_type)}")
    for stranger in _STRANGERS:
        if any(stranger.pattern.search(key) for key in source.tensors.layout):
            return _error(source, stranger.what)
    return None


def _error(source: Source, what: str) -> FormatError:
    return FormatError(
        f"an adapter must hold pairs A and B of a known format: {source.path} is {what}, which is not read"
    )
