"""Bytes of container files, written by hand so that they can be wrong in exactly one way."""

import io
import json
import pickle
import struct
import zipfile


def safetensors_bytes(header, data=b"", *, length=None):
    """A safetensors file around any header, object or bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype="F32", shape=(2, 2), offsets=(0, 16)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def name(module, attribute):
    return b"c" + module.encode() + b"\n" + attribute.encode() + b"\n"


def text(value):
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value):
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    raw = pickle.encode_long(value)
    return b"\x8a" + bytes([len(raw)]) + raw


def call(module, attribute, *arguments):
    return name(module, attribute) + b"(" + b"".join(arguments) + b"tR"


ORDERED = name("collections", "OrderedDict") + b")R"


def storage(key="0", numel=16, kind="FloatStorage"):
    return b"(" + text("storage") + name("torch", kind) + text(key) + text("cpu") + number(numel) + b"tQ"


def tensor(stored=None, *, offset=0, size=(4, 4), stride=(4, 1), hooks=ORDERED):
    return (
        name("torch._utils", "_rebuild_tensor_v2") + b"(" + (stored or storage()) + number(offset)
        + b"(" + b"".join(map(number, size)) + b"t(" + b"".join(map(number, stride)) + b"t\x89" + hooks + b"tR"
    )  # fmt: skip


def mapping(**values):
    return b"\x80\x02}(" + b"".join(text(key) + value for key, value in values.items()) + b"u."


SIXTEEN = struct.pack("<16f", *range(16))


def torch_zip(
    pickled, *, records=(("0", SIXTEEN),), extra=(), compression=zipfile.ZIP_STORED, folder="archive"
):
    """A torch file around any pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr(f"{folder}/data.pkl", pickled)
        archive.writestr(f"{folder}/version", "3\n")
        for key, raw in records:
            archive.writestr(f"{folder}/data/{key}", raw)
        for member, raw in extra:
            archive.writestr(member, raw)
    return buffer.getvalue()
