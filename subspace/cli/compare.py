"""``subspace compare FIRST SECOND``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from subspace.adapters import load_adapter
from subspace.analysis.compare import compare
from subspace.analysis.frames import SIDES
from subspace.analysis.resolve import open_side
from subspace.cli import output as out
from subspace.cli.options import embedded_too, enabled, map_option, output_options, pair_options, per_side
from subspace.cli.progress import Progress
from subspace.plots import presets
from subspace.results.comparison import Comparison, ModuleComparison
from subspace.text import shown

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

__all__ = ["command", "document"]

_START = b'{"schema": "subspace.compare/'


class _WithFigures(click.Command):
    """A command whose help ends with what each figure shows."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Figures"):
            formatter.write_dl([(name, presets.named(name).about) for name in presets.names()])


@click.command("compare", cls=_WithFigures)
@click.argument("first", callback=embedded_too)
@click.argument("second", callback=embedded_too)
@click.option(
    "--side",
    type=click.Choice([*SIDES, "all"]),
    default="a",
    show_default=True,
    help="a: right singular vectors of A (the paper); b: left ones of B; left, right: of delta_W.",
)
@click.option(
    "--init",
    multiple=True,
    metavar="A0",
    help="The adapter before training: subtracted, and both answers shown. Twice: of FIRST and of SECOND.",
)
@click.option(
    "--level",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.01,
    show_default=True,
    help="Level of the shared-dimension test, over all modules (Holm).",
)
@click.option(
    "--directions", type=click.IntRange(1), help="Of base weights, how many. Default: a tenth of d."
)
@click.option(
    "--base",
    metavar="PATH",
    callback=embedded_too,
    help="Base weights, where FIRST or SECOND is a full fine-tune.",
)
@click.option("--grid", is_flag=True, help="With --json: the whole phi(i, j) grid of every module.")
@click.option(
    "--figure",
    type=click.Choice(presets.names()),
    help="Draw a figure of the paper, or a grid of all modules.",
)
@click.option("--layer", type=int, help="Layer of figures 3, 4 and 8. Default: the middle one.")
@click.option("-o", "--out", "folder", metavar="DIR", help="Where figures and their data go. Default: here.")
@click.option(
    "--image",
    type=click.Choice(["png", "pdf", "svg"]),
    default="png",
    show_default=True,
    help="Figure format.",
)
@pair_options
@map_option("SECOND")
@output_options
def command(first: str, second: str, **given: Any) -> None:
    """Compare the subspaces of two adapters, module by module, beside chance.

    FIRST and SECOND are adapters of any known format and any ranks; one of them may be base weights (figure 8), or the
    word embedded for the base of this package. phi is in [0, 1]: 1 if one span contains the other, max(i, j) / d by
    chance. The shared dimension is how many principal directions agree beyond chance. -o alone draws the grid and
    writes comparison.json beside it.

    \b
    Examples:
      subspace compare a_r8.pt a_r64.pt
      subspace compare run1/ run2/ --side all --json | jq .modules[0].shared_dim
      subspace compare a_r8/ a_r64/ --figure fig3 -o figures/
      subspace compare path/to/model a_r8/ --figure fig8 -o figures/
    """
    _require_use(given)
    options = {
        "base": given["base"],
        "scale": given["scale"],
        "enable_lora": enabled(given["enable_lora"]),
    }
    names = per_side(given["adapter_name"])
    with Progress("comparing") as progress:
        result = compare(
            open_side(first, adapter_name=names[0], **options),
            open_side(second, adapter_name=names[1], rename=given["rename"], **options),
            side=given["side"],
            init=_init(given["init"]),
            level=given["level"],
            directions=given["directions"],
            progress=progress,
        )
    drawn = _draw(result, given) if given["figure"] or given["folder"] else []
    if given["output"] == "json":
        out.echo_json(document(result, grid=given["grid"]))
    elif given["output"] == "csv":
        click.echo(out.as_csv(result.records()), nl=False)
    else:
        out.echo_table(result)
    out.warn(result.notes)
    for path in drawn:
        click.echo(f"wrote {shown(path, longest=1000)}", err=True)


def _require_use(given: dict[str, Any]) -> None:
    """An option that would change nothing is a mistake, and said to be one."""
    if given["grid"] and given["output"] != "json":
        raise click.UsageError("--grid needs --json")
    if given["layer"] is not None and not (given["figure"] or given["folder"]):
        raise click.UsageError("--layer needs --figure")
    if len(given["init"]) > 2:
        raise click.UsageError("--init is given once, or twice: of FIRST and of SECOND")


def _init(paths: tuple[str, ...]) -> Any:
    loaded = [load_adapter(path) for path in paths]
    return None if not loaded else loaded[0] if len(loaded) == 1 else tuple(loaded)


def _draw(result: Comparison, given: dict[str, Any]) -> list[Path]:
    """Write the figures of every side, their data, and with -o the comparison itself."""
    from pathlib import Path

    from subspace.plots import save

    folder = Path(given["folder"] or ".")
    preset = given["figure"] or "grid"
    sides = list(dict.fromkeys(row.side for row in result.modules if row.phi.size))
    written: list[Path] = []
    for side in sides:
        pages: list[Figure] = presets.figures(result, preset, side=side, layer=given["layer"])
        for n, figure in enumerate(pages):
            page = f"-{n + 1}" if len(pages) > 1 else ""
            written += save(figure, folder / f"{preset}-{side}{page}.{given['image']}")
    if given["folder"]:
        written.append(_write_document(result, folder / "comparison.json"))
    return written


def _write_document(result: Comparison, path: Path) -> Path:
    from subspace.checkpoints.writing import may_replace, write_whole

    may_replace(path, (_START,))
    write_whole({path: (out.as_json(document(result, grid=True)) + "\n").encode()})
    return path


def document(result: Comparison, *, grid: bool = False) -> dict[str, Any]:
    """Return the JSON document ``subspace.compare/1`` of a comparison."""
    return {
        "schema": "subspace.compare/1",
        "first": vars(result.first),
        "second": vars(result.second),
        "level": result.level,
        "headline": result.headline(),
        "modules": [_module(row, grid) for row in result.modules],
        "only_first": list(result.only_first),
        "only_second": list(result.only_second),
        "notes": list(result.notes),
    }


def _module(row: ModuleComparison, grid: bool) -> dict[str, Any]:
    shown_always = {
        "module": row.module,
        "second_module": row.second_module,
        "side": row.side,
        "init": row.init,
        "d": row.d,
        "r_first": row.r_first,
        "r_second": row.r_second,
        "rank_first": row.rank_first,
        "rank_second": row.rank_second,
        "phi_11": row.phi_11,
        "phi_full": row.phi_full,
        "chance_full": row.chance_full,
        "times_chance": row.times_chance,
        "z_full": row.z_full,
        "theta": row.theta,
        "distances": row.distances,
        "shared_dim": row.shared_dim,
        "shared_p": row.shared_p,
        "shared_p_holm": row.shared_p_holm,
        "ties_first": list(row.ties_first),
        "ties_second": list(row.ties_second),
        "flags": list(row.flags),
    }
    return {**shown_always, "phi": row.phi, "chance": row.chance_grid} if grid else shown_always
