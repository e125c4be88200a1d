"""Cut an adapter to lower ranks, and measure what is lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import click

from subspace.adapters import load_adapter, writers
from subspace.analysis.convert import convert
from subspace.analysis.truncate import truncate
from subspace.checkpoints import read_json
from subspace.cli.number_types import Number, Whole
from subspace.cli.options import base_option, loading_options, output_options
from subspace.cli.output import Output, echo_written
from subspace.cli.progress import Progress
from subspace.cli.writing_options import written_options
from subspace.flags import Flag
from subspace.results.conversion import Conversion, ModuleConversion
from subspace.results.truncation import ModuleTruncation, Truncation

__all__ = ["command"]

_LOADING = ("base", "scale", "adapter_name", "enable_lora", "layout", "rename")


@click.command("truncate")
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT")
@click.option("--rank", type=Whole(1), metavar="R", help="Largest rank that a module may keep.")
@click.option(
    "--energy",
    type=Number(0, 1, min_open=True),
    metavar="E",
    help="Least share of ||delta_W||^2 to keep in every module, such as 0.95.",
)
@click.option(
    "--rank-pattern",
    "ranks",
    metavar="FILE",
    help='JSON file that maps module patterns to ranks, matched as PEFT does: {"q_proj": 8, "layers.0.v_proj": 2}. '
    "Other modules are cut to --rank, or stay whole without it.",
)
@click.option(
    "--to",
    type=click.Choice(writers.names()),
    help="Format of OUT.  [default: that of IN, or peft if that one cannot be written]",
)
@written_options
@base_option("IN")
@loading_options("IN")
@output_options
def command(source: str, target: str, *, output: Output, overwrite: bool, **given: Any) -> None:
    """Cut an adapter to lower ranks, and measure what is lost.

    Every delta_W is replaced by the nearest matrix of the lower rank, from the SVD of its factors, and written as
    B' = U sqrt(S), A' = sqrt(S) V'. In the table, error is ||dW - dW_k|| / ||dW||, and rounding is what storing the
    factors adds to it, in IN's type or in --dtype; energy is what the stored factors keep. Unequal ranks become PEFT's
    rank_pattern and alpha_pattern. A module that is cut keeps at most its numerical rank. A dense delta_W or a full
    fine-tune becomes a low-rank adapter.

    \b
    Examples:
      subspace truncate my-adapter/ smaller/ --rank 4
      subspace truncate lora.safetensors small.safetensors --energy 0.95 --dtype float16
      subspace truncate my-adapter/ smaller/ --rank-pattern ranks.json --json | jq .modules[0].error
    """
    _require_a_limit(given)
    adapter = load_adapter(source, **{name: given[name] for name in _LOADING})
    to = given["to"] or (adapter.format if adapter.format in writers.names() else "peft")
    writers.require_place(source, target, to, overwrite=overwrite)
    with Progress("truncating") as progress:
        ranks = _ranks(given["ranks"])
        cut = {"rank": given["rank"], "energy": given["energy"], "ranks": ranks, "dtype": given["dtype"]}
        result = truncate(adapter, progress=progress, **cut)
        allowed = {*given["allow"], "rounding"}
        how = {name: given[name] for name in ("dtype", "module", "base")}
        converted = convert(result.adapter, to=to, allow=allowed, **how)
    written = converted.save(target, overwrite=overwrite)
    output.show(
        _with_rounding(result, converted, given["energy"]),
        document={"out": target, "format": converted.format},
    )
    echo_written(written)


def _require_a_limit(given: dict[str, Any]) -> None:
    by_rank = given["rank"] is not None or given["ranks"] is not None
    if by_rank == (given["energy"] is not None):
        raise click.UsageError("Give --rank, --rank-pattern or both, or --energy alone")


def _ranks(path: str | None) -> Mapping[str, int] | None:
    return None if path is None else read_json(path)


def _with_rounding(result: Truncation, converted: Conversion, wanted: float | None) -> Truncation:
    """Each module with what rounding changed: in its layer, where groups were joined; and the notes of both steps."""
    layers = {module: row for row in converted.modules for module in row.of}
    only = next(iter(layers.values()))
    rows = tuple(_as_written(row, layers.get(row.module, only), result, wanted) for row in result.modules)
    return replace(result, modules=rows, notes=tuple(dict.fromkeys(result.notes + converted.notes)))


def _as_written(
    row: ModuleTruncation, layer: ModuleConversion, result: Truncation, wanted: float | None
) -> ModuleTruncation:
    """The row of a module with the rounding of its layer; a scale that was multiplied into B rounds it anew."""
    row = replace(row, rounding=layer.error)
    if row.energy is None or row.error is None or layer.scale == result.adapter[row.module].scale.value:
        return row
    energy = min(row.energy, (1 - row.error**2) * (1 - layer.error**2))
    short = wanted is not None and energy < wanted * (1 - 1e-12) and Flag.ENERGY_BELOW_WANTED not in row.flags
    return replace(row, energy=energy, flags=(*row.flags, Flag.ENERGY_BELOW_WANTED) if short else row.flags)
