"""One target per reader: bytes of a file that anybody may have written, read as a user's command reads them.

A target may raise `SubspaceError` and nothing else: any other exception, any warning with a source path, is a finding.
Seeds are small valid files, from which a fuzzer starts.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import seeds

from subspace.adapters import load_adapter
from subspace.analysis.align import align
from subspace.analysis.amplify import amplify
from subspace.analysis.compare import compare
from subspace.analysis.convert import convert
from subspace.analysis.explain import explain
from subspace.analysis.inspect import inspect
from subspace.analysis.truncate import truncate
from subspace.analysis.visibility import visibility
from subspace.checkpoints import TensorFile, open_tensors, open_weights, read_json
from subspace.errors import SubspaceError
from subspace.results.inputs_file import load_inputs
from subspace.training.data.load_examples import load_examples

__all__ = ["TARGETS", "Target"]

_MOST_READ = 2**22  # bytes of tensors that a target reads: reading more shows nothing new


class Target(NamedTuple):
    """What reads the bytes, the name of the file that they are in, valid files to start from, and its source."""

    read: Callable[[Path], object]
    name: str
    seeds: Callable[[], list[bytes]]
    reader: tuple[str, ...]

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
    _read_all(open_tensors(path))
    inspect(path)


def _read_all(file: TensorFile) -> None:
    """Every small tensor, whole and by rows."""
    left = _MOST_READ
    for key, info in file.layout.items():
        left -= info.nbytes
        if left < 0:
            break
        _asked(partial(file.raw, key))
        _asked(partial(_first_row, file, key))


def _first_row(file: TensorFile, key: str) -> None:
    file.stored(key).rows(0, 1)


def _asked(question: Callable[[], object]) -> None:
    """One of several questions, of which each may be refused."""
    try:
        question()
    except SubspaceError as error:
        require_one_line(error)


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
        _asked(ask)


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
    _read_all(open_weights(path))


def _inputs(path: Path) -> None:
    """Second moments that somebody measured, in the questions that take them."""
    adapter = _weights_of_peft(path.parent)
    found = load_inputs(path)
    found.headline()
    found.document()
    _asked(lambda: compare(adapter, adapter, inputs=found, side="a"))
    _asked(lambda: explain(adapter, inputs=found, scale=1.0))


def _base(path: Path) -> None:
    """Weights of a base, in the questions that read them."""
    adapter = dict(seeds.pair())
    _asked(lambda: align(path, adapter, scale=1.0))
    _asked(lambda: visibility(path, adapter, scale=1.0))
    _asked(lambda: amplify(path, adapter, scale=1.0))


def _data(path: Path) -> None:
    """Texts and tables, for every task."""
    _asked(lambda: load_examples(str(path)))
    _asked(lambda: load_examples(str(path), labels=False, unlabelled="drop"))


@cache
def _weights_of_peft(folder: Path) -> Path:
    from safetensors.numpy import save_file

    path = folder / "adapter_model.safetensors"
    save_file(dict(seeds.pair("base_model.model.layers.0.q_proj.lora_{}.weight")), path)
    return path


_CHECKPOINTS = ("tensor_file", "view", "tensor_bytes", "budget", "regular_file", "held_file", "sniff")
_PICKLE = (
    "pickle_machine",
    "pickle_calls",
    "pickle_nesting",
    "torch_file",
    "torch_tensor",
    "nested",
    "state_dict",
)
_DATA = (
    "source",
    "recognise",
    "encodings",
    "delimited",
    "jsonrows",
    "table",
    "text_columns",
    "turns",
    "assemble",
)


def _of(*names: str) -> tuple[str, ...]:
    return tuple(f"subspace/checkpoints/{name}.py" for name in names)


TARGETS = {
    "safetensors": Target(
        _tensors, "adapter.safetensors", seeds.safetensors, _of("safetensors", "strict_json")
    ),
    "questions": Target(
        _questions, "adapter.safetensors", seeds.safetensors, _of("safetensors", *_CHECKPOINTS)
    ),
    "torch-zip": Target(
        _tensors,
        "adapter.pt",
        partial(seeds.torch_files, zipped=True),
        _of(*_PICKLE, "zip_archive", "zip_directory"),
    ),
    "torch-legacy": Target(_tensors, "adapter.bin", partial(seeds.torch_files, zipped=False), _of(*_PICKLE)),
    "npz": Target(_tensors, "adapters.npz", seeds.npz, _of("numpy_file", "zip_archive", "zip_directory")),
    "npy": Target(_tensors, "delta.npy", seeds.npy, _of("numpy_file")),
    "gguf": Target(_tensors, "adapter.gguf", seeds.gguf, _of("gguf_file", "gguf_header")),
    "config": Target(
        _config,
        "adapter_config.json",
        seeds.configs,
        (
            *_of("json_files", "strict_json"),
            *(f"subspace/adapters/formats/{n}.py" for n in ("_peft_config", "_settings")),
        ),
    ),
    "index": Target(
        _index,
        "adapter_model.safetensors.index.json",
        seeds.indices,
        _of("sharded", "json_files", "strict_json"),
    ),
    "base": Target(
        _base,
        "model.safetensors",
        seeds.base_weights,
        tuple(f"subspace/adapters/base/{n}.py" for n in ("dequantised", "quantised", "weights", "weight")),
    ),
    "inputs": Target(_inputs, "inputs.safetensors", seeds.inputs, ("subspace/results/inputs_file.py",)),
    "data": Target(_data, "data.txt", seeds.data, tuple(f"subspace/training/data/{n}.py" for n in _DATA)),
    "yaml": Target(
        _yaml, "hyperparameters.yaml", seeds.yamls, ("subspace/adapters/formats/_yaml_settings.py",)
    ),
}
