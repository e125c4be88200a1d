"""Whatever torch.save writes is read as torch.load(weights_only=True) reads it, bit for bit, and without torch."""

from __future__ import annotations

import collections
import io
import math
import struct
import subprocess
import sys
import warnings
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from subspace.checkpoints.held_file import HeldFile
from subspace.checkpoints.pickle_calls import Device, ElementType, Size
from subspace.checkpoints.torch_file import torch_root
from subspace.checkpoints.torch_tensor import TorchTensor

THOROUGH = settings(suppress_health_check=list(HealthCheck), deadline=None, max_examples=40)
DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool, torch.complex64, torch.complex128,
]  # fmt: skip
# torch saves these as bytes beside the name of their type, and only in the newer format
UNTYPED = [
    torch.uint16, torch.uint32, torch.uint64,
    torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz,
]  # fmt: skip


def saved(root, *, legacy=False):
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # hooks are not saved
        torch.save(root, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def assert_as_torch_reads_it(path):
    theirs = torch.load(path, weights_only=True, map_location="cpu")
    assert_same(torch_root(HeldFile(path)), theirs)


def assert_same(ours, theirs):
    if isinstance(theirs, torch.Tensor):
        assert type(ours) is TorchTensor
        assert f"torch.{ours.dtype}" == str(theirs.dtype)
        assert ours.shape == tuple(theirs.shape)
        held = ours.array()
        assert not held.flags.writeable or not held.size
        assert held.tobytes() == bytes(theirs.detach().contiguous().reshape(-1).view(torch.uint8).tolist())
        if theirs.numel() == 1 and theirs.dtype != torch.uint64:
            number = theirs.double() if "float8" in str(theirs.dtype) else theirs
            assert np.array_equal(ours.item(), number.item(), equal_nan=True)
    elif isinstance(theirs, torch.dtype):
        assert type(ours) is ElementType and f"torch.{ours.dtype}" == str(theirs)
    elif isinstance(theirs, torch.device):
        assert type(ours) is Device and ours == str(theirs)
    elif isinstance(theirs, dict):
        assert type(ours) is type(theirs)
        assert repr(list(ours)) == repr(list(theirs))
        for one, other in zip(ours.values(), theirs.values(), strict=True):
            assert_same(one, other)
    elif isinstance(theirs, list | tuple):
        assert type(ours) is (Size if isinstance(theirs, torch.Size) else type(theirs))
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_same(one, other)
    else:
        assert type(ours) is type(theirs)
        assert ours == theirs or (math.isnan(ours) and math.isnan(theirs))


@st.composite
def tensors(draw, dtypes):
    """A tensor of any type and shape, whole or as a view of a larger one."""
    dtype = draw(st.sampled_from(dtypes))
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    size = math.prod(shape)
    raw = draw(st.binary(min_size=(size + 5) * 16, max_size=(size + 5) * 16))
    if dtype == torch.bool:
        base = torch.tensor([byte > 127 for byte in raw[: size + 5]])
    else:
        base = torch.frombuffer(bytearray(raw), dtype=torch.uint8).view(dtype)[: size + 5]
    offset = draw(st.integers(0, 5))
    tensor = base[offset : offset + size].reshape(shape)
    if draw(st.booleans()):
        tensor = tensor.clone()
    if len(shape) > 1:
        tensor = tensor.permute(draw(st.permutations(range(len(shape)))))
    if shape and draw(st.booleans()):
        tensor = tensor.narrow(0, 0, tensor.shape[0] // 2)
    if dtype.is_floating_point and draw(st.booleans()) and tensor.element_size() > 1:
        return torch.nn.Parameter(tensor, requires_grad=draw(st.booleans()))
    return tensor


texts = st.text(st.characters(), max_size=8)
keys = texts | st.integers(-(2**59), 2**59) | st.floats() | st.booleans() | st.none()
plain = (
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats() | texts | st.binary(min_size=1, max_size=8)
    | st.sampled_from([*DTYPES, torch.device("cpu"), torch.device("cuda", 1), torch.Size([2, 3])])
)  # fmt: skip


def trees(dtypes):
    leaves = plain | tensors(dtypes)
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=4),
            st.lists(inner, max_size=4).map(tuple),
            st.dictionaries(keys, inner, max_size=4),
            st.dictionaries(keys, inner, max_size=4).map(collections.OrderedDict),
        ),
        max_leaves=12,
    )


@THOROUGH
@given(root=trees(DTYPES + UNTYPED))
def test_any_tree_of_tensors_and_plain_values(tmp_path, root):
    path = tmp_path / "x.pt"
    path.write_bytes(saved({"tree": root, "one": torch.ones(1)}))
    assert_as_torch_reads_it(path)


@THOROUGH
@given(root=trees(DTYPES))
def test_any_tree_in_the_format_before_torch_1_6(tmp_path, root):
    path = tmp_path / "x.pt"
    path.write_bytes(saved({"tree": root, "one": torch.ones(1)}, legacy=True))
    assert_as_torch_reads_it(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_shared_memory_modules_and_optimizers(tmp_path, legacy):
    base = torch.arange(24.0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    hooked = torch.ones(2, requires_grad=True)
    hooked.register_hook(lambda gradient: gradient)
    shared = [base[:6], base[6:12].reshape(2, 3).t(), base[::2], base.reshape(4, 6)[:, 1], base]
    root = {
        "views": shared, "again": shared, "model": model.state_dict(), "optimizer": optimizer.state_dict(),
        "hooked": hooked, "grown": torch.ones(2, 3).requires_grad_(), "scalar": torch.tensor(2.5),
        "size": base.reshape(4, 6).shape, "tied": [model[0].weight, model[0].weight],
        "channels last": torch.arange(120.0).reshape(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "nothing": torch.empty(0, 4), "wide": torch.empty(2, 0, 3), "dtype": torch.bfloat16,
    }  # fmt: skip
    path = tmp_path / "x.pt"
    path.write_bytes(saved(root, legacy=legacy))
    assert_as_torch_reads_it(path)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("tag", ["cuda:0", "cuda:7", "mps", "xla:0"])
def test_tensors_of_other_devices(tmp_path, monkeypatch, tag, legacy):
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: tag)
    path = tmp_path / "x.pt"
    path.write_bytes(saved({"A": torch.arange(6.0).reshape(2, 3)}, legacy=legacy))
    assert tag.encode() in path.read_bytes()
    assert_as_torch_reads_it(path)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("order", [b"big", b"little", None])
def test_either_order_of_bytes(tmp_path, order, compression):
    values = {
        "f": torch.arange(6.0).reshape(2, 3),
        "h": torch.arange(5).to(torch.bfloat16),
        "b": torch.ones(3, dtype=torch.bool),
    }
    raw = zipfile.ZipFile(io.BytesIO(saved(values)))
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w", compression) as archive:
        for member in raw.namelist():
            content = raw.read(member)
            if member.endswith("byteorder"):
                if order is None:
                    continue
                content = order
            elif "/data/" in member and order == b"big":
                size = {24: 4, 10: 2}.get(len(content), 1)
                content = np.frombuffer(content, f"<u{size}").byteswap().tobytes()
            archive.writestr(member, content)
    assert_as_torch_reads_it(path)
    assert torch_root(HeldFile(path))["f"].array().tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_file_without_checksums(tmp_path):
    path = tmp_path / "x.pt"
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"A": torch.arange(4.0)}, path)
    finally:
        torch.serialization.set_crc32_options(True)
    assert_as_torch_reads_it(path)


def test_a_name_that_is_not_ascii_and_a_large_alignment(tmp_path):
    torch.save({"A": torch.arange(4.0)}, tmp_path / "адаптер.pt")
    assert_as_torch_reads_it(tmp_path / "адаптер.pt")


def test_a_pickle_of_python_2(tmp_path):
    """Text as bytes, and OrderedDicts made of lists of pairs, as Python 2 wrote them."""
    pickled = (
        b"\x80\x02ccollections\nOrderedDict\nq\x01]q\x02(]q\x03(U\x01Aq\x04K\x07e]q\x05(U\x01Bq\x06U\x02xye"
        b"]q\x07(U\x01Tctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x02tQ"
        b"K\x00K\x02\x85K\x01\x85\x89ccollections\nOrderedDict\n]\x85RtRee\x85R."
    )
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/data/0", struct.pack("<2f", 1, 2))
    assert_as_torch_reads_it(path)
    assert list(torch_root(HeldFile(path))) == ["A", "B", "T"]


@pytest.mark.parametrize("legacy", [False, True])
def test_reading_a_torch_file_imports_no_torch(tmp_path, legacy):
    path = tmp_path / "x.pt"
    path.write_bytes(
        saved(
            {"q.lora_A": torch.ones(2, 4), "q.lora_B": torch.ones(3, 2, dtype=torch.bfloat16)}, legacy=legacy
        )
    )
    program = (
        "import sys, subspace\n"
        "adapter = subspace.load_adapter(sys.argv[1], scale=1.0)\n"
        "assert adapter['q'].delta_W().tolist() == [[2.0] * 4] * 3\n"
        "print([name for name in ('torch', 'pickle', 'pickletools', 'zipfile') if name in sys.modules and name not in "
        "before])"
    )
    program = "import sys, numpy; before = set(sys.modules)\n" + program
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
