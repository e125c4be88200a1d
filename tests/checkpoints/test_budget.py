"""No file can ask for more work than a file of its size needs; files as large and as many as people have are read."""

from __future__ import annotations

import io
import json
import struct
import zipfile

import numpy as np
import pytest
import torch
from containers import mapping, name, storage, tensor, text, torch_zip

from subspace.checkpoints import budget, open_tensors, read_json
from subspace.checkpoints.budget import Budget, Work
from subspace.errors import FileError, SubspaceError, UnsafeFileError

A = tensor()


def large_views(count):
    """Views of one storage of 4 MB, each of all of it."""
    views = {f"q{n}": tensor(storage(numel=10**6), size=(1000, 1000), stride=(1000, 1)) for n in range(count)}
    return torch_zip(mapping(**views), records=[("0", bytes(4 * 10**6))])


def gguf(pairs):
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs)) + b"".join(pairs)


def pair(key, kind, value):
    return struct.pack("<Q", len(key)) + key + struct.pack("<I", kind) + value


DOUBLED = b"]" + b"q\x01h\x01\x86" * 60

MANY_DICTS = b"(" + b"}" * 40_000 + b"e"
ENCODED_AGAIN = name("_codecs", "encode") + b"(h\x01h\x02tR"
EMPTY_TEXTS = struct.pack("<IQ", 8, 300_000) + bytes(8 * 300_000)
TOO_MUCH = {
    "opcodes": (
        lambda: torch_zip(b"\x80\x02}" + b"q\x01" * 3_900_000 + mapping(A=A)[2:]),
        "opcodes in a pickle",
    ),
    "dictionaries": (
        lambda: torch_zip(mapping(A=A, x=b"]" + MANY_DICTS * 3)),
        "containers and tensors in a pickle",
    ),
    "tuples of tuples": (lambda: torch_zip(mapping(A=A, x=DOUBLED)), "nested values in a pickle"),
    "encoded text": (
        lambda: torch_zip(
            mapping(
                A=A,
                x=text("a" * 50_000) + b"q\x01",
                y=text("latin1") + b"q\x02",
                z=b"](" + ENCODED_AGAIN * 5_000 + b"e",
            )
        ),
        "bytes of encoded text in a pickle",
    ),
    "views": (lambda: large_views(60), "bytes of tensors that share their memory"),
    "members": (
        lambda: torch_zip(mapping(A=A), extra=[(f"archive/{n}", b"") for n in range(30_000)]),
        "members in an archive",
    ),
    "zeros": (
        lambda: torch_zip(mapping(A=A), records=[("0", bytes(2**27))], compression=zipfile.ZIP_DEFLATED),
        "bytes after decompression",
    ),
    "texts of GGUF": (lambda: gguf([pair(b"x", 9, EMPTY_TEXTS)]), "values in the metadata"),
}


@pytest.mark.parametrize("case", TOO_MUCH)
@pytest.mark.timeout(60)
def test_each_kind_of_work_has_its_end(written, case):
    """Most of these take hours, or more memory than there is, where they are not ended."""
    make, what = TOO_MUCH[case]
    raw = make()
    with pytest.raises(
        UnsafeFileError, match=f"^Too many {what}.* for a file of {len(raw)} bytes: more than "
    ) as caught:
        open_tensors(written(raw))
    assert "\n" not in str(caught.value) and "weights; it was not read" in str(caught.value)


@pytest.mark.timeout(60)
def test_a_header_of_entries_without_numbers(written):
    header = {f"{n:x}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for n in range(50_000)}
    raw = json.dumps(header, separators=(",", ":")).encode()
    file = open_tensors(written(struct.pack("<Q", len(raw)) + raw))
    assert len(file.layout) == 50_000


def test_long_arrays_of_metadata_are_stepped_over(written):
    arrays = [pair(b"tokens", 9, struct.pack("<IQ", 8, 32_000) + (struct.pack("<Q", 3) + b"abc") * 32_000)]
    arrays += [pair(b"scores", 9, struct.pack("<IQ", 6, 3_000_000) + bytes(4 * 3_000_000))]
    raw = gguf(
        [*arrays, pair(b"name", 8, struct.pack("<Q", 1) + b"m"), pair(b"alpha", 6, struct.pack("<f", 16))]
    )
    assert open_tensors(written(raw)).metadata == {"name": "m", "alpha": "16.0"}


@pytest.mark.parametrize(
    "value",
    [b"9" * 4500, b"-" + b"9" * 5_000, b"[" * 100_000, b"1e999", b'"' + b"\\ud800" + b'"', b"{" * 50_000],
)
def test_json_that_is_hard_to_parse_is_refused(written, value):
    with pytest.raises(FileError, match="Invalid JSON file"):
        read_json(written(b'{"r":' + value + b"}"))


def test_json_of_brackets_is_refused_before_it_is_parsed(written):
    with pytest.raises(FileError, match="more brackets or commas than data needs"):
        read_json(written(b'{"a":[' + b"[]," * 8_000_000 + b"[]]}"), limit_bytes=10**8)


def test_tied_weights_and_parts_of_a_fused_one_are_read(written):
    base = torch.arange(3 * 64 * 64.0).reshape(192, 64)
    root = {"qkv": base, **{name: base[64 * n : 64 * n + 64] for n, name in enumerate("qkv")}, "tied": base}
    buffer = io.BytesIO()
    torch.save(root, buffer)
    file = open_tensors(written(buffer.getvalue()))
    for key, value in root.items():
        np.testing.assert_array_equal(file.read(key), value.numpy())
    assert len(open_tensors(written(large_views(20))).layout) == 20


def test_ten_thousand_modules_in_a_torch_file(written):
    buffer = io.BytesIO()
    torch.save(
        {f"l.{n}.lora_{x}.weight": torch.full((1, 1), float(n)) for n in range(10_000) for x in "AB"}, buffer
    )
    file = open_tensors(written(buffer.getvalue()))
    assert len(file.layout) == 20_000
    assert file.read("l.9999.lora_B.weight").tolist() == [[9999]]


@pytest.mark.parametrize(
    "work", [w for w in vars(budget).values() if isinstance(w, Work)], ids=lambda work: work.name
)
def test_a_limit_grows_with_the_file_and_names_its_work(work):
    assert work.limit(10**6) > work.limit(0) >= 4_000
    limit = work.limit(1000)
    account = Budget(1000, "a.pt")
    account.spend(work, limit)
    assert account.left(work) == 0
    with pytest.raises(
        SubspaceError, match=f"Too many {work.name} for a file of 1000 bytes: more than {limit}, in a.pt"
    ):
        account.spend(work)


def test_what_100_000_modules_need_is_allowed():
    """torch.save: 35 opcodes, 8 objects and 350 bytes a tensor and a member for each, two tensors a module."""
    size = 200_000 * 350
    assert budget.OPCODES.limit(size) > 200_000 * 35
    assert budget.OBJECTS.limit(size) > 200_000 * 8
    assert budget.MEMBERS.limit(size) > 200_000
    assert budget.ENTRIES.limit(200_000 * 100) > 200_000
