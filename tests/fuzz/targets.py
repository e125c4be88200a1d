"""One target per reader: bytes of a file that anybody may have written, read as a user's command reads them.

A target may raise `SubspaceError` and nothing else: any other exception, any warning with a source path, is a finding.
Seeds are small valid files, from which a fuzzer starts.
"""

from __future__ import annotations

import json
import os
import struct
import tempfile
import warnings
from collections.abc import Callable
from functools import cache, partial
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np

from subspace.adapters import load_adapter
from subspace.analysis.align import align
from subspace.analysis.amplify import amplify
from subspace.analysis.compare import compare
from subspace.analysis.convert import convert
from subspace.analysis.explain import explain
from subspace.analysis.inspect import inspect
from subspace.analysis.truncate import truncate
from subspace.checkpoints import open_tensors, open_weights, read_json
from subspace.errors import SubspaceError

__all__ = ["TARGETS", "Target"]

_MOST_READ = 2**22  # bytes of tensors that a target reads: reading more shows nothing new


class Target(NamedTuple):
    """What reads the bytes, the name of the file that they are in, and valid files to start from."""

    read: Callable[[Path], object]
    name: str
    seeds: Callable[[], list[bytes]]

    def __call__(self, content: bytes) -> None:
        """Read a file of these bytes; raise whatever a user would see as a traceback."""
        path = _folder() / self.name
        path.write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                self.read(path)
            except SubspaceError as error:
                require_one_line(error)


def require_one_line(error: SubspaceError) -> None:
    """The message of an error is one printable line."""
    text = str(error)
    assert text and "\n" not in text and text.isprintable(), ascii(text)


@cache
def _folder() -> Path:
    shared = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="fuzz-", dir=shared if os.access(shared, os.W_OK) else None))


def _tensors(path: Path) -> None:
    """Every small tensor of a file, then the file as an adapter."""
    file = open_tensors(path)
    left = _MOST_READ
    for key, info in file.layout.items():
        left -= info.nbytes
        if left < 0:
            break
        file.raw(key)
    inspect(path)


def _questions(path: Path) -> None:
    """The file as an adapter in every question that is asked of one file."""
    base = {"layers.0.q_proj.weight": np.eye(4, 6, dtype=np.float32)}
    asked: tuple[Callable[[], object], ...] = (
        lambda: compare(path, path, side="all"),
        lambda: align(base, path, scale=1.0),
        lambda: amplify(base, path, scale=1.0),
        lambda: explain(path, base=base, heads=[2], scale=1.0),
        lambda: truncate(path, energy=0.9, scale=1.0),
        *(partial(convert, path, to=to, module=None, scale=1.0) for to in ("peft", "loralib", "kohya")),
    )
    for ask in asked:
        try:
            ask()
        except SubspaceError as error:
            require_one_line(error)


def _config(path: Path) -> None:
    """A configuration next to weights."""
    _weights_of_peft(path.parent)
    read_json(path)
    load_adapter(path.parent)


def _yaml(path: Path) -> None:
    from subspace.adapters.formats._yaml_settings import yaml_settings

    yaml_settings(path)


def _index(path: Path) -> None:
    _weights_of_peft(path.parent)
    file = open_weights(path)
    for key in file.layout:
        file.raw(key)


@cache
def _weights_of_peft(folder: Path) -> Path:
    from safetensors.numpy import save_file

    path = folder / "adapter_model.safetensors"
    save_file(dict(_pair("base_model.model.layers.0.q_proj.lora_{}.weight")), path)
    return path


def _pair(pattern: str = "layers.0.q_proj.lora_{}") -> list[tuple[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    A, B = rng.standard_normal((2, 6)), rng.standard_normal((4, 2))
    return [(pattern.format("A"), A.astype(np.float32)), (pattern.format("B"), B.astype(np.float32))]


def _safetensors() -> list[bytes]:
    from safetensors.numpy import save

    half = {key: value.astype(np.float16) for key, value in _pair()}
    metadata = {"lora_adapter_metadata": json.dumps({"unet.r": 2, "unet.lora_alpha": 4}), "alpha": "4"}
    kohya = {
        "lora_unet_q.lora_down.weight": half["layers.0.q_proj.lora_A"],
        "lora_unet_q.alpha": np.array(1, np.float32),
    }
    kohya["lora_unet_q.lora_up.weight"] = half["layers.0.q_proj.lora_B"]
    return [save(dict(_pair()), metadata), save(half), save(kohya), save({"x": np.zeros((0, 2), np.float32)})]


def _torch(*, zipped: bool) -> list[bytes]:
    import torch

    plain = {key: torch.from_numpy(value) for key, value in _pair()}
    views = {key: value.T for key, value in plain.items()} | {"alpha": torch.tensor(4.0)}
    nested = {"weights": {"q": plain}, "metadata": {"r": 2, "alpha": 4.0, "name": "x"}, "epoch": 3}
    parameter = {key: torch.nn.Parameter(value.to(torch.bfloat16)) for key, value in plain.items()}
    contents = []
    for held in (plain, views, nested, parameter, list(plain.values())):
        file = BytesIO()
        torch.save(held, file, _use_new_zipfile_serialization=zipped)
        contents.append(file.getvalue())
    return contents


def _npz() -> list[bytes]:
    contents = []
    for save in (np.savez, np.savez_compressed):
        file = BytesIO()
        save(file, **dict(_pair("layers.0.q_proj.lora_{}")))
        contents.append(file.getvalue())
    return contents


def _npy() -> list[bytes]:
    contents = []
    for array in (np.eye(3, dtype=np.float32), np.zeros((0, 2)), np.asfortranarray(np.ones((2, 3), ">f8"))):
        file = BytesIO()
        np.save(file, array)
        contents.append(file.getvalue())
    return contents


def _gguf() -> list[bytes]:
    """A version 3 file of two metadata and two float32 tensors, written by hand."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    pair = _pair("blk.0.attn_q.weight.lora_{}")
    head = b"GGUF" + struct.pack("<IQQ", 3, len(pair), 2)
    head += text("general.type") + struct.pack("<I", 8) + text("adapter")
    head += text("adapter.lora.alpha") + struct.pack("<If", 6, 4.0)
    data = b""
    for key, value in pair:
        shape = value.shape[::-1]
        head += (
            text(key.lower())
            + struct.pack("<I", 2)
            + struct.pack("<2Q", *shape)
            + struct.pack("<IQ", 0, len(data))
        )
        data += value.tobytes() + b"\0" * (-value.nbytes % 32)
    return [head + b"\0" * (-len(head) % 32) + data]


def _configs() -> list[bytes]:
    full = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "rank_pattern": {"q_proj": 2}, "use_rslora": True}
    patterns = full | {"alpha_pattern": {r"layers\.[01]\.(q|v)_proj": 8}, "target_modules": ["q_proj"]}
    mlx = {"lora_parameters": {"rank": 2, "scale": 4.0}, "num_layers": 4}
    return [json.dumps(config).encode() for config in (full, patterns, mlx)]


def _indices() -> list[bytes]:
    keys = [key for key, _ in _pair("base_model.model.layers.0.q_proj.lora_{}.weight")]
    whole = {"metadata": {"total_size": 80}, "weight_map": dict.fromkeys(keys, "adapter_model.safetensors")}
    return [json.dumps(whole).encode()]


def _yamls() -> list[bytes]:
    return [b"lora_r: 8\nlora_alpha: 16\ntrain:\n  epochs: 2\n- a\n", b"a: &x [1, 2]\nb: *x\nc: |\n  text\n"]


TARGETS = {
    "safetensors": Target(_tensors, "adapter.safetensors", _safetensors),
    "questions": Target(_questions, "adapter.safetensors", _safetensors),
    "torch-zip": Target(_tensors, "adapter.pt", lambda: _torch(zipped=True)),
    "torch-legacy": Target(_tensors, "adapter.bin", lambda: _torch(zipped=False)),
    "npz": Target(_tensors, "adapters.npz", _npz),
    "npy": Target(_tensors, "delta.npy", _npy),
    "gguf": Target(_tensors, "adapter.gguf", _gguf),
    "config": Target(_config, "adapter_config.json", _configs),
    "index": Target(_index, "adapter_model.safetensors.index.json", _indices),
    "yaml": Target(_yaml, "hyperparameters.yaml", _yamls),
}
