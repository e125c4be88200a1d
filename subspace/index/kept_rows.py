"""Results of single members, kept in an index as those of pairs are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.checkpoints.safetensors import SafetensorsFile
from subspace.index.kept_pairs import KeptPairs, require_fitting

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.index.batches import Batch

__all__ = ["KeptRows"]


class KeptRows(KeptPairs):
    """What an index keeps of its members one by one; made by `Index.rows`. `missing` names the new members."""

    def put_rows(self, settings: Mapping[str, Any], batch: Batch, arrays: Mapping[str, NDArray[Any]]) -> bool:
        """Keep the results of the new members of a batch; whether they were kept: not where another was faster.

        Parameters
        ----------
        arrays : the last axis of each is that of the new members
        """
        require_fitting(len(batch.new), arrays)
        return self._keep(settings, batch, arrays)

    def read_rows(
        self, settings: Mapping[str, Any]
    ) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]] | None:
        """Return numbers of members and their arrays, of all that are kept and still there; None where nothing is."""
        numbers, arrays = list[int](), dict[str, list[Any]]()
        for block in self._blocks(settings):
            if not self._is_whole(block):
                continue
            there = [place for place, member in enumerate(block.new) if member in self._numbers]
            numbers += [self._numbers[block.new[place]] for place in there]
            tensors = SafetensorsFile(block.path)
            for name in tensors.layout:
                arrays.setdefault(name, []).append(tensors.raw(name)[..., there])
        if not numbers:
            return None
        whole = {name: np.concatenate(parts, axis=-1) for name, parts in arrays.items()}
        return np.array(numbers, np.int64), whole
