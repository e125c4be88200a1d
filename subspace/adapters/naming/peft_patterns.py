r"""Settings per module of a PEFT configuration, matched as PEFT matches them and in bounded time.

PEFT (peft/utils/other.py, ``get_pattern_key``) takes the first key of ``rank_pattern`` that matches the module's name
as ``(.*\.)?(key)$``. The keys are regular expressions from an untrusted file, and Python can take time exponential in
their length to match one. So before a key is tried on a name, the number of steps that this can take at most is
computed from the key and the length of the name, and a key that could take too many is an error.

The library ``regex`` could end a match after some time instead. It is not used: what a file is read as would then
depend on how fast, and how busy, the machine is. A bound of the steps gives one answer everywhere.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from subspace.errors import FormatError
from subspace.text import shown

__all__ = ["Patterns"]

_T = TypeVar("_T")
_LONGEST = 1000
_MOST_STEPS = 10**7  # of one match, about a tenth of a second
_MOST_STEPS_IN_ALL = 10**9
_MOST_REPEATS = 10
_TOKEN = re.compile(
    r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?(?:[:=!>]|<[=!]|P<\w+>)|[()|*+?]|\{\d*,?\d*\}|.", re.DOTALL
)


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
        self._where = where
        self._compiled = [(key, _compiled(key, where), _Cost(key)) for key in self._values]
        self._matched: set[str] = set()
        self._steps = 0

    def __getitem__(self, key: str) -> _T:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def match(self, module: str) -> _T | None:
        """The value of the first key that matches a module, None if none does.

        Raises
        ------
        FormatError : the match could take too many steps
        """
        for key, pattern, cost in self._compiled:
            self._pay(key, module, cost)
            if pattern.match(module):
                self._matched.add(key)
                return self._values[key]
        # PEFT looks up the name itself where no expression matches it
        if module in self._values:
            self._matched.add(module)
        return self._values.get(module)

    def unmatched(self) -> list[str]:
        """Keys that have matched no module so far."""
        return [key for key in self._values if key not in self._matched]

    def _pay(self, key: str, module: str, cost: _Cost) -> None:
        if cost.literal:
            return
        steps = cost.steps(module)
        self._steps += steps
        if len(module) > _LONGEST or steps > _MOST_STEPS or self._steps > _MOST_STEPS_IN_ALL:
            raise _refused(key, self._where)


def _refused(key: str, where: str) -> FormatError:
    return FormatError(
        f"The pattern {shown(key)} could take exponential time to match, in {where}; write it without repetitions "
        "inside or after one another, or name the modules"
    )


def _compiled(key: str, where: str) -> re.Pattern[str]:
    if len(key) > _LONGEST or _Cost(key).nested:
        raise _refused(key, where)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about syntax that a later Python may change
            return re.compile(rf"(.*\.)?({key})$")
    except (re.error, RecursionError, OverflowError) as error:
        reason = shown(getattr(error, "msg", error))  # the position is one in the longer expression above
        raise FormatError(
            f"The pattern {shown(key)} is not a valid regular expression: {reason}, in {where}"
        ) from error


class _Cost:
    """An upper bound of the steps of a match, from the choices that the expression leaves open."""

    def __init__(self, key: str) -> None:
        self.nested = False
        self._repeats = 0
        self._choices = self._ways(_TOKEN.findall(key))
        self.literal = self._choices == 1 and self._repeats == 0

    def steps(self, module: str) -> int:
        """Ways to match the expression to a name: where each repetition ends, which branch, behind which dot."""
        if self._repeats > _MOST_REPEATS:
            return _MOST_STEPS + 1
        ends = math.comb(len(module) + self._repeats, self._repeats)
        return self._choices * ends * (module.count(".") + 2)

    def _ways(self, tokens: list[str]) -> int:
        """Ways through alternatives and options; also counts repetitions, and whether one holds others or choices."""
        groups, closed = [_Group()], _Group()
        for token in tokens:
            repeats = token in {"*", "+"} or (len(token) > 1 and token[0] == "{" and token[-1] == "}")
            if repeats:
                self.nested |= closed.ways > 1 or closed.repeats
                self._repeats += 1
                groups[-1].repeats = True
            elif token == "?":
                groups[-1].ways = min(2 * groups[-1].ways, _MOST_STEPS + 1)
            closed = _Group()
            if token == "|":
                groups[-1].branch()
            elif token[0] == "(":
                groups.append(_Group())
            elif token == ")" and len(groups) > 1:
                closed = groups.pop().closed()
                groups[-1].ways = min(closed.ways * groups[-1].ways, _MOST_STEPS + 1)
                groups[-1].repeats |= closed.repeats
        return groups[-1].closed().ways


@dataclass
class _Group:
    """Ways through the branch that is read, ways through those before it, and whether any has a repetition."""

    ways: int = 1
    before: int = 0
    repeats: bool = False

    def branch(self) -> None:
        self.before, self.ways = self.before + self.ways, 1

    def closed(self) -> _Group:
        return _Group(self.before + self.ways, 0, self.repeats)
