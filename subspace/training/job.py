"""What is trained on what, and how: everything that decides the numbers of a run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from subspace.errors import ValueRangeError
from subspace.text import shown
from subspace.training.methods import LoRA, Method
from subspace.training.recipe import Recipe

__all__ = ["FORMATS", "Job"]

FORMATS = ("peft", "loralib")


@dataclass(frozen=True)
class Job:
    """What is trained on what, and how: all that decides the numbers of a run.

    Attributes
    ----------
    model : "embedded", a Hugging Face directory, or a hub id
    data : path of a text, JSONL, CSV or TSV file or a folder of texts; None: Python's own help topics
    method : `LoRA`, `IA3` or `Full`
    targets : patterns of the modules to adapt; () for the model's query and value projections
    keep : patterns of modules that are trained whole beside them; a new classifier always is
    recipe : steps, batches, rates and seeds
    text_column, label_column : of a table, where their names are not told by themselves
    labels : False: the texts of a table alone, whatever columns it has
    tokenizer : "auto" (the model's own) or "bytes"
    format : "peft" or "loralib"
    save_every : steps between checkpoints; 0 for none
    device : "auto" (CUDA where there is one), "cpu" or "cuda"
    threads : of the processor; 0: one, or for larger models all cores where that is measured to be faster
    accounts : measure the run's costs beside full fine-tuning's when it is done
    """

    model: str = "embedded"
    data: str | None = None
    method: Method = field(default_factory=LoRA)
    targets: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    recipe: Recipe = field(default_factory=Recipe)
    text_column: str | None = None
    label_column: str | None = None
    labels: bool = True
    tokenizer: str = "auto"
    format: str = "peft"
    save_every: int = 100
    device: str = "auto"
    threads: int = 0
    accounts: bool = True

    def __post_init__(self) -> None:
        for name in ("model", "data"):
            if isinstance(given := getattr(self, name), os.PathLike):
                object.__setattr__(self, name, os.fspath(given))
        for name in ("targets", "keep"):
            if isinstance(given := getattr(self, name), str):
                object.__setattr__(self, name, (given,))
        if not isinstance(self.method, Method):
            raise ValueRangeError(
                f"a method must be LoRA(...), IA3(...) or Full(...): got {shown(repr(self.method), longest=60)}"
            )
        if self.format not in FORMATS:
            raise ValueRangeError(f"a format must be one of {', '.join(FORMATS)}: got {shown(self.format)}")
        if self.format == "loralib" and not isinstance(self.method, LoRA):
            raise ValueRangeError(
                "loralib's format holds LoRA alone: got another method; use the format peft"
            )
        if self.label_column is not None and not self.labels:
            raise ValueRangeError(
                f"labels are wanted or they are not: got none, and the column {shown(self.label_column)} of them; "
                "leave one out"
            )
        if self.save_every < 0 or self.threads < 0:
            raise ValueRangeError(
                f"steps between checkpoints and threads must not be negative: got {self.save_every} and "
                f"{self.threads}"
            )

    def settings(self) -> dict[str, Any]:
        """Everything that must be the same for a run to go on, as plain values by name."""
        apart = (
            "recipe",
            "method",
            "accounts",
            "save_every",
            "threads",
            "device",
        )  # said below, or decide no number
        method = {"kind": type(self.method).__name__.lower(), **asdict(self.method)}
        plain = {name: value for name, value in vars(self).items() if name not in apart}
        return _plain({**plain, "method": _plain(method), **asdict(self.recipe)})


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values that JSON has, of which a NumPy scalar is none."""
    plain = {name: value.item() if hasattr(value, "item") else value for name, value in values.items()}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}
