r"""Settings per module of a PEFT configuration, matched as PEFT matches them and in bounded time.

PEFT (peft/utils/other.py, ``get_pattern_key``) takes the first key of ``rank_pattern`` that matches the module's name
as ``(.*\.)?(key)$``. The keys are regular expressions from an untrusted file, and Python can take time exponential in
their length to match one. So before a key is tried on a name, the number of steps that this can take at most is
computed from the key and the length of the name, and a key that could take too many is an error. Most keys are plain
names, of which a configuration may have one for each of thousands of modules: they are looked up and not tried in turn.

The library ``regex`` could end a match after some time instead. It is not used: what a file is read as would then
depend on how fast, and how busy, the machine is. A bound of the steps gives one answer everywhere.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from subspace.errors import FormatError
from subspace.text import shown

__all__ = ["Patterns"]

_T = TypeVar("_T")
_LONGEST = 1000
_MOST_STEPS = 10**7  # of one match, about a tenth of a second
_MOST_STEPS_IN_ALL = 10**9
_STEPS_TO_COMPILE = 10**5
_STEPS_TO_TRY = 30  # what a match costs that fails at once
_STEPS_TO_LOOK_UP = 200
_MOST_REPEATS = 10
_PLAIN_NAME = re.compile(r"[\w.\-]+")
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
        self._steps = 0
        self._places = {key: place for place, key in enumerate(self._values)}
        plain = {key for key in self._values if len(key) <= _LONGEST and _PLAIN_NAME.fullmatch(key)}
        self._names = _PlainNames(plain)
        self._compiled = [(key, *self._expression(key)) for key in self._values if key not in plain]
        self._matched: set[str] = set()

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
        found = self._first(module)
        if found is None and module in self._values:
            # PEFT looks up the name itself where no expression matches it
            found = module
        if found is None:
            return None
        self._matched.add(found)
        return self._values[found]

    def _first(self, module: str) -> str | None:
        """The first key that matches, whether it is a name or an expression."""
        names = self._names.matching(module, self._spend)
        name = min(names, key=self._places.__getitem__, default=None)
        for key, pattern, cost in self._compiled:
            if name is not None and self._places[key] > self._places[name]:
                break
            self._pay(key, module, cost)
            if pattern.match(module):
                return key
        return name

    def unmatched(self) -> list[str]:
        """Keys that have matched no module so far."""
        return [key for key in self._values if key not in self._matched]

    def _expression(self, key: str) -> tuple[re.Pattern[str], _Cost]:
        self._spend(_STEPS_TO_COMPILE)
        cost = _Cost(key)
        return _compiled(key, cost, self._where), cost

    def _pay(self, key: str, module: str, cost: _Cost) -> None:
        if cost.literal:
            self._spend(_STEPS_TO_TRY + module.count("."))
            return
        steps = cost.steps(module)
        self._steps += steps
        if len(module) > _LONGEST or steps > _MOST_STEPS or self._steps > _MOST_STEPS_IN_ALL:
            raise _refused(key, self._where)

    def _spend(self, steps: int) -> None:
        self._steps += steps
        if self._steps > _MOST_STEPS_IN_ALL:
            raise FormatError(
                f"Too many patterns to match: {len(self._values)}, in {self._where}; write expressions that match many "
                "modules, or the names of modules"
            )


class _PlainNames:
    """Keys of letters, digits, hyphens and dots, found by following the parts of a name between the dots of a key.

    A dot of an expression stands for any character, so at each step only the length of the next part is known: a node
    of the tree holds, for each length, the parts that begin there, and behind each part a node.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self._root = _Node()
        self._lengths: set[int] = set()
        for key in keys:
            self._lengths.add(len(key))
            node = self._root
            for part in key.split("."):
                node = node.after.setdefault(len(part), {}).setdefault(part, _Node())
            node.key = key

    def matching(self, module: str, spend: Callable[[int], None]) -> Iterator[str]:
        """The keys that match a module, in no order; `spend` is told the steps of each look-up before it is made."""
        for end in _ends(module):
            places = [(self._root, 0)] if len(end) in self._lengths else []
            while places:
                node, start = places.pop()
                spend(_STEPS_TO_LOOK_UP * (1 + len(node.after)))
                for length, parts in node.after.items():
                    stop = start + length
                    behind = parts.get(end[start:stop]) if stop <= len(end) else None
                    if behind is None:
                        continue
                    if stop == len(end):
                        yield from (key for key in (behind.key,) if key is not None)
                    # no dot of an expression stands for the end of a line
                    elif end[stop] != "\n":
                        places.append((behind, stop + 1))


class _Node:
    """Parts of names that may come next, by length and text, and the key that ends here."""

    def __init__(self) -> None:
        self.after: dict[int, dict[str, _Node]] = {}
        self.key: str | None = None


def _ends(module: str) -> Iterator[str]:
    """The name, and what follows each dot that nothing but one line precedes; `$` is before a final end of line too."""
    module = module.removesuffix("\n")
    yield module
    for place, character in enumerate(module):
        if character == "\n":
            return
        if character == ".":
            yield module[place + 1 :]


def _refused(key: str, where: str) -> FormatError:
    return FormatError(
        f"The pattern {shown(key)} could take exponential time to match, in {where}; write it without repetitions "
        "inside or after one another, or name the modules"
    )


def _compiled(key: str, cost: _Cost, where: str) -> re.Pattern[str]:
    if len(key) > _LONGEST or cost.nested:
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
