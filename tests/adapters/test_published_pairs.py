"""Published adapters against what was measured on them elsewhere: ranks, norms, and the agreement of pairs."""

from __future__ import annotations

import json

import numpy as np
import pytest

from subspace import compare
from subspace.adapters import load_adapter, match_modules
from subspace.errors import FormatError
from subspace.geometry import factored

# the format that must claim it, and the multiplier that its writer applies
READ = {
    "diffusers-sd-unet-lora-mvclab": ("diffusers", 1.0),
    "diffusers-old-processor-bin-edinsl": ("diffusers", 1.0),
    "sd-anime-peft-faithsang": ("peft", 4.0),
    "sd-anime-diffusers-faithsang": ("peft", 4.0),
    "sam-vitb-r2": ("positional", 1.0),
    "sam-vitb-r8": ("positional", 1.0),
    "sam-vitb-r16": ("positional", 1.0),
    "mlx-gemma2b-medqa-0000100": ("mlx", 10.0),
    "mlx-gemma2b-medqa-0000600": ("mlx", 10.0),
    "mlx-npz-vtboyarc": ("mlx", None),
}

# means over modules, as printed: phi of A, phi of B, cosine between the two delta_W
PAIRS = [
    ("gpt2-lazie-runX-ck4000", "gpt2-lazie-runX-ck7500", 12, ("0.998", "0.943", "0.971")),
    ("gpt2-lazie-runX-ck7500", "gpt2-lazie-runY-ck1000", 12, ("0.07", "0.39", "0.55")),
    ("gpt2-lazie-runY-ck1000", "gpt2-lazie-runZ-final", 12, ("0.06", "0.46", "0.58")),
    ("whisper-dysarthric-part-final", "whisper-dysarthric-full-final", 36, ("0.067", "0.327", "0.377")),
    ("sam-vitb-r2", "sam-vitb-r16", 24, ("0.116", "0.661", "0.254")),
    ("sam-vitb-r8", "sam-vitb-r16", 24, ("0.063", "0.451", "0.429")),
    ("mlx-gemma2b-medqa-0000100", "mlx-gemma2b-medqa-0000600", 8, ("0.959", "0.699", "0.685")),
    ("sd-anime-peft-faithsang", "sd-anime-diffusers-faithsang", 96, ("1.000", "1.000", "1.000")),
]


@pytest.fixture(scope="module")
def manifest(real_adapters):
    entries = json.loads((real_adapters / "MANIFEST.json").read_text())
    return {entry["name"]: entry for entry in entries}


@pytest.fixture(scope="module")
def loaded(real_adapters, manifest):
    return lambda name: load_adapter(real_adapters / name / manifest[name]["file"])


@pytest.mark.parametrize("name", READ)
def test_a_file_is_read_as_it_was_measured(loaded, manifest, name):
    adapter, entry = loaded(name), manifest[name]
    updates = list(adapter.values())
    norms = [factored.norm(update.B, update.A) for update in updates]
    ranks = [len(factored.singular_values(update.B, update.A)) for update in updates]
    assert (adapter.format, updates[0].scale.value) == READ[name]
    assert len(adapter) == entry["num_modules"]
    assert sorted({update.r for update in updates}) == entry["ranks"]
    assert sum(not update.B.any() for update in updates) == entry["zero_B_modules"]
    assert [min(norms), max(norms)] == pytest.approx(entry["dW_fro_minmax_unscaled"], rel=1e-6)
    assert [min(ranks), max(ranks)] == entry["numerical_rank_minmax"]
    assert len(adapter.ignored) + len(adapter.unknown) + 2 * len(adapter) == entry["num_tensors"]


def test_a_file_of_w_a_alone_is_refused(loaded):
    with pytest.raises(FormatError, match="only w_a"):
        loaded("loravit-wa-only-feb27")


def test_lokr_is_still_a_stranger_to_kohya(loaded):
    try:
        adapter = loaded("lycoris-lokr-falcon-4")
    except FormatError as error:
        assert "LoKr" in str(error)
    else:
        assert adapter.format != "kohya"


@pytest.mark.parametrize(("first", "second", "modules", "printed"), PAIRS)
def test_a_pair_agrees_as_it_was_measured(loaded, first, second, modules, printed):
    one, other = loaded(first), loaded(second)
    rows = compare(one, other, side=("a", "b")).modules
    matched = match_modules(list(one), list(other)).pairs
    found = [np.mean([row.phi_full for row in rows if row.side == side]) for side in ("a", "b")]
    found.append(np.mean([cosine(one[name], other[its]) for name, its in matched]))
    assert len(matched) == modules
    assert [f"{value:.{len(text) - 2}f}" for value, text in zip(found, printed, strict=True)] == list(printed)


def test_layouts_of_one_unet_match_module_by_module(loaded):
    new, old = loaded("diffusers-sd-unet-lora-mvclab"), loaded("diffusers-old-processor-bin-edinsl")
    assert len(match_modules(list(new), list(old)).pairs) == 128
    # the PEFT file adapts q, k and v only
    assert len(match_modules(list(loaded("sd-anime-peft-faithsang")), list(old)).pairs) == 96


def cosine(one, other):
    return factored.inner(one.B, one.A, other.B, other.A) / (
        factored.norm(one.B, one.A) * factored.norm(other.B, other.A)
    )
