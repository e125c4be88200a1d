"""The costs of a training run as values: as a document and as lines for a terminal."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Accounts", "Cost", "in_bytes"]


@dataclass(frozen=True)
class Cost:
    """What training in one way costs.

    Attributes
    ----------
    trainable : number of parameters that are trained
    flops : floating-point operations of the matrix products, convolutions and attentions of one step, forward and
        backward
    peak_bytes : the optimiser's moments, and the most bytes that all tensors made during one step take at one time:
        gradients, activations, copies in autocast's type. Not the weights.
    checkpoint_bytes : size of a safetensors file of the trained parameters
    step_ms : wall time of one step of the optimiser, median
    """

    trainable: int
    flops: int
    peak_bytes: int
    checkpoint_bytes: int
    step_ms: float


@dataclass(frozen=True)
class Accounts:
    """Costs of a run and of full fine-tuning, and the latency of the result.

    Attributes
    ----------
    total : parameters of the base; one that is tied counts once
    run, full : costs of this run, and of full fine-tuning; None where it was not measured, with the reason in `notes`
    base_ms, merged_ms, adapter_ms : wall time of one forward pass of one micro-batch in evaluation mode, median: of the
        base without adapters, with the adapter merged, with it unmerged; NaN where there is no adapter
    latency_ratio : ``merged_ms / base_ms``
    merged_difference : largest difference of an output merged from unmerged, relative to the largest output, in float32
    dtype : type of the matrix products
    threads : number of CPU threads
    notes : why something was not measured
    """

    total: int
    run: Cost
    full: Cost | None
    base_ms: float
    merged_ms: float
    latency_ratio: float
    adapter_ms: float
    merged_difference: float
    dtype: str
    threads: int
    notes: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """Return every field by name as JSON has it, None for NaN, and the ``lines``."""
        plain = asdict(self) | {"notes": list(self.notes), "lines": self.lines()}
        return {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in plain.items()
        }

    def lines(self) -> list[str]:
        """Return a table for a terminal: each cost, that of full fine-tuning, the ratio; then latencies and notes."""
        rows = [("", "this run", "full", "run / full")] if self.full else [("", "this run", "", "")]
        for name, field, form in _ROWS:
            mine = getattr(self.run, field)
            other = getattr(self.full, field) if self.full else None
            ratio = f"{mine / other:.3g}" if other else ""
            rows.append((name, form(mine), "" if other is None else form(other), ratio))
        table = [f"{name:<22}{mine:>12}{other:>15}{ratio:>12}".rstrip() for name, mine, other, ratio in rows]
        return [*table, *self._latency(), *self.notes]

    def _latency(self) -> list[str]:
        base = f"forward pass: base {self.base_ms:.3g} ms"
        if math.isnan(self.merged_ms):
            return [base]
        return [
            f"{base}, merged {self.merged_ms:.3g} ms ({self.latency_ratio:.3g} of base), "
            f"unmerged {self.adapter_ms:.3g} ms",
            f"merged outputs differ from unmerged ones by {self.merged_difference:.1e} of the largest",
        ]


def in_bytes(n: float) -> str:
    """Return a number of bytes in a decimal unit.

    Examples
    --------
    >>> in_bytes(512), in_bytes(131_072), in_bytes(2.5e9)
    ('512 B', '131.1 KB', '2.5 GB')
    """
    for unit in ("B", "KB", "MB"):
        if n < 1000:
            return f"{n:.4g} {unit}"
        n /= 1000
    return f"{n:.4g} GB"


_ROWS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("trained parameters", "trainable", lambda n: f"{n:,}"),
    ("FLOPs of a step", "flops", lambda n: f"{n:.4g}"),
    ("memory besides weights", "peak_bytes", in_bytes),
    ("checkpoint", "checkpoint_bytes", in_bytes),
    ("time of a step", "step_ms", lambda n: f"{n:.4g} ms"),
)
