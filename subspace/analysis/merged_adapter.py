"""The merged modules as an adapter to be written, with what all configurations agree on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from subspace.adapters import Adapter
from subspace.analysis.merge_inputs import MergeInputs
from subspace.analysis.merged_module import MergedModule
from subspace.errors import FormatError

__all__ = ["merged_adapter", "written_notes"]

# fields of PEFT's configuration that stay, where all adapters that have them agree
_KEPT = ("base_model_name_or_path", "task_type", "layer_replication", "revision", "auto_mapping")


def merged_adapter(given: MergeInputs, merged: Sequence[MergedModule]) -> Adapter:
    """The merged updates, in memory."""
    return Adapter(
        path=given.adapters[0].path,
        format=given.format,
        container="memory",
        updates={each.update.module: each.update for each in merged if each.update is not None},
        config=_config(given),
    )


def _config(given: MergeInputs) -> dict[str, Any]:
    kept = {}
    for name in _KEPT:
        values = [each.config[name] for each in given.adapters if each.config.get(name) is not None]
        if values and all(value == values[0] for value in values):
            kept[name] = values[0]
        elif values and name == "layer_replication":
            raise FormatError(
                "Adapters of different models cannot be merged: their layers are replicated in different ways"
            )
        elif values and name == "base_model_name_or_path":
            kept[name] = values[0]  # a note names the others
    return kept


def written_notes(notes: Sequence[str], given: MergeInputs) -> list[str]:
    """What the writer had to say, and that the base is unknown where no configuration names it."""
    if given.format == "peft" and not any(
        each.config.get("base_model_name_or_path") for each in given.adapters
    ):
        notes = (
            *notes,
            "The configuration does not say base_model_name_or_path, which is unknown; PEFT loads the adapter onto a "
            "model that you give",
        )
    return list(notes)
