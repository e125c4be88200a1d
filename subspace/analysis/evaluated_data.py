"""The model, and the examples on which it is evaluated: what is given, and what the runs of the adapters say."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from subspace.analysis.run_settings import common_setting
from subspace.errors import ValueRangeError

if TYPE_CHECKING:
    from torch import nn

    from subspace.training.data import Examples
    from subspace.training.models import Base

__all__ = ["Settings", "base_for", "examples_of", "named_data", "settings_of", "task_and_examples"]

_HELP = "help topics"


@dataclass(frozen=True)
class Settings:
    """How data are read and shown to the model.

    Attributes
    ----------
    reading : keywords of `load_examples`, such as text_column
    tokenizer : "auto" or "bytes"; for a model in memory a tokenizer, or a function of a text that returns its ids
    length : tokens per window, or the most of a text with a class
    batch : windows or texts at a time
    held_out : fraction of the data of which the examples are, in (0, 0.5), or 1 for all of them; None: that of the run
        where the data are those of a run, else 1
    most : examples at most
    seed : of a classifier that starts at random
    train_on : of prompts with completions and of conversations, the part whose loss is measured, where a run says it
    runs : settings of the runs that trained the adapters
    """

    reading: Mapping[str, Any]
    tokenizer: Any
    length: int
    batch: int
    held_out: float | None
    most: int | None
    seed: int
    train_on: str | None
    runs: tuple[Mapping[str, Any], ...]


def settings_of(given: Mapping[str, Any], runs: Sequence[Mapping[str, Any]], *, own_data: bool) -> Settings:
    """Return the settings that were given, and for others those of the runs.

    Parameters
    ----------
    given : by name; None where nothing was given
    runs : settings of the runs that trained the adapters
    own_data : whether the data are those of the runs, so that their columns are too

    Raises
    ------
    ValueRangeError : the runs differ, or a number is out of its range
    """
    of = runs if own_data else ()
    reading = {
        name: value
        for name in _reading()
        if (value := common_setting(of, name) if given.get(name) is None else given[name]) is not None
    }
    found = {
        name: common_setting(runs, name, default) if given[name] is None else given[name]
        for name, default in (("tokenizer", "auto"), ("length", 128))
    }
    seeds = {run.get("seed", 0) for run in runs}
    held_out = given["held_out"]
    if held_out is not None and not (0 < held_out < 0.5 or held_out == 1):
        raise ValueRangeError(
            f"Invalid `held_out` {held_out}: it must be in (0, 0.5), or 1 for all of the data"
        )
    for name in ("batch", "most"):
        if given[name] is not None and given[name] < 1:
            raise ValueRangeError(f"Invalid `{name}` {given[name]}: it must be at least 1")
    rest = {name: given[name] for name in ("batch", "held_out", "most")}
    return Settings(
        reading,
        **found,
        **rest,
        seed=seeds.pop() if len(seeds) == 1 else 0,
        train_on=common_setting(of, "train_on"),
        runs=tuple(runs),
    )


def _reading() -> Sequence[str]:
    """Names of the settings that say how data are read."""
    module = import_module("subspace.training.data.load_examples")
    found: Sequence[str] = getattr(module, "READING", ("text_column", "label_column", "labels"))
    return found


def named_data(data: Any, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return name -> data of what a user gives, or of what the adapters were trained on.

    Parameters
    ----------
    data : a path, a control, `Examples`, a mapping of names to those, or a sequence of them; None for the runs' own
    runs : settings of the runs that trained the adapters

    Raises
    ------
    ValueRangeError : None, and there is no run that says what it trained on, or several that differ
    """
    if data is None:
        if not runs:
            raise ValueRangeError(
                "No data to evaluate on, and no adapter has a run.json in its directory that names some; give `data`"
            )
        data = common_setting(runs, "data")
        return {_name(data): data}
    if isinstance(data, Mapping):
        return {str(name): each for name, each in data.items()}
    several = isinstance(data, Sequence) and not isinstance(data, str | bytes)
    found: dict[str, Any] = {}
    for each in data if several else [data]:
        name = _name(each)
        found[name if name not in found else f"{name}#{len(found) + 1}"] = each
    return found


def _name(data: Any) -> str:
    path = getattr(data, "path", data)
    if isinstance(path, Sequence) and not isinstance(path, str | bytes):  # several files of one run
        return ", ".join(map(_name, path))
    return _HELP if path is None else os.path.basename(os.fsdecode(path).rstrip("/\\"))  # noqa: PTH119 - or a control


def examples_of(data: Any, settings: Settings) -> Examples:
    """Return the examples that data are, or that they name."""
    from subspace.training.data import Examples, load_examples

    if isinstance(data, Examples):
        return data
    path = os.fsdecode(data) if isinstance(data, bytes | os.PathLike) else data
    return load_examples(path, **settings.reading)


def _fraction(examples: Examples, data: Any, settings: Settings) -> float:
    """The fraction of the data that the examples are of: what no run has trained on, where it trained on the rest."""
    if settings.held_out is not None:
        return settings.held_out
    apart = getattr(examples, "held_out", None)  # a file of its own
    if apart is not None:
        return len(apart.texts) / (len(apart.texts) + len(examples.texts))
    for run in settings.runs:
        same = run.get("data_sha256") == examples.sha256 and (not examples.altered or run.get("data") == data)
        if same and run.get("held_out"):
            return float(run["held_out"])
    return 1.0


def base_for(model: Any, examples: Examples, settings: Settings) -> Base:
    """Return the model with its tokenizer and its task for some examples.

    Parameters
    ----------
    model : as `subspace.training.models.load_base` takes it, a module, or a `Base`
    """
    from torch import nn

    from subspace.training.models import Base, load_base

    if isinstance(model, Base):
        return model
    labels = examples.label_names if examples.labels is not None else ()
    if isinstance(model, nn.Module):
        return _in_memory(model, settings, labels)
    if not isinstance(settings.tokenizer, str):
        raise ValueRangeError("A `tokenizer` of your own is for a model in memory; give auto or bytes")
    return load_base(
        os.fsdecode(model),
        labels=labels,
        seed=settings.seed,
        tokenizer=settings.tokenizer,
        length=settings.length,
    )


def _in_memory(model: nn.Module, settings: Settings, labels: Sequence[str]) -> Base:
    """A model that a program holds, with its tokenizer."""
    from subspace.training.embedded.byte_llama import ByteLlama
    from subspace.training.models import Base
    from subspace.training.models.tokens import Encoder, limit_of, pad_of

    config: Any = getattr(model, "config", None)
    known = hasattr(config, "get_text_config")
    paired = bool(getattr(config, "is_encoder_decoder", False))
    given = "bytes" if settings.tokenizer == "auto" and isinstance(model, ByteLlama) else settings.tokenizer
    if given == "auto":
        raise ValueRangeError(
            f"A model in memory does not say how texts become ids: {type(model).__name__}; give `tokenizer`, the "
            "transformers tokenizer of the model or a function of a text, or bytes"
        )
    own: Any = given
    tokenizer = None if own == "bytes" else own if hasattr(own, "pad_token_id") else _Function(own)
    table = model.get_input_embeddings() if known else None  # type: ignore[operator]
    vocabulary = 2**31 if table is None else len(table.weight)
    limit = limit_of(model, tokenizer) if known else None
    task = "classify" if labels else "seq2seq" if paired else "lm"
    most = min(settings.length, limit or settings.length)
    end = config.eos_token_id if paired and labels else None
    pad = pad_of(tokenizer, vocabulary)
    name = str(getattr(config, "name_or_path", "") or type(model).__name__)
    encode = Encoder(tokenizer, vocabulary, bool(labels), most, end, pad, name)
    kind = str(getattr(config, "model_type", ""))
    return Base(model, task, encode, name, kind, limit, pad, heads=(), notes=())


class _Function:
    """A function of a text that returns its ids, in the place of a tokenizer."""

    def __init__(self, function: Callable[[str], Sequence[int]]) -> None:
        self._function = function

    def __call__(self, text: str, **_: Any) -> dict[str, Any]:
        return {"input_ids": [int(each) for each in self._function(text)]}


def task_and_examples(
    base: Base, examples: Examples, data: Any, settings: Settings
) -> tuple[Any, Any, float]:
    """Return the task, its examples to evaluate on, and the fraction of the data that those are of."""
    from subspace.training.outcomes import all_held_out, held_examples
    from subspace.training.recipe import Recipe
    from subspace.training.tasks import task_of

    fraction = _fraction(examples, data, settings)
    whole = fraction == 1
    length = min(settings.length, base.limit or settings.length)
    # a file of its own may be larger than the data, and no fraction of them
    recipe = Recipe(batch=settings.batch, length=length, held_out=0.0 if whole else min(fraction, 0.49))
    more: Any = {} if settings.train_on is None else {"train_on": settings.train_on}
    task: Any = task_of(base, examples, recipe, **more)
    if whole:
        task = all_held_out(task)
    return task, held_examples(task, settings.most), fraction
