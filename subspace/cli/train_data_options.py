"""The options of ``subspace train`` that say what is trained, and on what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from subspace.cli.number_types import Number
from subspace.cli.option_kinds import names, number, one_of, with_options
from subspace.training.data.control_text import LABEL_CONTROLS
from subspace.training.data.together import UNLABELLED
from subspace.training.job import TRAIN_ON, Job
from subspace.training.recipe import Recipe

__all__ = ["data_options"]

_F = TypeVar("_F", bound=Callable[..., Any])
_RECIPE, _JOB = Recipe(), Job()


def data_options(command: _F) -> _F:
    """Add what is trained, and on what."""
    return with_options(
        command,
        *_files(),
        *_labels(),
        one_of("--tokenizer", "auto", "bytes", help="The model's own tokenizer, or bytes as token ids."),
        number(
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
        names(
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
        one_of(
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
        one_of(
            "--unlabelled",
            *UNLABELLED,
            help="Rows whose label is empty, nan or -1: refuse the data, drop the rows, or keep nan and -1 as classes.",
        ),
    )
