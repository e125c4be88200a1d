"""Adapters and weights of the shapes that the benchmarks need, seeded, written as safetensors with PEFT's keys."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

_CODES = {"fp32": "F32", "bf16": "BF16"}


def narrowed(M: np.ndarray, dtype: str) -> np.ndarray:
    """Numbers as stored: float32, or the bits of the nearest bfloat16."""
    bits = np.ascontiguousarray(M, dtype=np.float32)
    if dtype == "fp32":
        return bits
    wide = bits.view(np.uint32)
    return ((wide + 0x7FFF + ((wide >> 16) & 1)) >> 16).astype(np.uint16)


def save(path: Path, tensors: dict[str, np.ndarray], dtype: str) -> Path:
    """Write tensors that are `narrowed` already as one safetensors file."""
    header: dict[str, Any] = {}
    at = 0
    for key, stored in tensors.items():
        header[key] = {
            "dtype": _CODES[dtype],
            "shape": stored.shape,
            "data_offsets": [at, at + stored.nbytes],
        }
        at += stored.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for stored in tensors.values():
            out.write(stored.tobytes())
    return path


def adapter(folder: Path, *, r: int, d: int, layers: int, dtype: str = "fp32", seed: int = 0) -> Path:
    """PEFT directory with q and v of every layer, A and B both (random) trained; return it."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    tensors = {}
    for layer in range(layers):
        for name in ("q_proj", "v_proj"):
            stem = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            for factor, shape in (("lora_A", (r, d)), ("lora_B", (d, r))):
                M = 0.02 * rng.standard_normal(shape, dtype=np.float32)
                tensors[f"{stem}.{factor}.weight"] = narrowed(M, dtype)
    save(folder / "adapter_model.safetensors", tensors, dtype)
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": "made-for-a-benchmark",
        "task_type": "CAUSAL_LM",
        "r": r,
        "lora_alpha": 2 * r,
        "target_modules": ["q_proj", "v_proj"],
    }
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def llama_pair(folder: Path, dtype: str) -> tuple[Path, Path]:
    """Two adapters shaped like q and v of LLaMA-7B (64 modules, d = 4096), r = 8 and r = 64."""
    return (
        adapter(folder / f"{dtype}-r8", r=8, d=4096, layers=32, dtype=dtype, seed=8),
        adapter(folder / f"{dtype}-r64", r=64, d=4096, layers=32, dtype=dtype, seed=64),
    )


def power_law(d: int, *, power: float, seed: int = 0) -> np.ndarray:
    """Float32 matrix (d, d) whose singular values fall as ``n ** -power``, its vectors dense and random-like."""
    from scipy.fft import dct

    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(4, d))
    sigma = np.arange(1, d + 1) ** -power
    left = signs[0][:, None] * dct(signs[1][:, None] * np.eye(d), axis=0, norm="ortho")
    right = signs[2][:, None] * dct(signs[3][:, None] * np.eye(d), axis=0, norm="ortho")
    return ((left * sigma) @ right.T).astype(np.float32)
