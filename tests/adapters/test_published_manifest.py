"""Published PEFT and loralib files against the numbers measured on them; every tensor of every file accounted for."""

from __future__ import annotations

import json

import numpy as np
import pytest

from subspace.adapters import LowRankUpdate, load_adapter
from subspace.errors import FormatError
from subspace.geometry import factored

# format, scale of the first module, whether fused pairs were split
READ = {
    "roberta-udacity-emotion-qv-r8": ("peft", 2.0),
    "roberta-agnews-biasall-r4-ck1200": ("peft", 4.0),
    "gpt2-lazie-runX-ck500": ("peft", 4.0),
    "gpt2-lazie-runX-ck4000": ("peft", 4.0),
    "gpt2-lazie-runX-ck7500": ("peft", 4.0),
    "gpt2-lazie-runY-ck1000": ("peft", 4.0),
    "gpt2-lazie-runZ-final": ("peft", 4.0),
    "gpt2-udacity-anirudh": ("peft", None),
    "gpt2-cproj-bin-thesotti": ("peft", None),
    "gpt2-scratch-pth": ("loralib", None),
    "distilbert-classifier-modules-to-save-clash": ("peft", None),
    "loralib-bert-clip-r16-pt": ("loralib", None),
    "loralib-mergedlinear-neox-pth": ("loralib", None),
    "opencalm1b-r1-fp16": ("peft", 32.0),
    "whisper-dysarthric-full-final": ("peft", None),
    "whisper-dysarthric-part-final": ("peft", None),
    "peft-lora-conv2d-0.6.1": ("peft", None),
    "peft-lora-embedding-conv1d-0.6.1": ("peft", None),
    "peft-lora-mlp-modules-to-save-0.6.1": ("peft", None),
    "peft-lora-opt125m-bnb4bit-0.5.0": ("peft", None),
}
REFUSED = {
    "peft-unilora-roberta-glue": "UNILORA",
    "cloneofsimo-kiriko2-ti-pt": "textual inversion",
    "loravit-wa-only-feb27": "only w_a",
}


@pytest.fixture(scope="module")
def manifest(real_adapters):
    return {e["name"]: e for e in json.loads((real_adapters / "MANIFEST.json").read_text())}


@pytest.mark.parametrize("name", READ)
def test_measured_numbers(name, real_adapters, manifest):
    entry, path = manifest[name], real_adapters / name / manifest[name]["file"]
    read = load_adapter(path)
    assert read.format == READ[name][0]
    first = next(iter(read.values()))
    alpha = entry["lora_alpha"] if read.format == "peft" else None  # loralib keeps it in its scripts
    assert first.scale.value == (None if alpha is None else alpha / first.r)
    assert READ[name][1] in {None, first.scale.value}
    assert {update.r for update in read.values()} == set(entry["ranks"])
    if name == "distilbert-classifier-modules-to-save-clash":
        assert list(read) == ["classifier"]  # the other two are copies that PEFT keeps
        return
    groups = 2 if "mergedlinear" in name else 1
    assert len(read) == groups * entry["num_modules"]
    S = [factored.singular_values(update.B, update.A) for update in read.values()]
    assert sum(not update.B.any() for update in read.values()) == entry["zero_B_modules"]
    if entry["numerical_rank_minmax"]:
        assert [min(map(len, S)), max(map(len, S))] == entry["numerical_rank_minmax"]
    if entry["dW_fro_minmax_unscaled"]:
        norms = [np.linalg.norm(s) for s in S]
        np.testing.assert_allclose([min(norms), max(norms)], entry["dW_fro_minmax_unscaled"], rtol=1e-6)


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name, real_adapters, manifest):
    file = manifest[name]["file"]
    with pytest.raises(FormatError, match=REFUSED[name]) as raised:
        load_adapter(real_adapters / name / file)
    assert file in str(raised.value)
    assert "\n" not in str(raised.value)


def test_every_tensor_of_every_file_is_accounted_for(real_adapters, manifest):
    files = 0
    for name, entry in manifest.items():
        try:
            read = load_adapter(real_adapters / name / entry["file"])
        except FormatError:
            continue
        files += 1
        layout, reads = read.tensors.layout, []
        ignored = [entry.key for entry in read.ignored]
        assert len(set(ignored)) == len(ignored)
        assert not set(ignored) & set(read.unknown)
        assert read.unknown == ()
        raw = read.tensors.raw
        read.tensors.raw = lambda key, raw=raw, reads=reads: reads.append(key) or raw(key)
        for update in read.values():
            if "needs_base" in update.flags:
                update.matrix.stored()
                continue
            assert isinstance(update, LowRankUpdate)
            assert update.A.shape == (update.r, update.d_in)
            assert update.B.shape == (update.d_out, update.r)
        used = set(layout) - set(ignored)
        assert set(reads) <= used
        assert all("alpha" in key for key in used - set(reads)), name
    assert files >= len(READ)


@pytest.mark.parametrize("case", ["lfs-pointer-esm2-bin", "two-byte-safetensors-hirvita6"])
def test_files_that_are_none(case, real_adapters):
    folder = real_adapters / "_broken" / case
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    with pytest.raises(OSError, match=r"only 2 bytes long|pointer") as raised:
        load_adapter(folder)
    assert "\n" not in str(raised.value)
