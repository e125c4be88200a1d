"""Names of image models in their own code and in diffusers: a file is the adapter that diffusers converts it to."""

from __future__ import annotations

import math

import numpy as np
import pytest
from oracle_versions import needs

import subspace
from subspace.adapters import load_adapter, match_modules

pytestmark = pytest.mark.filterwarnings("ignore")
D, R = 8, 4
RNG = np.random.default_rng(0)


def conversion(name):
    utils = pytest.importorskip("diffusers.loaders.lora_conversion_utils")
    return getattr(utils, name)


def pairs(shapes, *, keys=("lora_A", "lora_B"), alpha=None, r=R):
    """Factors of modules -> (d_out, d_in), as torch tensors."""
    torch = pytest.importorskip("torch")
    tensors = {}
    for module, (d_out, d_in) in shapes.items():
        tensors[f"{module}.{keys[0]}.weight"] = torch.from_numpy(RNG.standard_normal((r, d_in)))
        tensors[f"{module}.{keys[1]}.weight"] = torch.from_numpy(RNG.standard_normal((d_out, r)))
        if alpha is not None:
            tensors[f"{module}.alpha"] = torch.tensor(float(alpha))
    return tensors


def wan(prefix="diffusion_model."):
    shapes = {
        f"{prefix}blocks.{i}.{attn}.{x}": (D, D)
        for i in range(2)
        for attn in ("self_attn", "cross_attn")
        for x in "qkvo"
    }
    shapes |= {f"{prefix}blocks.{i}.cross_attn.{x}_img": (D, D) for i in range(2) for x in "kv"}
    shapes |= {
        f"{prefix}blocks.{i}.ffn.{n}": (2 * D, D) if n == 0 else (D, 2 * D) for i in range(2) for n in (0, 2)
    }
    return shapes


def flat(shapes):
    """Names with underscores, as kohya writes them."""
    return {
        f"lora_unet_{name.removeprefix('diffusion_model.').replace('.', '_')}": s
        for name, s in shapes.items()
    }


def flux(prefix="", double=2, single=2, qkv=True):
    shapes = {}
    for i in range(double):
        for x in ("img", "txt"):
            block = f"{prefix}double_blocks.{i}.{x}"
            shapes |= {f"{block}_attn.qkv": (3 * D, D)} if qkv else {}
            shapes |= {f"{block}_attn.proj": (D, D), f"{block}_mod.lin": (6 * D, D)}
            shapes |= {f"{block}_mlp.0": (4 * D, D), f"{block}_mlp.2": (D, 4 * D)}
    for i in range(single):
        shapes[f"{prefix}single_blocks.{i}.linear1"] = (7 * D, D)
        shapes[f"{prefix}single_blocks.{i}.linear2"] = (D, 5 * D)
        shapes[f"{prefix}single_blocks.{i}.modulation.lin"] = (3 * D, D)
    return shapes


def anima():
    shapes = {}
    for i in range(2):
        block = f"diffusion_model.blocks.{i}"
        shapes |= {
            f"{block}.{a}.{x}_proj": (D, D)
            for a in ("self_attn", "cross_attn")
            for x in ("q", "k", "v", "output")
        }
        shapes |= {f"{block}.mlp.layer1": (4 * D, D), f"{block}.mlp.layer2": (D, 4 * D)}
        shapes |= {f"{block}.adaln_modulation_mlp.{n}": (D, D) for n in (1, 2)}
    return shapes


def hunyuan():
    shapes = {}
    for x in ("img", "txt"):
        block = f"diffusion_model.double_blocks.0.{x}"
        shapes |= {
            f"{block}_attn_qkv": (3 * D, D),
            f"{block}_attn_proj": (D, D),
            f"{block}_mod.linear": (6 * D, D),
        }
        shapes |= {f"{block}_mlp.fc1": (4 * D, D), f"{block}_mlp.fc2": (D, 4 * D)}
    return shapes


def lumina():
    """Lumina 2 has fewer heads for k and v, and diffusers knows their sizes by heart."""
    d = 2304
    shapes = {}
    for block in ("layers.0", "noise_refiner.0", "context_refiner.0"):
        name = f"diffusion_model.{block}"
        shapes |= {f"{name}.attention.qkv": (3840, d), f"{name}.attention.out": (d, d)}
        shapes |= {f"{name}.feed_forward.w{n}": (D, d) for n in (1, 2, 3)}
        shapes |= {} if "context" in block else {f"{name}.adaLN_modulation.1": (4 * D, D)}
    return shapes


def z_image():
    shapes = {
        f"lora_unet_layers_{i}_attention_{x}": (3 * D if x == "qkv" else D, D)
        for i in (0, 1)
        for x in ("qkv", "out")
    }
    return shapes | {f"lora_unet_layers_{i}_feed_forward_w{n}": (D, D) for i in (0, 1) for n in (1, 2, 3)}


KOHYA = ("lora_down", "lora_up")
SINCE = {  # the versions of diffusers that convert them first
    "wan": "0.33",
    "wan, flattened": "0.34",
    "flux 2": "0.36",
    "anima": "0.39",
    "lumina 2": "0.33",
    "z-image": "0.36",
}
FAMILIES = {
    "wan": ("_convert_non_diffusers_wan_lora_to_diffusers", wan(), {}),
    "wan, flattened": ("_convert_musubi_wan_lora_to_diffusers", flat(wan()), {"keys": KOHYA, "alpha": 2}),
    "flux 2": (
        "_convert_non_diffusers_flux2_lora_to_diffusers",
        {
            name: shape
            for name, shape in flux("diffusion_model.").items()
            if "_mod." not in name and "modulation" not in name
        },
        {},
    ),
    "hunyuan video": ("_convert_hunyuan_video_lora_to_diffusers", hunyuan(), {}),
    "anima": ("_convert_non_diffusers_anima_lora_to_diffusers", anima(), {}),
    "lumina 2": ("_convert_non_diffusers_lumina2_lora_to_diffusers", lumina(), {}),
    "z-image": ("_convert_non_diffusers_z_image_lora_to_diffusers", z_image(), {"keys": KOHYA, "alpha": 2}),
}


def same(original, converted):
    """Every module is matched, and delta_W of each pair is equal; both are of scale 1 or alpha / r."""
    result = subspace.compare(original, converted, side="all", controls="none")
    assert (result.only_first, result.only_second) == ((), ())
    assert len(result.modules) == 4 * max(len(load_adapter(original)), len(load_adapter(converted)))
    for row in result.modules:
        if row.phi.size:
            assert row.phi[-1, -1] == pytest.approx(1)
            assert row.cosine == pytest.approx(1)
    assert any(row.phi.size for row in result.modules)
    return result


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(name, marks=needs("diffusers", SINCE.get(name, "0.30"), "the names of this model"))
        for name in FAMILIES
    ],
)
def test_a_file_is_what_diffusers_converts_it_to(family):
    convert, shapes, settings = FAMILIES[family]
    original = pairs(shapes, **settings)
    converted = dict(conversion(convert)(dict(original)))
    same(original, converted)
    same(converted, original)


def kohya_flux():
    """Shapes of kohya's Flux; diffusers has its sizes, 3072 and 12288, by heart."""
    d = 3072
    shapes = {f"double_blocks_0_{x}_attn_qkv": (3 * d, D) for x in ("img", "txt")}
    shapes |= {f"double_blocks_0_{x}_attn_proj": (d, D) for x in ("img", "txt")}
    shapes |= {f"double_blocks_0_{x}_mlp_{n}": (D, D) for x in ("img", "txt") for n in (0, 2)}
    shapes |= {"single_blocks_0_linear1": (7 * d, d), "single_blocks_0_linear2": (D, D)}
    shapes |= {"single_blocks_0_modulation_lin": (D, D), "double_blocks_0_img_mod_lin": (D, D)}
    return {f"lora_unet_{name}": shape for name, shape in shapes.items()}


def test_flux_of_kohya():
    original = pairs(kohya_flux(), keys=KOHYA, alpha=2)
    converted = dict(conversion("_convert_kohya_flux_lora_to_diffusers")(dict(original)))
    result = same(original, converted)
    (note,) = [note for note in result.notes if "split" in note]
    assert "3 fused layers split into q, k and v, which are separate layers in the other adapter" in note
    names = {row.module for row in result.modules}
    assert {f"lora_unet_single_blocks_0_linear1[{x}]" for x in ("q", "k", "v", "mlp")} <= names


@needs("diffusers", "0.33", "factors without alpha")
def test_parts_with_a_rank_of_their_own():
    """sd-scripts' split_dims: B is block diagonal, and each part has a third of the rank, as diffusers converts it."""
    original = pairs({"lora_unet_double_blocks_0_img_attn_qkv": (3 * D, D)}, keys=KOHYA, r=6)
    original |= pairs({"lora_unet_double_blocks_0_img_attn_proj": (D, D)}, keys=KOHYA)
    B = original["lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight"]
    for n in range(3):
        for m in range(3):
            if n != m:
                B[n * D : (n + 1) * D, 2 * m : 2 * m + 2] = 0
    converted = dict(conversion("_convert_kohya_flux_lora_to_diffusers")(dict(original)))
    result = same(original, converted)
    ranks = {(row.r_first, row.r_second) for row in result.modules if "qkv[" in row.module}
    assert ranks == {(2, 2)}


def separate(names, d=D):
    return {
        f"{name}.lora_{x}.weight": np.ones((R, d) if x == "A" else (d, R)) for name in names for x in "AB"
    }


def test_only_some_parts_are_separate():
    fused = pairs({"double_blocks.0.img_attn.qkv": (3 * D, D), "double_blocks.0.img_attn.proj": (D, D)})
    other = separate([f"transformer.transformer_blocks.0.attn.{x}" for x in ("to_q", "to_v", "to_out.0")])
    result = subspace.compare(fused, other)
    assert [row.module for row in result.modules] == [
        "double_blocks.0.img_attn.proj",
        "double_blocks.0.img_attn.qkv[q]",
        "double_blocks.0.img_attn.qkv[v]",
    ]
    assert result.only_first == ("double_blocks.0.img_attn.qkv[k]",)
    adapter = load_adapter(fused)
    assert "double_blocks.0.img_attn.qkv" in adapter  # what is read stays as it is in the file


def test_a_start_is_split_with_its_adapter():
    rng = np.random.default_rng(1)
    layer, others = (
        "double_blocks.0.img_attn.qkv",
        [f"transformer.transformer_blocks.0.attn.to_{x}" for x in "qkv"],
    )
    A, moved, B = rng.standard_normal((R, D)), rng.standard_normal((R, D)), rng.standard_normal((3 * D, R))
    first = {f"{layer}.lora_A.weight": A + moved, f"{layer}.lora_B.weight": B}
    start = {f"{layer}.lora_A.weight": A, f"{layer}.lora_B.weight": 0 * B}
    second = {}
    for n, name in enumerate(others):
        second |= {f"{name}.lora_A.weight": moved, f"{name}.lora_B.weight": B[n * D : (n + 1) * D]}
    result = subspace.compare(first, second, init=(start, None))
    removed = [row for row in result.modules if row.init == "removed"]
    assert {row.module for row in removed} == {f"{layer}[{x}]" for x in "qkv"}
    assert all(row.phi[-1, -1] == pytest.approx(1) for row in removed)


def test_sizes_that_do_not_fit_are_not_split():
    fused = pairs({"double_blocks.0.img_attn.qkv": (3 * D, D), "double_blocks.0.img_attn.proj": (D, D)})
    names = [f"transformer.transformer_blocks.0.attn.{x}" for x in ("to_q", "to_out.0")]
    other = separate(names)
    other[f"{names[0]}.lora_B.weight"] = np.ones((2 * D, R))
    result = subspace.compare(fused, other)
    assert result.only_first == ("double_blocks.0.img_attn.qkv",)
    assert any("1 fused layer not split" in note and "do not say which rows" in note for note in result.notes)


def test_two_fused_files_stay_whole():
    first, second = pairs(flux("diffusion_model.")), pairs(flat(flux("diffusion_model.")), keys=KOHYA)
    result = subspace.compare(first, second)
    assert len(result.modules) == len(flux())
    assert not any("split" in note for note in result.notes)


def test_xlabs_against_diffusers():
    torch = pytest.importorskip("torch")
    original = {}
    for key, d_out in (
        ("double_blocks.0.processor.qkv_lora1", 3 * D),
        ("single_blocks.0.processor.qkv_lora", 3 * D),
        ("double_blocks.0.processor.proj_lora2", D),
    ):
        original[f"{key}.down.weight"] = torch.from_numpy(RNG.standard_normal((R, D)))
        original[f"{key}.up.weight"] = torch.from_numpy(RNG.standard_normal((d_out, R)))
    names = [f"transformer_blocks.0.attn.to_{x}" for x in "qkv"] + [
        f"single_transformer_blocks.0.attn.to_{x}" for x in "qkv"
    ]
    other = separate([f"transformer.{name}" for name in [*names, "transformer_blocks.0.attn.to_add_out"]])
    result = subspace.compare(original, other)
    assert (len(result.modules), result.only_first, result.only_second) == (7, (), ())


def test_shift_and_scale_of_the_last_layer_are_in_another_order():
    first = separate(
        ["diffusion_model.final_layer.adaLN_modulation.1", "diffusion_model.double_blocks.0.img_mlp.0"]
    )
    second = separate(["transformer.norm_out.linear", "transformer.transformer_blocks.0.ff.net.0.proj"])
    result = subspace.compare(first, second, side="b")
    assert {row.module: bool(row.phi.size) for row in result.modules} == {
        "diffusion_model.double_blocks.0.img_mlp.0": True,
        "diffusion_model.final_layer.adaLN_modulation.1": False,
    }


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("transformer_blocks.0.attn_to_q", "transformer_blocks.0.attn.to_q"),
        ("transformer.transformer_blocks_0.attn.to_q", "transformer_blocks.0.attn.to_q"),
        ("lora_unet_double_blocks_0.img_attn_qkv", "diffusion_model.double_blocks.0.img_attn.qkv"),
        ("lora_unet_double_blocks_0.img_attn_proj", "transformer.transformer_blocks.0.attn.to_out.0"),
        ("lora_te_text_model.encoder_layers_0_mlp.fc1", "text_encoder.text_model.encoder.layers.0.mlp.fc1"),
    ],
)
def test_half_flattened_names(first, second):
    others = ["x.1.fc", "y.2.fc"]
    assert match_modules([first, others[0]], [second, others[1]]).pairs == [(first, second)]
    assert match_modules([second, others[0]], [first, others[1]]).pairs == [(second, first)]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (["blocks.0.a_b.c"], ["blocks.0.a.b_c", "blocks.0.a.b.c"]),
        (["text_encoder_2.layers.0_fc.x"], ["text_encoder.layers.0.fc_x"]),
        (["mlp_fc"], ["mlp.fc"]),
    ],
)
def test_half_flattened_names_that_are_not_matched(first, second):
    assert match_modules([*first, "x.1.fc"], [*second, "y.2.fc"]).pairs == []


def test_flattened_names_of_diffusers_against_those_of_the_model():
    flat = [
        f"lora_transformer_single_transformer_blocks_3_{x}" for x in ("attn_to_q", "proj_mlp", "proj_out")
    ]
    flat.append("lora_transformer_transformer_blocks_3_ff_context_net_0_proj")
    for there in ("diffusion_model.single_blocks.3.", "lora_unet_single_blocks_3_"):
        names = [f"{there}{x}" for x in ("linear1[q]", "linear1[mlp]", "linear2")]
        names.append("double_blocks.3.txt_mlp.0")
        assert match_modules(flat, names).pairs == list(zip(flat, names, strict=True))
        assert match_modules(names, flat).pairs == list(zip(names, flat, strict=True))


def test_stable_diffusion_3():
    attn = {
        **{f"attn.to_{x}": f"x_block.attn.qkv[{x}]" for x in "qkv"},
        "attn.to_add_out": "context_block.attn.proj",
    }
    names = [f"transformer.transformer_blocks.3.{name}" for name in attn]
    there = [f"model.diffusion_model.joint_blocks.3.{name}" for name in attn.values()]
    assert match_modules(names, there).pairs == list(zip(names, there, strict=True))


def test_models_of_a_pipeline_are_not_mixed_up():
    first = ["transformer_2.blocks.0.attn1.to_q", "transformer_2.blocks.1.attn1.to_q"]
    assert match_modules(first, [name.replace("_2.", ".") for name in first]).pairs == []
    assert match_modules(first, [name.replace("transformer_2", "unet") for name in first]).pairs == []
    # ComfyUI has a file for each of the two, and the same names in both
    there = [f"diffusion_model.blocks.{i}.self_attn.q" for i in (0, 1)]
    assert match_modules(first, there).pairs == list(zip(first, there, strict=True))
    assert match_modules([*first, *(name.replace("_2.", ".") for name in first)], there).pairs == []


def test_many_fused_layers_take_bounded_time():
    n = 3000
    fused = separate([f"double_blocks.{i}.img_attn.qkv" for i in range(n)])
    for key in fused:
        fused[key] = np.ones((1, 1)) if key.endswith("A.weight") else np.ones((3, 1))
    other = {
        f"transformer.transformer_blocks.{i}.attn.to_{x}.lora_{f}.weight": np.ones((1, 1))
        for i in range(n)
        for x in "qkv"
        for f in "AB"
    }
    from subspace.adapters.naming.fused_parts import separated

    adapter, partner = load_adapter(fused), load_adapter(other)
    parts = separated(adapter, list(adapter), partner)
    assert len(parts) == 3 * n
    assert math.isclose(parts["double_blocks.0.img_attn.qkv[k]"].delta_W()[0, 0], 1)
    assert parts["double_blocks.0.img_attn.qkv[k]"].rows == (1, 2)


def test_many_components_take_bounded_time():
    first = [f"transformer_{i}.blocks.0.attn1.to_q" for i in range(5000)]
    second = [f"transformer_{i}.blocks.0.attn2.to_q" for i in range(5000)]
    assert match_modules(first, second).pairs == []
