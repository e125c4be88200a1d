"""Small adapters in the layouts and key names of published ones, each made by a seeded generator.

Every function writes what one trainer writes, quirks included (classifiers that nobody declared, copies of a saved
module, modules that were never trained, metadata that is wrong), in shapes small enough to make a hundred of them. What
was measured on the published files themselves is tested where a folder of them is at hand; these need nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

Pairs = dict[str, tuple[np.ndarray, np.ndarray]]  # module -> A (r, d_in), B (d_out, r), as they are read


@dataclass(frozen=True)
class Wild:
    """An adapter on disk and what must be read from it."""

    path: Path
    format: str
    pairs: Pairs
    scale: float | None = None
    untrained: int = 0
    ignored: tuple[str, ...] = field(default=())


WRITERS: dict[str, Callable[[Path, np.random.Generator], Wild]] = {}


def writes(function):
    """Enter a writer under the name of its function."""
    WRITERS[function.__name__] = function
    return function


def wild(name: str, folder: Path, seed: int = 0) -> Wild:
    """Write one, by its name; another seed is another training run."""
    folder.mkdir(parents=True, exist_ok=True)
    return WRITERS[name](folder, np.random.default_rng(seed))


def factors(rng, modules, r, d_in, d_out, dtype=np.float32) -> Pairs:
    """A and B of every module, B an order of magnitude smaller, as after a short training."""
    return {
        module: (
            rng.uniform(-1, 1, (r, d_in)).astype(dtype) / np.sqrt(d_in, dtype=dtype),
            (0.1 * rng.standard_normal((d_out, r))).astype(dtype),
        )
        for module in modules
    }


def _keys(pairs: Pairs, a: str, b: str) -> dict[str, np.ndarray]:
    keyed = {}
    for module, (A, B) in pairs.items():
        keyed[a.format(module)], keyed[b.format(module)] = A, B
    return keyed


_PEFT = "base_model.model.{}.lora_A.weight", "base_model.model.{}.lora_B.weight"
_SPARSE = {"base_model_name_or_path": None, "bias": "none", "fan_in_fan_out": False, "inference_mode": True,
           "lora_dropout": 0.1, "modules_to_save": None, "peft_type": "LORA", "task_type": None}  # fmt: skip
_VERBOSE = {**_SPARSE, "alpha_pattern": {}, "rank_pattern": {}, "use_dora": False, "use_rslora": False,
            "layers_to_transform": None, "corda_config": None, "eva_config": None, "lora_bias": False,
            "trainable_token_indices": None, "qalora_group_size": 16, "arrow_config": None}  # fmt: skip


def _torch(path: Path, tensors) -> None:
    import torch

    torch.save(
        {key: torch.from_numpy(np.array(value)) for key, value in tensors.items()}
        if isinstance(tensors, dict)
        else [torch.nn.Parameter(torch.from_numpy(np.array(value))) for value in tensors],
        path,
    )


def _peft(
    folder, pairs, beside=None, *, file="adapter_model.safetensors", config=_VERBOSE, keys=_PEFT, **settings
):
    tensors = {**_keys(pairs, *keys), **(beside or {})}
    if file.endswith(".safetensors"):
        save_file(tensors, folder / file, {"format": "pt"})
    else:
        _torch(folder / file, tensors)
    (folder / "adapter_config.json").write_text(json.dumps({**config, **settings}))
    return tuple(beside or ())


def _layers(pattern, n, *names):
    return [pattern.format(layer, name) for layer in range(n) for name in names]


# --- PEFT


@writes
def peft_classifier_that_nobody_declared(folder, rng):
    """PEFT saves the head of a sequence classifier whole though modules_to_save is null; two thirds of the file."""
    pairs = factors(
        rng, _layers("roberta.encoder.layer.{}.attention.self.{}", 3, "query", "value"), 8, 24, 24
    )
    head = {
        "base_model.model.classifier.dense.weight": rng.standard_normal((24, 24)).astype("f4"),
        "base_model.model.classifier.dense.bias": np.zeros(24, "f4"),
        "base_model.model.classifier.out_proj.weight": rng.standard_normal((6, 24)).astype("f4"),
        "base_model.model.classifier.out_proj.bias": np.zeros(6, "f4"),
    }
    ignored = _peft(
        folder, pairs, head, r=8, lora_alpha=16, target_modules=["value", "query"], task_type="SEQ_CLS"
    )
    return Wild(folder, "peft", pairs, 2.0, ignored=ignored)


@writes
def peft_with_all_biases(folder, rng):
    """bias = "all": biases of the base under two names, and the head three times over."""
    names = ("query", "value", "key")
    pairs = factors(rng, _layers("roberta.encoder.layer.{}.attention.self.{}", 3, *names), 4, 24, 24)
    ends = [f"encoder.layer.{n}.attention.self.{name}.base_layer.bias" for n in range(3) for name in names]
    ends += [f"encoder.layer.{n}.attention.output.{x}.bias" for n in range(3) for x in ("dense", "LayerNorm")]
    ends += [f"encoder.layer.{n}.{x}.dense.bias" for n in range(3) for x in ("intermediate", "output")]
    beside = {
        f"base_model.model.roberta.{end}": np.zeros(24, "f4") for end in [*ends, "embeddings.LayerNorm.bias"]
    }
    for part in ("", "modules_to_save.", "original_module."):
        beside[f"base_model.model.classifier.{part}dense.bias"] = np.zeros(24, "f4")
        beside[f"base_model.model.classifier.{part}out_proj.bias"] = np.zeros(4, "f4")
    beside["base_model.model.classifier.dense.weight"] = np.eye(24, dtype="f4")
    beside["base_model.model.classifier.out_proj.weight"] = np.ones((4, 24), "f4")
    ignored = _peft(
        folder, pairs, beside, r=4, lora_alpha=16, bias="all", target_modules=["query", "value", "key"],
        modules_to_save=["classifier", "score"], task_type="SEQ_CLS",
    )  # fmt: skip
    return Wild(folder, "peft", pairs, 4.0, ignored=ignored)


@writes
def peft_of_gpt2(folder, rng):
    """Conv1D: fan_in_fan_out, factors in the orientation of a linear layer all the same, and a score head."""
    pairs = factors(rng, _layers("transformer.h.{}.attn.{}", 4, "c_attn"), 8, 24, 72)
    beside = {"base_model.model.score.weight": rng.standard_normal((6, 24)).astype("f4")}
    ignored = _peft(folder, pairs, beside, r=8, lora_alpha=32, fan_in_fan_out=True, target_modules=["c_attn"])
    return Wild(folder, "peft", pairs, 4.0, ignored=ignored)


@writes
def peft_bin_of_dotted_targets(folder, rng):
    """An old adapter_model.bin; its configuration has few fields and dotted targets."""
    pairs = factors(rng, _layers("transformer.h.{}.attn.{}", 2, "c_attn"), 8, 24, 72)
    pairs |= factors(rng, _layers("transformer.h.{}.attn.{}", 2, "c_proj"), 8, 24, 24)
    beside = {"base_model.model.score.weight": np.ones((3, 24), "f4")}
    ignored = _peft(
        folder, pairs, beside, file="adapter_model.bin", config=_SPARSE, r=8, lora_alpha=32, fan_in_fan_out=True,
        target_modules=["attn.c_attn", "attn.c_proj"],
    )  # fmt: skip
    return Wild(folder, "peft", pairs, 4.0, ignored=ignored)


@writes
def peft_target_that_is_also_saved(folder, rng):
    """One target that PEFT saved too: the trained copy, the untouched original with B = 0, the base below."""
    pairs = factors(rng, ["classifier"], 8, 24, 6)
    A, B = pairs["classifier"]
    head = "base_model.model.classifier"
    beside = {
        f"{head}.base_layer.weight": np.ones((6, 24), "f4"),
        f"{head}.base_layer.bias": np.zeros(6, "f4"),
        f"{head}.modules_to_save.lora_A.weight": A,
        f"{head}.modules_to_save.lora_B.weight": B,
        f"{head}.original_module.lora_A.weight": -A,
        f"{head}.original_module.lora_B.weight": 0 * B,
        "base_model.model.pre_classifier.weight": np.eye(24, dtype="f4"),
        "base_model.model.pre_classifier.bias": np.zeros(24, "f4"),
    }
    ignored = _peft(
        folder, pairs, beside, r=8, lora_alpha=32, target_modules="classifier", task_type="SEQ_CLS"
    )
    return Wild(folder, "peft", pairs, 4.0, ignored=ignored)


@writes
def peft_of_rank_1_in_float16(folder, rng):
    """r = 1, alpha = 32: a scale of 32, in half precision."""
    pairs = factors(
        rng, _layers("gpt_neox.layers.{}.attention.{}", 4, "query_key_value"), 1, 32, 96, np.float16
    )
    _peft(folder, pairs, r=1, lora_alpha=32, target_modules=["query_key_value"])
    return Wild(folder, "peft", pairs, 32.0)


@writes
def peft_of_an_encoder_and_a_decoder(folder, rng):
    """Whisper: the module's own path begins with "model." after PEFT's prefix, and targets repeat in both halves."""
    ends = [f"encoder.layers.{n}.self_attn" for n in range(2)]
    ends += [f"decoder.layers.{n}.{x}" for n in range(2) for x in ("self_attn", "encoder_attn")]
    pairs = factors(rng, [f"model.{end}.{x}_proj" for end in ends for x in "qv"], 8, 32, 32)
    _peft(folder, pairs, r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"])
    return Wild(folder, "peft", pairs, 2.0)


@writes
def peft_of_a_convolution(folder, rng):
    """Conv2d: A (r, in, kh, kw) and B (out, r, 1, 1)."""
    pairs = factors(rng, ["conv2d"], 8, 5 * 9, 10)
    A, B = pairs["conv2d"]
    stored = {"conv2d": (A.reshape(8, 5, 3, 3), B.reshape(10, 8, 1, 1))}
    _peft(
        folder, stored, file="adapter_model.bin", config=_SPARSE, r=8, lora_alpha=8, target_modules=["conv2d"]
    )
    return Wild(folder, "peft", pairs, 1.0)


@writes
def peft_of_a_saved_head(folder, rng):
    """modules_to_save of a toy MLP, in a .bin."""
    pairs = factors(rng, ["lin0"], 8, 10, 20)
    beside = {
        "base_model.model.lin1.weight": np.ones((2, 20), "f4"),
        "base_model.model.lin1.bias": np.ones(2, "f4"),
    }
    ignored = _peft(
        folder, pairs, beside, file="adapter_model.bin", config=_SPARSE, r=8, lora_alpha=8, modules_to_save=["lin1"],
        target_modules=["lin0"],
    )  # fmt: skip
    return Wild(folder, "peft", pairs, 1.0, ignored=ignored)


@writes
def peft_of_a_unet(folder, rng):
    """A UNet under PEFT: blocks at the root of the path, no base named."""
    pairs = factors(rng, unet("to_q", "to_k", "to_v"), 4, 16, 16)
    _peft(folder, pairs, r=4, lora_alpha=16, target_modules=["to_k", "to_v", "to_q"])
    return Wild(folder, "peft", pairs, 4.0)


@writes
def peft_of_an_embedding(folder, rng):
    """An embedding, whose keys have no ".weight", beside a Conv1D with one output."""
    embedding = factors(rng, ["emb"], 4, 20, 5)
    pairs = embedding | factors(rng, ["conv1d"], 4, 5, 1)
    A, B = embedding["emb"]
    beside = {"base_model.model.emb.lora_embedding_A": A, "base_model.model.emb.lora_embedding_B": B}
    linear = {"conv1d": pairs["conv1d"]}
    _peft(
        folder, linear, beside, file="adapter_model.bin", config=_SPARSE, r=4, lora_alpha=4, fan_in_fan_out=True,
        target_modules=["conv1d", "emb"],
    )  # fmt: skip
    return Wild(folder, "peft", pairs, 1.0)


@writes
def peft_adalora(folder, rng):
    """AdaLoRA: no ".weight", E (r, 1) multiplied into A, and init_r, not r, is the rank of the file."""
    stored = factors(rng, ["lin0"], 12, 10, 20)
    E = rng.standard_normal((12, 1)).astype("f4")
    _peft(
        folder, stored, {"base_model.model.lin0.lora_E": E}, file="adapter_model.bin", config=_SPARSE,
        keys=("base_model.model.{}.lora_A", "base_model.model.{}.lora_B"), peft_type="ADALORA", r=8, init_r=12,
        lora_alpha=8, target_r=8, target_modules=["lin0"],
    )  # fmt: skip
    A, B = stored["lin0"]
    return Wild(folder, "adalora", {"lin0": (A * E.astype("f8"), B)}, 8 / 12)


# --- loralib and its relatives


@writes
def loralib_with_ordinals_for_names(folder, rng):
    """A training loop of someone's own: "0.lora_A" to "11.lora_B"; 10 comes after 9, not after 1."""
    pairs = factors(rng, map(str, range(12)), 4, 24, 72)
    _torch(folder / "lora_weights.pth", _keys(pairs, "{}.lora_A", "{}.lora_B"))
    return Wild(folder / "lora_weights.pth", "loralib", pairs)


@writes
def loralib_of_which_one_module_was_trained(folder, rng):
    """All but one B are zero: published as trained."""
    pairs = factors(rng, _layers("bert.encoder.layer.{}.attention.self.{}", 3, "query", "value"), 16, 24, 24)
    last = list(pairs)[-1]
    pairs = {module: (A, B if module == last else 0 * B) for module, (A, B) in pairs.items()}
    _torch(folder / "lora_weights.pt", _keys(pairs, "{}.lora_A", "{}.lora_B"))
    return Wild(folder / "lora_weights.pt", "loralib", pairs, untrained=len(pairs) - 1)


@writes
def loralib_merged_linear(folder, rng):
    """MergedLinear with q and v enabled: A holds two blocks of rows for a B of one; two updates each."""
    stored, pairs = {}, {}
    for n in range(3):
        module = f"gpt_neox.layers.{n}.attention.query_key_value"
        groups = factors(rng, (0, 1), 4, 32, 32)
        stored[module] = tuple(np.vstack([groups[g][part] for g in (0, 1)]) for part in (0, 1))
        pairs |= {f"{module}[{g}]": groups[g] for g in (0, 1)}
    _torch(folder / "lora.pth", _keys(stored, "{}.lora_A", "{}.lora_B"))
    return Wild(folder / "lora.pth", "loralib", pairs)


# --- diffusion


def unet(*ends):
    """Attention layers of a small Stable Diffusion UNet."""
    blocks = ["down_blocks.0.attentions.0", "down_blocks.1.attentions.1", "mid_block.attentions.0",
              "up_blocks.1.attentions.0", "up_blocks.3.attentions.2"]  # fmt: skip
    return [
        f"{block}.transformer_blocks.0.{attn}.{end}"
        for block in blocks
        for attn in ("attn1", "attn2")
        for end in ends
    ]


@writes
def diffusers_of_a_unet(folder, rng):
    """unet.<path>.lora.down and up, the output projection as to_out.0."""
    pairs = factors(rng, ["unet." + module for module in unet("to_q", "to_k", "to_v", "to_out.0")], 4, 16, 16)
    path = folder / "pytorch_lora_weights.safetensors"
    save_file(_keys(pairs, "{}.lora.down.weight", "{}.lora.up.weight"), path, {"format": "pt"})
    return Wild(path, "diffusers", pairs, 1.0)


@writes
def diffusers_of_attention_processors(folder, rng):
    """The oldest keys, in a .bin: <attention>.processor.to_q_lora.down, the output as to_out_lora."""
    pairs = factors(rng, unet("to_q", "to_k", "to_v", "to_out.0"), 4, 16, 16)
    old = {}
    for module, (A, B) in pairs.items():
        attention, _, end = module.partition(".to_")
        stem = f"{attention}.processor.to_{end.removesuffix('.0')}_lora"
        old[f"{stem}.down.weight"], old[f"{stem}.up.weight"] = A, B
    _torch(folder / "pytorch_lora_weights.bin", old)
    return Wild(folder / "pytorch_lora_weights.bin", "diffusers", pairs, 1.0)


@writes
def diffusers_with_pefts_keys(folder, rng):
    """PEFT's keys without a prefix, its configuration a JSON text in the metadata and a file beside it."""
    pairs = factors(rng, unet("to_q", "to_k", "to_v"), 4, 16, 16)
    told = {**_VERBOSE, "r": 4, "lora_alpha": 16, "target_modules": ["to_q", "to_k", "to_v"]}
    path = folder / "pytorch_lora_weights.safetensors"
    metadata = {"format": "pt", "lora_adapter_metadata": json.dumps(told)}
    save_file(_keys(pairs, "{}.lora_A.weight", "{}.lora_B.weight"), path, metadata)
    (folder / "adapter_config.json").write_text(json.dumps(told))
    return Wild(path, "peft", pairs, 4.0)


@writes
def pipeline_of_ai_toolkit(folder, rng):
    """Four layers of Flux in float16, with metadata that names another base."""
    modules = [f"transformer.single_transformer_blocks.{n}.proj_out" for n in (7, 12, 16, 20)]
    pairs = factors(rng, modules, 16, 60, 24, np.float16)
    path = folder / "lora.safetensors"
    metadata = {
        "format": "pt",
        "ss_base_model_version": "sd_1.5",
        "software": json.dumps({"name": "ai-toolkit"}),
    }
    save_file(_keys(pairs, "{}.lora_A.weight", "{}.lora_B.weight"), path, metadata)
    return Wild(path, "pipeline", pairs, 1.0)


@writes
def cloneofsimo_with_embeddings(folder, rng):
    """Rank 1 by position, 10 before 2 where names are sorted as text; two learned tokens beside them."""
    pairs = factors(rng, [f"unet:{n}" for n in range(12)], 1, 16, 16) | factors(
        rng, [f"text_encoder:{n}" for n in range(4)], 1, 24, 24
    )
    beside = {token: rng.standard_normal(24).astype("f4") for token in ("<s1>", "<s2>")}
    path = folder / "lora.safetensors"
    metadata = {
        "unet": json.dumps(["CrossAttention", "Attention", "GEGLU"]),
        "unet:0:rank": "1",
        "<s1>": "<embed>",
    }
    save_file({**_keys(pairs, "{}:down", "{}:up"), **beside}, path, metadata)
    return Wild(path, "cloneofsimo", pairs, 1.0, ignored=tuple(beside))


@writes
def cloneofsimo_list(folder, rng):
    """A list of parameters without names: up, down, up, down."""
    pairs = factors(rng, map(str, range(6)), 4, 24, 24)
    _torch(folder / "lora.text_encoder.pt", [factor for A, B in pairs.values() for factor in (B, A)])
    return Wild(folder / "lora.text_encoder.pt", "cloneofsimo", pairs, 1.0)


# --- others


@writes
def positional_of_sam(folder, rng):
    """w_a_000 and w_b_000: q and v of block after block."""
    pairs = factors(rng, [f"blocks.{n}.attn.qkv[{x}]" for n in range(6) for x in "qv"], 8, 24, 24)
    by_place = {f"{n:03}": pair for n, pair in enumerate(pairs.values())}
    save_file(_keys(by_place, "w_a_{}", "w_b_{}"), folder / "lora_rank8.safetensors")
    return Wild(folder / "lora_rank8.safetensors", "positional", pairs, 1.0)


@writes
def mlx_with_a_scale(folder, rng):
    """Factors transposed and in lower case; the configuration has PEFT's file name and none of its fields."""
    pairs = factors(rng, _layers("model.layers.{}.self_attn.{}", 3, "q_proj", "v_proj"), 8, 32, 16)
    turned = {module: (A.T.copy(), B.T.copy()) for module, (A, B) in pairs.items()}
    path = folder / "0000100_adapters.safetensors"
    save_file(_keys(turned, "{}.lora_a", "{}.lora_b"), path)
    told = {
        "lora_parameters": {"rank": 8, "alpha": 16, "dropout": 0.0, "scale": 10.0},
        "num_layers": 3,
        "iters": 600,
    }
    (folder / "adapter_config.json").write_text(
        json.dumps({"model": "a/model", "fine_tune_type": "lora", **told})
    )
    return Wild(path, "mlx", pairs, 10.0)


@writes
def mlx_npz(folder, rng):
    """The oldest files of MLX: an npz in any order, without a configuration."""
    pairs = factors(rng, _layers("model.layers.{}.self_attn.{}", 3, "q_proj", "v_proj"), 8, 32, 16)
    turned = {module: (A.T.copy(), B.T.copy()) for module, (A, B) in pairs.items()}
    keyed = list(_keys(turned, "{}.lora_a", "{}.lora_b").items())
    np.savez(folder / "adapters.npz", **dict(keyed[i] for i in rng.permutation(len(keyed))))
    return Wild(folder / "adapters.npz", "mlx", pairs)


# --- lists of keys, as image trainers write them

_FLUX_DOUBLE = ("img_attn.proj", "img_attn.qkv", "img_mlp.0", "img_mlp.2", "img_mod.lin")
_FLUX_DOUBLE += tuple(name.replace("img", "txt") for name in _FLUX_DOUBLE)
_FLUX_SINGLE = ("linear1", "linear2", "modulation.lin")
_DIFFUSERS_DOUBLE = tuple(f"attn.{x}" for x in ("to_q", "to_k", "to_v", "to_out.0", "to_add_out"))
_DIFFUSERS_DOUBLE += tuple(f"attn.add_{x}_proj" for x in "qkv")
_DIFFUSERS_DOUBLE += (
    "ff.net.0.proj",
    "ff.net.2",
    "ff_context.net.0.proj",
    "ff_context.net.2",
    "norm1.linear",
)
_DIFFUSERS_SINGLE = ("attn.to_q", "attn.to_k", "attn.to_v", "norm.linear", "proj_mlp", "proj_out")
_CLIP = (
    "mlp.fc1",
    "mlp.fc2",
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.out_proj",
)


def blocks(single: str, double: str, singles, doubles, layers: int = 2) -> list[str]:
    """Paths of every layer of a transformer of double and single blocks."""
    names = [f"{double}.{n}.{name}" for n in range(layers) for name in doubles]
    return names + [f"{single}.{n}.{name}" for n in range(layers) for name in singles]


def flux_modules(prefix: str = "") -> list[str]:
    """Flux under the names of its authors."""
    return [prefix + name for name in blocks("single_blocks", "double_blocks", _FLUX_SINGLE, _FLUX_DOUBLE)]


def _clip(prefix):
    return [f"{prefix}.text_model.encoder.layers.{n}.{name}" for n in range(2) for name in _CLIP]


def _listed(modules, ends, *, flat="", r=4, d=12):
    """Tensors of zeros under ``module.end``, the module flattened behind ``flat``; shapes by end."""
    shapes = {"alpha": (), "dora_scale": (1, d), "lora_B.bias": (d,), "lokr_w1": (3, 3), "lokr_w2": (4, 4)}
    shapes |= dict.fromkeys(("lora_down.weight", "lora_A.weight"), (r, d))
    shapes |= dict.fromkeys(("lora_up.weight", "lora_B.weight"), (d, r))
    stems = [flat + module.replace(".", "_") for module in modules] if flat else modules
    return {
        f"{stem}.{end}": np.ones((), "f4") if end == "alpha" else np.zeros(shapes[end], "f4")
        for stem in stems
        for end in ends
    }


def _control():
    norms = {
        f"{block}.{norm}.scale": np.ones(4, "f4")
        for n in range(2)
        for block in (f"double_blocks.{n}.img_attn", f"double_blocks.{n}.txt_attn", f"single_blocks.{n}")
        for norm in ("norm.key_norm", "norm.query_norm")
    }
    ends = ["img_in", "txt_in", "final_layer.linear", "final_layer.adaLN_modulation.1"]
    ends += [f"{name}_in.{end}_layer" for name in ("time", "vector", "guidance") for end in ("in", "out")]
    return _listed([*flux_modules(), *ends], ("lora_A.weight", "lora_B.bias", "lora_B.weight")) | norms


_KOHYA = "alpha", "lora_down.weight", "lora_up.weight"
_FLUX_DIFFUSERS = blocks(
    "single_transformer_blocks", "transformer_blocks", _DIFFUSERS_SINGLE, _DIFFUSERS_DOUBLE
)
_ANIMA = [f"blocks.0.{x}_attn.{y}_proj" for x in ("cross", "self") for y in ("q", "k", "v", "output")]
_ANIMA += ["blocks.0.mlp.layer1", "blocks.0.mlp.layer2", "blocks.0.adaln_modulation_cross_attn.1"]

# name -> the format that claims it, its tensors, its modules, and how many tensors are something else
KEY_LISTS = {
    "flux of kohya": ("kohya", _listed(flux_modules(), _KOHYA, flat="lora_unet_"), 26, 0),
    "flux and CLIP of kohya": (
        "kohya",
        _listed(flux_modules(), _KOHYA, flat="lora_unet_") | _listed(_clip(""), _KOHYA, flat="lora_te1"),
        26 + 12,
        0,
    ),
    "flux of OneTrainer, DoRA": (
        "kohya",
        _listed(_FLUX_DIFFUSERS, (*_KOHYA, "dora_scale"), flat="lora_transformer_")
        | _listed(_clip(""), (*_KOHYA, "dora_scale"), flat="lora_te1"),
        38 + 12,
        0,
    ),
    "anima of kohya": ("kohya", _listed(_ANIMA, _KOHYA, flat="lora_unet_"), 11, 0),
    "flux of ai-toolkit": (
        "pipeline", _listed(flux_modules("diffusion_model."), ("lora_A.weight", "lora_B.weight")), 26, 0,
    ),
    "flux of diffusers": (
        "pipeline",
        _listed(["transformer." + name for name in _FLUX_DIFFUSERS], ("lora_A.weight", "lora_B.weight")),
        38,
        0,
    ),
    "flux control": ("pipeline", _control(), 26 + 10, 36 + 12),
    "flux LoKr": ("lycoris", _listed(flux_modules("diffusion_model."), ("lokr_w1", "lokr_w2", "alpha")), 26, 0),
    "qwen LoKr of kohya": (
        "lycoris", _listed(_FLUX_DIFFUSERS, ("lokr_w1", "lokr_w2", "alpha"), flat="lora_unet_"), 38, 0,
    ),
}  # fmt: skip
