import json
import pickle
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from indexes import assert_same

from subspace.adapters import load_adapter
from subspace.analysis.canonical_update import canonical_of
from subspace.errors import FileError, FormatError
from subspace.index import Index
from subspace.index.shard import place


def test_an_index_returns_what_the_adapters_hold(index, planted):
    assert [member.path for member in index.members] == [str(path) for path in planted.paths[:8]]
    adapters = [load_adapter(path) for path in planted.paths[:8]]
    assert [member.sha256 for member in index.members] == [adapter.sha256() for adapter in adapters]
    assert list(index.modules) == list(adapters[0])
    for module in index.modules:
        assert index.holders(module) == list(range(8))
        assert index.scales(module).tolist() == [adapter[module].scale.value for adapter in adapters]
        for form, adapter in zip(index.forms(module, range(8)), adapters, strict=True):
            exact = canonical_of(adapter[module])
            assert form.right.dtype == form.S.dtype == np.float64
            np.testing.assert_array_equal(form.S, exact.S)
            np.testing.assert_array_equal(form.a, exact.a)
            np.testing.assert_array_equal(form.b, exact.b)
            np.testing.assert_array_equal(form.right, exact.right.astype(np.float32))
            np.testing.assert_array_equal(form.left, exact.left.astype(np.float32))
            update = adapter[module]
            np.testing.assert_allclose(
                form.b.T @ form.a, form.left @ (update.B @ update.A) @ form.right.T, atol=1e-5
            )


def test_the_files_can_be_read_by_other_programs(index, planted):
    key = index.keys[3]
    tensors = safetensors.numpy.load_file(place(index.folder, "adapters", key))
    module = index.modules[1]
    form = index.forms(module, [3])[0]
    np.testing.assert_array_equal(tensors[f"{module}.right"], form.right.astype(np.float32))
    np.testing.assert_array_equal(tensors[f"{module}.S"], form.S)
    index.close()
    with sqlite3.connect(index.folder / "manifest.sqlite") as connection:
        rows = connection.execute("SELECT path FROM members").fetchall()
    connection.close()
    assert rows == [(str(path),) for path in planted.paths[:8]]


def test_numbers_stay_while_another_adds_and_an_index_can_be_pickled(index, planted):
    with Index(index.folder) as other:
        other.add([planted.paths[9]])
        assert (len(index), len(other)) == (8, 9)
        copy = pickle.loads(pickle.dumps(index))
        assert len(copy) == 8 and copy.members == index.members
        assert_same(copy, index)
        index.refresh()
        assert len(index) == 9
        state = pickle.dumps(index)
        other.remove([0])
        with pytest.raises(FileError, match="changed while it was in use"):
            pickle.loads(state)
        copy.close()


def test_the_same_adapter_is_known_and_one_that_changed_takes_its_place(index, planted, tmp_path):
    assert index.add(planted.paths[:8]).new == []
    path = shutil.copytree(planted.paths[10], tmp_path / "mine")
    first = index.add([path])
    assert len(index) == 9 and len(first.new) == 1
    files = sum(1 for _ in index.folder.rglob("*.safetensors"))
    shutil.copy(planted.paths[11] / "adapter_model.safetensors", path)
    second = index.add([path])
    assert second.new != first.new
    assert len(index) == 9
    assert index.members[8].sha256 == load_adapter(planted.paths[11]).sha256()
    assert sum(1 for _ in index.folder.rglob("*.safetensors")) == files  # the other content is gone
    config = json.loads((path / "adapter_config.json").read_text(encoding="utf-8"))
    (path / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 4}), encoding="utf-8")
    index.add([path])  # the same bytes with another scale
    assert index.scales(index.modules[0])[8] == 0.5
    index.add([path], reading={"scale": 3.0})  # read in another way, it is another member
    assert len(index) == 10 and index.scales(index.modules[0])[8:].tolist() == [0.5, 3.0]


def test_copies_share_one_file(planted, tmp_path):
    (one, other), *_ = planted.duplicates
    with Index(tmp_path / "index") as index:
        assert len(index.add([planted.paths[one], planted.paths[other]]).new) == 2
        assert len(index) == 2 and len(set(index.keys)) == 1
        assert sum(1 for _ in index.folder.rglob("*.safetensors")) == 1
        index.remove([0])
        assert [member.path for member in index.members] == [str(planted.paths[other])]
        index.forms(index.modules[0], [0])
        index.remove([0])
        assert list(index.modules) == [] and not list(index.folder.rglob("*.safetensors"))


def test_modules_have_one_name_whatever_the_files_call_them(tmp_path):
    rng = np.random.default_rng(0)

    def adapter(*names, d=6):
        return {
            f"{name}.lora_{part}": rng.standard_normal(shape).astype(np.float32)
            for name in names
            for part, shape in (("A", (2, d)), ("B", (5, 2)))
        }

    with Index(tmp_path / "index") as index:
        index.add(
            [adapter("model.h.0.q", "model.h.1.q"), adapter("h.0.q", "h.2.q"), adapter("model.h.0.q", d=7)]
        )
        assert list(index.modules) == ["h.2.q", "model.h.0.q", "model.h.0.q (5 x 7)", "model.h.1.q"]
        assert index.holders("model.h.0.q") == [0, 1]
        assert index.names(1) == {"model.h.0.q": "h.0.q", "h.2.q": "h.2.q"}
        index.add([adapter("other")], names={"other": "model.h.1.q"})
        assert index.holders("model.h.1.q") == [0, 3]
        with pytest.raises(FormatError, match="No such module"):
            index.forms("h.2.q", [0])
        assert index.members[0].sha256 is None


def test_modules_without_directions_are_left_out_with_a_reason(tmp_path):
    nan = np.full((2, 4), np.nan, np.float32)
    adapter = {
        "p.lora_A": np.ones((2, 4), np.float32), "p.lora_B": np.zeros((3, 2), np.float32),
        "q.lora_A": nan, "q.lora_B": np.ones((3, 2), np.float32),
        "v.lora_A": np.eye(2, 4, dtype=np.float32), "v.lora_B": np.ones((3, 2), np.float32),
    }  # fmt: skip
    with Index(tmp_path / "index") as index:
        done = index.add([adapter])
        assert list(index.modules) == ["v"]
        assert "2 modules" in done.notes[0] and "p, q" in done.notes[0]
        assert not index.repair().notes


def test_what_cannot_be_read_is_refused_and_the_rest_is_added(tmp_path, planted):
    broken = tmp_path / "broken"
    shutil.copytree(planted.paths[0], broken)
    weights = broken / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    with Index(tmp_path / "index") as index:
        done = index.add([planted.paths[1], broken, planted.paths[2]], keep_going=True)
        assert len(index) == 2 and done.refused[0][0] == str(broken) and "cut short" in done.refused[0][1]
        with pytest.raises(FileError, match="cut short"):
            index.add([planted.paths[3], broken, planted.paths[4]])
        assert len(index) == 3


def test_the_step_and_the_base_are_kept(planted, tmp_path):
    with Index(tmp_path / "index") as index:
        numbers = sorted(planted.steps)
        index.add([planted.paths[n] for n in numbers])
        assert [member.step for member in index.members] == [planted.steps[n] for n in numbers]
        assert set(index.bases) == {"planted/base"} and set(index.formats) == {"peft"}


def test_a_folder_that_is_no_index_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(FileError, match=r"not empty and holds no index.*notes\.txt"):
        Index(tmp_path)
    with pytest.raises(FileError, match="No index of adapters"):
        Index(tmp_path / "nowhere", create=False)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_index_that_may_only_be_read_is_read(of_eight, request):
    top = Path(tempfile.mkdtemp())  # pytest's own folders are closed to other users
    request.addfinalizer(lambda: shutil.rmtree(top))
    top.chmod(0o755)
    folder = shutil.copytree(of_eight, top / "copy")
    for path in [*folder.rglob("*"), folder]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        program = (
            "import numpy as np, os, sys, tempfile\n"
            "from subspace.index import Index\n"
            "from subspace.errors import FileError\n"
            "q = {'q.lora_A': np.eye(2, 4), 'q.lora_B': np.ones((3, 2))}\n"
            "with tempfile.TemporaryDirectory() as folder, Index(folder) as index:\n"
            "    index.add([q])\n"  # imports all that is needed, while the interpreter's own files can be read
            "if hasattr(os, 'getuid') and os.getuid() == 0: os.setuid(65534)\n"
            "index = Index(sys.argv[1]); print(len(index), index.forms(index.modules[0], [0])[0].k)\n"
            "try: index.add([q])\n"
            "except FileError as error: print(error)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, folder], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("8 8\nCannot write")
    finally:
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o755)
