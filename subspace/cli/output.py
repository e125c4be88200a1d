"""Results on standard output: a table, strict JSON or CSV; notes and warnings on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import click

from subspace.cli.wording import in_options
from subspace.results.result import Result, cell, plain
from subspace.text import shown

__all__ = ["as_csv", "as_json", "echo_json", "echo_table", "warn"]

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\0")


def warn(notes: Sequence[str]) -> None:
    """Print each note on standard error as one line."""
    command = click.get_current_context().command
    for note in notes:
        click.echo(f"warning: {shown(in_options(note, command), longest=1000)}", err=True)


def as_json(value: Any) -> str:
    """One line of strict JSON in ASCII."""
    return json.dumps(plain(value), allow_nan=False)


def echo_json(value: Any) -> None:
    """Print one object as one line."""
    click.echo(as_json(value))


def as_csv(records: Sequence[dict[str, Any]], *, header: bool = True) -> str:
    """Records as CSV, with a header first; text that a spreadsheet would run as a formula gets a leading apostrophe."""
    import csv
    import io

    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    # a row without a score has fewer columns than the others, and may be the first
    columns = list(dict.fromkeys(column for record in records for column in record))
    if records and header:
        writer.writerow(columns)
    for record in records:
        writer.writerow([_csv_cell(record.get(column)) for column in columns])
    return out.getvalue()


def _csv_cell(value: Any) -> Any:
    if isinstance(value, str):
        text = shown(value, longest=100_000)
        return f"'{text}" if text.startswith(_FORMULA) else text
    return value


def echo_table(result: Result) -> None:
    """Print the headline and the short table: drawn on a terminal, plain columns elsewhere."""
    columns = result.columns()
    rows = [[cell(record[column]) for column in columns] for record in result.records()]
    if sys.stdout.isatty():
        from subspace.cli.terminal import draw

        draw(columns, rows)
    else:
        click.echo("\n".join(_plain(columns, rows)))
    click.echo()
    click.echo(shown(result.headline(), longest=4000))


def _plain(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    lines = []
    for row in (columns, *rows):
        cells = [
            text.ljust(w) if n == 0 else text.rjust(w)
            for n, (text, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines
