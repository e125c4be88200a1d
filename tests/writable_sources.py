"""One small adapter in every format that is read, with delta_W of every layer of the model that it is of.

Three models: a LLaMA of transformers (grouped queries), a UNet and CLIP of diffusers, and layers of Flux and of a
vision transformer. Each source is laid out as the format's writer lays it out, the order of its rows included.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

HEADS, KV_HEADS, D, HEAD = 4, 2, 16, 4
KV = KV_HEADS * HEAD
LLAMA_CONFIG = {"model_type": "llama", "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS}
_ATTENTION = {"q_proj": (D, D), "k_proj": (KV, D), "v_proj": (KV, D), "o_proj": (D, D)}
LLAMA = {f"model.layers.{n}.self_attn.{x}": shape for n in range(2) for x, shape in _ATTENTION.items()}
_UNET = "down_blocks.1.attentions.0.transformer_blocks.0"
UNET = {f"{_UNET}.attn1.to_{x}": (16, 16) for x in ("q", "k", "v", "out.0")}
UNET |= {"mid_block.attentions.0.proj_in": (16, 16), f"{_UNET}.ff.net.0.proj": (128, 16)}
CONV = "mid_block.resnets.0.conv1"
CLIP = {f"text_model.encoder.layers.0.{x}": (16, 16) for x in ("self_attn.q_proj", "self_attn.out_proj")}
CLIP |= {"text_model.encoder.layers.0.mlp.fc1": (32, 16)}
VIT = {f"blocks.{n}.attn.qkv": (24, 8) for n in range(2)}
FLUX = {
    "double_blocks.0.img_attn.qkv": (24, 8),
    "double_blocks.0.txt_attn.proj": (8, 8),
    "single_blocks.3.linear2": (8, 40),
}
FLUX |= {"single_blocks.3.linear1": (56, 8)}  # q, k, v and an MLP of 4 times the width


@dataclass
class Readable:
    """A source, how it is read, and what it changes in which model.

    Attributes
    ----------
    source : what `load_adapter` takes
    model : "llama", "unet", "vit" or "flux"
    deltas : full name in the model -> delta_W (d_out, d_in); of a pipeline behind the name of the model in it
    options : of `convert`
    rank : what to cut a dense delta_W to, None where the source has factors
    """

    source: Any
    model: str
    deltas: dict[str, np.ndarray]
    options: dict[str, Any] = field(default_factory=dict)
    rank: int | None = None


FORMATS = {}
_RNG = np.random.default_rng(3)


def writes(function):
    """Enter a writer under the name of its format."""
    FORMATS[function.__name__.removesuffix("_")] = function
    return function


def _normal(*shape):
    return _RNG.standard_normal(shape).astype(np.float32)


def _pairs(shapes, r=2):
    return {name: (_normal(r, d_in), _normal(d_out, r)) for name, (d_out, d_in) in shapes.items()}


def _deltas(pairs, scale=1.0, prefix=""):
    return {
        prefix + name: scale * B.astype(float).reshape(len(B), -1) @ A.astype(float).reshape(len(A), -1)
        for name, (A, B) in pairs.items()
    }


def _keyed(pairs, a, b, turn=False):
    keyed = {}
    for name, (A, B) in pairs.items():
        keyed[a.format(name)], keyed[b.format(name)] = (A.T.copy(), B.T.copy()) if turn else (A, B)
    return keyed


def _folder(folder, tensors, config):
    import json

    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {key: np.ascontiguousarray(value) for key, value in tensors.items()},
        folder / "adapter_model.safetensors",
    )
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


_PEFT = "base_model.model.{}.lora_A.weight", "base_model.model.{}.lora_B.weight"


@writes
def peft(folder):
    pairs = _pairs(LLAMA)
    config = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 6,
        "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"],
    }
    return Readable(_folder(folder, _keyed(pairs, *_PEFT), config), "llama", _deltas(pairs, 3))


@writes
def adalora(folder):
    pairs, E = _pairs(LLAMA), _normal(2, 1)
    tensors = _keyed(pairs, "base_model.model.{}.lora_A", "base_model.model.{}.lora_B")
    tensors |= {f"base_model.model.{name}.lora_E": E for name in pairs}
    config = {"peft_type": "ADALORA", "init_r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
    read = {name: (A.astype(float) * E, B) for name, (A, B) in pairs.items()}
    scale = 4 / (2 + 1e-5)  # lora_alpha / (ranknum + 1e-5) in PEFT
    return Readable(_folder(folder, tensors, config), "llama", _deltas(read, scale))


@writes
def loralib(folder):
    pairs = _pairs(LLAMA)
    return Readable(_keyed(pairs, "{}.lora_A", "{}.lora_B"), "llama", _deltas(pairs, 2), {"scale": 2.0})


@writes
def minlora(folder):
    """Two parametrizations of each weight, which add up."""
    first, second = _pairs(LLAMA), _pairs(LLAMA, r=3)
    tensors = {}
    for n, pairs in enumerate((first, second)):
        stem = "{}.parametrizations.weight." + str(n)
        tensors |= _keyed(pairs, stem + ".lora_A", stem + ".lora_B")
    total = {name: delta + _deltas(second, 2)[name] for name, delta in _deltas(first, 2).items()}
    return Readable(tensors, "llama", total, {"scale": 2.0})


@writes
def mlx(folder):
    pairs = _pairs(LLAMA)
    return Readable(
        _keyed(pairs, "{}.lora_a", "{}.lora_b", turn=True), "llama", _deltas(pairs, 2), {"scale": 2.0}
    )


@writes
def mlxvlm(folder):
    from safetensors.numpy import save_file

    pairs = _pairs(LLAMA)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(_keyed(pairs, "{}.A", "{}.B", turn=True), folder / "adapters.safetensors")
    (folder / "adapter_config.json").write_text('{"rank": 2, "alpha": 0.5}')
    return Readable(folder, "llama", _deltas(pairs, 0.5))


@writes
def pair(folder):
    pairs = _pairs(LLAMA)
    return Readable(_keyed(pairs, "{}.A", "{}.B"), "llama", _deltas(pairs, 2), {"scale": 2.0})


def permuted(B, heads):
    """Rows of a q or k of transformers as llama.cpp and torchtune have them: LlamaModel.permute."""
    return B.reshape(heads, 2, len(B) // heads // 2, *B.shape[1:]).swapaxes(1, 2).reshape(B.shape)


def base_folder(folder):
    """The LLaMA as a folder of transformers."""
    import json

    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {f"{name}.weight": _normal(*shape) for name, shape in LLAMA.items()}, folder / "model.safetensors"
    )
    (folder / "config.json").write_text(json.dumps(LLAMA_CONFIG))
    return folder


def _reordered(pairs):
    heads = {"q_proj": HEADS, "k_proj": KV_HEADS}
    return {
        name: (A, permuted(B, heads[name.rpartition(".")[2]]) if name.endswith(("q_proj", "k_proj")) else B)
        for name, (A, B) in pairs.items()
    }


@writes
def gguf(folder):
    pairs, theirs = (
        _pairs(LLAMA),
        {"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output"},
    )
    named = {
        f"blk.{name.split('.')[2]}.{theirs[name.split('.')[-1]]}": pair
        for name, pair in _reordered(pairs).items()
    }
    tensors = _keyed(named, "{}.weight.lora_a", "{}.weight.lora_b")
    return Readable(tensors, "llama", _deltas(pairs, 2), {"scale": 2.0, "base": base_folder(folder / "base")})


@writes
def torchtune(folder):
    pairs = _pairs(LLAMA)
    named = {
        name.removeprefix("model.").replace("self_attn", "attn").replace("o_proj", "output_proj"): pair
        for name, pair in _reordered(pairs).items()
    }
    tensors = _keyed(named, "{}.lora_a.weight", "{}.lora_b.weight")
    return Readable(tensors, "llama", _deltas(pairs, 2), {"scale": 2.0, "base": base_folder(folder / "base")})


@writes
def litgpt(folder):
    pairs, tensors = _pairs(LLAMA), {}
    for n in range(2):
        q, k, v, o = (pairs[f"model.layers.{n}.self_attn.{x}_proj"] for x in "qkvo")
        block = f"transformer.h.{n}.attn"
        tensors[f"{block}.qkv.lora_A"] = np.vstack([A for A, _ in (q, k, v)])
        tensors[f"{block}.qkv.lora_B"] = np.vstack([B for _, B in (q, k, v)])
        tensors[f"{block}.proj.lora_A"], tensors[f"{block}.proj.lora_B"] = o
    return Readable(tensors, "llama", _deltas(pairs, 2), {"scale": 2.0})


@writes
def vera(folder):
    shapes = {name: (D, D) for name, shape in LLAMA.items() if shape == (D, D)}
    A, B, tensors, deltas = _normal(2, D), _normal(D, 2), {}, {}
    for name in shapes:
        b, d = _normal(D), _normal(2)
        tensors |= {f"base_model.model.{name}.vera_lambda_b": b, f"base_model.model.{name}.vera_lambda_d": d}
        deltas[name] = (b[:, None].astype(float) * B) @ (d[:, None].astype(float) * A)
    tensors |= {"base_model.vera_A": A, "base_model.vera_B": B}
    config = {"peft_type": "VERA", "r": 2, "target_modules": ["q_proj", "o_proj"]}
    return Readable(_folder(folder, tensors, config), "llama", deltas)


@writes
def peft_lycoris(folder):
    tensors, deltas = {}, {}
    for name, (d_out, d_in) in LLAMA.items():
        w = [_normal(d_out, 2), _normal(2, d_in), _normal(d_out, 2), _normal(2, d_in)]
        keys = [f"base_model.model.{name}.hada_w{i}_{x}" for i in (1, 2) for x in "ab"]
        tensors |= dict(zip(keys, w, strict=True))
        a, b, c, d = (M.astype(float) for M in w)
        deltas[name] = 3 * (a @ b) * (c @ d)
    config = {"peft_type": "LOHA", "r": 2, "alpha": 6, "target_modules": ["q_proj"]}
    return Readable(_folder(folder, tensors, config), "llama", deltas)


@writes
def dense(folder):
    deltas = _deltas(_pairs(LLAMA))
    return Readable(
        {f"{name}.delta_W": M.astype(np.float32) for name, M in deltas.items()}, "llama", deltas, rank=2
    )


@writes
def ia3(folder):
    base, tensors, deltas = base_folder(folder / "base"), {}, {}
    from safetensors.numpy import load_file

    weights = load_file(base / "model.safetensors")
    for name, (d_out, _) in LLAMA.items():
        vector = np.ones(d_out, np.float32)
        vector[1] += 0.5  # one row, so that the change is of rank 1
        tensors[f"base_model.model.{name}.ia3_l"] = vector[:, None]
        deltas[name] = (vector - 1.0)[:, None].astype(float) * weights[f"{name}.weight"]
    config = {"peft_type": "IA3", "target_modules": ["q_proj"], "feedforward_modules": []}
    return Readable(_folder(folder / "ia3", tensors, config), "llama", deltas, {"base": base}, rank=1)


@writes
def oft(folder):
    """Of whatever rotation the reader computes: what is written is compared with what is read."""
    base = base_folder(folder / "base")
    tensors = {f"base_model.model.{name}.oft_R.weight": 0.1 * _normal(4, 6) for name in LLAMA}
    config = {"peft_type": "OFT", "target_modules": ["q_proj"], "oft_block_size": 4, "r": 0}
    folder = _folder(folder / "oft", tensors, config)
    from subspace.adapters import load_adapter

    deltas = {name: update.delta_W() for name, update in load_adapter(folder, base=base).items()}
    return Readable(folder, "llama", deltas, {"base": base}, rank=16)


def _pipeline_pairs():
    return _pairs(
        {f"unet.{name}": s for name, s in UNET.items()}
        | {f"text_encoder.{name}": s for name, s in CLIP.items()}
    )


@writes
def diffusers(folder):
    pairs, tensors = _pipeline_pairs(), {}
    for name, pair in pairs.items():
        style = "lora_linear_layer" if name.startswith("text") else "lora"
        tensors |= _keyed({name: pair}, "{}." + style + ".down.weight", "{}." + style + ".up.weight")
    return Readable(tensors, "unet", _deltas(pairs))


@writes
def pipeline(folder):
    pairs = _pipeline_pairs()
    return Readable(_keyed(pairs, "{}.lora_A.weight", "{}.lora_B.weight"), "unet", _deltas(pairs))


def flat(name):
    """Names of sd-scripts for Stable Diffusion 1."""
    model, _, path = name.partition(".")
    return {"unet": "lora_unet_", "text_encoder": "lora_te_"}[model] + path.replace(".", "_")


@writes
def kohya(folder):
    pairs = _pipeline_pairs()
    named = {flat(name): pair for name, pair in pairs.items()}
    A, B = _normal(2, 16, 3, 3), _normal(16, 2, 1, 1)
    named[flat(f"unet.{CONV}")] = pairs[f"unet.{CONV}"] = (A, B)
    tensors = _keyed(named, "{}.lora_down.weight", "{}.lora_up.weight")
    tensors |= {f"{name}.alpha": np.array(4, np.float32) for name in named}
    return Readable(tensors, "unet", _deltas(pairs, 2))


@writes
def lycoris(folder):
    """LoHa of a UNet alone, under the names that Stability gave to its blocks."""
    name, theirs = "mid_block.attentions.0.proj_in", "lora_unet_middle_block_1_proj_in"
    w = [_normal(16, 2), _normal(2, 16), _normal(16, 2), _normal(2, 16)]
    keys = [f"{theirs}.hada_w{i}_{x}" for i in (1, 2) for x in "ab"]
    a, b, c, d = (M.astype(float) for M in w)
    tensors = dict(zip(keys, w, strict=True)) | {f"{theirs}.alpha": np.array(4, np.float32)}
    return Readable(tensors, "unet", {f"unet.{name}": 2 * (a @ b) * (c @ d)})


@writes
def cloneofsimo(folder):
    pairs = _pairs({f"unet:{n}": (16, 12) for n in range(3)})
    return Readable(_keyed(pairs, "{}:down", "{}:up"), "unet", {})


@writes
def positional(folder):
    tensors, deltas = {}, {}
    for n, name in enumerate(VIT):
        whole = np.zeros(VIT[name])
        for index, rows in ((2 * n, slice(0, 8)), (2 * n + 1, slice(16, 24))):
            A, B = _normal(2, 8), _normal(8, 2)
            tensors |= {f"w_a_{index:03}": A, f"w_b_{index:03}": B}
            whole[rows] = B.astype(float) @ A
        deltas[name] = whole
    return Readable(tensors, "vit", deltas)


@writes
def xlabs(folder):
    stems = {
        "double_blocks.0.img_attn.qkv": "double_blocks.0.processor.qkv_lora1",
        "double_blocks.0.txt_attn.proj": "double_blocks.0.processor.proj_lora2",
        "single_blocks.3.linear1": "single_blocks.3.processor.qkv_lora",
        "single_blocks.3.linear2": "single_blocks.3.processor.proj_lora",
    }
    pairs = _pairs(FLUX | {"single_blocks.3.linear1": (24, 8)})
    named = {stems[name]: pair for name, pair in pairs.items()}
    deltas = _deltas(pairs)
    whole = np.zeros(FLUX["single_blocks.3.linear1"])
    whole[:24] = deltas["single_blocks.3.linear1"]
    deltas["single_blocks.3.linear1"] = whole
    return Readable(_keyed(named, "{}.down.weight", "{}.up.weight"), "flux", deltas)
