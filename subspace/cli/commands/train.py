"""``subspace train``."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from subspace.cli.progress import Progress
from subspace.cli.train_options import data_options, loop_options, method_options, run_options
from subspace.text import shown
from subspace.training.job import Job
from subspace.training.methods import IA3, Full, LoRA, Method
from subspace.training.recipe import Recipe

if TYPE_CHECKING:
    from subspace.training.run import Run

__all__ = ["command"]

_RATES = {"lora": Recipe().lr, "ia3": 1e-2, "full": 3e-4}


@click.command("train")
@data_options
@method_options
@loop_options
@run_options
def command(out: str, overwrite: bool, **given: Any) -> None:
    """Train an adapter, to be analysed.

    DIR becomes a PEFT directory with the adapter's start in start/ (for compare --init), a log with one JSON row a step
    and a checkpoint every so many steps. Ctrl-C saves and stops; the same command again goes on where it was, to the
    same bits as a run that was never interrupted.

    \b
    Examples:
      subspace train -o r8/
      subspace train --rank 64 --seed 1 --data-seed 1 -o r64/
      subspace train --model path/to/bert --data reviews.tsv --keep classifier -o reviews-r8/
      subspace compare r8/ r64/ --init r8/start --init r64/start
    """
    from subspace.training.run import train

    names = (
        "model",
        "data",
        "targets",
        "keep",
        "text_column",
        "label_column",
        "labels",
        "tokenizer",
        "save_every",
        "device",
        "threads",
        "accounts",
    )
    job = Job(
        method=_method(given),
        recipe=_recipe(given),
        format=given["written"],
        **{name: given[name] for name in names},
    )
    with Progress("training") as progress, _asked_to_stop() as stopping:
        run = train(
            job,
            out,
            overwrite=overwrite,
            progress=progress,
            stopping=stopping,
            tell=lambda note: click.echo(f"note: {shown(note, longest=1000)}", err=True),
        )
    _echo(run)


def _method(given: dict[str, Any]) -> Method:
    if given["feedforward"] and given["method"] != "ia3":
        raise click.UsageError("--feedforward needs --method ia3")
    source = click.get_current_context().get_parameter_source
    for name in ("rank", "alpha", "rslora", "dropout", "init", "groups"):
        if given["method"] != "lora" and source(name) is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name} needs --method lora")
    if given["method"] == "ia3":
        return IA3(feedforward=given["feedforward"])
    if given["method"] == "full":
        return Full(everything=not given["targets"])
    return LoRA(
        r=given["rank"], alpha=given["alpha"], rslora=given["rslora"], dropout=given["dropout"], init=given["init"],
        seed=given["seed"], groups=tuple(map(bool, given["groups"])) if given["groups"] else None,
    )  # fmt: skip


def _recipe(given: dict[str, Any]) -> Recipe:
    names = ("steps", "batch", "accumulate", "length", "schedule", "warm_up", "weight_decay", "clip", "dtype", "seed",
             "data_seed", "held_out")  # fmt: skip
    rate = _RATES[given["method"]] if given["lr"] is None else given["lr"]
    return Recipe(lr=rate, **{name: given[name] for name in names})


@contextmanager
def _asked_to_stop() -> Iterator[Any]:
    """Give a function that says whether Ctrl-C or SIGTERM came; a second one ends at once."""
    asked: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        click.echo("stopping after this step; once more to stop at once", err=True)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _echo(run: Run) -> None:
    record = run.record
    before, after = record["held_out"]["before"], record["held_out"]["after"]
    click.echo(
        f"{record['data']}; {record['trainable']:,} parameters trained in {len(record['targets'])} modules"
    )
    for name, value in after.items():
        was = f"{before[name]:.4f} -> " if name in before and name != "majority" else ""
        click.echo(f"held out: {name.replace('_', ' ')} {was}{value:.4f}")
    for line in (record.get("accounts") or {}).get("lines", []):
        click.echo(line)
    if run.files:
        click.echo(f"wrote {shown(run.path, longest=1000)}", err=True)
    else:
        click.echo(f"{shown(run.path, longest=1000)} is done already", err=True)
