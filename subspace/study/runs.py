"""The adapters of a study one by one: those of the paper's figures and tables, and the controls beside them."""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["BARELY", "BARELY_TABLES", "BUDGET", "DOSE", "MAIN", "RANKS", "SCRAMBLED", "TABLES", "Run"]


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
    barely : whether it has a few steps only
    light : whether its batches are half as large
    held_out : whether a part of the data is held out, on which it is evaluated
    """

    name: str
    rank: int
    seed: int = 0
    weights: str = "qv"
    text: str = ""
    barely: bool = False
    light: bool = False
    held_out: bool = True


def _barely(run: Run, *, held_out: bool) -> Run:
    return replace(run, name=f"barely-{run.name}", barely=True, held_out=held_out)


MAIN = (Run("r8", 8), Run("r64", 64), Run("r64-seed1", 64, seed=1))
# the same before anything much was learned
BARELY = tuple(_barely(run, held_out=False) for run in MAIN)
# what is left where the text says nothing: the inputs
SCRAMBLED = (
    Run("scrambled-r64", 64, seed=2, text="scrambled"),
    Run("scrambled-r8", 8, seed=3, text="scrambled", light=True, held_out=False),
)
TABLES = (
    *(Run(f"r{rank}", rank) for rank in (1, 2, 4)),  # table 6; r4 is table 5's q and v too
    *(Run(f"{weight}-r8", 8, weights=weight) for weight in "qkvo"),
    Run("qk-r4", 4, weights="qk"),
    Run("qkvo-r2", 2, weights="qkvo"),
)
# the least that tables 5 and 6 could be of
BARELY_TABLES = tuple(_barely(run, held_out=True) for run in TABLES)
DOSE = (
    Run("words-r64", 64, seed=4, text="scrambled-words"),
    Run("headers-r64", 64, seed=5, text="c-headers"),
    Run("uniform-r64", 64, seed=6, text="uniform"),
)

BUDGET = ("q-r8", "k-r8", "v-r8", "o-r8", "qk-r4", "r4", "qkvo-r2")
RANKS = ("r1", "r2", "r4", "r8", "r64")
