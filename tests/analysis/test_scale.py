"""Several processes, and going on after an interruption: the same rows, notes and bytes as one run of one process."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import subspace.analysis.work
from subspace.analysis.amplify import amplify
from subspace.analysis.workers import in_order
from subspace.errors import FileError, FormatError, SubspaceError, ValueRangeError
from subspace.results.row_text import to_text

_D = 24


def _files(folder, *, damaged=False, layers=4):
    """A base and an adapter on disk: one module is not in the base, one is untrained, and one can have a NaN."""
    rng = np.random.default_rng(0)
    base, adapter = {}, {}
    for layer in range(layers):
        stem = f"model.layers.{layer}.self_attn.q_proj"
        base[f"{stem}.weight"] = rng.standard_normal((_D, _D)).astype(np.float32)
        adapter[f"base_model.model.{stem}.lora_A.weight"] = rng.standard_normal((2, _D)).astype(np.float32)
        B = rng.standard_normal((_D, 2)).astype(np.float32)
        adapter[f"base_model.model.{stem}.lora_B.weight"] = B * (layer != 1)
    for key in ("lora_A", "lora_B"):
        whole = adapter[f"base_model.model.model.layers.0.self_attn.q_proj.{key}.weight"]
        adapter[f"base_model.model.elsewhere.{key}.weight"] = whole
    if damaged:
        base["model.layers.2.self_attn.q_proj.weight"][3, 3] = np.nan
    (folder / "delta").mkdir(parents=True)
    save_file(base, folder / "base.safetensors")
    save_file(adapter, folder / "delta" / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
    (folder / "delta" / "adapter_config.json").write_text(json.dumps(config))
    return str(folder / "base.safetensors"), str(folder / "delta")


@pytest.fixture
def always(monkeypatch):
    """Start processes however little there is to do."""
    monkeypatch.setattr(subspace.analysis.work, "_LITTLE", 0)
    monkeypatch.setattr(subspace.analysis.work, "_MUCH", 0)


def _text(result):
    return to_text(result.modules), result.missing, result.notes


def test_two_processes_find_what_one_finds(tmp_path, always):
    base, delta = _files(tmp_path, damaged=True)
    seen = []
    one = amplify(base, delta)
    two = amplify(base, delta, jobs=2, progress=lambda done, total: seen.append((done, total)))
    assert _text(two) == _text(one)
    assert seen == [(n, 5) for n in range(1, 6)]
    assert any("not all finite" in note for note in two.notes)
    assert two.missing == ("elsewhere",)
    assert any("untrained" in row.flags for row in two)


def test_an_error_in_another_process_is_the_same_error(tmp_path, always):
    base, delta = _files(tmp_path)
    tensors = {f"model.layers.{n}.self_attn.q_proj.weight": np.eye(7, dtype=np.float32) for n in range(4)}
    save_file(tensors, base)
    with pytest.raises(SubspaceError) as one:
        amplify(base, delta)
    with pytest.raises(type(one.value)) as two:
        amplify(base, delta, jobs=2)
    assert str(two.value) == str(one.value)


def test_in_memory_and_for_little_work_there_is_one_process_and_a_note(tmp_path, monkeypatch):
    base, delta = _files(tmp_path)
    monkeypatch.setattr(subspace.analysis.work, "in_order", pytest.fail)
    quiet, note = amplify(base, delta), amplify(base, delta, jobs=2)
    assert to_text(note.modules) == to_text(quiet.modules)
    assert [each for each in note.notes if each not in quiet.notes] == [
        "One process did all the work, which takes less time than starting several `jobs`"
    ]
    rng = np.random.default_rng(0)
    W = {"a.weight": rng.standard_normal((6, 6)), "b.weight": rng.standard_normal((6, 6))}
    dW = {f"{m}.lora_{k}.weight": np.ones((1, 6) if k == "A" else (6, 1)) for m in "ab" for k in "AB"}
    assert any("only weights in files" in each for each in amplify(W, dW, scale=1.0, jobs=2).notes)


def test_less_than_one_process_is_an_error(tmp_path):
    with pytest.raises(ValueRangeError, match="Too few processes: 0; give `jobs` of at least 1"):
        amplify(*_files(tmp_path), jobs=0)


def _pid(_):
    return os.getpid(), os.environ.get("OPENBLAS_NUM_THREADS")


def _killed(task):
    if task == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return task


def test_processes_are_others_with_one_thread_each(monkeypatch):
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    found = list(in_order(_pid, range(4), jobs=2))
    assert os.getpid() not in {pid for pid, _ in found}
    assert {threads for _, threads in found} == {"1"}


def test_a_process_that_is_killed_is_one_line_that_says_what_to_do():
    with pytest.raises(
        SubspaceError, match="ended by the system, most likely for lack of memory; give fewer `jobs`"
    ):
        list(in_order(_killed, range(4), jobs=2))


def test_another_back_end_of_joblib_takes_the_same_tasks():
    from joblib import parallel_config

    with parallel_config("threading"):
        assert {pid for pid, _ in in_order(_pid, range(3), jobs=2)} == {os.getpid()}


def test_threads_of_one_process_open_files_of_their_own(tmp_path, always):
    from joblib import parallel_config

    base, delta = _files(tmp_path, damaged=True, layers=8)
    with parallel_config("threading"):
        assert _text(amplify(base, delta, jobs=4)) == _text(amplify(base, delta))


def test_paths_are_relative_to_where_the_program_is_now(tmp_path, always, monkeypatch):
    for name in ("one", "other"):
        _files(tmp_path / name, damaged=name == "other")
        monkeypatch.chdir(tmp_path / name)
        assert _text(amplify("base.safetensors", "delta", jobs=2)) == _text(
            amplify("base.safetensors", "delta")
        )


def test_weights_in_memory_are_not_digested_unless_a_file_keeps_the_results(monkeypatch):
    monkeypatch.setattr("subspace.checkpoints.in_memory.MemoryFile.sha256", pytest.fail)
    amplify(np.eye(4), {"A": np.eye(1, 4), "B": np.eye(4, 1)}, scale=1.0)


def test_a_setting_is_told_by_all_of_its_bits():
    large = np.zeros(5000)
    other = large.copy()
    other[2500] = 1e-300
    described = subspace.analysis.work._described
    assert repr(described(partial(_pid, W=large))) != repr(described(partial(_pid, W=other)))
    assert repr(described(partial(_pid, W=large))) == repr(described(partial(_pid, W=large.copy())))
    assert repr(described(partial(_pid, {1, 2}))) == repr(described(partial(_pid, {2, 1})))


def test_a_file_that_changes_under_the_processes_is_found(tmp_path, always, monkeypatch):
    base, delta = _files(tmp_path)
    stamps = subspace.analysis.one_module.Opened.stamps
    monkeypatch.setattr(
        subspace.analysis.one_module.Opened, "stamps", lambda self: (*stamps(self), (1, 2, 3, 4))
    )
    with pytest.raises(FileError, match="changed while it was being read"):
        amplify(base, delta, jobs=2)


def _sharded(folder, base, kind):
    """The same base in two shards of which an index says what is where."""
    import torch
    from safetensors.torch import load_file
    from safetensors.torch import save_file as save_torch

    whole, where, folder = load_file(base), {}, folder / kind
    folder.mkdir()
    for number, keys in enumerate((list(whole)[::2], list(whole)[1::2])):
        suffix = ".safetensors" if kind == "model" else ".bin"
        name = f"{kind}-0000{number + 1}-of-00002{suffix}"
        part = {key: whole[key] for key in keys}
        save_torch(part, folder / name) if kind == "model" else torch.save(part, folder / name)
        where |= dict.fromkeys(keys, name)
    index = folder / f"{kind}{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return str(folder)


@pytest.mark.parametrize("kind", ["model", "pytorch_model"])
@pytest.mark.parametrize("jobs", [1, 2])
def test_shards_are_the_same_as_one_file(tmp_path, always, kind, jobs):
    base, delta = _files(tmp_path, damaged=True)
    sharded, file = _sharded(tmp_path, base, kind), tmp_path / "kept.jsonl"
    found = amplify(sharded, delta, jobs=jobs, resume=file)
    assert to_text(found.modules) == to_text(amplify(base, delta).modules)
    assert _text(amplify(sharded, delta, resume=file)) == _text(found)
    shard = sorted(Path(sharded).iterdir())[0]
    os.utime(shard, ns=(1, 1))
    with pytest.raises(FileError, match="not the same base"):
        amplify(sharded, delta, resume=file)


# ---- going on


def test_a_second_run_measures_nothing_and_says_the_same(tmp_path, monkeypatch):
    base, delta = _files(tmp_path, damaged=True)
    file = tmp_path / "kept.jsonl"
    plain, first = amplify(base, delta), amplify(base, delta, resume=file)
    before = file.read_bytes()
    monkeypatch.setattr(subspace.analysis.one_module.Opened, "answer", pytest.fail)
    assert _text(amplify(base, delta, resume=file)) == _text(first) == _text(plain)
    assert file.read_bytes() == before
    assert len(before.splitlines()) == 6


@pytest.mark.parametrize("cut", [1, 10, 200, 2000])
def test_a_torn_line_is_measured_again(tmp_path, cut):
    base, delta = _files(tmp_path)
    file = tmp_path / "kept.jsonl"
    whole = _text(amplify(base, delta, resume=file))
    before = file.read_bytes()
    file.write_bytes(before[:-cut])
    assert _text(amplify(base, delta, resume=file)) == whole
    assert sorted(file.read_bytes().splitlines()) == sorted(before.splitlines())


def test_a_torn_header_is_written_again(tmp_path):
    base, delta = _files(tmp_path)
    file = tmp_path / "kept.jsonl"
    whole = _text(amplify(base, delta, resume=file))
    for length in (0, 5, 100):
        before = file.read_bytes()
        file.write_bytes(before[:length])
        assert _text(amplify(base, delta, resume=file)) == whole
        assert file.read_bytes() == before


def _other_base(base, delta):
    os.utime(base, ns=(1, 1))
    return {}


def _other_alpha(base, delta):
    path = Path(delta, "adapter_config.json")
    path.write_text(path.read_text().replace('"lora_alpha": 4', '"lora_alpha": 8'))
    return {}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (_other_base, "not the same base"),
        (_other_alpha, "not the same adapter"),
        (lambda *_: {"ranks": [1]}, "not the same settings"),
        (lambda *_: {"tol": 1e-5}, "not the same settings"),
        (lambda *_: {"layers": [0, 1]}, "not the same modules"),
    ],
)
def test_results_of_another_run_are_refused(tmp_path, change, what):
    base, delta = _files(tmp_path)
    file = tmp_path / "kept.jsonl"
    amplify(base, delta, resume=file)
    before = file.read_bytes()
    with pytest.raises(
        FileError, match=rf"The earlier results are of another run: {what}.*kept\.jsonl; give the same"
    ):
        amplify(base, delta, resume=file, **change(base, delta))
    assert file.read_bytes() == before


def test_weights_in_memory_are_told_by_their_bytes(tmp_path):
    rng = np.random.default_rng(0)
    W = {"a.weight": rng.standard_normal((6, 6))}
    dW = {"a.lora_A.weight": np.ones((1, 6)), "a.lora_B.weight": np.ones((6, 1))}
    file = tmp_path / "kept.jsonl"
    first = amplify(W, dW, scale=1.0, resume=file)
    assert _text(amplify({"a.weight": W["a.weight"].copy()}, dW, scale=1.0, resume=file)) == _text(first)
    with pytest.raises(FileError, match="not the same base"):
        amplify({"a.weight": W["a.weight"] + 1e-9}, dW, scale=1.0, resume=file)


@pytest.mark.parametrize("content", [b"my notes", b"my notes\n", b'{"a": 1}\n', b"\xff\n", b"\0" * 50])
def test_a_file_of_another_kind_stays_as_it_is(tmp_path, content):
    base, delta = _files(tmp_path)
    file = tmp_path / "kept.jsonl"
    file.write_bytes(content)
    with pytest.raises(FileError, match=r"Not a file of earlier results: .*kept\.jsonl is another kind"):
        amplify(base, delta, resume=file)
    assert file.read_bytes() == content


def test_a_damaged_line_is_an_error_that_names_it(tmp_path):
    base, delta = _files(tmp_path)
    file = tmp_path / "kept.jsonl"
    amplify(base, delta, resume=file)
    lines = file.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2][:-2] + b"#\n"
    file.write_bytes(b"".join(lines))
    with pytest.raises(
        FileError, match=r"Damaged file of earlier results: line 3 cannot be read, in .*kept\.jsonl"
    ):
        amplify(base, delta, resume=file)


def test_one_run_at_a_time_keeps_its_results_in_a_file(tmp_path):
    from subspace.checkpoints.lock_file import taken
    from subspace.checkpoints.sole_writer import _stem

    base, delta = _files(tmp_path)
    file = tmp_path / "kept.jsonl"
    stem = _stem(file)
    release = taken(stem.with_name(f"{stem.name}.lock"))
    try:
        with pytest.raises(FileError, match=r"Another process is writing .*kept\.jsonl"):
            amplify(base, delta, resume=file)
    finally:
        release()


@pytest.mark.parametrize("place", ["", "delta", "base.safetensors/kept"])
def test_a_place_that_cannot_be_written_is_an_error(tmp_path, place):
    base, delta = _files(tmp_path)
    with pytest.raises((FileError, FormatError)):
        amplify(base, delta, resume=tmp_path / place)


_SLOW = """
import sys, time
import subspace.analysis.amplify as question, subspace.analysis.work as work
work._LITTLE = work._MUCH = 0
before = question._rows
def _rows(site, **how):
    time.sleep(float(sys.argv[3]))
    return before(site, **how)
_rows.__module__, _rows.__qualname__ = before.__module__, before.__qualname__
question._rows = _rows
result = question.amplify(sys.argv[1], sys.argv[2], resume=sys.argv[4])
sys.stdout.write(result.to_json())
"""


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_and_ends_with_the_same_bytes(tmp_path):
    base, delta = _files(tmp_path, damaged=True, layers=8)
    file, whole = tmp_path / "kept.jsonl", tmp_path / "whole.jsonl"

    def command(seconds, keep):
        return [sys.executable, "-c", _SLOW, base, delta, str(seconds), str(keep)]

    expected = subprocess.run(command(0, whole), check=True, capture_output=True).stdout
    for lines in (2, 5):
        with subprocess.Popen(command(0.4, file), stdout=subprocess.DEVNULL) as process:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                if file.exists() and file.read_bytes().count(b"\n") > lines:
                    break
                time.sleep(0.02)
            process.kill()
        assert lines < len(file.read_bytes().splitlines()) < 10
    assert subprocess.run(command(0, file), check=True, capture_output=True).stdout == expected
    assert file.read_bytes() == whole.read_bytes()
