"""What is trained on what, and how: everything that decides the numbers of a run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from subspace.errors import ValueRangeError
from subspace.text import shown
from subspace.training.method import Method
from subspace.training.methods import every
from subspace.training.methods.lora import LoRA
from subspace.training.recipe import Recipe

__all__ = ["FORMATS", "Job"]

FORMATS = ("peft", "loralib")
# they decide no number, or stand in the settings by other names
_NOT_SETTINGS = ("recipe", "method", "accounts", "save_every", "threads", "device", "gradient_checkpointing")


@dataclass(frozen=True)
class Job:
    """What is trained on what, and how: all that decides the numbers of a run.

    Attributes
    ----------
    model : "embedded", a Hugging Face directory, or a hub id
    data : path of a text, JSONL, CSV or TSV file or a folder of texts; None: Python's own help topics
    method : such as `LoRA`, `IA3` or `Full`
    targets : patterns of the modules to adapt; () for the model's query and value projections
    keep : patterns of modules that are trained whole as well; a new classifier always is
    recipe : steps, batches, rates and seeds
    text_column, label_column : of a table, where their names are not among the customary ones
    labels : False: the texts of a table alone, whatever columns it has
    tokenizer : "auto" (the model's own) or "bytes"
    format : "peft" or "loralib"
    save_every : steps between checkpoints; 0 for none
    device : "auto" (CUDA where there is one), "cpu" or "cuda"
    threads : of the processor; 0: one, or for larger models all cores where that is measured to be faster
    gradient_checkpointing : compute each block once more in the backward pass, for less memory; up to
        rounding the same numbers
    accounts : compare the run's costs with those of full fine-tuning when it is done
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
    gradient_checkpointing: bool = False
    accounts: bool = True

    def __post_init__(self) -> None:
        for name in ("model", "data"):
            if isinstance(given := getattr(self, name), os.PathLike):
                object.__setattr__(self, name, os.fspath(given))
        for name in ("targets", "keep"):
            if isinstance(given := getattr(self, name), str):
                object.__setattr__(self, name, (given,))
        self._require_method()
        for name in ("text_column", "label_column"):
            if getattr(self, name) is not None and self.data is None:
                raise ValueRangeError(
                    f"There are no data with a column '{shown(getattr(self, name))}'; give `data`, or leave "
                    f"`{name}` out"
                )
        if self.label_column is not None and not self.labels:
            raise ValueRangeError(
                f"A column of labels is given, {shown(self.label_column)}, and labels are turned off; leave "
                "`label_column` out, or turn labels on"
            )
        for name in ("save_every", "threads"):
            if getattr(self, name) < 0:
                raise ValueRangeError(f"`{name}` is negative: {getattr(self, name)}; give 0 or more")

    def _require_method(self) -> None:
        if not isinstance(self.method, Method):
            known = " or ".join(f"{method.__name__}(...)" for method in every().values())
            raise ValueRangeError(
                f"Not a training method: {shown(repr(self.method), longest=60)}; give {known}"
            )
        if self.format not in FORMATS:
            raise ValueRangeError(
                f"Unknown format '{shown(self.format)}'; give `format` as one of {', '.join(FORMATS)}"
            )
        if self.format not in self.method.formats:
            raise ValueRangeError(
                f"The format {self.format} cannot hold what the method {self.method.name} trains; give `format` "
                f"{' or '.join(self.method.formats)}"
            )

    def settings(self) -> dict[str, Any]:
        """Return everything that must be the same for a run to go on, as plain values by name."""
        own = {name: value for name, value in vars(self).items() if name not in _NOT_SETTINGS}
        return _plain({**own, "method": _plain(self.method.document()), **asdict(self.recipe)})

    def document(self) -> dict[str, Any]:
        """Return the whole job as plain values that JSON has; `from_document` reads them back."""
        recipe = _plain(asdict(self.recipe))
        return _plain({**vars(self), "method": _plain(self.method.document()), "recipe": recipe})

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Job:
        """Return the job that a document describes.

        Parameters
        ----------
        document : as `document` gives it, or JSON made of that

        Raises
        ------
        ValueRangeError : a value is out of its range

        Examples
        --------
        >>> job = Job(method=LoRA(r=4, groups=(True, False, True)), targets=("c_attn",))
        >>> Job.from_document(job.document()) == job
        True
        """
        method = _with_tuples(document["method"])
        kind = every()[method.pop("kind")]
        recipe = Recipe(**document["recipe"])
        return cls(**{**_with_tuples(document), "method": kind(**method), "recipe": recipe})


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values that JSON has, of which a NumPy scalar is none."""
    plain = {name: value.item() if hasattr(value, "item") else value for name, value in values.items()}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}


def _with_tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
