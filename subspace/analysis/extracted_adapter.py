"""Extracted updates, and what is stored whole beside them, as an adapter of PEFT."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from subspace.adapters import Adapter
from subspace.adapters.format import Ignored
from subspace.adapters.naming.sorting import in_order
from subspace.adapters.update import Factor, LowRankUpdate, Scale
from subspace.analysis.tuned_model import Reason, TunedModel, name_of
from subspace.analysis.unextracted import Unextracted
from subspace.checkpoints.tensor_bytes import PlannedFile, StoredTensor
from subspace.results.extraction import ModuleExtraction

__all__ = ["extracted_adapter"]


def extracted_adapter(
    rows: Sequence[ModuleExtraction], rest: Sequence[Unextracted], model: TunedModel, *, dtype: str
) -> Adapter:
    """The adapter of the rows that have factors, in a type, with the name of its base where that is known."""
    stored = {
        key: StoredTensor(model.tensors.raw(own), model.tensors.layout[own].dtype)
        for each in rest
        for key, own in each.keys.items()
    }
    by_module = {row.module: _update(row, model, dtype) for row in rows}
    return Adapter(
        path=model.tuned.path,
        format="peft",
        container="memory",
        updates={module: by_module[module] for module in in_order(by_module)},
        ignored=tuple(Ignored(key, "stored whole with the adapter") for key in stored),
        config=_config(rest, model),
        tensors=PlannedFile(stored, path=model.tuned.path) if stored else None,
    )


def _update(row: ModuleExtraction, model: TunedModel, dtype: str) -> LowRankUpdate:
    A, B, shape = row.A, row.B, model.tensors.layout[model.keys[row.tuned_name]].shape
    assert A is not None
    assert B is not None
    return LowRankUpdate(
        module=row.module,
        A_factor=Factor(
            (A.shape[0], A.shape[1]),
            dtype,
            lambda: A,
            tensor_shape=(len(A), *shape[1:]) if row.kind == "conv" else None,
        ),
        B_factor=Factor((B.shape[0], B.shape[1]), dtype, lambda: B),
        scale=Scale(1.0, "extracted"),
        kind=row.kind,
        # of GPT-2's Conv1D
        fan_in_fan_out=(row.kind == "linear" and model.base.stored_transposed(row.tuned_name)) or None,
    )


def _config(rest: Sequence[Unextracted], model: TunedModel) -> dict[str, Any]:
    saved = list(dict.fromkeys(each.module for each in rest if each.keys and each.module))
    biases = any(each.keys and not each.module for each in rest)
    tied = any(each.module and each.reason is Reason.TIED for each in rest)
    fields = {
        "base_model_name_or_path": name_of(model.source, model.base.config),
        "task_type": "CAUSAL_LM" if model.is_causal else None,
        "modules_to_save": saved or None,
        "bias": "all" if biases else None,
        "ensure_weight_tying": tied or None,
    }
    return {field: value for field, value in fields.items() if value is not None}
