"""The options that several commands share, each declared once, and the types of their values."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import click

from subspace.cli.number_types import Number, Numbers, Real, Reals, Whole
from subspace.cli.output import Kind, Output

__all__ = [
    "base_option",
    "column_options",
    "epsilon_option",
    "loading_options",
    "output_options",
    "pair_loading_options",
    "printed_options",
    "row_options",
    "several_loading_options",
]

_F = TypeVar("_F", bound=Callable[..., Any])


def output_options(command: _F) -> _F:
    """Add how a result is printed, and which of its rows: the command gets an `Output`."""
    return _printed(
        command,
        "--modules",
        help="Print only modules whose name matches, such as '*.q_proj'; may be repeated.",
    )


def printed_options(only: str, help: str) -> Callable[[_F], _F]:
    """Add the same with another sentence for the option `only`, which chooses rows by the name of their module."""
    return lambda command: _printed(command, only, help=help)


def row_options(of: str) -> Callable[[_F], _F]:
    """Add the same to a command whose rows are of something else than modules: `of`, such as "updates"."""
    return lambda command: _printed(
        command, "--rows", help=f"Print only {of} whose name matches; may be repeated."
    )


def _printed(command: _F, only: str, *, help: str) -> _F:
    """The options of `output_options`, with the one that chooses rows by name called `only`."""

    @functools.wraps(command)
    def with_output(
        *arguments: Any,
        as_json: bool,
        as_csv: bool,
        as_table: bool,
        chosen: tuple[str, ...],
        sort: str | None,
        top: int | None,
        **given: Any,
    ) -> Any:
        if as_json + as_csv + as_table > 1:
            raise click.UsageError("--json, --csv and --table exclude each other; give one of them")
        kind: Kind = "json" if as_json else "csv" if as_csv else "table"
        return command(*arguments, output=Output(kind, chosen, sort, top), **given)

    return _with(
        cast(_F, with_output),
        click.option("--json", "as_json", is_flag=True, help="Print strict JSON instead of a table."),
        click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values, one line per row."),
        click.option("--table", "as_table", is_flag=True, help="Print a table; this is the default."),
        click.option(only, "chosen", multiple=True, metavar="GLOB", help=help),
        click.option(
            "--sort",
            metavar="COLUMN",
            help="Sort the rows by a column: numbers from the largest, text from A to Z; -COLUMN reverses.",
        ),
        click.option("--top", type=Whole(1), metavar="N", help="Print only the first N rows."),
    )


def epsilon_option(command: _F) -> _F:
    """Add the cosine below which a direction is an intruder."""
    return click.option(
        "--epsilon",
        type=Number(0, 1, min_open=True),
        default=0.5,
        show_default=True,
        metavar="E",
        help="A direction is an intruder if its |cos| with every singular vector of W is below E.",
    )(command)


def base_option(where: str) -> Callable[[_F], _F]:
    """Add --base, for where it is needed."""
    return click.option(
        "--base",
        metavar="PATH",
        help=f"Base weights; needed if {where} is a full fine-tune, or an adapter that they define (IA3, OFT).",
    )


def column_options(command: _F) -> _F:
    """Add which columns of the data are read: --text-column and --label-column."""
    return _with(
        command,
        click.option(
            "--text-column",
            metavar="NAME",
            help="Column with the texts, if not called text, sentence or the like.",
        ),
        click.option(
            "--label-column",
            metavar="NAME",
            help="Column with the labels, if not called label, class or the like.",
        ),
    )


def loading_options(of: str) -> Callable[[_F], _F]:
    """Add how the adapter called `of` is read: --scale, --adapter-name, --enable-lora, --layout, --map."""
    named = click.option(
        "--adapter-name", metavar="NAME", help=f"Name of the adapter to read, if {of} holds several."
    )
    stored = click.option("--layout", type=_LAYOUTS, help=_STORED)
    return lambda command: _with(command, _SCALE, named, _ENABLE_LORA, stored, _map(of))


def pair_loading_options(command: _F) -> _F:
    """Add how two adapters are read; no number of a comparison depends on a scale, so that there is no --scale."""
    named = click.option(
        "--adapter-name",
        multiple=True,
        callback=_per_side,
        metavar="NAME",
        help="Name of the adapter to read, if a file holds several. Give it twice for FIRST and for SECOND.",
    )
    stored = click.option(
        "--layout",
        type=_LAYOUTS,
        multiple=True,
        callback=_per_side,
        help=f"{_STORED} Give it twice for FIRST and for SECOND.",
    )
    return _with(command, _NO_SCALE, named, _ENABLE_LORA, stored, _map("SECOND"))


def several_loading_options(of: str) -> Callable[[_F], _F]:
    """Add how any number of adapters are read, each called `of`; --scale is one for all, or one for each."""
    named = click.option(
        "--adapter-name", metavar="NAME", help=f"Name of the adapter to read, if {of} holds several."
    )
    stored = click.option("--layout", type=_LAYOUTS, help=_STORED)
    return lambda command: _with(command, _SCALES, named, _ENABLE_LORA, stored, _map(of))


def _with(command: _F, *options: Callable[[_F], _F]) -> _F:
    """Add options, which the help lists in this order."""
    for option in reversed(options):
        command = option(command)
    return command


def _finite(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not finite", ctx, param)
    return value


def _per_side(
    ctx: click.Context, param: click.Parameter, names: tuple[str, ...]
) -> tuple[str | None, str | None]:
    if len(names) > 2:
        raise click.BadParameter(
            "give it once for both adapters, or twice, for FIRST and for SECOND", ctx, param
        )
    return (names[0], names[-1]) if names else (None, None)


def _groups(
    ctx: click.Context, param: click.Parameter, value: tuple[int, ...] | None
) -> tuple[bool, ...] | None:
    return tuple(bool(on) for on in value) if value else None


def _refuse_scale(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is not None:
        raise click.UsageError(
            "compare takes no --scale: phi, angles and shared dimensions do not depend on it"
        )


def _as_map(ctx: click.Context, param: click.Parameter, rules: tuple[str, ...]) -> dict[str, str]:
    names: dict[str, str] = {}
    for rule in rules:
        old, equals, new = rule.partition("=")
        if not equals or old == new:
            raise click.BadParameter(f"{rule!r} is not OLD=NEW with two different names", ctx, param)
        if names.setdefault(old, new) != new:
            raise click.BadParameter(f"{old!r} is renamed twice", ctx, param)
    return names


def _map(of: str) -> Callable[[_F], _F]:
    return click.option(
        "--map",
        "rename",
        multiple=True,
        callback=_as_map,
        metavar="OLD=NEW",
        help=f"Rename modules of {of}: a module, a dotted prefix, or a pattern with *; may be repeated.",
    )


_SCALE = click.option(
    "--scale",
    type=Real(),
    callback=_finite,
    metavar="X",
    help="Scale s of delta_W = s B A, in place of the file's: alpha / r, or alpha / sqrt(r) for rsLoRA.",
)
_SCALES = click.option(
    "--scale",
    type=Reals(),
    metavar="X[,X,...]",
    help="Scale s of delta_W = s B A in place of the files': alpha / r, or alpha / sqrt(r) for rsLoRA; one for all "
    "adapters, or one for each.",
)
_NO_SCALE = click.option(
    "--scale",
    hidden=True,
    expose_value=False,
    callback=_refuse_scale,
    help="Refused: no number of a comparison depends on a scale.",
)
_ENABLE_LORA = click.option(
    "--enable-lora",
    type=Numbers(0, 1),
    callback=_groups,
    metavar="1,0,1",
    help="Which groups of a fused layer are adapted, as loralib's enable_lora: 1,0,1 is q and v of q, k, v.",
)
_LAYOUTS = click.Choice(["BA", "AB", "BAt", "BtA"])
_STORED = (
    "How the factors are stored, where their shapes do not say it: BA is A (r, d_in) and B (d_out, r); AB is both "
    "transposed (x @ A @ B); BAt is A alone transposed, and BtA is B alone."
)
