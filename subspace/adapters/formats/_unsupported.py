"""Kinds of files that are recognised and not supported, for an error that names them."""

from __future__ import annotations

import re
from typing import NamedTuple

from subspace.adapters.format import Source
from subspace.adapters.formats import _peft_types as types
from subspace.errors import FormatError
from subspace.text import shown

__all__ = ["refused"]


class _Kind(NamedTuple):
    what: str
    keys: re.Pattern[str]


_KINDS = (
    _Kind(
        "an OFT adapter of LyCORIS before 2.0 (oft_diag), whose blocks its readers take for different matrices",
        re.compile(r"(?:^|\.)oft_diag$"),
    ),
    _Kind(
        "an OFT adapter of PEFT before 0.16, which PEFT itself cannot load any more",
        re.compile(r"\.(oft_|boft_)"),
    ),
    _Kind(
        "a T-LoRA of LyCORIS, whose delta_W needs the start of its factors, which the file does not hold",
        re.compile(r"(?:^|\.)lambda_layer$"),
    ),
    _Kind("changes of norm layers alone (LyCORIS), which are vectors", re.compile(r"\.w_norm$")),
    _Kind("a prompt or prefix tuning adapter, which has no A and B", re.compile(r"^prompt_embeddings")),
    _Kind("a LoRA stored as a list without names", re.compile(r"^\d+$")),
    _Kind("a textual inversion embedding, not an adapter", re.compile(r"^<[^>]*>$|^emb_params$")),
    _Kind(
        "a quantised base model, not an adapter", re.compile(r"\.(qweight|SCB|absmax|quant_state\.[^.]+)$")
    ),
)


def refused(source: Source) -> FormatError | None:
    """The error that says what kind of file it is, None if it is of none that is known."""
    name = types.peft_type(source)
    if name == "LORA" or name is None:
        name = types.type_by_keys(source)
    if name is not None:
        why = types.why_not_read(name)
        return _error(source, f"a PEFT adapter of type {shown(name)}{f', {why}' if why else ''}")
    for kind in _KINDS:
        if any(kind.keys.search(key) for key in source.tensors.layout):
            return _error(source, kind.what)
    return None


def _error(source: Source, what: str) -> FormatError:
    return FormatError(
        f"Cannot read this kind of file: {what}, in {source.path}; give an adapter with pairs of A and B"
    )
