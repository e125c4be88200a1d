"""Turns of a conversation as data sets spell them, in the one spelling that chat templates read."""

from __future__ import annotations

from typing import Any

from subspace.training.data.jsonrows import kind_of

__all__ = ["Turns", "text_of", "turns_of"]

# each has at least "role" and "content"
Turns = tuple[dict[str, Any], ...]
_ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant"}


def turns_of(value: object) -> Turns | None:
    """Return the turns of a row; None where there is none.

    Parameters
    ----------
    value : list of {"role": ..., "content": ...}, or of {"from": ..., "value": ...} as ShareGPT writes it; other keys,
        such as "tool_calls", are kept

    Raises
    ------
    ValueError
        With what was found, for anything else.

    Examples
    --------
    >>> turns_of([{"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": "4"}])
    ({'role': 'user', 'content': '2 + 2?'}, {'role': 'assistant', 'content': '4'})
    """
    if value is None:
        return None
    if not isinstance(value, list):
        raise ValueError(kind_of(value))
    return tuple(map(_turn, value)) or None


def text_of(turns: Turns) -> str:
    """Return what is said, joined by line breaks, for a model without a chat template."""
    return "\n".join(turn["content"] for turn in turns if isinstance(turn["content"], str))


def _turn(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"a list with {kind_of(value)}")
    turn = dict(value)
    if "role" not in turn and "from" in turn:
        turn["role"] = turn.pop("from")
    if "content" not in turn:
        turn["content"] = turn.pop("value", None)
    if not isinstance(turn.get("role"), str):
        raise ValueError("a list with a turn that has no role")
    if turn["content"] is not None and not isinstance(turn["content"], str):
        raise ValueError(f"a list with a turn whose content is {kind_of(turn['content'])}")
    rest = {key: each for key, each in turn.items() if key not in ("role", "content")}
    return {"role": _ROLES.get(turn["role"], turn["role"]), "content": turn["content"], **rest}
