"""One claim of the paper beside what was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Finding"]


@dataclass(frozen=True)
class Finding:
    """A claim of the paper, what was found here, and a verdict that follows from the numbers by a stated rule.

    Attributes
    ----------
    key : short name
    claim : what the paper says, in a sentence
    where : its section, figure or table
    paper : its numbers
    here : the numbers found
    chance : what the same numbers are by chance
    verdict : "agrees", "agrees in part", "differs" or "cannot be told"
    rule : by which the verdict follows
    why : why the numbers may differ from the paper's, one or two sentences
    figure : key of the figure or table that shows it
    numbers : the numbers by name, as they were given to the rule
    """

    key: str
    claim: str
    where: str
    paper: str
    here: str
    chance: str
    verdict: str
    rule: str
    why: str
    figure: str
    numbers: Mapping[str, Any] = field(default_factory=dict)
