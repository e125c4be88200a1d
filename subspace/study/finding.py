"""One claim of the paper, and what was found."""

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
    where : section, figure or table of the paper
    paper : the paper's numbers
    here : the numbers that were found
    chance : what the same numbers are by chance
    verdict : "agrees", "agrees in part", "differs" or "cannot be told"
    rule : the rule by which the verdict follows from the numbers
    why : why the numbers may differ from the paper's, in one or two sentences
    figure : key of the figure or table that shows it
    numbers : the numbers by name, as the rule was given them
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
