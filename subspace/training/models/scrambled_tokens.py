"""A base whose tokenizer gives the tokens of every text in random order, for an adapter to compare with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

import numpy as np

from subspace.training.data.order import permutation
from subspace.training.models.loaded_base import Base

__all__ = ["with_scrambled_tokens"]


def with_scrambled_tokens(base: Base) -> Base:
    """Return a base that reads the tokens of each text shuffled, or its bytes; special tokens stay where they are.

    A text has the same order in every run, and two texts of one length have different ones.
    """
    encode: Any = base.encode
    return replace(base, encode=replace(encode, tokenizer=_Scrambled(encode.tokenizer)))


class _Scrambled:
    """A tokenizer of transformers, or the bytes of UTF-8 where there is none, as `Encoder` calls it."""

    shuffles = True

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        special = set(getattr(tokenizer, "all_special_ids", ()))
        # an unknown word is a token of the text
        self._special = special - {getattr(tokenizer, "unk_token_id", None)}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __call__(self, *texts: str, **how: Any) -> Any:
        encoded = _bytes(*texts, **how) if self._tokenizer is None else self._tokenizer(*texts, **how)
        encoded["input_ids"] = self._shuffled(encoded["input_ids"])
        return encoded

    def _shuffled(self, ids: Sequence[int]) -> list[int]:
        """The ids with every run between two special ones shuffled: of a pair of texts, each by itself."""
        ends = [n for n, each in enumerate(ids) if each in self._special]
        shuffled: list[int] = []
        for begin, end in zip([0, *(n + 1 for n in ends)], [*ends, len(ids)], strict=True):
            run = np.asarray(ids[begin:end], np.int64)
            seed = int.from_bytes(sha256(run.tobytes()).digest()[:8], "little")
            shuffled += run[permutation(len(run), seed=seed)].tolist()
            shuffled += ids[end : end + 1]
        return shuffled


def _bytes(*texts: str, max_length: int | None = None, **how: Any) -> dict[str, Any]:
    """Bytes as `Encoder` makes them: two texts are joined by a line break."""
    given = texts or [how[name] for name in ("text", "text_target", "text_pair") if how.get(name) is not None]
    return {"input_ids": list("\n".join(given).encode("utf-8"))[:max_length]}
