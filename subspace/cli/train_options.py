"""The options of ``subspace train``, by what they decide; those of a training method are declared in its file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

import click

from subspace.cli.number_types import Groups, Number, Real, Whole
from subspace.training.data.control_text import LABEL_CONTROLS
from subspace.training.data.together import UNLABELLED
from subspace.training.job import FORMATS, TRAIN_ON, Job
from subspace.training.method import Method, Option
from subspace.training.methods import every
from subspace.training.recipe import Recipe

__all__ = [
    "chosen_method",
    "data_options",
    "loop_options",
    "method_options",
    "run_options",
    "setting_names",
]

_F = TypeVar("_F", bound=Callable[..., Any])
_RECIPE, _JOB = Recipe(), Job()


def _with(command: _F, *options: Callable[[_F], _F]) -> _F:
    """Add options, which the help lists in this order."""
    for option in reversed(options):
        command = option(command)
    return command


def _one_of(name: str, *choices: str, help: str) -> Callable[[_F], _F]:
    return click.option(name, type=click.Choice(choices), default=choices[0], show_default=True, help=help)


def _number(name: str, kind: Any, default: float, help: str) -> Callable[[_F], _F]:
    return click.option(name, type=kind, default=default, show_default=True, help=help)


def _whole(name: str, default: int, help: str, *, least: int = 1) -> Callable[[_F], _F]:
    return _number(name, Whole(least), default, help)


def _names(flag: str, name: str, help: str) -> Callable[[_F], _F]:
    return click.option(flag, name, multiple=True, metavar="NAME", help=help)


def data_options(command: _F) -> _F:
    """Add what is trained, and on what."""
    return _with(
        command,
        *_files(),
        *_labels(),
        _one_of("--tokenizer", "auto", "bytes", help="The model's own tokenizer, or bytes as token ids."),
        _number(
            "--held-out",
            Number(0, 0.5, max_open=True),
            _RECIPE.held_out,
            "Fraction of the data held out for evaluation.",
        ),
        click.option(
            "--held-out-data",
            multiple=True,
            metavar="PATH",
            help="Held-out data of their own, in place of a fraction; named and read like --data.",
        ),
    )


def _files() -> tuple[Callable[[_F], _F], ...]:
    return (
        click.option(
            "--model",
            default=_JOB.model,
            show_default=True,
            help="Base model: a Hugging Face directory or hub id, hf://org/name (extra hf); embedded is the small "
            "model inside this package.",
        ),
        click.option(
            "--data",
            multiple=True,
            metavar="PATH",
            help="Training data: text, JSONL, CSV, TSV or Parquet, a folder of texts, or a saved datasets.Dataset "
            "(extra data); several files, or a pattern such as 'part-*.csv', are read as one. A table with "
            "labels trains a classifier. For a control to compare with, scrambled (characters shuffled), "
            "scrambled-words (words shuffled), scrambled-tokens (tokens of each text shuffled) or uniform "
            "(random characters), of a text of your own as scrambled:PATH; labels are then shuffled among the "
            "texts. --control-labels shuffles labels alone.  [default: Python's own help topics]",
        ),
        _names(
            "--text-column",
            "text_column",
            "Column with the texts, if not called text, sentence or the like; given twice, those of a pair, or of a "
            "prompt and its completion.",
        ),
        click.option(
            "--encoding",
            metavar="NAME",
            help="Encoding of the data, such as cp949 or utf-16.  [default: utf-8]",
        ),
    )


def _labels() -> tuple[Callable[[_F], _F], ...]:
    return (
        click.option(
            "--label-column",
            metavar="NAME",
            help="Column with the labels, if not called label, class or the like.",
        ),
        click.option(
            "--labels/--no-labels",
            default=True,
            help="Train a classifier if the data have labels; --no-labels models the texts alone.  [default: labels]",
        ),
        _one_of(
            "--train-on",
            *TRAIN_ON,
            help="Of prompts with completions, and of conversations, learn what answers, or all of the text.",
        ),
        click.option(
            "--control-labels",
            type=click.Choice(tuple(LABEL_CONTROLS)),
            help="For a control to compare with, labels shuffled among the texts, or drawn uniformly from the classes; "
            "the texts stay as they are, and so do data of --held-out-data.",
        ),
        _one_of(
            "--unlabelled",
            *UNLABELLED,
            help="Rows whose label is empty, nan or -1: refuse the data, drop the rows, or keep nan and -1 as classes.",
        ),
    )


def method_options(command: _F) -> _F:
    """Add how the model is adapted."""
    methods = every()
    about = "; ".join(f"{name}: {method.about}" for name, method in methods.items())
    return _with(
        command,
        click.option(
            "--method",
            type=click.Choice(list(methods)),
            default=_JOB.method.name,
            show_default=True,
            help=f"What is trained. {about}.",
        ),
        _names(
            "--targets",
            "targets",
            "Modules to adapt, by the ends of their names or as patterns with *; all-linear is every linear layer but "
            "the output layer, as PEFT has it; may be repeated.  [default: query and value projections]",
        ),
        _names(
            "--exclude",
            "exclude",
            "Modules not to adapt although --targets matches them, by the same patterns; may be repeated.",
        ),
        _names("--keep", "keep", "Modules to train whole in addition to the adapter; may be repeated."),
        *(_of_method(option, users[0]) for option, users in _method_options().values()),
    )


def _method_options() -> dict[str, tuple[Option, list[type[Method]]]]:
    """Every option of a method by its flag, with the methods that have it; the default method's come first."""
    found: dict[str, tuple[Option, list[type[Method]]]] = {}
    for method in sorted(every().values(), key=lambda method: method.name != _JOB.method.name):
        for option in method.options:
            found.setdefault(option.flag, (option, []))[1].append(method)
    return found


def setting_names() -> dict[str, str]:
    """Settings of methods in messages -> their options; those of the default method come first."""
    found: dict[str, str] = {}
    for flag, (option, _) in _method_options().items():
        found.setdefault(option.setting, flag)
    return found


def _parameter(flag: str) -> str:
    """The name of an option's value: two methods may have settings of one name under different flags."""
    return flag.lstrip("-").replace("-", "_")


def _of_method(option: Option, method: type[Method]) -> Callable[[_F], _F]:
    default = {setting.name: setting.default for setting in fields(method)}[option.setting]
    if option.kind == "flag":
        return click.option(option.flag, _parameter(option.flag), is_flag=True, help=option.help)
    if option.kind == "names":
        return _names(option.flag, _parameter(option.flag), option.help)
    if option.kind == "groups":
        kind: Any = Groups()
        return click.option(option.flag, _parameter(option.flag), type=kind, metavar="q,v", help=option.help)
    if option.kind == "choice":
        kind = click.Choice(option.choices)
    elif option.least is None and option.below is None:
        kind = Real() if isinstance(default, float) else click.INT
    else:
        ranged: Any = Whole if isinstance(default, int) else Number
        kind = ranged(option.least, option.below, max_open=option.below is not None)
    return click.option(
        option.flag, _parameter(option.flag), type=kind, default=default, show_default=True, help=option.help
    )


def chosen_method(context: click.Context) -> Method:
    """The method of a command line.

    Raises
    ------
    UsageError : an option was given that the chosen method does not have
    """
    values = context.params
    method, given = every()[values["method"]], {}
    for flag, (option, users) in _method_options().items():
        if context.get_parameter_source(_parameter(flag)) is click.core.ParameterSource.DEFAULT:
            continue
        if method not in users:
            needed = " or ".join(f"--method {user.name}" for user in users)
            raise click.UsageError(f"{flag} needs {needed}")
        given[option.setting] = values[_parameter(flag)]
    return method.from_options(given, seed=values["seed"], targets=values["targets"])


def loop_options(command: _F) -> _F:
    """Add the recipe."""
    rates = ", ".join(f"{name} {method.lr:g}" for name, method in every().items())
    return _with(
        command,
        _whole("--seed", 0, "Seed of the adapter's start, of dropout and of a new classifier.", least=0),
        _whole("--data-seed", 0, "Seed of the order of the data.", least=0),
        _whole("--steps", _RECIPE.steps, "Number of optimiser steps."),
        click.option(
            "--epochs",
            type=Number(0, min_open=True),
            help="Number of passes through the training examples, in place of --steps: steps = epochs * examples / "
            "(batch * accumulate), rounded up.",
        ),
        _whole("--batch", _RECIPE.batch, "Examples, or windows of text, per micro-batch."),
        _whole("--accumulate", _RECIPE.accumulate, "Micro-batches accumulated per optimiser step."),
        _whole(
            "--length",
            _RECIPE.length,
            "Tokens per window of text; examples with labels or completions are cut to this length.",
        ),
        click.option("--lr", type=Real(), help=f"Peak learning rate.  [default by method: {rates}]"),
        _one_of(
            "--schedule", "cosine", "linear", "constant", help="Learning rate schedule after the warm-up."
        ),
        _number(
            "--warm-up",
            Number(0, 1, max_open=True),
            _RECIPE.warm_up,
            "Fraction of the steps in which the learning rate rises to its peak.",
        ),
        _number("--weight-decay", Real(), _RECIPE.weight_decay, "Weight decay of AdamW, for matrices only."),
        _number("--clip", Real(), _RECIPE.clip, "Gradients are clipped to this norm; 0 turns clipping off."),
        _one_of(
            "--dtype",
            "auto",
            "float32",
            "bfloat16",
            help="Type in which matrices are multiplied; auto: bfloat16 where the hardware has it.",
        ),
    )


def run_options(command: _F) -> _F:
    """Add where and how it runs, and what it leaves."""
    return _with(
        command,
        _one_of("--device", "auto", "cpu", "cuda", help="Device to train on; auto: CUDA where there is one."),
        _number(
            "--threads",
            Whole(0),
            _JOB.threads,
            "CPU threads; 0: one, or for larger models all cores where that is measured to be faster.",
        ),
        click.option(
            "--gradient-checkpointing",
            is_flag=True,
            help="Compute each block once more in the backward pass: less memory, more time, the same numbers "
            "up to rounding.",
        ),
        _number("--save-every", Whole(0), _JOB.save_every, "Steps between checkpoints; 0 saves none."),
        _number(
            "--evaluate-every",
            Whole(0),
            _JOB.evaluate_every,
            "Steps between measures on held-out data, in the log and on stderr; 0 measures before and after.",
        ),
        _one_of(
            "--format", *FORMATS, help="Format of the result: a PEFT directory, or loralib's adapter.pt."
        ),
        click.option(
            "--accounts/--no-accounts",
            default=True,
            help="At the end, compare memory, checkpoint size and time with full fine-tuning.  [default: accounts]",
        ),
        click.option("--overwrite", is_flag=True, help="Begin anew if DIR already holds a run."),
        click.option(
            "--dry-run",
            is_flag=True,
            help="Train and write nothing; print every layer with its state, shapes, parameters and operations.",
        ),
        click.option("--json", "as_json", is_flag=True, help="With --dry-run, print strict JSON."),
        click.option(
            "-o",
            "--out",
            metavar="DIR",
            help="Directory for the adapter, its start, the log and the checkpoints.",
        ),
    )
