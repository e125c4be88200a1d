"""Which way round A and B are stored: every layout gives one delta_W, and what no evidence decides is asked for."""

import numpy as np
import pytest

from subspace.adapters import load_adapter, load_base
from subspace.analysis.amplify import amplify
from subspace.analysis.compare import compare
from subspace.errors import FormatError, ShapeError

RNG = np.random.default_rng(7)
NAMES = {"loralib": "{}.lora_A", "pair": "{}.A"}


def stored(layout, shapes, names="{}.lora_A", seed=0):
    """Tensors in a layout, and delta_W by module; shapes: module -> (d_out, r, d_in)."""
    rng = np.random.default_rng(seed)
    tensors, expected = {}, {}
    for module, (d_out, r, d_in) in shapes.items():
        A, B = rng.standard_normal((r, d_in)), rng.standard_normal((d_out, r))
        expected[module] = B @ A
        key = names.format(module)
        tensors[key] = A.T if layout in {"AB", "BAt"} else A
        tensors[key[:-1] + "B"] = B.T if layout in {"AB", "BtA"} else B
    return {key: np.ascontiguousarray(value) for key, value in tensors.items()}, expected


def delta(adapter):
    return {module: update.delta_W() for module, update in adapter.items()}


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("layout", ["BA", "AB", "BAt", "BtA"])
@pytest.mark.parametrize(
    "shapes",
    [
        {"q": (12, 2, 8)},
        {"q": (8, 2, 8)},  # a square layer
        {"q": (16, 3, 16), "v": (16, 3, 16)},
        {"h.0.attn": (1152, 8, 384), "h.1.attn": (1152, 8, 384)},
        {"q": (16, 16, 16), "up": (40, 4, 16)},  # a square pair beside one whose shapes say it
    ],
    ids=["rectangular", "square layer", "square layers", "fused", "square pair"],
)
def test_one_delta_in_every_layout(layout, shapes, names):
    tensors, expected = stored(layout, shapes, names)
    read = load_adapter(tensors, scale=1.0)
    assert {update.r for update in read.values()} == {r for _, r, _ in shapes.values()}
    for module, value in delta(read).items():
        np.testing.assert_allclose(value, expected[module], atol=1e-12)
    assert any("is stored" in note for note in read.notes) is (layout != "BA")


def test_a_book_s_pair_is_not_of_rank_768():
    tensors, expected = stored("AB", {"w": (768, 16, 768)})
    read = load_adapter(tensors, scale=1.0)
    assert (read["w"].r, read["w"].d_in, read["w"].d_out) == (16, 768, 768)
    np.testing.assert_allclose(read["w"].delta_W(), expected["w"], atol=1e-10)
    assert read.notes[0] == "A is stored (d_in, r) and B (r, d_out) in w"


@pytest.mark.parametrize("keys", [("A", "B"), ("q.lora_A", "q.lora_B")])
def test_a_square_pair_is_asked_for(keys):
    A, B = RNG.standard_normal((2, 5, 5))
    tensors = dict(zip(keys, (A, B), strict=True))
    with pytest.raises(FormatError, match=r"Cannot tell how .*\[5, 5\].* fits BA and AB.*`layout`"):
        load_adapter(tensors)
    wanted = {"BA": B @ A, "AB": (A @ B).T, "BAt": B @ A.T, "BtA": B.T @ A}
    for layout, expected in wanted.items():
        (update,) = load_adapter(tensors, scale=1.0, layout=layout).values()
        np.testing.assert_allclose(update.delta_W(), expected, atol=1e-12)


def test_the_layout_that_a_user_gives_must_fit():
    tensors, _ = stored("BA", {"q": (12, 2, 8)})
    with pytest.raises(ShapeError, match="different ranks in the `layout` AB"):
        load_adapter(tensors, layout="AB")
    with pytest.raises(FormatError, match=r"Unknown `layout` 'ba'; choose one of BA, AB, BAt, BtA"):
        load_adapter(tensors, layout="ba")


def test_the_base_decides_between_two_shapes():
    # r = 6 on layers of 4: A (6, 4) and B (4, 6) could be rank 4 on layers of 6, which the base has not
    tensors, expected = stored("BA", {"q": (4, 6, 4)})
    W = RNG.standard_normal((4, 4))
    read = load_adapter(tensors, base={"q.weight": W}, scale=1.0)
    np.testing.assert_allclose(read["q"].delta_W(), expected["q"], atol=1e-12)
    assert load_adapter(tensors, scale=1.0)["q"].r == 4  # without it, the rank that is above no side
    turned, wide = stored("AB", {"q": (4, 6, 4)})
    np.testing.assert_allclose(
        load_adapter(turned, base=load_base({"q.weight": W}), scale=1.0)["q"].delta_W(), wide["q"], atol=1e-12
    )
    assert amplify({"q.weight": W}, tensors, scale=1.0).modules[0].d_out == 4


def test_compare_takes_a_layout_for_each_side():
    A, B = RNG.standard_normal((2, 6, 6))
    plain, turned = {"A": A, "B": B}, {"A": A.T.copy(), "B": B.T.copy()}
    row = compare(plain, turned, layout=("BA", "AB"), side="b").modules[0]
    assert row.cosine == pytest.approx(1)


def test_a_mixed_file_follows_its_settled_modules():
    tensors, expected = stored("AB", {"q": (16, 16, 16), "up": (40, 4, 16), "down": (16, 4, 40)})
    for module, value in delta(load_adapter(tensors, scale=1.0)).items():
        np.testing.assert_allclose(value, expected[module], atol=1e-12)


def test_a_merged_linear_is_still_several_groups():
    tensors = {"qkv.lora_A": np.ones((8, 32)), "qkv.lora_B": np.ones((64, 4))}
    assert list(load_adapter(tensors)) == ["qkv[0]", "qkv[1]"]
