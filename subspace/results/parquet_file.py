"""Rows of pairs as a Parquet file, for libraries whose pairs are too many for text."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from subspace.checkpoints.atomic_writing import one_writer, write_whole
from subspace.errors import FileError, ValueRangeError
from subspace.results.adapter_pairs import AdapterPair
from subspace.results.columns import columns_of
from subspace.text import shown

if TYPE_CHECKING:
    from subspace.results.adapter_pairs import PairRows

__all__ = ["save_parquet"]


def save_parquet(rows: PairRows, path: str | os.PathLike[str], *, overwrite: bool = False) -> list[Path]:
    """Write rows to a Parquet file in one step, one column each; parameters and errors as `Library.save_parquet`."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ValueRangeError(
            "Cannot write Parquet without pyarrow; pip install pyarrow, or save as .csv"
        ) from error
    columns = {}
    for each in columns_of(AdapterPair):
        if each.name == "flags":
            continue
        values = rows.column(each.name)
        if values.dtype == object:
            # adapters and sides are few and rows are many
            columns[each.name] = pa.array(values, pa.string()).dictionary_encode()
        else:
            missing = np.isnan(values) if values.dtype.kind == "f" else None
            columns[each.name] = pa.array(values, mask=missing)
    columns["shared_start"] = pa.array(rows.column("shared_start"))
    table, place = pa.table(columns), Path(path)
    written = io.BytesIO()
    pq.write_table(table, written, compression="zstd")
    with one_writer(place):
        if place.exists() and not overwrite:
            raise FileError(f"{shown(place, longest=1000)} exists already; give another name, or `overwrite`")
        write_whole({place: written.getvalue()})
    return [place]
