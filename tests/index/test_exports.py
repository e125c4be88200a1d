import sys

import numpy as np
import pytest

from subspace.errors import FileError, ShapeError
from subspace.index.exports import export_members, export_modules, export_pairs

parquet = pytest.importorskip("pyarrow.parquet")


def test_members_and_modules(index, tmp_path):
    export_members(index, tmp_path / "members.parquet")
    rows = parquet.read_table(tmp_path / "members.parquet").to_pylist()
    assert [row["path"] for row in rows] == [member.path for member in index.members]
    assert [row["number"] for row in rows] == list(range(8))
    assert {row["base"] for row in rows} == {"planted/base"} and {type(row["key"]) for row in rows} == {str}
    export_modules(index, tmp_path / "modules.parquet")
    file = parquet.ParquetFile(tmp_path / "modules.parquet")
    assert file.num_row_groups == len(index.modules)
    rows = file.read().to_pylist()
    assert [(row["module"], row["number"]) for row in rows] == [
        (m, n) for m in index.modules for n in range(8)
    ]
    assert {(row["r"], row["k"], row["scale"], row["kind"]) for row in rows} == {(8, 8, 2.0, "linear")}


def test_pairs_in_groups(index, tmp_path, monkeypatch):
    monkeypatch.setattr("subspace.index.exports._ROWS", 10)
    first, second = np.triu_indices(8, 1)
    phi = np.arange(2 * 28, dtype=float).reshape(2, 28)
    phi[1, 3] = np.nan
    path = tmp_path / "pairs.parquet"
    export_pairs(index, path, first, second, {"phi": phi, "modules": np.arange(28)}, groups=["q", "v"])
    file = parquet.ParquetFile(path)
    assert (file.num_row_groups, file.metadata.num_rows) == (6, 56)
    rows = file.read().to_pylist()
    assert [row["phi"] for row in rows][:31] == list(range(31)) and rows[31]["phi"] is None
    assert rows[40] == {
        "group": "v", "first": int(first[12]), "second": int(second[12]), "phi": 40.0, "modules": 12,
        "first_path": index.members[first[12]].path, "second_path": index.members[second[12]].path,
    }  # fmt: skip
    export_pairs(index, path, first, second, {"phi": phi[0]})  # its own kind may be replaced
    assert parquet.read_metadata(path).num_rows == 28
    with pytest.raises(ShapeError, match="Not one number for each pair"):
        export_pairs(index, path, first, second, {"phi": phi[:, 1:]}, groups=["q", "v"])


def test_no_file_of_another_kind_is_replaced_and_the_extra_is_named(index, tmp_path, monkeypatch):
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(FileError, match="another kind"):
        export_members(index, tmp_path / "mine.txt")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(FileError, match=r"pip install lora-subspace\[data\]"):
        export_members(index, tmp_path / "x.parquet")
