"""One claim of the paper, and what was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Finding", "Met"]


@dataclass(frozen=True)
class Met:
    """What the rule of a claim makes of one set of adapters.

    Attributes
    ----------
    verdict : what the rule says
    says : the numbers, in words
    numbers : the numbers by name, as the rule was given them
    """

    verdict: str
    says: str
    numbers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    """A claim of the paper, what was found here, and a verdict that follows from the numbers by a stated rule.

    Attributes
    ----------
    key : short name
    claim : what the paper says, in a sentence
    where : section, figure or table of the paper
    paper : the paper's numbers; empty where none were published
    here : what the rule makes of the adapters of the study
    controls : what it makes of each control, by the control's key; {} where none was measured
    nulls : the same numbers where nothing is shared or learned, in words, by what they are of: "isotropic" random spans
        or directions, "untrained"
    inputs : how much of it the inputs alone explain, "" where nothing is known of that
    verdict : that of `here`, or "holds, but so does noise" where a control meets the rule as well
    rule : the rule by which a verdict follows from the numbers
    why : why the numbers may differ from the paper's, in one or two sentences
    figure : key of the figure or table that shows it
    """

    key: str
    claim: str
    where: str
    paper: str
    here: Met
    nulls: Mapping[str, str]
    verdict: str
    rule: str
    why: str
    figure: str
    controls: Mapping[str, Met] = field(default_factory=dict)
    inputs: str = ""
