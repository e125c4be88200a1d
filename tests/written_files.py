"""What the tests of written formats share: adapters in memory, and delta_W by definition."""

from __future__ import annotations

import json

import numpy as np

from subspace.adapters import load_adapter
from subspace.analysis.convert import convert
from subspace.checkpoints.narrowing import narrow
from subspace.checkpoints.tensor_bytes import StoredTensor, safetensors_bytes

SHAPES = {"layers.0.q": (8, 8), "layers.0.v": (6, 8), "layers.1.q": (8, 8), "layers.1.v": (6, 8)}


def peft_folder(folder, ranks, alphas, *, dtype="float32", seed=0, shapes=SHAPES, **config):
    """A PEFT directory with a rank and an alpha for every module, by full names."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for module, r in ranks.items():
        d_out, d_in = shapes[module]
        for part, shape in (("A", (r, d_in)), ("B", (d_out, r))):
            values = rng.standard_normal(shape).astype(np.float32)
            key = f"base_model.model.{module}.lora_{part}.weight"
            tensors[key] = StoredTensor(narrow(values, dtype), dtype)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_model.safetensors").write_bytes(safetensors_bytes(tensors, {"format": "pt"}))
    told = {
        "peft_type": "LORA",
        "r": 1,
        "lora_alpha": 1,
        "target_modules": sorted(ranks),
        "rank_pattern": {f"^{module}$": r for module, r in ranks.items()},
        "alpha_pattern": {f"^{module}$": alpha for module, alpha in alphas.items()},
        **config,
    }
    (folder / "adapter_config.json").write_text(json.dumps(told))
    return folder


def deltas(adapter):
    """delta_W of every module, dense, in float64."""
    return {module: update.delta_W() for module, update in adapter.items()}


def put(made, path):
    """The files of a conversion on disk."""
    for name, content in made.files.items():
        (path / name if name else path).parent.mkdir(parents=True, exist_ok=True)
        (path / name if name else path).write_bytes(content)
    return path


def there(source, to, path, **options):
    """An adapter converted, put on disk and read again."""
    made = convert(source, to=to, **options)
    return made, load_adapter(put(made, path))


def assert_alike(first, second, *, rtol=1e-12):
    """Two lists of matrices are the same, relative to their norms."""
    for one, other in zip(first, second, strict=True):
        assert np.linalg.norm(one - other) <= rtol * np.linalg.norm(one)
