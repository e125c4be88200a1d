"""Follow an adapter over the checkpoints of its run: when it points where it ends, when directions appear."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from subspace.analysis.controls import CONTROLS
from subspace.analysis.frames import SIDES
from subspace.analysis.track import track
from subspace.cli.number_types import Number, Whole
from subspace.cli.options import epsilon_option, loading_options, output_options
from subspace.cli.output import Output, echo_written
from subspace.cli.progress import Progress
from subspace.text import counted

if TYPE_CHECKING:
    from pathlib import Path

    from subspace.results.track import Track

__all__ = ["command"]

_EVERY = 10.0  # seconds between two looks
_START = b'{"schema": "subspace.track/'
_SIGNATURES = {"png": b"\x89PNG\r\n\x1a\n", "pdf": b"%PDF-", "svg": b"<?xml"}


class _Watching(click.Command):
    """A command whose --watch may stand without a number of seconds."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read ``--watch RUN`` as --watch and RUN, and ``--watch 30 RUN`` as 30 seconds."""
        return super().parse_args(ctx, list(_with_seconds(args)))


def _with_seconds(args: list[str]) -> list[str]:
    found: list[str] = []
    for n, word in enumerate(args):
        following = args[n + 1] if n + 1 < len(args) else ""
        found.append(f"--watch={_EVERY:g}" if word == "--watch" and not _is_number(following) else word)
    return found


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


@click.command("track", cls=_Watching)
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option(
    "--side",
    type=click.Choice([*SIDES, "all"]),
    default="all",
    show_default=True,
    help="Which singular vectors to follow. a: the rows of A; b: the columns of B; left and right: those of delta_W.",
)
@click.option(
    "--directions",
    type=Whole(1),
    metavar="K",
    help="Number of leading directions that phi compares.  [default: all on a and b; on left and right those with 90 % "
    "of the energy at the end]",
)
@click.option(
    "--init",
    metavar="A0",
    help="The adapter before training, if it is not among the checkpoints: it is the start, and removed on further "
    "rows.",
)
@click.option(
    "--controls",
    type=click.Choice(CONTROLS),
    default="all",
    show_default=True,
    help="Controls, which are other modules of the run: those that read the same input (q against v of one layer; "
    "sides a and right), otherwise the same kind in the layers before and after.",
)
@click.option(
    "--base",
    metavar="PATH",
    help="Base weights: intruder dimensions are counted at every checkpoint. Also needed if the checkpoints are full "
    "fine-tunes.",
)
@click.option(
    "-k",
    "k",
    type=Whole(1),
    default=10,
    show_default=True,
    metavar="N",
    help="Number of leading directions of W + delta_W in which --base looks for intruders.",
)
@epsilon_option
@click.option(
    "--by",
    type=click.Choice(["total", "module"]),
    default="total",
    show_default=True,
    help="Rows of the table and of --csv: all modules together, or each module. --json has both.",
)
@click.option(
    "--watch",
    type=Number(0.1),
    metavar="[SECONDS]",
    help="Follow a run that goes on: look for new checkpoints every so many seconds (10 without a number), until "
    "Ctrl-C, or until a run of subspace train is done.",
)
@click.option(
    "-o",
    "--out",
    "folder",
    metavar="DIR",
    help="Folder for track.json and the charts: phi against the step, all modules as a map, and births.",
)
@click.option(
    "--image",
    type=click.Choice(["png", "pdf", "svg"]),
    default="png",
    show_default=True,
    help="File format of the charts.",
)
@loading_options("RUN")
@output_options
def command(runs: tuple[str, ...], *, output: Output, **given: Any) -> None:
    """Follow an adapter over the checkpoints of its run: when it points where it ends, when directions appear.

    RUN is the folder of a run, of subspace train or with checkpoints of PEFT, MLX, kohya or diffusers; several folders,
    or checkpoints one by one, are taken together. Their numbers tell which of them are of one run: the rows of A
    keep a trace of their random start. Runs that began elsewhere are never joined; one that another folder goes on with
    is, and a branch is named.

    phi with the last checkpoint is in [0, 1]: 1 if one span contains the other, k / d for isotropic random spans. A
    starts random and keeps much of its start, so that its phi is near 1 whatever is learned: look at b, left and right,
    at a with the start removed, and at the control, which modules of another job reach. A direction of the last
    checkpoint is born at the first one from which on its squared cosine with the span of the checkpoint stays above the
    99 % quantile of isotropic random directions.

    \b
    Examples:
      subspace track r8/
      subspace track results/ --watch -o charts/
      subspace track run1/ run2/ --base path/to/model --json | jq .runs[0].steps
      subspace track style-000002.safetensors style-000004.safetensors style.safetensors --by module
    """
    folder, image, every = given.pop("folder"), given.pop("image"), given.pop("watch")
    if given["base"] is None and any(map(_stated, ("k", "epsilon"))):
        raise click.UsageError("-k and --epsilon are of intruder dimensions; give --base with them")
    if every is None:
        with Progress("tracking") as progress:
            result = track(list(runs), progress=progress, **given)
        written = _write(result, folder, image) if folder else []
    else:
        result, written = _watch(list(runs), every, folder, image, given)
    output.show(result)
    echo_written(written)


def _stated(name: str) -> bool:
    source = click.get_current_context().get_parameter_source(name)
    return source is click.core.ParameterSource.COMMANDLINE


def _watch(
    runs: list[str], every: float, folder: str | None, image: str, given: dict[str, Any]
) -> tuple[Track, list[Path]]:
    """Follow the run until it is done or Ctrl-C comes, and return the last result."""
    from subspace.analysis.watch import watched
    from subspace.training.stop_request import terminable

    result: Track | None = None
    written: list[Path] = []
    with terminable():
        try:
            for result in watched(runs, every=every, **given):
                written = _write(result, folder, image) if folder else []
                click.echo(_progress(result), err=True)
        except KeyboardInterrupt:
            if result is None:
                raise
            click.echo("stopped: what follows is the result so far", err=True)
    assert result is not None
    return result, written


def _progress(result: Track) -> str:
    """One line on how far the runs are."""
    words = []
    for run in result.runs:
        n, total = len(run.checkpoints), run.total[0] if run.total else None
        cosine = None if total is None or n < 2 else total.cosine[-2]
        near = "" if cosine is None else f", cosine with the one before {cosine:.3f}"
        words.append(f"{counted(n, 'checkpoint')} up to {run.step_name(n - 1)}{near}")
    return "; ".join(words)


def _write(result: Track, folder: str, image: str) -> list[Path]:
    """Write in one step the JSON document and the charts of every run that has a course."""
    from pathlib import Path

    from subspace.checkpoints.atomic_writing import may_replace, write_whole
    from subspace.cli.output import as_json

    place = Path(folder)
    files = {place / "track.json": (as_json(result.document()) + "\n").encode()}
    may_replace(place / "track.json", (_START,))
    for number, run in enumerate(result.runs):
        if len(run.checkpoints) > 1:
            more = f"-run{number}" if len(result.runs) > 1 else ""
            for name, content in _charts(result, number, image).items():
                path = place / f"{name}{more}.{image}"
                may_replace(path, (_SIGNATURES[image],))
                files[path] = content
    write_whole(files)
    return list(files)


def _charts(result: Track, run: int, image: str) -> dict[str, bytes]:
    from matplotlib.figure import Figure

    from subspace.plots import births, style, trajectory, trajectory_map
    from subspace.plots.canvas import rendered

    run_ = result.runs[run]
    sides = dict.fromkeys(each.side for each in run_.modules if any(v is not None for v in each.to_final))
    found: dict[str, bytes] = {}
    with style.paper_style():
        drawn = {"trajectory": trajectory(result, run=run)}
        if any(each.directions for each in run_.total):
            drawn["births"] = births(result, run=run)
        drawn |= {f"modules-{side}": trajectory_map(result, side=side, run=run) for side in sides}
        for name, axes in drawn.items():
            assert isinstance(axes.figure, Figure)
            found[name] = rendered(axes.figure, image)
    return found
