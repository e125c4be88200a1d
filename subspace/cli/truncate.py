"""``subspace truncate IN OUT --rank R``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from subspace.adapters import load_adapter
from subspace.adapters.writers import named
from subspace.adapters.writers._destination import require_place
from subspace.analysis.convert import Conversion, convert
from subspace.analysis.truncate import truncate
from subspace.checkpoints import read_json
from subspace.cli import output as out
from subspace.cli.options import adapter_options, embedded_too, enabled, output_options
from subspace.cli.outfiles import FORMATS, out_options, wrote
from subspace.cli.progress import Progress
from subspace.results.truncation import Truncation

__all__ = ["command", "document"]


@click.command("truncate")
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT")
@click.option("--rank", type=click.IntRange(1), metavar="R", help="Largest rank of a module.")
@click.option(
    "--energy",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="E",
    help="Keep at least this share of every ||delta_W||^2.",
)
@click.option(
    "--rank-pattern",
    metavar="FILE",
    help='JSON object of module pattern to rank, matched as PEFT does: {"q_proj": 8, "layers.0.v_proj": 2}. '
    "Other modules: --rank, or whole.",
)
@click.option(
    "--to", type=click.Choice(FORMATS), help="Format of OUT. Default: that of IN, peft where it is none."
)
@click.option(
    "--base", metavar="PATH", callback=embedded_too, help="Base weights, where IN is a full fine-tune."
)
@out_options
@adapter_options
@output_options
def command(source: str, target: str, **given: Any) -> None:
    """Cut an adapter to lower ranks, and state what is lost.

    Every delta_W is replaced by the nearest matrix of its rank, from the SVD of its factors, and written as
    B' = U sqrt(S), A' = sqrt(S) V'. error is ||dW - dW_k|| / ||dW||; rounding what storing the factors adds to it, in
    IN's type unless --dtype is given. Unequal ranks become PEFT's rank_pattern and alpha_pattern. A module never gets
    a higher rank than the directions that it has; a dense delta_W or a full fine-tune becomes an adapter.

    \b
    Examples:
      subspace truncate my-adapter/ smaller/ --rank 4
      subspace truncate lora.safetensors small.safetensors --energy 0.95 --dtype float16
      subspace truncate my-adapter/ smaller/ --rank-pattern ranks.json --json | jq .modules[0].error
    """
    _require_a_limit(given)
    adapter = load_adapter(
        source,
        base=given["base"],
        scale=given["scale"],
        adapter_name=given["adapter_name"],
        enable_lora=enabled(given["enable_lora"]),
    )
    to = given["to"] or (adapter.format if adapter.format in FORMATS else "peft")
    require_place(source, target, named(to), overwrite=given["overwrite"])
    with Progress("truncating") as progress:
        result = truncate(
            adapter,
            rank=given["rank"],
            energy=given["energy"],
            ranks=_ranks(given["rank_pattern"]),
            progress=progress,
        )
        allowed = {*given["allow"], "rounding"}
        made = convert(result.adapter, to=to, dtype=given["dtype"], allow=allowed, module=given["module"])
    wrote(made.save(target, overwrite=given["overwrite"]))
    if given["output"] == "json":
        out.echo_json(document(result, made, target))
    elif given["output"] == "csv":
        click.echo(out.as_csv(_records(result, made)), nl=False)
    else:
        out.echo_table(result)
    out.warn(tuple(dict.fromkeys(result.notes + made.notes)))


def _require_a_limit(given: dict[str, Any]) -> None:
    by_rank = given["rank"] is not None or given["rank_pattern"] is not None
    if by_rank == (given["energy"] is not None):
        raise click.UsageError("give --rank, --rank-pattern, both, or --energy alone")


def _ranks(path: str | None) -> Mapping[str, int] | None:
    return None if path is None else read_json(path)


def _records(result: Truncation, made: Conversion) -> list[dict[str, Any]]:
    """Rows of the cut, each with what rounding changed: in its layer, where groups were joined."""
    stored = {module: row.error for row in made.modules for module in row.of}
    only = next(iter(stored.values()))
    return [{**record, "rounding": stored.get(record["module"], only)} for record in result.records()]


def document(result: Truncation, made: Conversion, target: str) -> dict[str, Any]:
    """Return the JSON document ``subspace.truncate/1`` of a truncation."""
    flags = [list(row.flags) for row in result.modules]
    return {
        "schema": "subspace.truncate/1",
        "path": result.path,
        "out": target,
        "format": made.format,
        "headline": result.headline(),
        "modules": [
            {**record, "flags": told} for record, told in zip(_records(result, made), flags, strict=True)
        ],
        "notes": list(dict.fromkeys(result.notes + made.notes)),
    }
