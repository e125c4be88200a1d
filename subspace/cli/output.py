"""Results on standard output: a table, strict JSON or CSV; notes and warnings on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import click

from subspace.cli.wording import in_options
from subspace.results.cells import cell, plain
from subspace.results.columns import Column
from subspace.results.csv_text import as_csv
from subspace.results.result import Result
from subspace.text import shown

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Kind", "Output", "as_json", "echo_table", "echo_written", "warn"]


Kind: TypeAlias = Literal["table", "json", "csv"]


@dataclass(frozen=True)
class Output:
    """How a result is printed, and which of its rows: `modules` as patterns, sorted by a column, the `top` first."""

    kind: Kind = "table"
    modules: tuple[str, ...] = ()
    sort: str | None = None
    top: int | None = None

    def show(
        self,
        result: Result[Any],
        *,
        document: Mapping[str, Any] | None = None,
        header: bool = True,
        **more: Any,
    ) -> None:
        """Print a result and its notes.

        Parameters
        ----------
        document : entries that its JSON document gets besides its own
        header : whether CSV begins with a line of headings
        more : keywords for the result's `document`
        """
        part = result.selected(modules=self.modules, sort=self.sort, top=self.top)
        command = click.get_current_context().command
        if self.kind == "json":
            notes = [in_options(note, command) for note in result.notes]
            whole = {
                **part.document(**more),
                "headline": in_options(result.headline(), command),
                "notes": notes,
                **(document or {}),
            }
            click.echo(as_json(whole))
        elif self.kind == "csv":
            click.echo(as_csv(part.records(), header=header), nl=False)
        else:
            echo_table(part, facts=[in_options(fact, command) for fact in result.facts()])
            if len(part) < len(result):
                click.echo(f"Showing {len(part)} of {len(result)} rows.")
        warn(result.notes)


def warn(notes: Sequence[str]) -> None:
    """Print each note on standard error as one line, in the options of the command that runs."""
    command = click.get_current_context().command
    for note in dict.fromkeys(notes):
        click.echo(f"warning: {shown(in_options(note, command), longest=1000)}", err=True)


def echo_written(paths: Iterable[Path]) -> None:
    """Print on standard error which files there are now."""
    for path in paths:
        click.echo(f"wrote {shown(path, longest=1000)}", err=True)


def as_json(value: Any) -> str:
    """One line of strict JSON in ASCII."""
    return json.dumps(plain(value), allow_nan=False)


def echo_table(result: Result[Any], *, facts: Sequence[str] | None = None) -> None:
    """Print the short table, then the facts, a line each: drawn on a terminal, plain columns elsewhere."""
    columns = result.table_columns()
    rows = [[cell(record[each.name]) for each in columns] for record in result.records()]
    if sys.stdout.isatty():
        from subspace.cli.terminal import draw

        draw(columns, rows)
    else:
        click.echo("\n".join(_plain(columns, rows)))
    click.echo()
    for fact in facts or result.facts():
        click.echo(shown(fact, longest=4000))


def _plain(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[str]:
    names = [each.name for each in columns]
    widths = [max(map(len, texts)) for texts in zip(names, *rows, strict=True)]
    lines = []
    for row in (names, *rows):
        cells = [
            text.ljust(w) if n == 0 else text.rjust(w)
            for n, (text, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines
