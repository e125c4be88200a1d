"""The options of ``subspace train``, by what they decide; those of a training method are declared in its file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

import click

from subspace.cli.number_types import Groups, Number, Real, Whole
from subspace.cli.option_kinds import names, number, one_of, whole, with_options
from subspace.training.job import FORMATS, Job
from subspace.training.method import Method, Option
from subspace.training.methods import every
from subspace.training.recipe import Recipe

__all__ = [
    "chosen_method",
    "loop_options",
    "method_options",
    "run_options",
    "setting_names",
]

_F = TypeVar("_F", bound=Callable[..., Any])
_RECIPE, _JOB = Recipe(), Job()


def method_options(command: _F) -> _F:
    """Add how the model is adapted."""
    methods = every()
    about = "; ".join(f"{name}: {method.about}" for name, method in methods.items())
    return with_options(
        command,
        click.option(
            "--method",
            type=click.Choice(list(methods)),
            default=_JOB.method.name,
            show_default=True,
            help=f"What is trained. {about}.",
        ),
        names(
            "--targets",
            "targets",
            "Modules to adapt, by the ends of their names or as patterns with *; all-linear is every linear layer but "
            "the output layer, as PEFT has it; may be repeated.  [default: query and value projections]",
        ),
        names(
            "--exclude",
            "exclude",
            "Modules not to adapt although --targets matches them, by the same patterns; may be repeated.",
        ),
        names("--keep", "keep", "Modules to train whole in addition to the adapter; may be repeated."),
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
        return names(option.flag, _parameter(option.flag), option.help)
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
    return with_options(
        command,
        whole("--seed", 0, "Seed of the adapter's start, of dropout and of a new classifier.", least=0),
        whole("--data-seed", 0, "Seed of the order of the data.", least=0),
        whole("--steps", _RECIPE.steps, "Number of optimiser steps."),
        click.option(
            "--epochs",
            type=Number(0, min_open=True),
            help="Number of passes through the training examples, in place of --steps: steps = epochs * examples / "
            "(batch * accumulate), rounded up.",
        ),
        whole("--batch", _RECIPE.batch, "Examples, or windows of text, per micro-batch."),
        whole("--accumulate", _RECIPE.accumulate, "Micro-batches accumulated per optimiser step."),
        whole(
            "--length",
            _RECIPE.length,
            "Tokens per window of text; examples with labels or completions are cut to this length.",
        ),
        click.option("--lr", type=Real(), help=f"Peak learning rate.  [default by method: {rates}]"),
        one_of(
            "--schedule", "cosine", "linear", "constant", help="Learning rate schedule after the warm-up."
        ),
        number(
            "--warm-up",
            Number(0, 1, max_open=True),
            _RECIPE.warm_up,
            "Fraction of the steps in which the learning rate rises to its peak.",
        ),
        number("--weight-decay", Real(), _RECIPE.weight_decay, "Weight decay of AdamW, for matrices only."),
        number("--clip", Real(), _RECIPE.clip, "Gradients are clipped to this norm; 0 turns clipping off."),
        one_of(
            "--dtype",
            "auto",
            "float32",
            "bfloat16",
            help="Type in which matrices are multiplied; auto: bfloat16 where the hardware has it.",
        ),
    )


def run_options(command: _F) -> _F:
    """Add where and how it runs, and what it leaves."""
    return with_options(
        command,
        one_of("--device", "auto", "cpu", "cuda", help="Device to train on; auto: CUDA where there is one."),
        number(
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
        *_outputs(),
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


def _outputs() -> tuple[Callable[[_F], _F], ...]:
    return (
        number("--save-every", Whole(0), _JOB.save_every, "Steps between checkpoints; 0 saves none."),
        number(
            "--evaluate-every",
            Whole(0),
            _JOB.evaluate_every,
            "Steps between measures on held-out data, in the log and on stderr; 0 measures before and after.",
        ),
        one_of("--format", *FORMATS, help="Format of the result: a PEFT directory, or loralib's adapter.pt."),
        click.option(
            "--accounts/--no-accounts",
            default=True,
            help="At the end, compare memory, checkpoint size and time with full fine-tuning.  [default: accounts]",
        ),
    )
