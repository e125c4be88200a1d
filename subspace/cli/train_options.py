"""The options of ``subspace train``, by what they decide."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from subspace.cli.options import Numbers
from subspace.training.methods import LoRA
from subspace.training.recipe import Recipe

__all__ = ["data_options", "loop_options", "method_options", "run_options"]

_F = TypeVar("_F", bound=Callable[..., Any])
_RECIPE, _LORA = Recipe(), LoRA()


def _with(command: _F, *options: Callable[[_F], _F]) -> _F:
    """Add options, which the help lists in this order."""
    for option in reversed(options):
        command = option(command)
    return command


def _one_of(name: str, *choices: str, help: str) -> Callable[[_F], _F]:
    return click.option(name, type=click.Choice(choices), default=choices[0], show_default=True, help=help)


def _number(name: str, kind: Any, default: float, help: str) -> Callable[[_F], _F]:
    return click.option(name, type=kind, default=default, show_default=True, help=help)


def _names(name: str, help: str) -> Callable[[_F], _F]:
    return click.option(name, multiple=True, metavar="NAME", help=f"{help}; may be repeated.")


def data_options(command: _F) -> _F:
    """Add what is trained, and on what."""
    return _with(
        command,
        click.option(
            "--model",
            default="embedded",
            show_default=True,
            help="A Hugging Face directory or hub id (extra hf); embedded is the small model inside this package.",
        ),
        click.option(
            "--data",
            metavar="PATH",
            help="Text, JSONL, CSV or TSV, or a folder of texts; with labels it trains a classifier. "
            "Default: Python's own help topics.",
        ),
        click.option("--text-column", metavar="NAME", help="Column of texts, where names do not tell."),
        click.option("--label-column", metavar="NAME", help="Column of labels, likewise."),
        click.option(
            "--labels/--no-labels", default=True, help="Whether labels are used, where there are any."
        ),
        _one_of("--tokenizer", "auto", "bytes", help="The model's own, or bytes as ids."),
        _number(
            "--held-out",
            click.FloatRange(0, 0.5, max_open=True),
            _RECIPE.held_out,
            "Part kept to measure on.",
        ),
    )


def method_options(command: _F) -> _F:
    """Add how the model is adapted."""
    return _with(
        command,
        _one_of("--method", "lora", "ia3", "full", help="full: all weights, or the --targets alone."),
        _number("--rank", click.IntRange(1), _LORA.r, "r."),
        _number("--alpha", float, _LORA.alpha, "delta_W = alpha / r * B A."),
        click.option("--rslora", is_flag=True, help="alpha / sqrt(r) instead."),
        _number("--dropout", click.FloatRange(0, 1, max_open=True), _LORA.dropout, "Of the inputs of A."),
        _one_of("--init", "kaiming", "gaussian", help="Start of A; B starts at zero."),
        _names(
            "--targets",
            "Modules to adapt, by the ends of their names or patterns with *. Default: query and value",
        ),
        click.option(
            "--groups",
            type=Numbers(0, 1),
            metavar="1,0,1",
            help="Groups of a fused target that are adapted, each by a pair of its own: 1,0,1 is q and v.",
        ),
        _names("--feedforward", "IA3 targets whose inputs are rescaled"),
        _names("--keep", "Modules that are trained whole beside them"),
    )


def loop_options(command: _F) -> _F:
    """Add the recipe."""
    return _with(
        command,
        _number("--seed", click.IntRange(0), 0, "Of the adapter's start, dropout and a new classifier."),
        _number("--data-seed", click.IntRange(0), 0, "Of the order of the data."),
        _number("--steps", click.IntRange(1), _RECIPE.steps, "Of the optimiser."),
        _number("--batch", click.IntRange(1), _RECIPE.batch, "Examples, or windows of text, at once."),
        _number("--accumulate", click.IntRange(1), _RECIPE.accumulate, "Such batches a step."),
        _number(
            "--length", click.IntRange(1), _RECIPE.length, "Tokens of a window or, at most, of an example."
        ),
        click.option("--lr", type=float, help="Peak learning rate.  [default: 0.002; ia3 0.01; full 0.0003]"),
        _one_of("--schedule", "cosine", "linear", "constant", help="Of the rate, after a warm-up."),
        _number("--warm-up", click.FloatRange(0, 1, max_open=True), _RECIPE.warm_up, "Part of the steps."),
        _number("--weight-decay", float, _RECIPE.weight_decay, "Of AdamW, on matrices."),
        _number("--clip", float, _RECIPE.clip, "Largest norm of a gradient; 0 for none."),
        _one_of(
            "--dtype",
            "auto",
            "float32",
            "bfloat16",
            help="Of products. auto: what the processor is made for.",
        ),
    )


def run_options(command: _F) -> _F:
    """Add where and how it runs, and what it leaves."""
    return _with(
        command,
        _one_of("--device", "auto", "cpu", "cuda", help="auto: CUDA where there is one."),
        _number(
            "--threads",
            click.IntRange(0),
            0,
            "0: one, or for larger models all cores where that is measured to be faster.",
        ),
        _number("--save-every", click.IntRange(0), 100, "Steps between checkpoints; 0 for none."),
        click.option(
            "--format",
            "written",
            type=click.Choice(["peft", "loralib"]),
            default="peft",
            show_default=True,
            help="A PEFT directory, or in it a loralib adapter.pt.",
        ),
        click.option(
            "--accounts/--no-accounts",
            default=True,
            help="At the end, measure what it cost beside full fine-tuning. That is the default.",
        ),
        click.option("--overwrite", is_flag=True, help="Begin anew where a run is in DIR already."),
        click.option(
            "-o",
            "--out",
            required=True,
            metavar="DIR",
            help="Where the adapter goes, and all that is saved on the way.",
        ),
    )
