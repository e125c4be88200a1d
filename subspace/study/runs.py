"""The adapters of a study one by one: those of the paper's figures and tables, and the controls beside them."""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["BARELY", "BUDGET", "DOSE", "MAIN", "RANKS", "SCRAMBLED", "TABLES", "Run"]


@dataclass(frozen=True)
class Run:
    """One adapter to train.

    Attributes
    ----------
    name : name of its folder
    rank : LoRA rank r
    seed : seed of its start and of the order of its data
    weights : the projections that it adapts, such as "qv"
    text : "" for the study's own data, the name of a control of them, or "c-headers"
    barely : whether it has a few steps only, and nothing is held out
    light : whether its batches are half as large, and nothing is held out
    """

    name: str
    rank: int
    seed: int = 0
    weights: str = "qv"
    text: str = ""
    barely: bool = False
    light: bool = False


MAIN = (Run("r8", 8), Run("r64", 64), Run("r64-seed1", 64, seed=1))
# the same before anything much was learned
BARELY = tuple(replace(run, name=f"barely-{run.name}", barely=True) for run in MAIN)
# what is left where the text says nothing: the inputs
SCRAMBLED = (
    Run("scrambled-r64", 64, seed=2, text="scrambled"),
    Run("scrambled-r8", 8, seed=3, text="scrambled", light=True),
)
TABLES = (
    *(Run(f"r{rank}", rank) for rank in (1, 2, 4)),  # table 6; r4 is table 5's q and v too
    *(Run(f"{weight}-r8", 8, weights=weight) for weight in "qkvo"),
    Run("qk-r4", 4, weights="qk"),
    Run("qkvo-r2", 2, weights="qkvo"),
)
DOSE = (
    Run("words-r64", 64, seed=4, text="scrambled-words"),
    Run("headers-r64", 64, seed=5, text="c-headers"),
    Run("uniform-r64", 64, seed=6, text="uniform"),
)

BUDGET = ("q-r8", "k-r8", "v-r8", "o-r8", "qk-r4", "r4", "qkvo-r2")
RANKS = ("r1", "r2", "r4", "r8", "r64")
