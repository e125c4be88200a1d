"""The experts of NeMo Automodel: ``experts.lora_gate_and_up_A`` (experts, d_in, r) and ``_B`` (experts, r, d_out).

Both are stored for ``x @ A @ B``, next to pairs in PEFT's keys for other layers. An update has the name of the
parameter that transformers 5 keeps the experts in: ``experts.gate_up_proj[3]``.

References
----------
NVIDIA-NeMo/Automodel, components/_peft/lora_experts.py: ``GroupedExpertsLoRA``, scale ``alpha / lora_dim``.
"""

from __future__ import annotations

import re

from subspace.adapters.format import Source
from subspace.adapters.formats import _experts as experts
from subspace.adapters.formats import _pairs as pairs
from subspace.adapters.formats._peft_config import PeftConfig
from subspace.adapters.update import Factor, LowRankUpdate, Scale
from subspace.checkpoints.peft_files import PREFIX
from subspace.errors import ShapeError
from subspace.flags import Flag

__all__ = ["are_grouped", "grouped_updates"]

_KEY = re.compile(r"(?P<module>(?:.*\.)?lora_(?:gate_and_up|down))_(?P<part>[AB])", re.DOTALL)
_PARAMETERS = {"lora_gate_and_up": "gate_up_proj", "lora_down": "down_proj"}


def are_grouped(key: str) -> bool:
    """Whether a key is of a group of experts."""
    return _KEY.fullmatch(key) is not None


def grouped_updates(source: Source, config: PeftConfig | None) -> tuple[list[LowRankUpdate], set[str]]:
    """The update of every expert, and the keys that they are made of."""
    updates: list[LowRankUpdate] = []
    used: set[str] = set()
    for stored, keys in pairs.by_module(source.tensors.layout, _KEY).items():
        parent, _, last = stored.removeprefix(PREFIX).rpartition(".")
        name = _PARAMETERS[last]
        module = f"{parent}.{name}" if parent else name
        pairs.require_both(keys, "A", "B", module, source, prefix=f"{last}_")
        used.update(keys.values())
        updates += _experts(module, keys["A"], keys["B"], config, source)
    return updates, used


def _experts(module: str, a: str, b: str, config: PeftConfig | None, source: Source) -> list[LowRankUpdate]:
    A, B = source.shape(a), source.shape(b)
    if len(A) != 3 or len(B) != 3 or A[0] != B[0] or A[2] != B[1]:
        raise ShapeError(
            f"The factors of grouped experts do not fit together: A (experts, d_in, r) is {list(A)} and B (experts, r, "
            f"d_out) is {list(B)}, in {source.place(module)}"
        )
    count, d_in, r = A
    rows_A, rows_B = _rows(source.factor(a), d_in, r), _rows(source.factor(b), r, B[2])
    scale = config.scale(module, r) if config else Scale(None, "unknown")
    return [
        LowRankUpdate(
            f"{module}[{n}]",
            rows_A.rows(n * d_in, (n + 1) * d_in).T,
            rows_B.rows(n * r, (n + 1) * r).T,
            scale,
            flags=(Flag.EXPERT,),
        )
        for n in range(count)
    ]


def _rows(tensor: Factor, rows: int, columns: int) -> Factor:
    return experts.stacked(tensor, (tensor.shape[0] * rows, columns))
