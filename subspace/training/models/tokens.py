"""Token ids of a text: by the model's own tokenizer, or as the bytes of UTF-8."""

from __future__ import annotations

from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from torch import nn

from subspace.checkpoints import read_json
from subspace.errors import FileError, FormatError, ShapeError, ValueRangeError
from subspace.text import shown
from subspace.training.models.model_config import transformers_errors

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "Encoded",
    "Encoder",
    "has_segments",
    "limit_of",
    "pad_of",
    "read_tokenizer",
    "require_bytes",
    "stop_of",
]

_VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "tekken.json")
_SUFFIXES = (".model", ".spm", ".tiktoken", ".bpe")
_WITHOUT_FILES = ("ByT5Tokenizer", "CanineTokenizer", "PerceiverTokenizer")
_CURE = "save the tokenizer again, or give `tokenizer` bytes"
_NO_LIMIT = 10**6  # transformers says 1e30 where it knows none


class Encoded(NamedTuple):
    """A text as token ids.

    Attributes
    ----------
    ids : no more than are wanted
    types : 0 for each token of the first of two texts, 1 for the second; None where the model makes no difference
    length : number of ids before they were cut
    """

    ids: list[int]
    types: list[int] | None
    length: int


@dataclass(frozen=True)
class Encoder:
    """Turns a text into token ids.

    Attributes
    ----------
    tokenizer : transformers', None for the bytes of UTF-8
    vocabulary : number of ids that the model has
    special : whether special tokens are added and the ids cut to `most`, as for a text to classify
    most : most ids of a text to classify
    end : id that must be the last and occur once, which a classifier of an encoder and a decoder needs; None: any
    pad : id that stands for an empty text
    where : the base, for errors
    stop : id of the end of a text, which a language model writes when it has finished; None: there is none
    typed : whether the model has types of tokens, which say of which of two texts each is
    """

    tokenizer: Any
    vocabulary: int
    special: bool
    most: int
    end: int | None
    pad: int
    where: str
    stop: int | None = None
    typed: bool = False

    def __call__(self, text: str) -> list[int]:
        """Return the ids of one text.

        Raises
        ------
        ShapeError : the tokenizer gives an id that the model does not have
        """
        return self.encoded(text).ids

    def array(self, text: str) -> NDArray[np.integer]:
        """Return all ids of one text of a stream in the smallest type that torch indexes by: uint8, or int32.

        Raises
        ------
        ShapeError : the tokenizer gives an id that the model does not have
        """
        if self.tokenizer is None:
            return np.frombuffer(bytearray(text.encode("utf-8", "replace")), dtype=np.uint8)
        return np.asarray(self(text), dtype=np.int32)

    def encoded(self, text: str, second: str | None = None) -> Encoded:
        """Return the ids of a text, or of a pair of texts, with what was cut off counted.

        Raises
        ------
        ShapeError : the tokenizer gives an id that the model does not have
        """
        ids, types = self._tokens(text, second, special=self.special)
        if not self.special:
            return Encoded(self.known(ids, text), types, len(ids))
        if self.end is not None:
            inner = [each for each in ids if each != self.end]
            return Encoded(self.known([*inner[: self.most - 1], self.end], text), None, len(inner) + 1)
        length = len(ids)
        if length > self.most:
            # the tokenizer keeps its last special token, and cuts the longer of two texts
            ids, types = self._tokens(text, second, special=True, truncation=True, max_length=self.most)
        ids = ids[: self.most] or [self.pad]
        return Encoded(self.known(ids, text), types and types[: len(ids)], length)

    def whole(self, text: str, *, special: bool, target: bool = False) -> list[int]:
        """Return all ids of a text, whatever a classifier would have cut.

        Parameters
        ----------
        text : any
        special : whether the tokenizer's special tokens are added
        target : whether it is what a decoder writes, for which some tokenizers have another vocabulary

        Raises
        ------
        ShapeError : the tokenizer gives an id that the model does not have
        """
        return self.known(self._tokens(text, None, special=special, target=target)[0], text)

    def known(self, ids: list[int], text: str) -> list[int]:
        """Return ids, all of which must be the model's.

        Raises
        ------
        ShapeError : one is not
        """
        if ids and max(ids) >= self.vocabulary:
            raise ShapeError(
                f"The tokenizer does not fit the model: it gives the id {max(ids)} for {shown(text, longest=40)}, "
                f"and the model has {self.vocabulary} ids, in {shown(self.where)}; save the model with its own "
                "tokenizer"
            )
        return ids

    def _separates(self) -> bool:
        """Whether the tokenizer puts a token of its own between two texts, as GPT-2's does not."""
        added = getattr(self.tokenizer, "num_special_tokens_to_add", None)
        return added is None or bool(added(pair=True) > added(pair=False))

    def _tokens(
        self, text: str, second: str | None, *, special: bool, target: bool = False, **cut: Any
    ) -> tuple[list[int], list[int] | None]:
        # JSON can hold an unpaired surrogate, which is no UTF-8
        raw = [each.encode("utf-8", "replace") for each in (text, second) if each is not None]
        if self.tokenizer is None:
            return list(b"\n".join(raw)), None
        texts = [each.decode() for each in raw]
        if second is not None and not self._separates():
            texts = ["\n".join(texts)]
        given = {"text_target": texts[0]} if target else dict(zip(("text", "text_pair"), texts, strict=False))
        with transformers_errors("transformers cannot use the tokenizer", self.where, _CURE):
            encoded = self.tokenizer(**given, add_special_tokens=special, verbose=False, **cut)
            types = encoded.get("token_type_ids") if self.typed and second is not None else None
            return list(encoded["input_ids"]), types


def read_tokenizer(transformers: Any, folder: Path, config: Any, given: str) -> Any:
    """Return the tokenizer in a directory.

    Parameters
    ----------
    transformers : the module
    folder : the directory
    config : of the model
    given : the base, as the user named it

    Raises
    ------
    FileError : there is none
    FormatError : transformers cannot read it
    """
    names = sorted(entry.name for entry in folder.iterdir())
    if not any(name in _VOCABULARIES or name.endswith(_SUFFIXES) for name in names):
        stated = read_json(folder / "tokenizer_config.json") if "tokenizer_config.json" in names else {}
        if stated.get("tokenizer_class") not in _WITHOUT_FILES:
            raise FileError(
                f"No tokenizer in {shown(given)}: there is none of {', '.join(_VOCABULARIES[:3])} and *.model; save "
                "the tokenizer there, or give `tokenizer` bytes"
            )
    with transformers_errors("transformers cannot read the tokenizer", given, _CURE):
        found = transformers.AutoTokenizer.from_pretrained(
            str(folder.resolve()), config=config, trust_remote_code=False, local_files_only=True
        )
        if not len(found):
            raise FormatError(f"The tokenizer of {shown(given)} has no tokens; {_CURE}")
        return found


def require_bytes(vocabulary: int, given: str) -> None:
    """Refuse a model with fewer than 256 ids, which cannot read bytes.

    Raises
    ------
    ValueRangeError : it has fewer
    """
    if vocabulary < 256:
        raise ValueRangeError(
            f"The model {shown(given)} cannot read bytes: it has {vocabulary} token ids, fewer than 256; use its own "
            "tokenizer"
        )


def pad_of(tokenizer: Any, vocabulary: int) -> int:
    """Return the id of padding: the tokenizer's, else that of its end of text, else 0; one that the model has."""
    stated = (getattr(tokenizer, "pad_token_id", None), getattr(tokenizer, "eos_token_id", None))
    return next((n for n in stated if isinstance(n, int) and 0 <= n < vocabulary), 0)


def stop_of(tokenizer: Any, vocabulary: int) -> int | None:
    """Return the id of the end of a text; None for bytes, which have none, and where the tokenizer names none."""
    stated = getattr(tokenizer, "eos_token_id", None)
    return stated if isinstance(stated, int) and 0 <= stated < vocabulary else None


def has_segments(model: nn.Module) -> bool:
    """Return whether a model has types of tokens, which say of which of two texts each is, as BERT has."""
    config: Any = model.config
    kinds = getattr(config, "type_vocab_size", None)
    return isinstance(kinds, int) and kinds > 1 and "token_type_ids" in signature(model.forward).parameters


def limit_of(model: nn.Module, tokenizer: Any) -> int | None:
    """Return the most tokens that a model takes, by its positions or by its tokenizer; None for no limit.

    Notes
    -----
    RoBERTa and its relatives count positions from the id of padding + 1. T5 has relative positions and no limit, though
    its configurations say ``n_positions``.
    """
    whole: Any = model.config
    config = whole.get_text_config()
    if getattr(config, "relative_attention_num_buckets", None) and not hasattr(
        config, "max_position_embeddings"
    ):
        return None
    stated = [getattr(config, name, None) for name in ("max_position_embeddings", "n_positions")]
    positions = next((n for n in stated if isinstance(n, int) and 0 < n < _NO_LIMIT), None)
    if positions is not None:
        return positions - _first_position(model, positions)
    longest = getattr(tokenizer, "model_max_length", None)
    return longest if isinstance(longest, int) and 0 < longest < _NO_LIMIT else None


def _first_position(model: nn.Module, positions: int) -> int:
    for name, module in model.named_modules():
        table = isinstance(module, nn.Embedding) and name.endswith("position_embeddings")
        if table and module.padding_idx is not None and module.num_embeddings == positions:
            return int(module.padding_idx) + 1
    return 0
