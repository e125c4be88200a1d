"""What a comparison adds with the inputs of its modules: how much of phi they explain, how alike the outputs are."""

from __future__ import annotations

import math
import os
import re
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from subspace.adapters import match_modules
from subspace.adapters.place import place
from subspace.adapters.update import DenseUpdate, LowRankUpdate
from subspace.analysis.frames import reads_input
from subspace.analysis.multiple_testing import holm_by_step, leading_below
from subspace.errors import InconclusiveError, ValueRangeError
from subspace.flags import Flag
from subspace.geometry.input_chance import input_chance
from subspace.geometry.output_agreement import (
    OutputAgreement,
    dense_output_agreement,
    output_agreement,
    output_size,
)
from subspace.geometry.row_chunks import Rows
from subspace.results.inputs import Inputs
from subspace.results.inputs_file import load_inputs
from subspace.text import listed, module_shown, shown

if TYPE_CHECKING:
    from subspace.adapters import BaseWeights, Update
    from subspace.analysis.module_rows import Measured
    from subspace.geometry.second_moment import SecondMoment
    from subspace.results.module_comparison import ModuleComparison

__all__ = ["ByInputs"]

_GROUP = re.compile(r"\[[^\]]*\]$")  # of a fused layer, whose input is that of the layer
_MUCH = 0.2  # share of the input energy outside the eigenpairs, above which a note says so
_Pair: TypeAlias = "tuple[Update, Update]"
_Scales: TypeAlias = tuple[float | None, float | None]


class ByInputs:
    """Adds to the rows of a comparison what the inputs of their modules say.

    Parameters
    ----------
    inputs : an `Inputs`, or the path of its file
    modules : names of the modules of the comparison
    base : base weights, for the share of W's own output; None without them
    """

    def __init__(self, inputs: Any, modules: Sequence[str], base: BaseWeights | None = None) -> None:
        self.path = os.fsdecode(inputs) if isinstance(inputs, str | bytes | os.PathLike) else ""
        if not self.path and not isinstance(inputs, Inputs):
            raise ValueRangeError(
                f"Not inputs: {shown(type(inputs).__name__)}; give `inputs` a file that subspace inputs wrote, or its "
                "result"
            )
        self.inputs: Inputs = load_inputs(self.path) if self.path else inputs
        self._base = base
        self._names = _matched(modules, [row.module for row in self.inputs])
        if not self._names:
            raise InconclusiveError(
                f"No module of the comparison is in the file of inputs: the first has "
                f"{module_shown(modules[0])}, and the inputs are of "
                f"{listed(row.module for row in self.inputs)}; give `inputs` of the same model"
            )
        self._outputs: list[tuple[OutputAgreement, _Scales]] = []

    def measured(self, found: Measured) -> Measured:
        """The rows of a module with what its inputs say."""
        module = found.pair[0].module
        moment = self._moment(module, found.pair)
        if moment is None:
            missing = [
                replace(row, by_inputs=True, flags=_with(row.flags, Flag.NO_INPUTS)) for row in found.rows
            ]
            return replace(found, rows=tuple(missing))
        outputs = self._of_outputs(found, moment)
        return replace(found, rows=tuple(self._row(row, found, moment, outputs) for row in found.rows))

    def _moment(self, module: str, pair: _Pair) -> SecondMoment | None:
        return self.moment(module, pair[0].d_in)

    def moment(self, module: str, d_in: int) -> SecondMoment | None:
        """Second moment of the inputs of a module; None where they were not measured or have another dimension."""
        name = self._names.get(module)
        moment = None if name is None else self.inputs.moments.get(self.inputs[name].read_with)
        return moment if moment is not None and moment.d == d_in and moment.trace > 0 else None

    def _row(
        self, row: ModuleComparison, found: Measured, moment: SecondMoment, outputs: Mapping[str, Any]
    ) -> ModuleComparison:
        added: dict[str, Any] = {"by_inputs": True, "inputs_outside": moment.rest / moment.trace}
        if row.cosine is not None:
            added |= outputs
        agreement = found.found.get((row.side, row.init))
        if reads_input(row.side) and agreement is not None and row.phi.size:
            seed = zlib.crc32(row.module.encode("utf-8", "surrogatepass"))
            explained = input_chance(agreement.first, agreement.second, moment, seed=seed)
            added |= {
                "phi_11_inputs": explained.phi_11,
                "phi_full_inputs": explained.phi_full,
                "signs_p": None if math.isnan(explained.signs_p) else explained.signs_p,
                "shared_p_inputs": explained.shared_p,
            }
        return replace(row, **added)

    def _of_outputs(self, found: Measured, moment: SecondMoment) -> dict[str, Any]:
        """The columns on outputs, of a module whose whole updates are compared."""
        if found.effect is None or math.isnan(found.effect.agreement.cosine):
            return {}
        agreement = _agreement(found.pair, moment)
        scales = found.pair[0].scale.value, found.pair[1].scale.value
        self._outputs.append((agreement, scales))
        negative = sum(scale is not None and scale < 0 for scale in scales) == 1
        changes = [
            None if scale is None else abs(scale) * size
            for scale, size in zip(scales, agreement[1:], strict=True)
        ]
        own = self._own_output(found.pair[0], moment)
        shares = [None if change is None or not own else change / own for change in changes]
        cosine = -agreement.cosine if negative else agreement.cosine
        return {
            "cosine_functional": None if math.isnan(cosine) else cosine,
            "output_change_first": changes[0],
            "output_change_second": changes[1],
            "output_share_first": shares[0],
            "output_share_second": shares[1],
        }

    def _own_output(self, update: Update, moment: SecondMoment) -> float | None:
        """Root mean square of ||W x||; None without the weight."""
        weight = None if self._base is None else self._base.weight(update)
        if weight is None:
            return None
        if weight.transposed:
            size = output_size([weight.matrix().T], moment)
        else:
            size = output_size((chunk for _, _, chunk in Rows(weight.streamed()).chunks()), moment)
        assert self._base is not None
        self._base.tensors.release()
        return size

    # --- once all modules were measured

    def tested(self, rows: Sequence[ModuleComparison], level: float) -> list[ModuleComparison]:
        """Rows with the shared dimension beyond the inputs, after Holm's correction over the modules of a side."""
        families: dict[tuple[str, str], list[int]] = defaultdict(list)
        for n, row in enumerate(rows):
            if row.shared_p_inputs is not None:
                families[row.side, row.init].append(n)
        out = list(rows)
        for members in families.values():
            p = [_known(rows[n].shared_p_inputs)[rows[n].forced :] for n in members]
            for n, adjusted in zip(members, holm_by_step(p), strict=True):
                out[n] = replace(rows[n], shared_dim_inputs=leading_below(adjusted, level))
        return out

    def cosine(self) -> float | None:
        """Cosine of the outputs of all modules together, each update with its scale; None where it is not defined."""
        known = [each for each in self._outputs if not math.isnan(each[0].cosine)]
        norms = [_signed_norms(known, n) for n in (0, 1)]
        if not known or norms[0] is None or norms[1] is None:
            return None
        one, other = (np.array(each) for each in norms)
        cosines = np.array([agreement.cosine for agreement, _ in known])
        sizes = float(np.linalg.norm(one)) * float(np.linalg.norm(other))
        return float((one * other) @ cosines) / sizes if 0 < sizes < math.inf else None

    def notes(self, rows: Sequence[ModuleComparison]) -> tuple[str, ...]:
        """What to know of the inputs: where much of them is outside the stored eigenpairs."""
        outside = {row.module: row.inputs_outside for row in rows if (row.inputs_outside or 0) > _MUCH}
        if not outside:
            return ()
        most = max(share for share in outside.values() if share is not None)
        return (
            f"Up to {100 * most:.2g} % of the input energy ({listed(outside)}) lies outside the stored eigenpairs and "
            "counts as flat, so that numbers with inputs are estimates there; store more of them with `inputs`",
        )

    def described(self) -> dict[str, Any]:
        """Which inputs these are, for the JSON document."""
        names = ("model", "data", "model_sha256", "data_sha256", "tokens")
        own = {name: getattr(self.inputs, name) for name in names}
        return {"path": place(self.path) if self.path else None, **own}


def _with(flags: tuple[Flag, ...], flag: Flag) -> tuple[Flag, ...]:
    return flags if flag in flags else (*flags, flag)


def _known(p: Any) -> np.ndarray:
    return np.asarray(p, dtype=np.float64)


def _matched(modules: Sequence[str], stored: Sequence[str]) -> dict[str, str]:
    """Module of the comparison -> name in the file of inputs."""
    layers = {module: _GROUP.sub("", module) for module in modules}
    pairs = dict(match_modules(list(dict.fromkeys(layers.values())), stored).pairs)
    return {module: pairs[layer] for module, layer in layers.items() if layer in pairs}


def _agreement(pair: _Pair, moment: SecondMoment) -> OutputAgreement:
    if all(isinstance(update, LowRankUpdate) for update in pair):
        factors = [(update.B, update.A) for update in pair if isinstance(update, LowRankUpdate)]
        return output_agreement(factors[0], factors[1], moment)
    return dense_output_agreement(_matrix(pair[0]), _matrix(pair[1]), moment)


def _matrix(update: Update) -> np.ndarray:
    if isinstance(update, DenseUpdate):
        return update.matrix.load().astype(np.float64)
    return np.asarray(update.B.astype(np.float64) @ update.A.astype(np.float64))


def _signed_norms(outputs: Sequence[tuple[OutputAgreement, _Scales]], n: int) -> list[float] | None:
    """Scale times size of the outputs of one adapter; None where only some of its scales are known."""
    scales = [each[n] for _, each in outputs]
    if any(scale is None for scale in scales) and any(scale is not None for scale in scales):
        return None
    sizes = [agreement[1 + n] for agreement, _ in outputs]
    return [size * (1.0 if scale is None else scale) for size, scale in zip(sizes, scales, strict=True)]
