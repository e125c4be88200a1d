r"""Per-module settings of a PEFT configuration, matched as PEFT matches them, in bounded time.

PEFT (peft/utils/other.py, ``get_pattern_key``) takes the first key of ``rank_pattern`` that matches the module's name
as ``(.*\.)?(key)$``. The keys are a stranger's regular expressions, so those that can take exponential time are
refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

from subspace.errors import FormatError, shown

__all__ = ["Patterns"]

_T = TypeVar("_T")
_LONGEST = 1000
_MOST_QUANTIFIERS = 4
_TOKEN = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|[()|*+?]|\{\d*,?\d*\}|.", re.DOTALL)


class Patterns(Mapping[str, _T]):
    r"""The values of ``rank_pattern`` or ``alpha_pattern``, looked up by module name.

    Examples
    --------
    >>> p = Patterns({"q_proj": 8, r"layers\.[01]\.v_proj": 4}, where="rank_pattern of adapter_config.json")
    >>> p.match("model.layers.0.self_attn.q_proj"), p.match("model.layers.1.v_proj"), p.match("model.layers.2.v_proj")
    (8, 4, None)
    """

    def __init__(self, values: Mapping[str, _T], *, where: str) -> None:
        self._values = dict(values)
        self._compiled = [(key, _compiled(key, where)) for key in self._values]
        self._matched: set[str] = set()

    def __getitem__(self, key: str) -> _T:
        return self._values[key]

    def __iter__(self) -> Iterable[str]:  # type: ignore[override]
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def match(self, module: str) -> _T | None:
        """The value for a module: of the first key that matches it, None if none does."""
        if len(module) > _LONGEST:
            return None
        for key, pattern in self._compiled:
            if pattern.match(module):
                self._matched.add(key)
                return self._values[key]
        return None

    def unmatched(self) -> list[str]:
        """Keys that no module asked for so far has matched."""
        return [key for key in self._values if key not in self._matched]


def _compiled(key: str, where: str) -> re.Pattern[str]:
    if len(key) > _LONGEST or _is_dangerous(key):
        raise FormatError(
            f"a pattern must be a module name or a simple regular expression: got {shown(key)}, in {where}; "
            "nested repetition can take exponential time and is refused"
        )
    try:
        return re.compile(rf"(.*\.)?({key})$")
    except (re.error, RecursionError, OverflowError) as error:
        raise FormatError(
            f"a pattern must be a regular expression: got {shown(key)} ({error}), in {where}"
        ) from error


def _is_dangerous(key: str) -> bool:
    """Whether a group that repeats or chooses inside is itself repeated, or repetitions are many."""
    depth_has: list[bool] = [False]
    repeats, closed_with_choice = 0, False
    for token in _TOKEN.findall(key):
        quantifier = token in {"*", "+"} or (token.startswith("{") and token.endswith("}") and len(token) > 1)
        if quantifier:
            repeats += 1
            if closed_with_choice or repeats > _MOST_QUANTIFIERS:
                return True
            depth_has[-1] = True
        closed_with_choice = False
        if token == "(":
            depth_has.append(False)
        elif token == "|":
            depth_has[-1] = True
        elif token == ")" and len(depth_has) > 1:
            closed_with_choice = depth_has.pop()
            depth_has[-1] |= closed_with_choice
    return False
