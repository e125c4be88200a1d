"""A study as one HTML page."""

from __future__ import annotations

from base64 import b64encode
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subspace.checkpoints.atomic_writing import may_replace, write_whole
from subspace.plots.canvas import rendered
from subspace.plots.module_titles import endings
from subspace.report.commands import commands
from subspace.results.cells import cell
from subspace.study.paper import Paper
from subspace.study.rules import AGREES, DIFFERS, NOISE, PARTLY, VERDICTS
from subspace.text import shown

if TYPE_CHECKING:
    from subspace.study.study import Study
    from subspace.study.study_tables import Table

__all__ = ["headline", "page", "page_content", "write_page"]

_DPI = 150  # twice what a screen shows of a figure of seven inches
_START = b"<!doctype html>\n<!-- subspace study -->"
_NAME = "index.html"
# in a sentence, of one claim and of several
_COUNTED = {
    AGREES: ("agrees", "agree"),
    PARTLY: ("agrees in part", "agree in part"),
    NOISE: ("holds as much for noise", "hold as much for noise"),
    DIFFERS: ("differs", "differ"),
}
_MARKS = dict(zip(VERDICTS, ("yes", "partly", "noise", "no", "untold"), strict=True))
# figures that show more layers of another
_LAYERS_OF = {"fig6": "fig3", "fig7": "fig4"}
_LABELS = {
    "norm_W": "‖W‖", "norm_delta_W": "‖ΔW‖", "proj_delta_W": "W in ΔW's", "proj_W": "W in its own",
    "proj_random": "W in isotropic random", "proj_random_sd": "± sd", "factor_random": "factor, isotropic",
    "phi_11": "phi(1, 1)", "phi_full": "phi(r, r)", "phi_11_isotropic": "isotropic", "phi_full_isotropic": "isotropic",
    "phi_11_same_input": "same input", "A_same_input": "same input", "A_start_removed": "start removed",
    "phi_11_A": "phi(1, 1) of A", "phi_11_B": "phi(1, 1) of B", "energy": "energy inside",
    "energy_isotropic": "isotropic",
    "norm_over_W": "‖ΔW‖ / ‖W‖", "outgrown": "σ₁(ΔW) / σ₁₀(W)", "with_forgetting": "forgetting with",
    "matrices_with_any": "matrices with any", "intruders_random": "random", "forgetting_random": "random",
    "r64_trained_on": "r = 64 trained on", "shared_A": "shared, A", "shared_B": "shared, B",
}  # fmt: skip


def write_page(study: Study) -> Path:
    """Write the page of a study, ``index.html``, into its folder; return its path.

    Raises
    ------
    FileError : a page of something else has its name, or it cannot be written
    """
    content = page_content(study)
    write_whole(content)
    return next(iter(content))


def page_content(study: Study) -> dict[Path, bytes]:
    """Return path -> content of the page, once it is sure that it may be put there.

    Raises
    ------
    FileError : a page of something else has its name
    """
    path = study.folder / _NAME
    may_replace(path, (_START,))
    return {path: page(study).encode()}


def page(study: Study) -> str:
    """Return the page as HTML: it needs nothing from elsewhere, and every text from outside is escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"cell": cell, "shown": lambda text: shown(text, longest=1000), "label": _label}
    record = study.record
    return environment.get_template(f"papers/{study.paper.name}.html.j2").render(
        headline=headline(record, study.paper.claims),
        record=record,
        settings=record["settings"],
        batches=_batches(record),
        cost=_cost(record["seconds"]),
        findings=study.findings,
        controls=study.paper.controls,
        marks=_MARKS,
        pictures=list(_pictures(study)),
        tables=[(table, _shortened(table)) for table in study.tables],
        claims=_claims(study),
        runs=[{**study.paper.run_row(run), **_cost_and_loss(run)} for run in record["runs"]],
        commands=commands(study),
    )


def _batches(record: Mapping[str, Any]) -> str:
    """What a batch consists of, with the length that was used and not the one that was asked for."""
    run = record["runs"][0]
    length = (run["computed"] or {}).get("length", record["settings"]["length"])
    return f"texts of {length} tokens at most" if run["task"] == "classify" else f"windows of {length} tokens"


def _cost(seconds: Mapping[str, float]) -> str:
    """What all of it took: on the clock, and of processors."""
    wall, worked = (
        sum(seconds.get(f"{part}{what}", 0.0) for part in ("training", "analysis"))
        for what in ("", "_processor")
    )
    return f"{wall / 60:.1f} minutes, and {worked:.0f} seconds of processors"


def _label(column: str) -> str:
    return _LABELS.get(column, column.replace("_", " "))


def headline(record: Mapping[str, Any], claims: tuple[str, str] = Paper.claims) -> str:
    """Return the outcome in one sentence.

    Parameters
    ----------
    record : content of ``study.json``
    claims : what is counted, one and several

    Examples
    --------
    >>> verdicts = ["agrees", "agrees", "holds, but so does noise", "cannot be told"]
    >>> record = {"findings": [{"verdict": each} for each in verdicts], "base": {"parameters": 3229952}}
    >>> headline(record)  # doctest: +NORMALIZE_WHITESPACE
    'Of 4 claims of the paper tested on a model of 3.2 million parameters, 2 agree, 1 holds as much for noise and 1
    cannot be told.'
    """
    counts = Counter(finding["verdict"] for finding in record["findings"])
    parts = [f"{n} {_COUNTED.get(v, (v, v))[n > 1]}" for v in VERDICTS if (n := counts[v])]
    n, size = len(record["findings"]), _millions(record["base"]["parameters"])
    return f"Of {n} {claims[n != 1]} tested on a model of {size} parameters, {_joined(parts)}."


def _joined(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


def _millions(n: int) -> str:
    return f"{n / 1e6:.1f} million" if n >= 1e5 else str(n)


def _pictures(study: Study) -> Iterator[dict[str, Any]]:
    for picture in study.pictures:
        data = b64encode(rendered(picture.figure, "png", dpi=_DPI)).decode("ascii")
        yield {"picture": picture, "uri": f"data:image/png;base64,{data}"}


def _claims(study: Study) -> dict[str, str]:
    """Key of a figure or table -> which claims it shows, by their numbers on the page."""
    shown_by: dict[str, list[str]] = {}
    for number, finding in enumerate(study.findings, 1):
        shown_by.setdefault(finding.figure, []).append(str(number))
    named = {key: f"Claim{'s' * (len(n) > 1)} {_joined(n)}" for key, n in shown_by.items()}
    return named | {key: named[of] for key, of in _LAYERS_OF.items() if of in named}


def _shortened(table: Table) -> list[dict[str, Any]]:
    """The rows of a table, with the ends of the modules' names that tell them apart."""
    modules = list(dict.fromkeys(row["module"] for row in table.rows if "module" in row))
    short = dict(zip(modules, endings(modules), strict=True))
    return [{**row, **({"module": short[row["module"]]} if "module" in row else {})} for row in table.rows]


def _cost_and_loss(run: Mapping[str, Any]) -> dict[str, Any]:
    held_out = run["held_out"] or {}
    settings = run["settings"] or {}
    return {
        "parameters": run["trainable"],
        "steps": settings.get("steps"),
        "batch": settings.get("batch"),
        "held-out loss": _change(held_out, "loss"),
        "bits per byte": _change(held_out, "bits_per_byte"),
    }


def _change(held_out: Mapping[str, Mapping[str, float]], name: str) -> str | None:
    before, after = (held_out.get(when, {}).get(name) for when in ("before", "after"))
    return None if before is None or after is None else f"{before:.3f} → {after:.3f}"
