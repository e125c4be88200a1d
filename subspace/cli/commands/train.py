"""Train an adapter, and record its start and its costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import click

from subspace.cli.progress import Progress
from subspace.cli.several_values import each_with_option
from subspace.cli.train_data_options import data_options
from subspace.cli.train_options import (
    chosen_method,
    loop_options,
    method_options,
    run_options,
    setting_names,
)
from subspace.cli.wording import in_options
from subspace.text import counted, shown
from subspace.training.job import Job
from subspace.training.method import Method
from subspace.training.recipe import Recipe
from subspace.training.stop_request import stop_requests

if TYPE_CHECKING:
    from subspace.training.run import Run

__all__ = ["command", "job_of"]


class _Train(click.Command):
    """A command whose messages may name the settings of a training method, and whose --data takes several paths."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read what a shell makes of ``--data part-*.csv`` as --data for each."""
        return super().parse_args(ctx, each_with_option(args, ("--data", "--held-out-data")))

    @property
    def setting_names(self) -> dict[str, str]:
        """Setting -> option."""
        return setting_names()


@click.command("train", cls=_Train)
@data_options
@method_options
@loop_options
@run_options
@click.pass_context
def command(
    context: click.Context, /, out: str | None, overwrite: bool, dry_run: bool, as_json: bool, **given: Any
) -> None:
    """Train an adapter that the other commands can analyse.

    DIR becomes a PEFT directory. It also holds the adapter's start, in start/ (for compare --init), a log with one JSON
    row per step, and checkpoints. Ctrl-C saves and stops; the same command then resumes, and gives the same bits as a
    run that was never interrupted.

    \b
    Examples:
      subspace train -o r8/
      subspace train --rank 64 --seed 1 --data-seed 1 -o r64/
      subspace train --model path/to/bert --data reviews.tsv --keep classifier -o reviews-r8/
      subspace train --targets all-linear --exclude down_proj --dry-run
      subspace compare r8/ r64/ --init r8/start --init r64/start
    """
    from subspace.training.run import train

    def note(message: str) -> None:
        click.echo(f"note: {shown(in_options(message, context.command), longest=1000)}", err=True)

    if as_json and not dry_run:
        raise click.UsageError("--json needs --dry-run")
    job = job_of(context)
    if dry_run:
        _echo_layers(job, as_json, note)
        return
    if out is None:
        raise click.MissingParameter(ctx=context, param=_option(context, "out"))
    with Progress("training") as progress, stop_requests(_stopping) as stopping:
        run = train(job, out, overwrite=overwrite, progress=progress, stopping=stopping, tell=note)
    _echo(run)


def _option(context: click.Context, name: str) -> click.Parameter:
    return next(each for each in context.command.params if each.name == name)


def _echo_layers(job: Job, as_json: bool, note: Callable[[str], None]) -> None:
    from subspace.cli.output import as_json as in_json
    from subspace.training.without_training import dry_run

    table = dry_run(job, tell=note)
    click.echo(in_json(table.document()) if as_json else "\n".join(table.lines()))


def _stopping() -> None:
    click.echo("stopping after this step; press Ctrl-C again to stop at once", err=True)


def job_of(context: click.Context) -> Job:
    """The training job of a command line."""
    given = context.params
    own = {setting.name for setting in fields(Job)} - {"method", "recipe"}
    method = chosen_method(context)
    _require_one_length(context)
    sources = map(context.get_parameter_source, ("held_out", "held_out_data"))
    if click.core.ParameterSource.DEFAULT not in sources:
        raise click.UsageError("--held-out takes a fraction of --data: leave it out, or --held-out-data")
    return Job(method=method, recipe=_recipe(given, method), **{name: given[name] for name in own})


def _require_one_length(context: click.Context) -> None:
    stated = context.get_parameter_source("steps") is not click.core.ParameterSource.DEFAULT
    if stated and context.params["epochs"] is not None:
        raise click.UsageError("--steps and --epochs exclude each other; give one of them")


def _recipe(given: dict[str, Any], method: Method) -> Recipe:
    own = {setting.name: given[setting.name] for setting in fields(Recipe)}
    return Recipe(**{**own, "lr": method.lr if given["lr"] is None else given["lr"]})


def _echo(run: Run) -> None:
    from subspace.training.merged_update import merged_line

    record = run.record
    before, after = record["held_out"]["before"], record["held_out"]["after"]
    where = f" in {counted(len(record['targets']), 'module')}" if record["targets"] else ""
    click.echo(f"{record['data']}; {record['trainable']:,} parameters trained{where}")
    for name, value in after.items():
        was = f"{before[name]:.4f} -> " if name in before and name != "majority" else ""
        click.echo(f"held out: {name.replace('_', ' ')} {was}{value:.4f}")
    if line := merged_line(record):
        click.echo(line)
    for line in (record.get("accounts") or {}).get("lines", []):
        click.echo(line)
    if run.files:
        click.echo(f"wrote {shown(run.path, longest=1000)}", err=True)
    else:
        click.echo(f"{shown(run.path, longest=1000)} is done already", err=True)
