"""From prompts with completions, or conversations, to token ids of which some are learned.

Where the learned part begins is found from the ids, not from the characters: a prompt is encoded alone and with what
follows, and what follows begins at the first id that differs. So it holds for every tokenizer, and a token across the
border is learned.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from subspace.errors import ValueRangeError
from subspace.text import shown
from subspace.training.completions import Row
from subspace.training.models.model_config import transformers_errors
from subspace.training.models.tokens import Encoder

__all__ = ["rows_of_conversations", "rows_of_prompts"]

Turns = Sequence[Mapping[str, Any]]
_MARKED = re.compile(r"\{%-?\s*generation\s*-?%\}")  # as transformers looks for it


def rows_of_prompts(
    encode: Encoder, texts: Sequence[str], prompts: Sequence[str], *, paired: bool, everything: bool = False
) -> list[Row]:
    """Return a row for each example, with an end of text after the completion.

    Parameters
    ----------
    encode : of the base
    texts : prompts with their completions
    prompts : the beginning of each text
    paired : whether the model has an encoder, which reads the prompt, and a decoder, which writes the completion
    everything : the prompt is learned too, by a model that has no encoder

    Raises
    ------
    ShapeError : the tokenizer gives an id that the model does not have
    """
    one = _paired_row if paired else _row
    return [
        one(encode, n, text, prompt, everything)
        for n, (text, prompt) in enumerate(zip(texts, prompts, strict=True))
    ]


def _row(encode: Encoder, n: int, text: str, prompt: str, everything: bool) -> Row:
    before = encode.whole(prompt, special=True)
    if getattr(encode.tokenizer, "shuffles", False):
        # a control: the tokens of the prompt and those of the completion are each shuffled by themselves
        after = encode.whole(text.removeprefix(prompt), special=False)
        whole = [*(before[:-1] if before[-1:] == [encode.stop] else before), *after]
    else:
        whole = encode.whole(text, special=True)
    ids = _ended(encode, whole)
    begin = 0 if everything else _common(ids, before)
    return Row(n, ids, [i >= begin for i in range(len(ids))])


def _paired_row(encode: Encoder, n: int, text: str, prompt: str, everything: bool) -> Row:
    # the line break at its end joins it to the completion
    source = encode.whole(prompt.removesuffix("\n"), special=True) or [encode.pad]
    ids = _ended(encode, encode.whole(text.removeprefix(prompt), special=True, target=True))
    return Row(n, ids, [True] * len(ids), source)


def _ended(encode: Encoder, ids: list[int]) -> list[int]:
    """Ids with the end of a text as the last, unless the tokenizer has put it there, or has none."""
    return ids if encode.stop is None or ids[-1:] == [encode.stop] else [*ids, encode.stop]


def rows_of_conversations(
    encode: Encoder, conversations: Sequence[Turns], *, paired: bool, everything: bool = False
) -> tuple[list[Row], list[str]]:
    """Return the rows of conversations as the chat template writes them, and notes for the user.

    Parameters
    ----------
    encode : of the base
    conversations : turns with "role" and "content"
    paired : whether the model has an encoder, which reads what was said before an assistant's turn, and a decoder
    everything : all turns are learned, by a model that has no encoder

    Returns
    -------
    rows : one per conversation where the template writes a turn in the same way whatever follows; else, and for an
        encoder and a decoder, one per turn of the assistant
    notes : one sentence each

    Raises
    ------
    ValueRangeError : the tokenizer has no chat template
    FormatError : the template refuses a conversation, such as one with a role that it does not know
    """
    chat = _Chat(encode)
    rows: list[Row] = []
    for n, turns in enumerate(conversations):
        chat.number = n + 1
        rows += chat.paired(n, turns) if paired else chat.rows(n, turns, everything=everything)
    if not chat.apart:
        return rows, []
    return rows, [
        "the chat template writes earlier turns differently once others follow, so each turn of the assistant is a row "
        "of its own, with the conversation up to it"
    ]


class _Chat:
    """A tokenizer's chat template.

    Attributes
    ----------
    number : of the conversation that is written, from 1, for errors
    apart : whether the turns of some conversation had to be taken apart
    """

    def __init__(self, encode: Encoder) -> None:
        template = getattr(encode.tokenizer, "chat_template", None)
        if not template:
            raise ValueRangeError(
                f"The tokenizer of {shown(encode.where)} has no chat template, and the data are conversations; give an "
                "instruction-tuned `model` with its own tokenizer, or `data` with prompt and completion"
            )
        self._encode, self.number, self.apart = encode, 1, False
        fast = bool(getattr(encode.tokenizer, "is_fast", False))
        self._marks = fast and isinstance(template, str) and bool(_MARKED.search(template))

    def rows(self, n: int, turns: Turns, *, everything: bool) -> list[Row]:
        """The rows of conversation `n`, for a model without an encoder."""
        if everything:
            ids = self._ids(turns)
            return [Row(n, ids, [True] * len(ids))]
        if self._marks:
            return [self._marked(n, turns)]
        ends = {k: self._text(turns[: k + 1]) for k in _spoken(turns)}
        whole = self._text(turns)
        if all(whole.startswith(text) for text in ends.values()):
            return [self._row(n, turns, whole, ends)]
        self.apart = True
        return [self._row(n, turns, text, {k: text}) for k, text in ends.items()]

    def _row(self, n: int, turns: Turns, text: str, ends: Mapping[int, str]) -> Row:
        """A row in which the turns that end with `ends` are learned."""
        ids = self._encode.whole(text, special=False)
        learned = [False] * len(ids)
        for k, end in ends.items():
            stop = len(ids) if end == text else _common(ids, self._encode.whole(end, special=False))
            begin = _common(ids, self._before(turns, k))
            learned[begin:stop] = [True] * max(0, stop - begin)
        return Row(n, ids, learned)

    def _marked(self, n: int, turns: Turns) -> Row:
        """A row in which is learned what the template itself marks."""
        given = {"tokenize": True, "return_dict": True, "return_assistant_tokens_mask": True}
        encoded = self._applied(turns, **given, tokenizer_kwargs={"verbose": False})
        self._encode.known(encoded["input_ids"], "a conversation")
        return Row(n, list(encoded["input_ids"]), [bool(each) for each in encoded["assistant_masks"]])

    def paired(self, n: int, turns: Turns) -> list[Row]:
        """A row per turn of the assistant, for a model with an encoder."""
        rows = []
        for k in _spoken(turns):
            ids = self._ids(turns[: k + 1])
            begin = _common(ids, self._before(turns, k))
            target = _ended(self._encode, ids[begin:])
            rows.append(Row(n, target, [True] * len(target), ids[:begin] or [self._encode.pad]))
        return rows

    def _before(self, turns: Turns, k: int) -> list[int]:
        """Ids of what comes before turn `k`, with the words by which the template opens it."""
        return self._ids(turns[:k], add_generation_prompt=True) if k else []

    def _ids(self, turns: Turns, **options: Any) -> list[int]:
        return self._encode.whole(self._text(turns, **options), special=False)

    def _text(self, turns: Turns, **options: Any) -> str:
        return str(self._applied(turns, tokenize=False, **options))

    def _applied(self, turns: Turns, **options: Any) -> Any:
        what = f"The chat template cannot write conversation {self.number}"
        with transformers_errors(what, self._encode.where, "check its roles and their order"):
            return self._encode.tokenizer.apply_chat_template([dict(turn) for turn in turns], **options)


def _spoken(turns: Turns) -> list[int]:
    return [k for k, turn in enumerate(turns) if turn["role"] == "assistant"]


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many ids two sequences have in common at their beginning."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
