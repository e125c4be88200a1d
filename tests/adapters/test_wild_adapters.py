"""The layouts of published adapters, made here: read whole, with the right scale, and matched to each other."""

from __future__ import annotations

import json

import numpy as np
import pytest
import wild_adapters
from safetensors.numpy import save_file
from wild_adapters import KEY_LISTS, WRITERS, wild

from subspace import compare, inspect
from subspace.adapters import load_adapter, match_modules
from subspace.errors import FileError, FormatError
from subspace.geometry import factored


@pytest.mark.parametrize("name", WRITERS)
def test_what_was_written_is_what_is_read(name, tmp_path):
    made = wild(name, tmp_path)
    read = load_adapter(made.path)
    assert (read.format, set(read)) == (made.format, set(made.pairs))
    for update in read.values():
        assert update.scale.value == (made.scale and pytest.approx(made.scale))
    assert {entry.key for entry in read.ignored} == set(made.ignored)
    assert read.unknown == ()
    for module, (A, B) in made.pairs.items():
        update = read[module]
        np.testing.assert_array_equal(update.A, A)
        np.testing.assert_array_equal(update.B, B)
        dense = B.astype(float) @ A.astype(float)
        assert factored.norm(update.B, update.A) == pytest.approx(np.linalg.norm(dense))
    for row in inspect(made.path).modules:
        A, B = made.pairs[row.module]
        assert row.rank == (min(*A.shape, *B.shape) if B.any() else 0)
        assert ("untrained" in row.flags) == (not B.any())
    assert sum(not B.any() for _, B in made.pairs.values()) == made.untrained


@pytest.mark.parametrize("name", WRITERS)
def test_every_tensor_is_read_or_ignored(name, tmp_path):
    read = load_adapter(wild(name, tmp_path).path)
    reads, raw = [], read.tensors.raw
    read.tensors.raw = lambda key: reads.append(key) or raw(key)
    for update in read.values():
        assert update.A.shape[0] == update.B.shape[1] == update.r
    ignored = {entry.key for entry in read.ignored}
    assert not ignored & set(reads)
    assert set(reads) | ignored == set(read.tensors.layout)


@pytest.mark.parametrize("name", ["peft_of_gpt2", "positional_of_sam", "mlx_npz", "diffusers_of_a_unet"])
def test_one_run_agrees_with_itself_and_not_with_another(name, tmp_path):
    first, again, other = (wild(name, tmp_path / str(n), seed).path for n, seed in enumerate((1, 1, 2)))
    for rows, agree in ((compare(first, again, side=("a", "b")).modules, True),
                        (compare(first, other, side=("a", "b")).modules, False)):  # fmt: skip
        for row in rows:
            assert row.phi_full == pytest.approx(1) if agree else row.phi_full < 0.9
            assert row.shared_dim == (min(row.rank_first, row.rank_second) if agree else 0)


@pytest.mark.parametrize(
    ("first", "second", "pairs"),
    [
        ("diffusers_of_a_unet", "diffusers_of_attention_processors", 40),
        ("peft_of_a_unet", "diffusers_of_attention_processors", 30),
        ("peft_of_a_unet", "diffusers_with_pefts_keys", 30),
    ],
)
def test_layouts_of_one_unet_match_module_by_module(first, second, pairs, tmp_path):
    one, other = (load_adapter(wild(name, tmp_path / name).path) for name in (first, second))
    assert len(match_modules(list(one), list(other)).pairs) == pairs


def test_two_layouts_of_one_run_are_the_same_update(tmp_path):
    one, other = (wild(x, tmp_path / x).path for x in ("peft_of_a_unet", "diffusers_with_pefts_keys"))
    result = compare(one, other, side="all")
    assert len(result.modules) == 4 * 30
    assert all(row.phi_full == pytest.approx(1) for row in result.modules)


@pytest.mark.parametrize("name", KEY_LISTS)
def test_key_lists_of_image_trainers_are_read_whole(name):
    format_, tensors, modules, ignored = KEY_LISTS[name]
    read = load_adapter(tensors)
    assert (read.format, len(read), len(read.ignored), read.unknown) == (format_, modules, ignored, ())


@pytest.mark.parametrize("other", ["flux of ai-toolkit", "flux control"])
def test_flattened_names_of_flux_match_dotted_ones(other):
    flat, dotted = (list(load_adapter(KEY_LISTS[name][1])) for name in ("flux of kohya", other))
    pairs = match_modules(flat, dotted).pairs
    assert len(pairs) == 26
    for one, its in pairs:
        assert one.removeprefix("lora_unet_") == its.removeprefix("diffusion_model.").replace(".", "_")


def test_lokr_in_halves(tmp_path):
    """Both factors of the Kronecker product are products themselves; three modules were never trained."""
    rng, tensors = np.random.default_rng(0), {}
    for n, module in enumerate(wild_adapters.flux_modules()[:9]):
        stem = f"lora_unet_{module.replace('.', '_')}"
        tensors[f"{stem}.alpha"] = np.array(4, "f2")
        for key, shape in (("w1_a", (4, 4)), ("w1_b", (4, 3)), ("w2_a", (8, 4)), ("w2_b", (4, 6))):
            tensors[f"{stem}.lokr_{key}"] = rng.standard_normal(shape).astype("f2")
        if n < 3:
            tensors[f"{stem}.lokr_w2_a"] *= np.float16(0)
    save_file(tensors, tmp_path / "lokr.safetensors", {"ss_network_module": "lycoris.kohya"})
    found = inspect(tmp_path / "lokr.safetensors")
    assert (found.format, len(found.modules), found.unknown) == ("lycoris", 9, ())
    assert {(row.alpha, row.scale) for row in found.modules} == {(4.0, 1.0)}
    assert sum("untrained" in row.flags for row in found.modules) == 3


@pytest.mark.parametrize(
    ("module", "shape", "sides"), [("lin0", (1, 10), (0, 10)), ("conv2d", (1, 5, 1, 1), (0, 5))]
)
def test_ia3_without_its_base(module, shape, sides, tmp_path):
    save_file(
        {f"base_model.model.{module}.ia3_l": np.full(shape, 2, "f4")}, tmp_path / "adapter_model.safetensors"
    )
    told = {
        "peft_type": "IA3",
        "target_modules": [module],
        "feedforward_modules": [module],
        "fan_in_fan_out": False,
    }
    (tmp_path / "adapter_config.json").write_text(json.dumps(told))
    found = inspect(tmp_path)
    (row,) = found.modules
    assert (found.format, (row.d_out, row.d_in), row.flags) == ("ia3", sides, ("dense", "ia3", "needs_base"))


@pytest.mark.parametrize(
    ("tensors", "config", "reason"),
    [
        (
            {"base_model.unilora_theta_d": np.ones(90, "f4")},
            {"peft_type": "UNILORA", "r": 4},
            "UNILORA|UniLoRA",
        ),
        ({"<krk>": np.ones(24, "f4")}, None, "a textual inversion embedding, not an adapter"),
        ({f"w_a_{n:03}": np.ones((24, 4), "f4") for n in range(24)}, None, "only w_a"),
    ],
    ids=["another method", "an embedding", "half of every pair"],
)
def test_what_is_no_adapter_is_refused_by_name(tensors, config, reason, tmp_path):
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    if config:
        (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(FormatError, match=reason) as raised:
        load_adapter(tmp_path if config else tmp_path / "adapter_model.safetensors")
    assert "adapter_model.safetensors" in str(raised.value)
    assert "\n" not in str(raised.value)


_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 3567808\n"


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("adapter_model.bin", _POINTER, "git-lfs pointer.*git lfs pull"),
        ("adapter_model.safetensors", _POINTER, "git-lfs pointer.*git lfs pull"),
        ("pytorch_lora_weights.safetensors", b"\r\n", "is only 2 bytes long; download it again"),
        ("adapter_config.json", b"", "it holds no file of weights"),
    ],
    ids=["pointer for a bin", "pointer for safetensors", "two bytes", "configuration alone"],
)
def test_a_download_that_went_wrong_says_so(file, content, reason, tmp_path):
    told = {
        "peft_type": "LORA",
        "r": 8,
        "lora_alpha": 16,
        "rank_pattern": {"q": 4},
        "alpha_pattern": {"q": 4},
    }
    (tmp_path / "adapter_config.json").write_text(json.dumps(told))
    if content:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(FileError, match=reason) as raised:
        load_adapter(tmp_path)
    assert "\n" not in str(raised.value)
    with pytest.raises(FileError):
        load_adapter(tmp_path / file)
