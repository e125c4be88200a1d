"""Compare two adapters: what both learned, next to isotropic random spans and matched controls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from subspace.analysis.compare import compare
from subspace.analysis.controls import CONTROLS
from subspace.analysis.frames import SIDES
from subspace.cli.number_types import Number, Whole
from subspace.cli.options import base_option, output_options, pair_loading_options
from subspace.cli.output import Output, echo_written
from subspace.cli.progress import Progress
from subspace.plots import presets

if TYPE_CHECKING:
    from pathlib import Path

    from subspace.results.comparison import Comparison

__all__ = ["command"]

_START = b'{"schema": "subspace.compare/'


class _WithFigures(click.Command):
    """A command whose help ends with what each figure shows."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Figures"):
            formatter.write_dl([(name, presets.named(name).about) for name in presets.names()])


@click.command("compare", cls=_WithFigures)
@click.argument("first", metavar="FIRST")
@click.argument("second", metavar="SECOND")
@click.option(
    "--side",
    type=click.Choice([*SIDES, "all"]),
    default="a",
    show_default=True,
    help="Which singular vectors to compare. a: the right ones of A, as in the paper; b: the left ones of B; left and "
    "right: those of delta_W.",
)
@click.option(
    "--init",
    multiple=True,
    metavar="A0",
    help="The adapter before training, which is subtracted; the results with and without it are shown. Give it twice "
    "for FIRST and for SECOND.",
)
@click.option(
    "--level",
    type=Number(0, 1, min_open=True, max_open=True),
    default=0.01,
    show_default=True,
    help="Significance level of the shared-dimension test, over all modules (Holm).",
)
@click.option(
    "--directions",
    type=Whole(1),
    metavar="K",
    help="Number of leading directions of base weights to compare.  [default: a tenth of their dimension]",
)
@click.option(
    "--controls",
    type=click.Choice(CONTROLS),
    default="all",
    show_default=True,
    help="Controls, which are other modules of these two adapters: those that read the same input (q against v of one "
    "layer; sides a and right), or the same kind in other layers, whose p-value shows only that the module matters.",
)
@click.option(
    "--control",
    multiple=True,
    metavar="ADAPTER",
    help="An adapter of another task on the same base, to test the pair against; repeat it for several, n of which "
    "give p-values of 1 / (n + 1) at least.",
)
@click.option(
    "--inputs",
    metavar="FILE",
    help="Inputs of the modules, as subspace inputs writes them: how much of phi they explain (sides a and right), and "
    "how alike the outputs of the updates are on them; with --base also as a share of W's own.",
)
@base_option("FIRST or SECOND")
@click.option(
    "--grid", is_flag=True, help="Include the whole phi(i, j) grid of every module in the output of --json."
)
@click.option(
    "--figure",
    "figures",
    type=click.Choice(presets.names()),
    multiple=True,
    help="Draw a figure of the paper, a grid of all modules or their effects; may be repeated.",
)
@click.option(
    "--layer", type=int, metavar="N", help="Layer that figures 3, 4 and 8 show.  [default: the middle one]"
)
@click.option(
    "--relative",
    is_flag=True,
    help="Draw phi over its mean for isotropic random spans, max(i, j) / d, instead of phi itself.",
)
@click.option(
    "-o",
    "--out",
    "folder",
    metavar="DIR",
    help="Folder for the figures and their data.  [default: the current folder]",
)
@click.option(
    "--image",
    type=click.Choice(["png", "pdf", "svg"]),
    default="png",
    show_default=True,
    help="File format of the figures.",
)
@pair_loading_options
@output_options
def command(first: str, second: str, *, output: Output, **given: Any) -> None:
    """Compare what two adapters learned, module by module, next to isotropic random spans and controls.

    FIRST and SECOND are adapters of any known format and any ranks; one of them may be base weights (figure 8), or the
    word embedded for the small model inside this package. The cosine of the updates is in [-1, 1], near 0 for
    unrelated ones. phi is in [0, 1]: 1 if one span contains the other, max(i, j) / d for isotropic random spans. All
    adapters of one base share directions of A, since they read the same inputs: the control is what modules of another
    job share, and the excess is what this module shares beyond it. The shared dimension counts principal directions
    beyond isotropic random spans. -o also writes comparison.json, and without --figure it draws the grid.

    \b
    Examples:
      subspace compare a_r8.pt a_r64.pt
      subspace compare run1/ run2/ --side all --json | jq .modules[0].shared_dim
      subspace compare a_r8/ a_r64/ --figure fig3 -o figures/
      subspace compare a_r8/ a_r64/ --control scrambled/ --control other-task/
      subspace compare path/to/model a_r8/ --figure fig8 -o figures/
    """
    _require_use(given, output)
    with Progress("comparing") as progress:
        result = compare(
            first,
            second,
            side=given["side"],
            init=_init(given["init"]),
            level=given["level"],
            directions=given["directions"],
            controls=given["controls"],
            control=given["control"],
            inputs=given["inputs"],
            base=given["base"],
            adapter_name=given["adapter_name"],
            enable_lora=given["enable_lora"],
            layout=given["layout"],
            rename=(None, given["rename"]),
            progress=progress,
        )
    drawn = _draw(result, given) if given["figures"] or given["folder"] else []
    output.show(result, grid=given["grid"])
    echo_written(drawn)


def _require_use(given: dict[str, Any], output: Output) -> None:
    """Refuse an option that would change nothing."""
    if given["grid"] and output.kind != "json":
        raise click.UsageError("--grid needs --json")
    if given["layer"] is not None and not (given["figures"] or given["folder"]):
        raise click.UsageError("--layer needs --figure or --out")
    if given["relative"] and not (given["figures"] or given["folder"]):
        raise click.UsageError("--relative needs --figure or --out")
    if len(given["init"]) > 2:
        raise click.UsageError("Give --init once for both adapters, or twice, for FIRST and for SECOND")


def _init(paths: tuple[str, ...]) -> Any:
    return None if not paths else paths[0] if len(paths) == 1 else paths


def _draw(result: Comparison, given: dict[str, Any]) -> list[Path]:
    """Write in one step the figures of every side, their data, and with -o the comparison itself."""
    from pathlib import Path

    from subspace.checkpoints.atomic_writing import write_whole
    from subspace.plots.figure_files import contents

    folder = Path(given["folder"] or ".")
    sides = list(dict.fromkeys(row.side for row in result.modules if row.phi.size))
    written: dict[Path, bytes] = {}
    for name in dict.fromkeys(given["figures"] or ["grid"]):
        for side in sides:
            pages = presets.figures(result, name, side=side, layer=given["layer"], relative=given["relative"])
            stem = f"{name}-{side}-relative" if given["relative"] else f"{name}-{side}"
            for n, figure in enumerate(pages):
                page = f"-{n + 1}" if len(pages) > 1 else ""
                written |= contents(figure, folder / f"{stem}{page}.{given['image']}")
    if given["folder"]:
        written |= _document(result, folder / "comparison.json")
    write_whole(written)
    return list(written)


def _document(result: Comparison, path: Path) -> dict[Path, bytes]:
    from subspace.checkpoints.atomic_writing import may_replace
    from subspace.cli.output import as_json

    may_replace(path, (_START,))
    return {path: (as_json(result.document(grid=True)) + "\n").encode()}
