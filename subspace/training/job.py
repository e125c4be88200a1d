"""What is trained on what, and how: everything that decides the numbers of a run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from subspace.errors import ValueRangeError
from subspace.text import listed, shown
from subspace.training.data.control_text import LABEL_CONTROLS
from subspace.training.data.together import UNLABELLED
from subspace.training.method import Method
from subspace.training.methods import every
from subspace.training.methods.lora import LoRA
from subspace.training.recipe import Recipe

__all__ = ["FORMATS", "TRAIN_ON", "Job"]

FORMATS = ("peft", "loralib")
TRAIN_ON = ("completion", "all")
# they decide no number, or stand in the settings by other names
_NOT_SETTINGS = (
    "recipe",
    "method",
    "accounts",
    "save_every",
    "evaluate_every",
    "train_on",
    "threads",
    "device",
    "gradient_checkpointing",
)


@dataclass(frozen=True)
class Job:
    """What is trained on what, and how: all that decides the numbers of a run.

    Attributes
    ----------
    model : "embedded", a Hugging Face directory, or a hub id
    data : path of a text, JSONL, CSV, TSV or Parquet file, of a folder of texts or a saved `datasets.Dataset`, or
        several of these; None: Python's own help topics
    method : such as `LoRA`, `IA3` or `Full`
    targets : patterns of the modules to adapt; () for the model's query and value projections
    exclude : patterns of modules that are not adapted although a target matches them
    keep : patterns of modules that are trained whole as well; a new classifier always is
    recipe : steps, batches, rates and seeds
    text_column, label_column : of a table, where their names are not among the customary ones; several of texts are
        the two of a pair, or a prompt and its completion
    labels : False: the texts of a table alone, whatever columns it has
    train_on : of prompts with completions and of conversations "completion", what answers, or "all"
    control_labels : "shuffled" among the texts, or "uniform": drawn at random; None: as they are
    unlabelled : rows whose label is empty, nan or -1: "refuse" the data, "drop" them, or "keep" nan and -1 as classes
    encoding : of the data, such as "cp949"; None: UTF-8
    held_out_data : path of what is held out, or several; None: a fraction of the data, see `Recipe`
    tokenizer : "auto" (the model's own) or "bytes"
    format : "peft" or "loralib"
    save_every : steps between checkpoints; 0 for none
    evaluate_every : steps between measures on held-out data; 0 for those before and after training alone
    device : "auto" (CUDA where there is one), "cpu" or "cuda"
    threads : of the processor; 0: one, or for larger models all cores where that is measured to be faster
    gradient_checkpointing : compute each block once more in the backward pass, for less memory; up to
        rounding the same numbers
    accounts : compare the run's costs with those of full fine-tuning when it is done
    """

    model: str = "embedded"
    data: str | tuple[str, ...] | None = None
    method: Method = field(default_factory=LoRA)
    targets: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    recipe: Recipe = field(default_factory=Recipe)
    text_column: str | tuple[str, ...] | None = None
    label_column: str | None = None
    labels: bool = True
    train_on: str = TRAIN_ON[0]
    control_labels: str | None = None
    unlabelled: str = "refuse"
    encoding: str | None = None
    held_out_data: str | tuple[str, ...] | None = None
    tokenizer: str = "auto"
    format: str = "peft"
    save_every: int = 100
    evaluate_every: int = 0
    device: str = "auto"
    threads: int = 0
    gradient_checkpointing: bool = False
    accounts: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.model, os.PathLike):
            object.__setattr__(self, "model", os.fspath(self.model))
        for name in ("data", "text_column", "held_out_data"):
            object.__setattr__(self, name, _one_or_several(getattr(self, name)))
        for name in ("targets", "keep", "exclude"):
            if isinstance(given := getattr(self, name), str):
                object.__setattr__(self, name, (given,))
        self._require_method()
        for name in ("text_column", "label_column"):
            if (given := getattr(self, name)) is not None and self.data is None:
                column = given if isinstance(given, str) else given[0]
                raise ValueRangeError(
                    f"There are no data with a column '{shown(column)}'; give `data`, or leave `{name}` out"
                )
        for name, known in (("control_labels", (None, *LABEL_CONTROLS)), ("unlabelled", UNLABELLED)):
            if getattr(self, name) not in known:
                raise ValueRangeError(
                    f"Invalid `{name}` '{shown(getattr(self, name))}': it must be one of {listed(filter(None, known))}"
                )
        if self.label_column is not None and not self.labels:
            raise ValueRangeError(
                f"A column of labels is given, {shown(self.label_column)}, and labels are turned off; leave "
                "`label_column` out, or turn labels on"
            )
        for name in ("save_every", "evaluate_every", "threads"):
            if getattr(self, name) < 0:
                raise ValueRangeError(f"`{name}` is negative: {getattr(self, name)}; give 0 or more")
        self._require_learning()

    def _require_learning(self) -> None:
        if self.train_on not in TRAIN_ON:
            raise ValueRangeError(
                f"Unknown part to train on: '{shown(self.train_on)}'; give `train_on` as {' or '.join(TRAIN_ON)}"
            )
        if self.evaluate_every and not self.recipe.held_out:
            raise ValueRangeError(
                f"Nothing is held out to measure every {self.evaluate_every} steps: `held_out` is 0; give a fraction "
                "such as 0.05, or leave `evaluate_every` out"
            )

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
        self.method.require_format(self.format)

    def settings(self) -> dict[str, Any]:
        """Return everything that must be the same for a run to go on, as plain values by name."""
        own = {name: value for name, value in vars(self).items() if name not in _NOT_SETTINGS}
        how = asdict(self.recipe)
        # one of the two decides; a run of steps has the settings that it had before there were epochs
        del how["epochs" if self.recipe.epochs is None else "steps"]
        if not self.exclude:  # as runs have it from before there was such a setting
            del own["exclude"]
        return _plain({**own, "method": _plain(self.method.document()), **how})

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


def _one_or_several(given: Any) -> str | tuple[str, ...] | None:
    """Text of one path or name, a tuple of several; None where there is none."""
    if given is None or isinstance(given, (str, os.PathLike)):
        return None if given is None else os.fspath(given)
    several = tuple(map(os.fspath, given))
    return several if len(several) > 1 else next(iter(several), None)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values that JSON has, of which a NumPy scalar is none."""
    plain = {name: value.item() if hasattr(value, "item") else value for name, value in values.items()}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}


def _with_tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
