"""Small valid files of every container and format, from which a fuzzer starts."""

from __future__ import annotations

import json
import struct
import zipfile
from collections import OrderedDict
from dataclasses import replace
from io import BytesIO
from unittest import mock

import numpy as np

__all__ = [
    "FORMATS",
    "configs",
    "gguf",
    "indices",
    "npy",
    "npz",
    "pair",
    "safetensors",
    "torch_files",
    "yamls",
]

# format -> part -> (key, shape) for a module of (d_out, d_in), rank r
FORMATS = {
    "peft": {"base_model.model.{}.lora_A.weight": "ri", "base_model.model.{}.lora_B.weight": "or"},
    "dora": {
        "base_model.model.{}.lora_A.weight": "ri",
        "base_model.model.{}.lora_B.weight": "or",
        "base_model.model.{}.lora_magnitude_vector": "o",
    },
    "embedding": {"base_model.model.{}.lora_embedding_A": "ri", "base_model.model.{}.lora_embedding_B": "or"},
    "adalora": {
        "base_model.model.{}.lora_A": "ri",
        "base_model.model.{}.lora_B": "or",
        "base_model.model.{}.lora_E": "r1",
    },
    "loralib": {"{}.lora_A": "ri", "{}.lora_B": "or"},
    "kohya": {
        "lora_unet_{}.lora_down.weight": "ri",
        "lora_unet_{}.lora_up.weight": "or",
        "lora_unet_{}.alpha": "",
    },
    "kohya, convolution": {"lora_unet_{}.lora_down.weight": "ri33", "lora_unet_{}.lora_up.weight": "or11"},
    "diffusers": {"unet.{}.lora.down.weight": "ri", "unet.{}.lora.up.weight": "or"},
    "pipeline": {
        "transformer.blocks.0.{}.lora_A.weight": "ri",
        "transformer.blocks.0.{}.lora_B.weight": "or",
    },
    "mlx": {"model.{}.lora_a": "ir", "model.{}.lora_b": "ro"},
    "loha": {
        "lora_unet_{}.hada_w1_a": "or",
        "lora_unet_{}.hada_w1_b": "ri",
        "lora_unet_{}.hada_w2_a": "or",
        "lora_unet_{}.hada_w2_b": "ri",
        "lora_unet_{}.alpha": "",
    },
    "lokr": {"lora_unet_{}.lokr_w1": "rr", "lora_unet_{}.lokr_w2": "oi", "lora_unet_{}.alpha": ""},
    "minlora": {"{}.parametrizations.weight.0.lora_A": "ri", "{}.parametrizations.weight.0.lora_B": "or"},
    "pair": {"{}.A": "ri", "{}.B": "or"},
    "cloneofsimo": {"unet:{}:down": "ri", "unet:{}:up": "or"},
    "gguf names": {"{}.weight.lora_a": "ri", "{}.weight.lora_b": "or"},
    "ia3": {"base_model.model.{}.ia3_l": "o1"},
    "marker": {"{}_w_lora_A": "ri", "{}_w_lora_B": "or"},
}
_SIZES = {"r": 2, "i": 6, "o": 4, "1": 1, "3": 3}
# what trainers write beside the weights
_METADATA = {
    "peft": {"format": "pt"},
    "kohya": {
        "ss_network_module": "networks.lora",
        "ss_network_dim": "2",
        "ss_network_alpha": "4",
        "ss_network_args": '{"conv_dim": "2", "conv_alpha": "1"}',
        "modelspec.architecture": "stable-diffusion-v1/lora",
    },
    "diffusers": {
        "lora_adapter_metadata": json.dumps({"unet.r": 2, "unet.lora_alpha": 4, "unet.use_rslora": True})
    },
    "loralib": {"r": "2", "alpha": "4", "config": '{"lora": {"rank": 2, "scale": 0.5}}'},
    "loha": {"ss_network_module": "lycoris.kohya", "ss_network_args": '{"algo": "loha"}'},
}


def pair(pattern: str = "layers.0.q_proj.lora_{}") -> list[tuple[str, np.ndarray]]:
    """A (2, 6) and B (4, 2)."""
    rng = np.random.default_rng(0)
    A, B = rng.standard_normal((2, 6)), rng.standard_normal((4, 2))
    return [(pattern.format("A"), A.astype(np.float32)), (pattern.format("B"), B.astype(np.float32))]


def _of_format(keys: dict[str, str], dtype: type) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {
        key.format("layers.0.q_proj"): tuple(_SIZES[side] for side in sides) for key, sides in keys.items()
    }
    return {key: np.asarray(rng.standard_normal(shape), dtype) for key, shape in shapes.items()}


def safetensors() -> list[bytes]:
    """One file of each format, all types of numbers, one that is nearly empty, one with a header that is padded."""
    from safetensors.numpy import save

    files = [
        save(_of_format(keys, np.float16 if n % 3 else np.float32), _METADATA.get(name))
        for n, (name, keys) in enumerate(FORMATS.items())
    ]
    files += [
        save({"x": np.zeros((0, 2), np.float32)}),
        save({"layers.0.q_proj.weight": np.eye(4, 6, dtype=np.float32)}),
    ]
    types = {
        "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2,
        "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "C64": 8, "F8_E8M0": 1,
    }  # fmt: skip
    for padded in (0, 5):
        header, at = {}, 0
        for name, size in types.items():
            header[f"layers.{at}.q.{name}"] = {
                "dtype": name,
                "shape": [1, 2],
                "data_offsets": [at, at + 2 * size],
            }
            at += 2 * size
        text = json.dumps(header).encode() + b" " * padded
        files.append(struct.pack("<Q", len(text)) + text + bytes(range(at % 256)) + b"\0" * (at - at % 256))
    return files


def torch_files(*, zipped: bool) -> list[bytes]:
    """Dicts, lists, trees and checkpoints of tensors of every type, with what trainers put beside them."""
    import torch

    plain = {key: torch.from_numpy(value) for key, value in pair()}
    views = {key: value.T for key, value in plain.items()} | {"alpha": torch.tensor(4.0)}
    args = {
        "r": 2,
        "alpha": 4.0,
        "name": "x",
        "flags": (True, None),
        "size": torch.Size([2, 3]),
        "raw": b"\xff\0a",
    }
    optimizer = {"state": {0: {"exp_avg": plain["layers.0.q_proj.lora_A"]}}, "param_groups": [{"lr": 0.1}]}
    parameter = {key: torch.nn.Parameter(value.to(torch.bfloat16)) for key, value in plain.items()}
    types = [torch.float64, torch.float16, torch.int64, torch.int8, torch.uint8, torch.bool, torch.complex64]
    young = [torch.uint16, torch.uint32, torch.float8_e4m3fn, torch.float8_e5m2]
    base = torch.arange(24, dtype=torch.float32)
    held = [
        plain,
        views,
        {"weights": {"q": plain}, "metadata": args, "epoch": 3},
        parameter,
        list(plain.values()),
        OrderedDict(plain, alpha=torch.tensor([4.0])),
        {"state_dict": plain, "optimizer": optimizer, "lr_scheduler": {"x": 1}, "global_step": torch.tensor(3)},
        {"layer_0": {"q": {"lora": {"A": plain["layers.0.q_proj.lora_A"], "B": plain["layers.0.q_proj.lora_B"]}}},
         "layer_1": {"lora_A": {"weight": base.reshape(4, 6)}}, "device": torch.device("cpu", 0)},
        {str(kind): torch.ones(2, 2).to(kind) for kind in (*types, *young)},
        {"a": base[3:9].reshape(2, 3), "b": base[::2].reshape(3, 4), "tied": base, "also": base, 7: base},
        base.reshape(4, 6),
        {"model": {}, "module": {"x": [plain]}, "lora": (plain,), "big": 2**70, "text": "é" * 300, "n": -1.5},
    ]  # fmt: skip
    contents = []
    for each in held:
        file = BytesIO()
        torch.save(each, file, _use_new_zipfile_serialization=zipped)
        contents.append(file.getvalue())
    for protocol in (3, 4, 5):
        file = BytesIO()
        torch.save(
            {**plain, "args": args}, file, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped
        )
        contents.append(file.getvalue())
    if zipped:
        contents += [_repacked(contents[0], b"big"), _repacked(contents[2], None)]
    return contents


def _repacked(content: bytes, order: bytes | None) -> bytes:
    """A torch file with packed members and another order of bytes, or none."""
    file = BytesIO()
    with zipfile.ZipFile(BytesIO(content)) as old, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            if not name.endswith("byteorder"):
                new.writestr(name, old.read(name))
            elif order:
                new.writestr(name, order)
    return file.getvalue()


def npz() -> list[bytes]:
    """Stored and packed, and with arrays of other orders and types."""
    others = {
        "layers.0.v_proj.lora_a": np.asfortranarray(np.ones((6, 2), ">f8")),
        "layers.0.v_proj.lora_b": np.ones((2, 4), np.float16),
        "step": np.array(3),
        "complex": np.ones(2, np.complex64),
        "raw": np.zeros((2, 2), "V2"),
        "yes": np.ones(2, bool),
    }
    contents = []
    for save, arrays in ((np.savez, dict(pair())), (np.savez_compressed, dict(pair())), (np.savez, others)):
        file = BytesIO()
        save(file, **arrays)
        contents.append(file.getvalue())
    return contents + _rare_archives(contents[0])


def _rare_archives(content: bytes) -> list[bytes]:
    """The same members with numbers of 64 bits, with sizes behind them, and with further fields and a comment."""
    with zipfile.ZipFile(BytesIO(content)) as old:
        members = {name: old.read(name) for name in old.namelist()}
    files = [BytesIO(), BytesIO(), BytesIO()]
    limits = {"ZIP64_LIMIT": 1, "ZIP_FILECOUNT_LIMIT": 1}
    with mock.patch.multiple(zipfile, **limits), zipfile.ZipFile(files[0], "w") as wide:
        for name, inner in members.items():
            with wide.open(name, "w", force_zip64=True) as member:
                member.write(inner)
    with zipfile.ZipFile(_Pipe(files[1]), "w", zipfile.ZIP_DEFLATED) as streamed:
        for name, inner in members.items():
            streamed.writestr(name, inner)
    with zipfile.ZipFile(files[2], "w") as more:
        more.comment = b"a comment"
        for name, inner in members.items():
            info = zipfile.ZipInfo(name)
            info.extra = struct.pack("<HHI", 0x5455, 4, 0)
            more.writestr(info, inner)
    return [file.getvalue() for file in files]


class _Pipe:
    """A stream that only goes on."""

    def __init__(self, file: BytesIO) -> None:
        self.write, self.flush = file.write, file.flush


def npy() -> list[bytes]:
    """Both orders, both orders of bytes, every version of the header, and what is refused: objects, texts, records."""
    arrays = (
        np.eye(3, dtype=np.float32),
        np.zeros((0, 2)),
        np.asfortranarray(np.ones((2, 3), ">f8")),
        np.zeros((2, 2), "V2"),
        np.ones(3, np.complex128),
        np.zeros(2, [("a", "f4"), ("b", "i2")]),
        np.array(["text"]),
        np.array([None]),
    )
    contents = []
    for array in arrays:
        file = BytesIO()
        np.save(file, array, allow_pickle=array.dtype.hasobject)
        contents.append(file.getvalue())
    for version in ((2, 0), (3, 0)):
        file = BytesIO()
        np.lib.format.write_array(file, np.eye(2), version=version)
        contents.append(file.getvalue())
    return contents


def gguf() -> list[bytes]:
    """Files written by hand: two tensors, every kind of metadata, quantised tensors, the other order of bytes."""
    A, B = (value for _, value in pair())
    plain = {
        "blk.0.attn_q.weight.lora_a": (A.shape, 0, A.tobytes()),
        "blk.0.attn_q.weight.lora_b": (B.shape, 0, B.tobytes()),
    }
    blocks = {"blk.0.x.lora_a": ((2, 32), 8, b"\0\x3c" + bytes(range(32)) + b"\0\x3c" + b"\x80" * 32),
              "blk.0.x.lora_b": ((4, 32), 2, (b"\0\x3c" + bytes(range(16))) * 4),
              "blk.0.y": ((1, 256), 12, bytes(144)), "blk.0.z": ((2, 3), 1, bytes(12)),
              "blk.0.bf": ((2,), 30, bytes(4)), "norm": ((3,), 26, bytes(12))}  # fmt: skip
    facts = [("general.type", 8, b"adapter"), ("adapter.lora.alpha", 6, 4.0)]
    kinds = [*facts, ("general.alignment", 4, 64), ("a", 0, 1), ("b", 1, -1), ("c", 2, 1), ("d", 3, -1), ("e", 5, -1),
             ("f", 7, 1), ("g", 10, 2**40), ("h", 11, -1), ("i", 12, 0.5), ("texts", 9, (8, [b"x", b"yz"])),
             ("numbers", 9, (4, [1, 2, 3]))]  # fmt: skip
    return [
        _gguf(plain, facts),
        _gguf(plain, kinds, alignment=64),
        _gguf(blocks, facts),
        _gguf(plain, facts, order=">"),
        _gguf({}, facts),
    ]


_CODES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


def _gguf(tensors, facts, *, alignment: int = 32, order: str = "<") -> bytes:
    def number(code: str, value) -> bytes:
        return struct.pack(order + code, value)

    def text(value: bytes) -> bytes:
        return number("Q", len(value)) + value

    def valued(kind: int, value) -> bytes:
        if kind == 8:
            return text(value)
        if kind == 9:
            inner, values = value
            return (
                number("I", inner)
                + number("Q", len(values))
                + b"".join(valued(inner, each) for each in values)
            )
        return number(_CODES[kind], value)

    head = b"GGUF" + number("I", 3) + number("Q", len(tensors)) + number("Q", len(facts))
    for name, kind, value in facts:
        head += text(name.encode()) + number("I", kind) + valued(kind, value)
    data = b""
    for key, (shape, kind, content) in tensors.items():
        head += text(key.encode()) + number("I", len(shape)) + b"".join(number("Q", n) for n in shape[::-1])
        head += number("I", kind) + number("Q", len(data))
        data += content + b"\0" * (-len(content) % alignment)
    return head + b"\0" * (-len(head) % alignment) + data


def configs() -> list[bytes]:
    """Configurations of PEFT's methods and of MLX, with every field that is read."""
    full = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "rank_pattern": {"q_proj": 2}, "use_rslora": True,
            "base_model_name_or_path": "a/b", "task_type": "CAUSAL_LM", "bias": "none", "fan_in_fan_out": False,
            "modules_to_save": ["score"], "use_dora": False, "init_lora_weights": "pissa"}  # fmt: skip
    patterns = full | {
        "alpha_pattern": {r"layers\.[01]\.(q|v)_proj": 8, "^x.*": 1.5},
        "target_modules": ["q_proj"],
    }
    mlx = {
        "lora_parameters": {"rank": 2, "scale": 4.0, "dropout": 0.0, "keys": ["q"]},
        "num_layers": 4,
        "fine_tune_type": "lora",
    }
    others = [{"peft_type": kind, "r": 2, "alpha": 4, "init_r": 2, "target_r": 2, "lora_alpha": 4, "rank_dropout": 0.0}
              for kind in ("ADALORA", "LOHA", "LOKR", "IA3", "OFT", "VERA", "BOFT", "HRA", "X", None)]  # fmt: skip
    bare = [
        {"r": 2, "lora_alpha": 4},
        {"rank": 2, "alpha": 4, "scale": 2},
        {"lora": {"r": 2}},
        {"model_type": "llama"},
    ]
    return [json.dumps(config).encode() for config in (full, patterns, mlx, *others, *bare)]


def indices() -> list[bytes]:
    """The index of one shard that is there, of one that is not, of torch shards, and of names that lead elsewhere."""
    keys = [key for key, _ in pair("base_model.model.layers.0.q_proj.lora_{}.weight")]
    shard = "adapter_model.safetensors"
    maps = [dict.fromkeys(keys, shard), dict(zip(keys, (shard, "other.safetensors"), strict=True)),
            {"absent": shard}, dict.fromkeys(keys, "x.bin"), dict.fromkeys(keys, "../x"), {}, {keys[0]: 3}]  # fmt: skip
    return [json.dumps({"metadata": {"total_size": 80}, "weight_map": each}).encode() for each in maps]


def yamls() -> list[bytes]:
    """Settings of trainers, with aliases, texts of several lines, tags, and two documents."""
    return [
        b"lora_r: 8\nlora_alpha: 16\ntrain:\n  epochs: 2\n- a\n",
        b"a: &x [1, 2]\nb: *x\nc: |\n  text\n",
        b"lora_r: 8\nlora_alpha: 16\nlora_query: true\ncheckpoint_dir: a/b\nquantize: null\n",
        b"a: {b: [1, 2.5, true], 'c': \"d\\n\"}\n? k\n: v\n",
        b"--- !!python/object:x {}\n---\nb: 2\n...\n",
    ]


def inputs() -> list[bytes]:
    """Second moments and a gradient of the module of `pair`."""
    from subspace.geometry.second_moment import SecondMoment
    from subspace.results.inputs import Gradient, Inputs, ModuleInputs
    from subspace.results.inputs_file import inputs_bytes

    name = "layers.0.q_proj"
    values = np.arange(6, 0, -1.0)
    moment = SecondMoment(100, np.full(6, 0.5), values, np.eye(6), 21.0, float(values @ values))
    gradient = Gradient(np.array([2.0, 1.0]), np.eye(4, 2), np.eye(6, 2), 2.5)
    shares = dict.fromkeys(
        ("mean_share", "top_share", "rest_share", "error_share", "gradient_top_share"), 0.25
    )
    numbers = dict.fromkeys(("energy", "effective_dimension", "decay", "gradient_norm"), 2.5)
    row = ModuleInputs(
        module=name, read_with=name, tokens=100, d=6, eigenpairs=6, eigenvalues=values, **shares, **numbers
    )
    both = Inputs(
        "model", "data", "0" * 64, "1" * 64, 100, (row,), {name: moment}, {name: gradient}, ("a note",)
    )
    few = SecondMoment(100, np.zeros(6), values[:2], np.eye(6, 2), 21.0, None, 0.5)
    return [inputs_bytes(each) for each in (both, replace(both, moments={name: few}, gradients={}))]


def data() -> list[bytes]:
    """Lines, tables of every kind, JSON lines, turns and pairs, in several encodings."""
    rows = [{"text": f'line {n}, "quoted"', "label": n % 2} for n in range(6)]
    table = "text,label\n" + "".join(f'"line {n}, ""quoted""\nand more",{n % 2}\n' for n in range(6))
    korean = "id\tdocument\tlabel\n" + "".join(f"{n}\t\uc548\ub155 {n}\t{n % 2}\n" for n in range(6))
    turns = [
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": str(n)}]}
        for n in range(4)
    ]
    pairs = [{"prompt": f"p {n}", "completion": f"c {n}"} for n in range(4)]
    texts = [
        "one line\nand another\n\na paragraph\n" * 4,
        table,
        "sep=;\n" + table.replace(",", ";"),
        korean,
        json.dumps(rows),
        *("\n".join(json.dumps(each) for each in of) for of in (rows, turns, pairs)),
    ]
    return [
        *(text.encode() for text in texts),
        korean.encode("cp949"),
        texts[0].encode("utf-16"),
        b"\xef\xbb\xbf" + table.encode(),
    ]


def base_weights() -> list[bytes]:
    """W (4, 6) of the module of `pair`: its own numbers, and codes with scales as several libraries store them."""
    from safetensors.numpy import save

    name, rng = "layers.0.q_proj", np.random.default_rng(0)
    codes, ones = rng.integers(-127, 128, (4, 6)).astype(np.int8), np.ones(4, np.float32)
    state = {"quant_type": "nf4", "blocksize": 8, "dtype": "float32", "shape": [4, 6], "nested_blocksize": 2,
             "nested_dtype": "float32", "nested_offset": 0.5}  # fmt: skip
    stated = f"{name}.weight.quant_state.bitsandbytes__nf4"
    packed = {
        f"{name}.weight": rng.integers(0, 256, (12, 1)).astype(np.uint8),
        f"{name}.weight.absmax": np.arange(3, dtype=np.uint8),
        f"{name}.weight.quant_map": np.linspace(-1, 1, 16).astype(np.float32),
        f"{name}.weight.nested_absmax": ones[:2],
        f"{name}.weight.nested_quant_map": np.linspace(-1, 1, 256).astype(np.float32),
        stated: np.frombuffer(json.dumps(state).encode(), np.uint8),
    }
    plain = {key: value for key, value in packed.items() if "nested" not in key}
    plain |= {
        f"{name}.weight.absmax": ones[:3],
        stated: np.frombuffer(
            json.dumps({k: v for k, v in state.items() if "nested" not in k}).encode(), np.uint8
        ),
    }
    int8 = {f"{name}.weight": codes, f"{name}.SCB": ones, f"{name}.weight_format": np.zeros((), np.uint8)}
    scaled = {
        f"{name}.weight": codes,
        f"{name}.weight_scale": ones[:, None],
        f"{name}.weight_zero_point": ones[:1],
    }
    files = [{f"{name}.weight": rng.standard_normal((4, 6)).astype(np.float16)}, packed, plain, int8, scaled]
    header = {f"{name}.weight": {"dtype": "F8_E4M3", "shape": [4, 6], "data_offsets": [0, 24]},
              f"{name}.weight_scale_inv": {"dtype": "F32", "shape": [1, 1], "data_offsets": [24, 28]}}  # fmt: skip
    text = json.dumps(header).encode()
    eight = struct.pack("<Q", len(text)) + text + bytes(range(24)) + struct.pack("<f", 0.5)
    return [*(save(each) for each in files), eight]
