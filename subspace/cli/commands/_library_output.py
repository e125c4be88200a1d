"""What `subspace library` prints and writes besides the table of pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from subspace.cli.output import Output
from subspace.errors import FileError
from subspace.results.cells import cell
from subspace.text import counted, shown

if TYPE_CHECKING:
    from pathlib import Path

    from subspace.results.library import Library

__all__ = ["PLOTS", "figures", "parquet", "require_free", "show"]

PLOTS = ("heatmap", "neighbours", "layers", "lineage")
_ROWS = 20  # of the table of pairs, unless --top says more
_ADAPTERS = 40
_MOST = 100_000  # pairs in JSON and CSV, unless --top says more


def show(result: Library, output: Output) -> None:
    """Print the pairs as they are asked for; with a table, then what is known of each adapter."""
    usual = _ROWS if output.kind == "table" else _MOST
    if output.top is None and len(result.modules) > usual:
        output = Output(output.kind, output.modules, output.sort, usual)
        if output.kind != "table":
            click.echo(
                f"warning: Only the first {usual:,} of {len(result.modules):,} rows are printed; give --top for "
                "more, or --parquet FILE for all",
                err=True,
            )
    output.show(result)
    if result.index is not None:
        what = f"{counted(result.new, 'adapter')} added"
        click.echo(f"index {shown(result.index, longest=1000)}: {what}", err=True)
    if output.kind == "table":
        _echo_adapters(result)


def _echo_adapters(result: Library) -> None:
    """Print a line for each adapter: where it belongs, and what is nearest to it."""
    nearest = {n: (result.adapters[m].name, value) for n, m, value in result.nearest()}
    lines: list[tuple[str, ...]] = [("adapter", "modules", "cluster", "start", "nearest", "cosine", "flags")]
    for n, each in enumerate(result.adapters[:_ADAPTERS]):
        near, cosine = nearest.get(n, ("-", None))
        places = (None if place is None else place + 1 for place in (each.cluster, each.start_group))
        lines.append(
            (
                shown(each.name),
                str(each.modules),
                *map(cell, places),
                shown(near),
                cell(cosine),
                " ".join(each.flags),
            )
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    click.echo("\nAdapters (clusters and starts are numbered; - is none):")
    for line in lines:
        texts = [
            t.ljust(w) if n in (0, 4, 6) else t.rjust(w)
            for n, (t, w) in enumerate(zip(line, widths, strict=True))
        ]
        click.echo("  ".join(texts).rstrip())
    if len(result.adapters) > _ADAPTERS:
        click.echo(f"and {counted(len(result.adapters) - _ADAPTERS, 'adapter')} more: see --json")


def require_free(path: str | None, *, overwrite: bool) -> None:
    """Refuse to replace a file before the work is done, not after it."""
    from pathlib import Path

    if path is not None and Path(path).exists() and not overwrite:
        raise FileError(f"{shown(path, longest=1000)} exists already; give another name, or `overwrite`")


def figures(result: Library, kinds: Sequence[str], folder: str | None, image: str) -> list[Path]:
    """Write the figures, with the numbers that they show."""
    from pathlib import Path

    from subspace.checkpoints.atomic_writing import write_whole
    from subspace.plots.figure_files import contents

    written: dict[Path, bytes] = {}
    for kind in dict.fromkeys(kinds):
        figure: Any = result.plot(kind).figure
        written |= contents(figure, Path(folder or ".") / f"library-{kind}.{image}")
    write_whole(written)
    return list(written)


def parquet(result: Library, path: str, *, overwrite: bool) -> list[Path]:
    """Write all pairs to a Parquet file."""
    return result.save_parquet(path, overwrite=overwrite)
