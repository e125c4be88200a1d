"""Members and pairs of an index as Parquet files, for those who go on in pandas, DuckDB or Spark."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.checkpoints.atomic_writing import may_replace, one_writer
from subspace.checkpoints.sole_writer import real, remove, temporary
from subspace.errors import FileError, ShapeError
from subspace.text import shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.index.index import Index

__all__ = ["export_members", "export_modules", "export_pairs"]

_ROWS = 2**16  # of a row group
_MAGIC = b"PAR1"


def export_members(index: Index, path: str | os.PathLike[str]) -> None:
    """Write a Parquet file with one row for each member: number, path, sha256, key, format, base and step.

    Raises
    ------
    FileError : pyarrow is not installed, or the file cannot be written, or is of another kind
    """
    rows = {
        "number": np.arange(len(index)),
        "path": [member.path for member in index.members],
        "sha256": [member.sha256 for member in index.members],
        "key": index.keys,
        "format": index.formats,
        "base": index.bases,
        "step": [member.step for member in index.members],
    }
    texts = ("path", "sha256", "key", "format", "base")
    _write(path, {**dict.fromkeys(rows, "int64"), **dict.fromkeys(texts, "string")}, [rows])


def export_modules(index: Index, path: str | os.PathLike[str]) -> None:
    """Write a Parquet file with one row for each module of each member: ranks, dimensions, scale and flags.

    A row group holds one module, so that the file may be longer than memory. Raises as `export_members`.
    """
    types = {
        "module": "string", "number": "int64", "stored": "string", "kind": "string", "r": "int64", "k": "int64",
        "d_in": "int64", "d_out": "int64", "scale": "float64", "flags": "string",
    }  # fmt: skip
    _write(path, types, (_of_module(index, module) for module in index.modules))


def export_pairs(
    index: Index,
    path: str | os.PathLike[str],
    first: NDArray[Any],
    second: NDArray[Any],
    arrays: Mapping[str, NDArray[Any]],
    *,
    groups: Sequence[str] = ("total",),
) -> None:
    """Write a Parquet file with one row for each pair and group: the members, their paths, and every number.

    Parameters
    ----------
    index : whose members the pairs are of
    first, second : numbers of the members of each pair
    arrays : by the name of the column, each of shape (groups, pairs) or (pairs,)
    groups : names of the groups, such as modules

    Raises
    ------
    ShapeError : an array has another shape
    FileError : as `export_members`
    """
    shape = len(groups), len(first)
    wide = {
        name: np.broadcast_to(array, shape) if array.ndim == 1 else array for name, array in arrays.items()
    }
    for name, array in wide.items():
        if array.shape != shape:
            raise ShapeError(
                f"Not one number for each pair: shape {array.shape} instead of {shape}, in {shown(name)}"
            )
    kinds = {name: "float64" if array.dtype.kind == "f" else "int64" for name, array in wide.items()}
    types = {
        "group": "string",
        "first": "int64",
        "second": "int64",
        "first_path": "string",
        "second_path": "string",
    }
    _write(path, types | kinds, _of_pairs(index, first, second, wide, groups))


def _of_module(index: Index, module: str) -> dict[str, Any]:
    facts = index.facts(module)
    found = list(facts.values())
    return {
        "module": [module] * len(found),
        "number": list(facts),
        **{
            name: [getattr(each, name) for each in found]
            for name in ("stored", "kind", "r", "k", "d_in", "d_out")
        },
        "scale": [each.scale for each in found],
        "flags": [",".join(each.flags) for each in found],
    }


def _of_pairs(
    index: Index,
    first: NDArray[Any],
    second: NDArray[Any],
    arrays: Mapping[str, NDArray[Any]],
    groups: Sequence[str],
) -> Iterator[dict[str, Any]]:
    paths = np.array([member.path for member in index.members], object)
    for n, group in enumerate(groups):
        for start in range(0, len(first), _ROWS):
            part = slice(start, start + _ROWS)
            one, other = first[part], second[part]
            yield {
                "group": [group] * len(one), "first": one, "second": other,
                "first_path": paths[one], "second_path": paths[other],
                **{name: array[n, part] for name, array in arrays.items()},
            }  # fmt: skip


def _write(
    path: str | os.PathLike[str], types: Mapping[str, str], parts: Iterable[Mapping[str, Any]]
) -> None:
    """Write the parts as row groups, one at a time, and put the file in place once it is complete on disk."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise FileError(
            "The package pyarrow is not installed; it is needed to write Parquet: pip install lora-subspace[data]"
        ) from None
    target = real(Path(path))
    schema = pa.schema([(name, getattr(pa, kind)()) for name, kind in types.items()])
    with one_writer(target):
        may_replace(target, (_MAGIC,))
        new = temporary(target)
        try:
            with new.open("xb") as file:
                with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
                    for part in parts:
                        columns = [_column(pa, part[field.name], field.type) for field in schema]
                        writer.write_table(pa.Table.from_arrays(columns, schema=schema))
                file.flush()
                os.fsync(file.fileno())
            new.replace(target)
        except OSError as error:
            raise error if isinstance(error, FileError) else _unwritten(error, target) from error
        finally:
            remove(new)


def _unwritten(error: OSError, path: Path) -> FileError:
    return FileError(
        f"Cannot write {shown(path, longest=1000)}: {shown(error.strerror or error)}; check the path and its "
        "permissions"
    )


def _column(pa: Any, values: Any, kind: Any) -> Any:
    if isinstance(values, np.ndarray) and values.dtype.kind == "f":
        return pa.array(values.astype(np.float64), kind, from_pandas=True)  # NaN is null: there is no number
    if isinstance(values, np.ndarray) and values.dtype.kind in "iu":
        return pa.array(values.astype(np.int64), kind)
    return pa.array([_utf8(value) for value in values], kind)


def _utf8(value: Any) -> Any:
    """A value as Parquet can hold it: a path with bytes that are no text is escaped."""
    return value.encode("utf-8", "backslashreplace").decode("utf-8") if isinstance(value, str) else value
