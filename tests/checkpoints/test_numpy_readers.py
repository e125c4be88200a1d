import io
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from subspace.checkpoints import open_tensors
from subspace.errors import FileError, FormatError, SubspaceError, UnsafeFileError

QUICK = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
dtypes = st.sampled_from(["<f8", ">f8", "<f4", ">f4", "<f2", "<i4", ">i2", "|u1", "|b1", "<c8"])
arrays = dtypes.flatmap(
    lambda d: hnp.arrays(np.dtype(d), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
)


def npy(array, *, version=None):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=version)
    return buffer.getvalue()


def npy_header(text):
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def npz(members, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, raw in members.items():
            archive.writestr(name, raw)
    return buffer.getvalue()


@QUICK
@given(array=arrays, fortran=st.booleans(), version=st.sampled_from([(1, 0), (2, 0), (3, 0)]))
def test_npy_round_trip(tmp_path, array, fortran, version):
    path = tmp_path / "x.npy"
    path.write_bytes(npy(np.asfortranarray(array) if fortran and array.ndim else array, version=version))
    file = open_tensors(path)
    assert file.container == "npy"
    assert list(file.layout.items()) == [("", (array.dtype.name, array.shape))]
    np.testing.assert_array_equal(file.raw(""), array)
    if array.dtype.kind == "f":
        np.testing.assert_array_equal(file.read(""), array)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_round_trip(written, save):
    tensors = {
        "model.layers.0.lora_a": np.random.default_rng(0).normal(size=(4, 3)).astype("f4"),
        "half": np.ones((2, 2), "f2"),
        "empty": np.ones((0, 3)),
    }
    buffer = io.BytesIO()
    save(buffer, **tensors)
    file = open_tensors(written(buffer.getvalue()))
    assert file.container == "npz"
    assert list(file.layout) == list(tensors)
    for key, value in tensors.items():
        np.testing.assert_array_equal(file.read(key), value)


def test_arrays_are_read_only(written):
    assert not open_tensors(written(npy(np.ones((100, 10))))).read("").flags.writeable
    assert not open_tensors(written(npz({"A.npy": npy(np.ones(3))}))).read("A").flags.writeable


class Payload:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return open, (self.canary, "w")


@pytest.mark.parametrize("wrap", [lambda raw: raw, lambda raw: npz({"A.npy": raw})])
def test_objects_are_refused_by_name_and_never_fire(written, tmp_path, wrap):
    canary = tmp_path / "fired"
    array = np.empty(1, object)
    array[0] = Payload(str(canary))
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array)
    with pytest.raises(UnsafeFileError, match="Python objects"):
        open_tensors(written(wrap(buffer.getvalue())))
    assert not canary.exists()


FIELDS = "{'descr': %s, 'fortran_order': False, 'shape': %s}"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (npy(np.ones(4))[:-1], "159 bytes instead of 160"),
        (npy(np.ones(4)) + b"x", "161 bytes instead of 160"),
        (npy_header((FIELDS % ("'<f8'", "(2**40,)")).encode()), "no valid NumPy header"),
        (npy_header((FIELDS % ("'<f8'", f"({2**32},)")).encode()), "bytes instead of 343597"),
        (npy_header((FIELDS % ("'<f8'", "(-1,)")).encode()), "its shape is"),
        (npy_header((FIELDS % ("'<f8'", "(True,)")).encode()), "its shape is"),
        (npy_header((FIELDS % ("'<f8'", "[1]")).encode()), "no valid NumPy header"),
        (npy_header((FIELDS % ("'<f8'", str((1,) * 33))).encode()), "its shape is"),
        (npy_header((FIELDS % ("[('a', '<f8')]", "(1,)")).encode()), "Unsupported type of numbers"),
        (npy_header((FIELDS % ("'f4,f4'", "(1,)")).encode()), "Unsupported type of numbers"),
        (npy_header((FIELDS % ("'<f3'", "(1,)")).encode()), "no valid NumPy header"),
        (npy_header((FIELDS % ("'<M8'", "(1,)")).encode()), "Unsupported type of numbers"),
        (npy_header((FIELDS % ("'<f8'", f"(0x{'f' * 4500},)")).encode()), "its shape is no size"),
        (b"\x93NUMPY", "no valid NumPy header"),
        (npy_header(b"(" * 9000), "no valid NumPy header"),
        (npy_header(b"[]"), "no valid NumPy header"),
        (npy_header(b"{}"), "no valid NumPy header"),
        (npy_header(b" " * 10_001), "no valid NumPy header"),
        (b"\x93NUMPY\x09\x00\x00\x00\x00\x00", "no valid NumPy header"),
        (b"\x93NUMPY\x01", "no valid NumPy header"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + b" " * 20_000, "no valid NumPy header"),
        (npy_header(b"{'descr': '<f8', 'fortran_order': 1, 'shape': (1,)}"), "no valid NumPy header"),
        (npy_header((FIELDS % ("('<f8', (2,))", "(1,)")).encode()), "Unsupported type of numbers"),
        (npy_header((FIELDS % ("'|V0'", "(1,)")).encode()), "Unsupported type of numbers"),
        (npy_header((FIELDS % ("[('a', '|O')]", "(1,)")).encode()), "Python objects"),
        (npy(np.ones(4)).replace(b"NUMPY\x01", b"NUMPY\x04"), "unknown version|no valid NumPy header"),
    ],
)
def test_each_damaged_array_is_refused(written, raw, reason):
    with pytest.raises(FileError, match=reason):
        open_tensors(written(raw))
    if len(raw) > 8:
        with pytest.raises(
            FileError,
            match=reason.split(" instead")[0].lstrip("0123456789 ") if "bytes" in reason else reason,
        ):
            open_tensors(written(npz({"A.npy": raw})))


def test_a_header_of_python_2_is_read(written):
    header = (FIELDS % ("'<f8'", "(2L,)")).encode()
    assert open_tensors(written(npy_header(header) + np.ones(2).tobytes())).read("").tolist() == [1.0, 1.0]


def test_a_type_that_is_no_weight_is_named(written):
    file = open_tensors(written(npz({"A.npy": npy(np.ones(2, "i4")), "V.npy": npy(np.zeros(2, "V2"))})))
    with pytest.raises(FormatError, match="int32"):
        file.read("A")
    with pytest.raises(FormatError, match="void"):
        file.read("V")


def test_a_zip_of_other_things_is_named(written):
    with pytest.raises(FormatError, match=r"it holds readme\.txt"):
        open_tensors(written(npz({"readme.txt": b"hello"})))


@pytest.mark.parametrize("seed", range(60))
def test_damaged_archives_end_in_an_error_of_ours_or_none(written, seed):
    rng = np.random.default_rng(seed)
    compression = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)[seed % 2]
    raw = np.frombuffer(
        npz({f"{i}.npy": npy(np.ones((2, 3))) for i in range(3)}, compression), np.uint8
    ).copy()
    places = rng.integers(len(raw), size=rng.integers(1, 12))
    raw[places] = rng.integers(256, size=len(places))
    try:
        file = open_tensors(written(raw.tobytes()))
        for key in file.layout:
            file.read(key)
    except SubspaceError as error:
        assert "\n" not in str(error)
