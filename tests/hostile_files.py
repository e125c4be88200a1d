"""Hostile, broken and odd inputs for the command line, each made by a seeded generator when a test asks for it.

A case writes into an empty folder and returns the path that a user would give. ``ends`` is how the command may end:
``OK`` for what must be read, ``ERROR`` for what must be refused, ``EITHER`` where a loud note or a refusal will do.
Payloads do nothing but create an empty file, whose name the test gives.
"""

from __future__ import annotations

import json
import os
import pickle
import socket
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from containers import ORDERED, call, entry, mapping, safetensors_bytes, storage, tensor, text, torch_zip
from safetensors.numpy import save, save_file

OK, ERROR, EITHER = "ok", "error", "either"
R, D, D_OUT = 4, 32, 16
MODULES = [f"model.layers.{n}.self_attn.{x}_proj" for n in range(2) for x in "qv"]
KEY = "base_model.model.{}.lora_{}.weight"
A0, B0 = KEY.format(MODULES[0], "A"), KEY.format(MODULES[0], "B")
CONFIG = {"peft_type": "LORA", "base_model_name_or_path": "example/base", "r": R, "lora_alpha": 8,
          "target_modules": ["q_proj", "v_proj"], "bias": "none", "fan_in_fan_out": False, "use_rslora": False,
          "use_dora": False, "rank_pattern": {}, "alpha_pattern": {}, "modules_to_save": None}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """How to make one input, and what the command may do with it."""

    make: Callable[[Path], Path]
    ends: str = OK
    says: str = ""


def lora(seed=0, *, r=R, d=D, d_out=D_OUT, dtype="f4", modules=MODULES):
    """Factors of four modules under PEFT's keys."""
    rng, tensors = np.random.default_rng(seed), {}
    for module in modules:
        tensors[KEY.format(module, "A")] = (0.05 * rng.standard_normal((r, d))).astype(dtype)
        tensors[KEY.format(module, "B")] = (0.05 * rng.standard_normal((d_out, r))).astype(dtype)
    return tensors


def _changed(changes, **options):
    """Factors with some tensors replaced, or taken out where they are None."""
    return {key: value for key, value in {**lora(**options), **changes}.items() if value is not None}


def _file(content, name="adapter_model.safetensors"):
    """A case's file of these tensors or bytes."""

    def make(folder):
        raw = content if isinstance(content, bytes) else save(content)
        (folder / name).write_bytes(raw)
        return folder / name

    return make


def _torch(make_object, name="adapter.pt", **options):
    def make(folder):
        import torch

        torch.save(make_object(torch), folder / name, **options)
        return folder / name

    return make


def _tensors(torch, **options):
    return {key: torch.from_numpy(value) for key, value in lora(**options).items()}


def _directory(config=CONFIG, tensors=None, **beside):
    """A PEFT directory; the configuration an object or bytes, or None for none; other files by name."""

    def make(folder):
        save_file(tensors or lora(), folder / "adapter_model.safetensors")
        if config is not None:
            raw = config if isinstance(config, bytes) else json.dumps(config).encode()
            (folder / "adapter_config.json").write_bytes(raw)
        for name, content in beside.items():
            (folder / name.replace("__", ".")).write_bytes(content)
        return folder

    return make


# --- what must simply work


def _kohya():
    rng, stem = np.random.default_rng(5), "lora_unet_down_blocks_0_attentions_0_to_q"
    tensors = {f"{stem}.lora_down.weight": rng.standard_normal((4, 32)).astype("f4"),
               f"{stem}.lora_up.weight": rng.standard_normal((32, 4)).astype("f4"),
               f"{stem}.alpha": np.array(4, "f4")}  # fmt: skip
    conv = {"lora_unet_conv_in.lora_down.weight": rng.standard_normal((4, 8, 3, 3)).astype("f4"),
            "lora_unet_conv_in.lora_up.weight": rng.standard_normal((16, 4, 1, 1)).astype("f4"),
            "lora_unet_conv_in.alpha": np.array(4, "f4")}  # fmt: skip
    return tensors, conv


_LINEAR, _CONV = _kohya()

CONTROL = {
    "directory": Case(_directory()),
    "one file": Case(_file(lora())),
    "one torch file": Case(_torch(_tensors)),
    "one torch file of the old format": Case(_torch(_tensors, "a.bin", _use_new_zipfile_serialization=False)),
    "parameters": Case(_torch(lambda torch: {k: torch.nn.Parameter(v) for k, v in _tensors(torch).items()})),
    "nested state dict": Case(_torch(lambda torch: {"state_dict": _tensors(torch), "epoch": 3}), EITHER),
    "kohya": Case(_file(_LINEAR)),
    "kohya with a convolution": Case(_file({**_LINEAR, **_CONV})),
    "adapter's name in the keys": Case(
        _file({k.replace(".weight", ".default.weight"): v for k, v in lora().items()})
    ),
    "embedding": Case(
        _directory(
            tensors={
                **lora(),
                "base_model.model.embed.lora_embedding_A": np.ones((4, 100), "f4"),
                "base_model.model.embed.lora_embedding_B": np.ones((32, 4), "f4"),
            }
        )
    ),
    "saved module": Case(
        _directory(
            {**CONFIG, "modules_to_save": ["score"]},
            {**lora(), "base_model.model.score.weight": np.ones((2, 32), "f4")},
        )
    ),
    "magnitudes": Case(
        _directory(
            {**CONFIG, "use_dora": True},
            {**lora(), f"base_model.model.{MODULES[0]}.lora_magnitude_vector": np.ones(D_OUT, "f4")},
        ),
        EITHER,
    ),
}


# --- keys and shapes


def _zeroed(letter):
    return {key: 0 * value if f"lora_{letter}" in key else value for key, value in lora().items()}


STRUCTURE = {
    "no LoRA keys": Case(_file({"model.layers.0.self_attn.q_proj.weight": np.ones((32, 32), "f4")}), ERROR),
    "only A": Case(_file({k: v for k, v in lora().items() if "lora_A" in k}), ERROR, "lora_B"),
    "only B": Case(_file({k: v for k, v in lora().items() if "lora_B" in k}), ERROR, "lora_A"),
    "one B missing": Case(_file(_changed({B0: None})), ERROR, "q_proj"),
    "ranks differ": Case(_file(_changed({B0: np.ones((16, 5), "f4")})), ERROR, "q_proj"),
    "A transposed": Case(_file(_changed({A0: np.ones((D, R), "f4")})), ERROR, "q_proj"),
    "A is a number": Case(_file(_changed({A0: np.array(1, "f4")})), ERROR, "q_proj"),
    "A is a vector": Case(_file(_changed({A0: np.ones(32, "f4")})), ERROR, "q_proj"),
    "A is a cube": Case(_file(_changed({A0: np.ones((2, 4, 8), "f4")})), EITHER),
    "rank 0": Case(
        _file(_changed({A0: np.zeros((0, 32), "f4"), B0: np.zeros((16, 0), "f4")})), EITHER, "q_proj"
    ),
    "no input": Case(_file(_changed({A0: np.zeros((4, 0), "f4")})), EITHER, "q_proj"),
    "rank 1": Case(_file(lora(r=1))),
    "rank above both sides": Case(_file(lora(r=64))),
    "rows repeated": Case(_file(_changed({A0: np.ones((4, 32), "f4")})), OK, "rank_below_r|below"),
    "one A zero": Case(_file(_changed({A0: np.zeros((4, 32), "f4")})), OK, "untrained"),
    "every A zero": Case(_file(_zeroed("A")), EITHER, "untrained"),
    "every B zero": Case(_file(_zeroed("B")), EITHER, "untrained"),
    "two ranks": Case(_file({**lora(), **lora(9, r=8, modules=["model.layers.0.self_attn.k_proj"])})),
    "one module": Case(_file(lora(modules=MODULES[:1]))),
    "unknown keys": Case(_file({**lora(), "foo.bar": np.ones(3, "f4")}), EITHER, "foo.bar|unknown"),
    "alpha is NaN": Case(
        _file({**_LINEAR, "lora_unet_down_blocks_0_attentions_0_to_q.alpha": np.array(np.nan, "f4")}),
        EITHER,
        "alpha",
    ),
    "alpha is a vector": Case(
        _file({**_LINEAR, "lora_unet_down_blocks_0_attentions_0_to_q.alpha": np.ones(3, "f4")}),
        EITHER,
        "alpha",
    ),
    "root is a list": Case(_torch(lambda torch: []), ERROR),
    "root is nothing": Case(_torch(lambda torch: None), ERROR),
    "values are words": Case(_torch(lambda torch: {A0: "I am a string", B0: 3}), ERROR),
    "keys are numbers": Case(_torch(lambda torch: {1: torch.ones(4, 4), None: torch.ones(4, 4)}), ERROR),
    "ten thousand modules": Case(
        _file(
            {
                KEY.format(f"m.{n}", x): np.ones(s, "f4")
                for n in range(10_000)
                for x, s in (("A", (1, 2)), ("B", (2, 1)))
            }
        )
    ),
}


# --- values and types


def _with(key, value):
    tensors = lora()
    tensors[key][0, 0] = value
    return tensors


def _typed(dtype, bits):
    """Factors of a type that NumPy lacks."""
    sizes = (R * D * bits // 8, D_OUT * R * bits // 8)
    header = {A0: entry(dtype, (R, D), (0, sizes[0])), B0: entry(dtype, (D_OUT, R), (sizes[0], sum(sizes)))}
    return safetensors_bytes(header, b"\x12" * sum(sizes))


NUMBERS = {
    "one NaN": Case(_file(_with(A0, np.nan)), EITHER, "finite|NaN|nan"),
    "one infinity": Case(_file(_with(A0, np.inf)), EITHER, "finite|inf"),
    "one negative infinity": Case(_file(_with(B0, -np.inf)), EITHER, "finite|inf"),
    "all NaN": Case(_file({k: v * np.nan for k, v in lora().items()}), EITHER, "finite|nan"),
    "subnormal": Case(_file({k: v * np.float32(1e-38) for k, v in lora().items()}), EITHER),
    "tiny": Case(_file({k: v * np.float32(1e-25) for k, v in lora().items()})),
    "huge": Case(_file({k: v * np.float32(1e30) for k, v in lora().items()}), EITHER),
    "huge in float64": Case(
        _file({k: np.full_like(v, 1e300, dtype="f8") for k, v in lora().items()}), EITHER
    ),
    "largest float16": Case(_file({k: np.full_like(v, 65504, dtype="f2") for k, v in lora().items()})),
    "A huge, B tiny": Case(
        _file({k: v * np.float32(1e30 if "lora_A" in k else 1e-30) for k, v in lora().items()})
    ),
    "graded": Case(_file(_changed({A0: np.diag([1, 1e-4, 1e-8, 1e-12, *[0] * 28])[:4].astype("f4")}))),
    "constant": Case(_file({k: np.ones_like(v) for k, v in lora().items()})),
    "minus zero": Case(
        _file({k: -0.0 * v if "lora_B" in k else v for k, v in lora().items()}), EITHER, "untrained"
    ),
    "float64": Case(_file(lora(dtype="f8"))),
    "float16": Case(_file(lora(dtype="f2"))),
    "bfloat16": Case(_file(_typed("BF16", 16))),
    "float8": Case(_file(_typed("F8_E4M3", 8)), EITHER),
    "float4": Case(_file(_typed("F4", 4)), ERROR, "F4"),
    "float6": Case(_file(_typed("F6_E2M3", 6)), ERROR, "F6"),
    **{
        f"of type {kind}": Case(_file({k: (100 * v).astype(kind) for k, v in lora().items()}), ERROR)
        for kind in ("i4", "i1", "u1", "?")
    },
}


# --- names of modules


def _named(*names, metadata=None):
    rng, header, data = np.random.default_rng(3), {}, b""
    for name in names:
        for letter, shape in (("A", (2, 8)), ("B", (8, 2))):
            raw = rng.standard_normal(shape).astype("f4").tobytes()
            header[f"{name}.lora_{letter}.weight"] = entry("F32", shape, (len(data), len(data) + len(raw)))
            data += raw
    if metadata:
        header["__metadata__"] = metadata
    return safetensors_bytes(header, data)


_P = "base_model.model.layers.0."
NAMES = {
    name: Case(_file(_named(*names)), EITHER)
    for name, names in {
        "CJK and Cyrillic": [_P + "注意力.q_проекция"],
        "emoji": [_P + "🔥q_proj👩‍👩‍👧"],
        "line ends": [_P + "q\nproj\r\nWARNING: a line of somebody else's"],
        "escape sequences": [_P + "q\x1b[2J\x1b[31mproj\x1b]0;title\x07"],
        "NUL": [_P + "q\x00proj"],
        "control characters": [_P + "q\x08\x7f\x9bproj"],
        "right to left": [_P + "q_\u202egnp.jorp"],
        "script": [_P + "<script>alert(1)</script>"],
        "attribute": [_P + '"><img src=x onerror=alert(1)>'],
        "template": [_P + "{{7*7}}${7*7}{% raw %}"],
        "object keys": ["__proto__", "constructor", _P + "toString"],
        "formulas": ['=HYPERLINK("http://x","y")', "+1+1", "-2+3", "@SUM(1)", "\t=1", "\r=1"],
        "quotes and separators": [_P + 'a","b;c|d'],
        "paths": ["../../../../escaped", "/tmp/escaped-by-subspace-test"],
        "reserved by Windows": ["CON", "a:b", "NUL.txt", "trailing."],
        "case alone": [_P + "q_proj", _P + "Q_PROJ"],
        "two normal forms": [_P + "caf\u00e9", _P + "cafe\u0301"],
        "mathematics": [_P + "$x_{", _P + "$\\frac{", _P + "a$b$c"],
        "formats": [_P + "%s%n%d{0}{name}"],
        "shell": [_P + "$(touch escaped)`touch escaped`;touch escaped"],
        "nothing": [""],
        "dots": ["...."],
        "ten thousand letters": [_P + "x" * 10_000],
        "spaces": ["  ", _P + " q_proj "],
    }.items()
} | {
    "metadata": Case(
        _file(_named(_P + "q_proj", metadata={"ss_output_name": "<script>\x1b[31m", "\x1b[31m": "=1"}))
    ),
    "metadata nested deep": Case(
        _file(_named(_P + "q_proj", metadata={"ss_network_args": "[" * 100_000})), EITHER
    ),
}


# --- adapter_config.json


def _config(ends=EITHER, says="", **changes):
    return Case(_directory({**CONFIG, **changes}), ends, says)


def _odd_config(how):
    def make(folder):
        _directory(None)(folder)
        path = folder / "adapter_config.json"
        {
            "directory": path.mkdir,
            "loop": lambda: path.symlink_to(path.name),
            "pipe": lambda: os.mkfifo(path),
        }[how]()
        return folder

    return make


CONFIGURATION = {
    "missing": Case(_directory(None), EITHER),
    "cut": Case(_directory(b'{"peft_type": "LORA", "r": 4,'), ERROR, "adapter_config"),
    "empty": Case(_directory(b""), ERROR, "adapter_config"),
    "a list": Case(_directory(b"[1, 2]"), ERROR, "adapter_config"),
    "null": Case(_directory(b"null"), EITHER),
    "a key twice": Case(_directory(b'{"peft_type":"LORA","r":4,"r":64,"lora_alpha":8}'), EITHER),
    "byte order mark": Case(_directory(b"\xef\xbb\xbf" + json.dumps(CONFIG).encode()), EITHER),
    "UTF-16": Case(_directory(json.dumps(CONFIG).encode("utf-16")), ERROR, "adapter_config"),
    "not UTF-8": Case(
        _directory(b'{"peft_type":"LORA","r":4,"lora_alpha":8,"x":"caf\xe9"}'), ERROR, "adapter_config"
    ),
    "nested deep": Case(_directory(b'{"a":' + b"[" * 200_000), ERROR, "adapter_config"),
    "a number of ten thousand digits": Case(
        _directory(b'{"peft_type":"LORA","lora_alpha":8,"r":' + b"9" * 10_000 + b"}"), EITHER
    ),
    "no alpha": Case(_directory({k: v for k, v in CONFIG.items() if k != "lora_alpha"}), EITHER, "scale"),
    **{f"r = {r!r}": _config(r=r) for r in ("sixteen", 4.5, True, -4, 0, None, [4], 10**9, 64)},
    **{f"alpha = {a!r}": _config(lora_alpha=a) for a in (None, "eight", 0, -8, float("inf"), float("nan"))},
    "rank pattern is a list": _config(rank_pattern=["q_proj"]),
    "rank pattern is no expression": _config(rank_pattern={"(q_proj": 8}),
    "rank pattern of words": _config(rank_pattern={"q_proj": "8"}),
    "rank pattern without end": _config(rank_pattern={"([a-z0-9_.]+)+X": 8, "(a|a)*(.*)*q_projX": 4}),
    "rank pattern of ten thousand": _config(
        OK, rank_pattern={f"layers.{n}.k_proj": 4 for n in range(10_000)}
    ),
    "rank pattern that matches nothing": _config(OK, "nope", rank_pattern={"^nope$": 8}),
    "alpha pattern of nothing": _config(alpha_pattern={"q_proj": None}),
    "targets without end": _config(target_modules="(([a-z0-9_.])+)+X"),
    "targets are a number": _config(target_modules=7),
    "magnitudes that are not there": _config(use_dora=True),
    "unknown method": _config(ERROR, "FROBNICATE", peft_type="FROBNICATE"),
    "another method": _config(peft_type="IA3"),
    "no method": _config(peft_type=None),
    "rslora is a word": _config(use_rslora="false"),
    "rslora": _config(OK, use_rslora=True),
    "keys of the future": _config(OK, quantum_rank=3, foo_config={"a": 1}),
    "base is a path": _config(OK, base_model_name_or_path="../../../../../../etc"),
    "base is a device": _config(OK, base_model_name_or_path="/dev/zero"),
    "base is markup": _config(OK, base_model_name_or_path="<script>alert(1)</script>\x1b[31m"),
    "is a directory": Case(_odd_config("directory"), EITHER),
    "is a link to itself": Case(_odd_config("loop"), EITHER),
    "is a pipe": Case(_odd_config("pipe"), EITHER),
    "two files of weights": Case(_directory(adapter_model__bin=b"PK"), EITHER),
}


# --- base weights: `amplify --base`

_FIRST, _SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
_Q = f"{MODULES[0]}.weight"


def _weights():
    rng = np.random.default_rng(7)
    return {f"{m}.weight": rng.standard_normal((D_OUT, D)).astype("f4") for m in MODULES}


def _shards(changes=None, *, index=None, after=lambda folder: None):
    """A sharded base with some entries of its index changed."""

    def make(folder):
        weights = _weights()
        keys = sorted(weights)
        where = dict.fromkeys(keys[:2], _FIRST) | dict.fromkeys(keys[2:], _SECOND)
        base = folder / "base"
        base.mkdir()
        for file in (_FIRST, _SECOND):
            save_file({k: v for k, v in weights.items() if where[k] == file}, base / file)
        told = index if index is not None else {"metadata": {}, "weight_map": {**where, **(changes or {})}}
        raw = told if isinstance(told, bytes) else json.dumps(told).encode()
        (base / "model.safetensors.index.json").write_bytes(raw)
        (base / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": D}))
        after(base)
        return base

    return make


def _outside(base):
    (base.parent / "secret").mkdir()
    save_file({_Q: np.full((D_OUT, D), 42, "f4")}, base.parent / "secret" / "other.safetensors")


def _cut(base):
    raw = (base / _SECOND).read_bytes()
    (base / _SECOND).write_bytes(raw[:-100])


def _links(base):
    """As the cache of the hub: a snapshot of links into a folder of blobs."""
    (base.parent / "blobs").mkdir()
    for n, file in enumerate((_FIRST, _SECOND)):
        (base / file).rename(base.parent / "blobs" / f"{n:064x}")
        (base / file).symlink_to(f"../blobs/{n:064x}")


BASE = {
    "two shards": Case(_shards()),
    "links into a cache": Case(_shards(after=_links)),
    "a shard is missing": Case(_shards(after=lambda base: (base / _SECOND).unlink()), ERROR, _SECOND),
    "a shard is cut": Case(_shards(after=_cut), ERROR, _SECOND),
    "outside of its folder": Case(_shards({_Q: "../secret/other.safetensors"}, after=_outside), ERROR),
    "an absolute path": Case(_shards({_Q: "/etc/passwd"}), ERROR),
    "a path that returns": Case(_shards({_Q: f"sub/../{_FIRST}"}), EITHER),
    "a number for a path": Case(_shards({_Q: 7}), ERROR),
    "nothing for a path": Case(_shards({_Q: ""}), ERROR),
    "a directory for a path": Case(_shards({_Q: "."}), ERROR),
    "NUL in a path": Case(_shards({_Q: "a\x00b.safetensors"}), ERROR),
    "a shard without the key": Case(_shards({_Q: _SECOND}), ERROR, "q_proj"),
    "a pipe for a shard": Case(
        _shards({_Q: "pipe.safetensors"}, after=lambda base: os.mkfifo(base / "pipe.safetensors")), ERROR
    ),
    "a list for a map": Case(_shards(index={"weight_map": [1, 2]}), ERROR, "index"),
    "no map": Case(_shards(index={}), ERROR, "index"),
    "the index is cut": Case(_shards(index=b'{"weight_map": {'), ERROR, "index"),
    "a size that is a lie": Case(
        _shards(
            index={
                "metadata": {"total_size": 10**15},
                "weight_map": {
                    f"{m}.weight": (_FIRST, _SECOND)[n > 1] for n, m in enumerate(sorted(MODULES))
                },
            }
        )
    ),
}


# --- code


class _Runs:
    """An object whose pickle runs a command of the shell."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def _canary(build, name="adapter.pt"):
    """A file built around a command that leaves a file ``fired`` in its folder."""

    def make(folder):
        (folder / name).write_bytes(build(f"touch {folder / 'fired'}"))
        return folder / name

    return make


def _saved(command, **options):
    import io

    import torch

    buffer = io.BytesIO()
    torch.save({**_tensors(torch), "extra": _Runs(command)}, buffer, **options)
    return buffer.getvalue()


def _beside(payload):
    """A pickle of good tensors with one more value."""
    return torch_zip(mapping(**{A0: tensor(), B0: tensor(), "extra": payload}))


def _hooked(command):
    hooks = ORDERED + b"J\0\0\0\0" + call("os", "system", text(command)) + b"s"
    return torch_zip(mapping(**{A0: tensor(storage(), hooks=hooks), B0: tensor()}))


CODE = {
    "saved by torch": Case(_canary(_saved), ERROR),
    "saved by torch, protocol 4": Case(_canary(lambda c: _saved(c, pickle_protocol=4)), ERROR),
    "saved by torch, old format": Case(
        _canary(lambda c: _saved(c, _use_new_zipfile_serialization=False), "a.bin"), ERROR
    ),
    "named safetensors": Case(_canary(_saved, "adapter_model.safetensors"), ERROR),
    "without an ending": Case(_canary(_saved, "adapter_model"), ERROR),
    "a plain pickle": Case(
        _canary(lambda c: pickle.dumps({"lora_A": 1, "x": _Runs(c)}), "adapter_model.bin"), ERROR
    ),
    "a plain pickle named safetensors": Case(
        _canary(lambda c: pickle.dumps(_Runs(c)), "a.safetensors"), ERROR
    ),
    "a pickle of text": Case(
        _canary(lambda c: b"cos\nsystem\n(S" + repr(c).encode() + b"\ntR.", "a.bin"), ERROR
    ),
    "a value": Case(_canary(lambda c: _beside(call("os", "system", text(c)))), ERROR),
    "a value by posix": Case(_canary(lambda c: _beside(call("posix", "system", text(c)))), ERROR),
    "eval": Case(
        _canary(lambda c: _beside(call("builtins", "eval", text(f"__import__('os').system({c!r})")))), ERROR
    ),
    "eval of Python 2": Case(
        _canary(lambda c: _beside(call("__builtin__", "eval", text(f"__import__('os').system({c!r})")))),
        ERROR,
    ),
    "a helper of torch": Case(
        _canary(lambda c: _beside(call("torch.utils.collect_env", "run", text(c)))), ERROR
    ),
    "a helper of numpy": Case(
        _canary(
            lambda c: _beside(
                call(
                    "numpy.testing._private.utils", "runstring", text(f"__import__('os').system({c!r})"), b"}"
                )
            )
        ),
        ERROR,
    ),
    "hooks of a tensor": Case(_canary(_hooked), ERROR),
    "followed by garbage": Case(
        _canary(lambda c: torch_zip(b"\x80\x02" + call("os", "system", text(c)) + b"\xff\xff")), ERROR
    ),
    "compressed": Case(
        _canary(
            lambda c: torch_zip(
                mapping(extra=call("os", "system", text(c))), compression=zipfile.ZIP_DEFLATED
            )
        ),
        ERROR,
    ),
    "a good file cut short beside it": Case(
        lambda folder: (
            _canary(_saved, "adapter_model.bin")(folder),
            _file(save(lora())[:-9])(folder),
            folder,
        )[-1],
        ERROR,
    ),
    "an array of objects": Case(
        lambda folder: (
            np.save(
                folder / "a.npy", np.array([_Runs(f"touch {folder / 'fired'}")], object), allow_pickle=True
            ),
            folder / "a.npy",
        )[-1],
        ERROR,
    ),
}


# --- places


def _at(make):
    def made(folder):
        return make(folder, save(lora()))

    return made


def _link(target, name="x.safetensors"):
    def make(folder):
        (folder / name).symlink_to(target)
        return folder / name

    return make


def _pipe(name):
    def make(folder):
        os.mkfifo(folder / name)
        return folder / name

    return make


def _socket(folder):
    here = Path.cwd()
    os.chdir(folder)  # the name of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind("x.safetensors")
    finally:
        os.chdir(here)
    return folder / "x.safetensors"


def _called(name):
    def make(folder):
        path = Path(os.fsdecode(os.path.join(os.fsencode(folder), name)))  # noqa: PTH118
        path.write_bytes(save(lora()))
        return path

    return make


def _two_links(folder):
    (folder / "a.safetensors").symlink_to("b.safetensors")
    (folder / "b.safetensors").symlink_to("a.safetensors")
    return folder / "a.safetensors"


def _a_loop_inside(folder):
    (folder / "sub").symlink_to(".")
    (folder / "up").symlink_to("..")
    return folder


def _a_directory(folder):
    (folder / "x.safetensors").mkdir()
    return folder / "x.safetensors"


def _a_good_link(folder):
    _file(lora(), "real.safetensors")(folder)
    return _link("real.safetensors")(folder)


def _many(folder):
    for n in range(2000):
        (folder / f"other{n}").touch()
    return _directory()(folder)


PLACES = {
    "nothing there": Case(lambda folder: folder / "absent.safetensors", ERROR, "absent"),
    "no folder there": Case(lambda folder: folder / "absent" / "adapter", ERROR, "absent"),
    "an empty folder": Case(lambda folder: folder, ERROR),
    "a directory for a file": Case(_a_directory, ERROR),
    "links in a circle": Case(_two_links, ERROR),
    "a folder that holds itself": Case(_a_loop_inside, ERROR),
    "a link to nothing": Case(_link("gone.safetensors"), ERROR),
    "a link to a file": Case(_a_good_link),
    "a link to zeros without end": Case(_link("/dev/zero"), ERROR),
    "a link to zeros without end, for torch": Case(_link("/dev/zero", "x.pt"), ERROR),
    "a link to nothing at all": Case(_link("/dev/null"), ERROR),
    "a pipe": Case(_pipe("x.safetensors"), ERROR),
    "a pipe for torch": Case(_pipe("x.pt"), ERROR),
    "a socket": Case(_socket, ERROR),
    "among two thousand files": Case(_many),
    "a file of no bytes": Case(_file(b""), ERROR),
    "a file cut short": Case(_file(save(lora())[:-1]), ERROR),
    "a file with a tail": Case(_file(save(lora()) + b"PK\x03\x04"), ERROR),
    "a header too long": Case(_file(struct.pack("<Q", 2**63) + b"{}"), ERROR),
    "a page of the web": Case(_file(b"<!DOCTYPE html><html>404</html>"), ERROR),
    **{
        f"called {name!r}": Case(_called(name), EITHER)
        for name in (
            b"a\nb.safetensors",
            b"a\x1b[31mb.safetensors",
            b"a 'b' \"c\" %s {x}.safetensors",
            b"<img src=x onerror=alert(1)>.safetensors",
            "🔥 файл.safetensors".encode(),
            b"=1+1.safetensors",
            b"x" * 238 + b".safetensors",
            b"X.SAFETENSORS",
            b"br\xf6ken.safetensors",
        )
    },
}

EVERY = {
    f"{kind}: {name}": case
    for kind, cases in {
        "control": CONTROL,
        "structure": STRUCTURE,
        "numbers": NUMBERS,
        "names": NAMES,
        "configuration": CONFIGURATION,
        "base": BASE,
        "code": CODE,
        "places": PLACES,
    }.items()
    for name, case in cases.items()
}
