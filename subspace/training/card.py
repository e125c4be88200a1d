"""The README.md of a run: what was trained on what, with what outcome, for whoever is given its directory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subspace.text import counted, listed, shown

if TYPE_CHECKING:
    from subspace.training.method import Method

__all__ = ["card_of"]

_NAME = "README.md"
_MARK = "<!-- written by subspace train, and again by --overwrite; without this line the file is yours -->"
_MOST = 1000


def card_of(folder: Path, record: Mapping[str, Any], method: Method) -> dict[str, bytes]:
    """Return the card of a run by the name of its file, {} where somebody has put another README.md there.

    Parameters
    ----------
    folder : of the run
    record : its ``run.json``, with measures on held-out data after training
    method : that was trained
    """
    path = folder / _NAME
    if path.exists() and _MARK not in path.read_text("utf-8", "replace"):
        return {}
    return {_NAME: "\n".join([*_front(record, method), _MARK, "", *_body(record, method), ""]).encode()}


def _front(record: Mapping[str, Any], method: Method) -> list[str]:
    """What the hub reads: YAML, in which a string of JSON is one too."""
    whole = not method.parts
    library = [] if record["settings"]["format"] != "peft" else ["library_name: peft"]
    return ["---", *([] if whole else library), "tags:", f"- {method.name}", "---"]


def _body(record: Mapping[str, Any], method: Method) -> list[str]:
    settings, where = record["settings"], record["targets"]
    base = shown(settings["model"], longest=_MOST)
    at = f" in {counted(len(where), 'module')} ({listed(_ends(where), most=8)})" if where else ""
    rank = f", r = {method.r}," if hasattr(method, "r") else ""
    lines = [
        f"# {method.name}{rank} on {base}",
        "",
        f"Trained on {shown(record['data'], longest=_MOST)}: {record['trainable']:,} parameters{at}, "
        f"{counted(record['computed']['steps'], 'step')}, seed {settings['seed']}.",
    ]
    lines += [f"{note[:1].upper()}{note[1:]}." for note in record["notes"]]
    if record.get("label_names"):
        lines += ["", "Classes:", ""]
        lines += [f"{n}. {shown(name, longest=_MOST)}" for n, name in enumerate(record["label_names"])]
    if measures := record["held_out"].get("after"):
        before = record["held_out"]["before"]
        lines += ["", "| held out | before | after |", "|---|---|---|"]
        lines += [
            f"| {name.replace('_', ' ')} | {_number(before.get(name))} | {value:.4f} |"
            for name, value in measures.items()
        ]
    return [*lines, "", "`run.json` has all settings."]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _ends(names: list[str]) -> list[str]:
    return sorted({name.rpartition(".")[2] for name in names})
