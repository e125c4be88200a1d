"""A study as one HTML page."""

from __future__ import annotations

from base64 import b64encode
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subspace.checkpoints.atomic_writing import may_replace, write_whole
from subspace.plots.canvas import rendered
from subspace.report.commands import commands
from subspace.results.cells import cell
from subspace.study.rules import AGREES, DIFFERS, PARTLY, VERDICTS
from subspace.text import counted, shown

if TYPE_CHECKING:
    from subspace.study.study import Study

__all__ = ["headline", "page", "write_page"]

_DPI = 150  # twice what a screen shows of a figure of seven inches
_START = b"<!doctype html>\n<!-- subspace study -->"
_NAME = "index.html"
_PLURAL = {AGREES: "agree", PARTLY: "agree in part", DIFFERS: "differ"}
# figures that show more layers of another
_LAYERS_OF = {"fig6": "fig3", "fig7": "fig4"}
_LABELS = {
    "norm_W": "‖W‖", "norm_delta_W": "‖ΔW‖", "proj_delta_W": "W in ΔW's", "proj_W": "W in its own",
    "proj_random": "W in random", "proj_random_sd": "± sd", "factor_random": "factor, random",
    "phi_11": "phi(1, 1)", "phi_11_chance": "random spans", "phi_full": "phi(r, r)", "phi_full_chance": "random spans",
}  # fmt: skip


def write_page(study: Study) -> Path:
    """Write the page of a study, ``index.html``, into its folder; return its path.

    Raises
    ------
    FileError : a page of something else has its name, or it cannot be written
    """
    path = study.folder / _NAME
    may_replace(path, (_START,))
    write_whole({path: page(study).encode()})
    return path


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
    return environment.get_template("page.html.j2").render(
        headline=headline(record),
        record=record,
        settings=record["settings"],
        batches=_batches(record),
        minutes=sum(record["seconds"].values()) / 60,
        findings=study.findings,
        marks=dict(zip(VERDICTS, ("yes", "partly", "no", "untold"), strict=True)),
        pictures=list(_pictures(study)),
        tables=study.tables,
        runs=list(_runs(record["runs"])),
        headlines={name: record["comparisons"][name]["headline"] for name in ("ranks", "seeds", "random")},
        commands=commands(study),
    )


def _batches(record: Mapping[str, Any]) -> str:
    """What a batch consists of, with the length that was used and not the one that was asked for."""
    run = record["runs"][0]
    length = (run["computed"] or {}).get("length", record["settings"]["length"])
    return f"texts of {length} tokens at most" if run["task"] == "classify" else f"windows of {length} tokens"


def _label(column: str) -> str:
    return _LABELS.get(column, column.replace("_", " "))


def headline(record: Mapping[str, Any]) -> str:
    """Return the outcome in one sentence.

    Parameters
    ----------
    record : content of ``study.json``

    Examples
    --------
    >>> verdicts = ["agrees", "agrees", "differs", "cannot be told"]
    >>> record = {"findings": [{"verdict": each} for each in verdicts], "base": {"parameters": 3229952}}
    >>> headline(record)
    'Of 4 claims of the paper tested on a model of 3.2 million parameters, 2 agree, 1 differs and 1 cannot be told.'
    """
    counts = Counter(finding["verdict"] for finding in record["findings"])
    parts = [f"{n} {_PLURAL.get(v, v) if n > 1 else v}" for v in VERDICTS if (n := counts[v])]
    outcome = " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))
    claims, size = counted(len(record["findings"]), "claim"), _millions(record["base"]["parameters"])
    return f"Of {claims} of the paper tested on a model of {size} parameters, {outcome}."


def _millions(n: int) -> str:
    return f"{n / 1e6:.1f} million" if n >= 1e5 else str(n)


def _pictures(study: Study) -> Iterator[dict[str, Any]]:
    """Figures, each with what the findings that it shows say of it."""
    for picture in study.pictures:
        key = _LAYERS_OF.get(picture.key, picture.key)
        notes = [finding for finding in study.findings if finding.figure == key]
        data = b64encode(rendered(picture.figure, "png", dpi=_DPI)).decode("ascii")
        yield {"picture": picture, "uri": f"data:image/png;base64,{data}", "findings": notes}


def _runs(runs: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for run in runs:
        held_out = run["held_out"] or {}
        before, after = held_out.get("before", {}), held_out.get("after", {})
        yield {
            "run": run["name"],
            "r": run["rank"],
            "seed": run["seed"],
            "adapted": ", ".join(run["targets"]),
            "parameters trained": run["trainable"],
            "held-out loss, untrained": before.get("loss"),
            "held-out loss": after.get("loss"),
            "bits per byte, untrained": before.get("bits_per_byte"),
            "bits per byte": after.get("bits_per_byte"),
        }
