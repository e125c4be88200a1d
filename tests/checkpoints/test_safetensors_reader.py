import hashlib
import json
import random
import struct

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from containers import entry, safetensors_bytes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from subspace.checkpoints import open_tensors
from subspace.checkpoints.safetensors import SafetensorsFile
from subspace.errors import FileError, FormatError, ShapeError, SubspaceError, ValueRangeError

ZEROS = bytes(16)
ANY_TMP_PATH = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40
)


REFUSED = {
    "short": (b"\x01\0\0", "3 bytes"),
    "too long a header": (safetensors_bytes(b"{}", length=100_000_001), "more than 100000000"),
    "length wraps": (safetensors_bytes(b"{}", length=2**64 - 1), "more than 100000000"),
    "header beyond the end": (safetensors_bytes(b"{}", length=3), "cut short"),
    "no brace": (safetensors_bytes(b' {"a":1}'), "does not begin with"),
    "byte order mark": (safetensors_bytes(b"\xef\xbb\xbf{}"), "does not begin with"),
    "no JSON": (safetensors_bytes(b"{oops}"), "not valid JSON"),
    "not UTF-8": (safetensors_bytes(b'{"\xff":1}'), "not UTF-8"),
    "lone surrogate": (safetensors_bytes({"\ud800": entry()}, ZEROS), "half of a surrogate pair"),
    "nested": (safetensors_bytes(b'{"a":' + b"[" * 200_000), "nested too deeply"),
    "big integer": (safetensors_bytes(b'{"a":' + b"9" * 5000 + b"}"), "digits is out of range"),
    "NaN": (safetensors_bytes(b'{"a":NaN}'), "not a JSON number"),
    "duplicate": (safetensors_bytes(b'{"a":1,"a":1}'), "the key a appears twice"),
    "duplicate inside": (
        safetensors_bytes(b'{"a":{"dtype":"F32","dtype":"F64"}}'),
        "the key dtype appears twice",
    ),
    "metadata number": (safetensors_bytes({"__metadata__": {"r": 4}}), "text to text"),
    "metadata list": (safetensors_bytes({"__metadata__": ["r"]}), "text to text"),
    "metadata surrogate": (safetensors_bytes({"__metadata__": {"r": "\ud800"}}), "half of a surrogate pair"),
    "entry is a number": (safetensors_bytes({"a": 1}, ZEROS), "without a known dtype"),
    "dtype missing": (safetensors_bytes({"a": {"shape": [4], "data_offsets": [0, 16]}}, ZEROS), "dtype"),
    "dtype unknown": (safetensors_bytes({"a": entry("F99")}, ZEROS), "dtype"),
    "dtype list": (safetensors_bytes({"a": entry(["F32"])}, ZEROS), "dtype"),
    "three offsets": (safetensors_bytes({"a": entry(offsets=(0, 8, 16))}, ZEROS), "two data_offsets"),
    "float offsets": (safetensors_bytes({"a": entry(offsets=(0.0, 16.0))}, ZEROS), "not integers"),
    "bool offsets": (safetensors_bytes({"a": entry(offsets=(False, 16))}, ZEROS), "not integers"),
    "shape is text": (safetensors_bytes({"a": {**entry(), "shape": "22"}}, ZEROS), "not a list"),
    "bool dimension": (safetensors_bytes({"a": entry(shape=(True, 4))}, ZEROS), "a dimension True"),
    "text dimension": (safetensors_bytes({"a": entry(shape=("2", "2"))}, ZEROS), "a dimension '2'"),
    "negative dimensions": (safetensors_bytes({"a": entry(shape=(-2, -2))}, ZEROS), "a dimension -2"),
    "huge dimension": (safetensors_bytes({"a": entry(shape=(2**63, 4))}, ZEROS), "a dimension 9223"),
    "overflow": (safetensors_bytes({"a": entry(shape=(2**62, 2**3))}, ZEROS), "data_offsets"),
    "many dimensions": (safetensors_bytes({"a": entry(shape=(1,) * 33)}, ZEROS), "33 dimensions"),
    "size mismatch": (safetensors_bytes({"a": entry("F64")}, ZEROS), "F64 of shape"),
    "reversed offsets": (safetensors_bytes({"a": entry(shape=(0,), offsets=(16, 0))}, ZEROS), "data_offsets"),
    "negative offset": (safetensors_bytes({"a": entry(offsets=(-16, 0))}, ZEROS), "data_offsets"),
    "overlap": (safetensors_bytes({"a": entry(), "b": entry()}, ZEROS), "an overlap"),
    "hole": (safetensors_bytes({"a": entry(), "b": entry(offsets=(20, 36))}, bytes(36)), "a gap"),
    "hole in front": (safetensors_bytes({"a": entry(offsets=(4, 20))}, bytes(20)), "a gap"),
    "data cut": (safetensors_bytes({"a": entry()}, ZEROS[:-1]), "cut short"),
    "tail": (safetensors_bytes({"a": entry()}, ZEROS + b"PK"), "2 bytes after the last tensor"),
    "half a byte": (safetensors_bytes({"a": entry("F4", (3,), (0, 2))}, bytes(2)), "F4 of shape"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_each_refusal_is_one_line_that_names_the_file(written, case):
    raw, reason = REFUSED[case]
    path = written(raw, "bad.safetensors")
    with pytest.raises(FileError, match=reason) as caught:
        SafetensorsFile(path)
    assert "\n" not in str(caught.value)
    assert "bad.safetensors" in str(caught.value)


def test_a_long_header_that_is_no_list_of_tensors_is_refused_before_it_is_parsed(written):
    with pytest.raises(FileError, match="more brackets or commas"):
        SafetensorsFile(written(safetensors_bytes(b'{"a":[' + b"[]," * 7_000_000 + b"[]]}")))


@pytest.mark.parametrize("header", [{}, {"__metadata__": None}, {"__metadata__": {"format": "pt"}}])
def test_no_tensors_is_legal(written, header):
    file = SafetensorsFile(written(safetensors_bytes(header)))
    assert dict(file.layout) == {}


def test_trailing_spaces_and_unknown_fields_are_legal(written):
    header = json.dumps({"a": {**entry(), "note": 1}}).encode() + b" " * 11
    file = SafetensorsFile(written(safetensors_bytes(header, np.arange(4, dtype="<f4").tobytes())))
    A = file.read("a")
    assert A.tolist() == [[0, 1], [2, 3]]
    assert A.flags.aligned


dtypes = st.sampled_from(
    ["float64", "float32", "float16", "int64", "int32", "int8", "uint8", "uint16", "bool"]
)
arrays = dtypes.flatmap(
    lambda d: hnp.arrays(d, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
)


@ANY_TMP_PATH
@given(tensors=st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), arrays, max_size=5))
def test_round_trip_with_the_reference_library(tmp_path, tensors):
    tensors.pop("__metadata__", None)
    path = tmp_path / "x.safetensors"
    # safetensors 0.4 writes no valid header for metadata without a tensor
    metadata = {"a": "b"} if tensors else {}
    path.write_bytes(safetensors.numpy.save(tensors, metadata=metadata or None))
    file = SafetensorsFile(path)
    assert set(file.layout) == set(tensors)
    assert file.metadata == metadata
    for key, value in tensors.items():
        assert file.layout[key] == (value.dtype.name, value.shape)
        assert file.layout[key].nbytes == value.nbytes
        np.testing.assert_array_equal(file.raw(key), value)
        if value.dtype.kind == "f":
            np.testing.assert_array_equal(file.read(key), value)
        else:
            with pytest.raises(FormatError, match="floating point"):
                file.read(key)


@pytest.mark.parametrize(
    "dtype", ["bfloat16", "float16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"]
)
def test_narrow_floats_equal_torch(written, dtype):
    if getattr(torch, dtype) not in safetensors.torch._SIZE:
        pytest.skip("this safetensors cannot write it")
    values = torch.linspace(-3, 3, 24).reshape(4, 6).to(getattr(torch, dtype))
    file = open_tensors(written(safetensors.torch.save({"A": values})))
    assert file.layout["A"] == (dtype, (4, 6))
    np.testing.assert_array_equal(file.read("A"), values.float().numpy())
    W = file.stored("A")
    np.testing.assert_array_equal(W.rows(1, 3), values.float().numpy()[1:3])


def test_numbers_are_read_only(written):
    file = open_tensors(written(safetensors.numpy.save({"A": np.ones((3, 4), np.float32)})))
    assert not file.read("A").flags.writeable
    assert not file.raw("A").flags.writeable


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("wide", [np.float32, np.float64])
@pytest.mark.parametrize("whole", [0, 2**20])
def test_rows_are_read_alone_and_into_a_buffer(written, monkeypatch, dtype, wide, whole):
    monkeypatch.setattr("subspace.checkpoints.safetensors._LARGEST_WHOLE", whole)
    A = np.random.default_rng(0).standard_normal((7, 5)).astype(dtype)
    W = open_tensors(written(safetensors.numpy.save({"x": np.ones(3, "i1"), "A": A}))).stored("A")
    assert W.shape == (7, 5)
    for start, stop in [(0, 7), (2, 5), (6, 9), (3, 3)]:
        np.testing.assert_array_equal(W.rows(start, stop), A[start:stop])
        if dtype != "float64" or wide == np.float64:
            buffer = np.full((8, 5), 9, wide)
            rows = W.rows(start, stop, out=buffer)
            np.testing.assert_array_equal(rows, A[start:stop])
            assert np.shares_memory(rows, buffer) or not len(rows)
            assert (buffer[len(rows) :] == 9).all()
    np.testing.assert_array_equal(W.full(np.float64), A)
    np.testing.assert_array_equal(W.full(), A.astype("f4"))


def test_release_keeps_what_is_held(written):
    file = open_tensors(written(safetensors.numpy.save({"A": np.ones((300, 1000), np.float32)})))
    A = file.read("A")
    file.release()
    assert A.sum() == 300_000
    assert file.read("A").sum() == 300_000


def test_a_view_outlives_the_file_object(written):
    A = open_tensors(written(safetensors.numpy.save({"A": np.ones((3, 4), np.float32)}))).read("A")
    assert A.sum() == 12


@pytest.mark.parametrize("n", [40_000, pytest.param(200_000, marks=pytest.mark.slow)])
def test_tensors_by_the_hundred_thousand_open(written, n):
    """Where a step is quadratic, this takes hours and the suite's time limit ends it."""
    header = {f"m.{i}.lora_A.weight": entry("F32", (1, 2), (8 * i, 8 * i + 8)) for i in range(n)}
    path = written(safetensors_bytes(header, bytes(8 * len(header))))
    file = SafetensorsFile(path)
    assert len(file.layout) == n
    assert next(iter(file.layout)) == "m.0.lora_A.weight"


def test_sha256_is_that_of_the_bytes(written):
    raw = safetensors.numpy.save({"A": np.ones((300, 1000), np.float32)})
    assert open_tensors(written(raw)).sha256() == hashlib.sha256(raw).hexdigest()


@pytest.mark.parametrize("dtype", ["F4", "F6_E2M3", "F8_E8M0"])
def test_types_that_numpy_lacks_keep_their_name_and_are_not_read(written, dtype):
    size = {"F4": 4, "F6_E2M3": 6, "F8_E8M0": 8}[dtype] * 8 // 8
    file = open_tensors(written(safetensors_bytes({"a": entry(dtype, (8,), (0, size))}, bytes(size))))
    assert file.layout["a"].dtype == dtype
    assert file.layout["a"].nbytes == size
    with pytest.raises(FormatError, match=dtype):
        file.read("a")
    with pytest.raises(FormatError, match=dtype):
        file.raw("a")


def test_scalars(written):
    tensors = {
        "alpha": np.array(4, np.float16),
        "one": np.array([[7]], np.int32),
        "nan": np.array(np.nan, np.float32),
    }
    file = open_tensors(
        written(safetensors.numpy.save({**tensors, "two": np.ones(2), "flag": np.array(True)}))
    )
    assert file.read_scalar("alpha") == 4
    assert file.read_scalar("one") == 7
    with pytest.raises(ValueRangeError, match="finite"):
        file.read_scalar("nan")
    with pytest.raises(ShapeError, match="Not a single number"):
        file.read_scalar("two")
    with pytest.raises(FormatError, match="real number"):
        file.read_scalar("flag")


def test_a_missing_key_and_a_vector_are_named(written):
    file = open_tensors(written(safetensors.numpy.save({"v": np.ones(3)})))
    with pytest.raises(FormatError, match=r"No such tensor: w, in .*; there are v"):
        file.read("w")
    with pytest.raises(ShapeError, match="Not a matrix"):
        file.stored("v")


@pytest.mark.parametrize("seed", range(150))
def test_damaged_bytes_end_in_an_error_of_ours_or_none(written, seed):
    rng = random.Random(seed)
    raw = bytearray(safetensors.numpy.save({f"l.{i}.A": np.ones((2, 3), np.float32) for i in range(4)}))
    end = 8 + struct.unpack("<Q", raw[:8])[0]
    for _ in range(rng.randint(1, 6)):
        raw[rng.randrange(end)] = rng.randrange(256)
    path = written(bytes(raw[: rng.choice([len(raw), rng.randrange(len(raw))])]))
    try:
        file = open_tensors(path)
        for key in file.layout:
            file.read(key)
    except SubspaceError as error:
        assert "\n" not in str(error)
