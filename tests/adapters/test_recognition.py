"""Whatever the keys and shapes: at most one format fits a file, and only a SubspaceError comes out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from subspace.adapters import Adapter, Scale, formats, load, load_adapter, load_base
from subspace.adapters.format import Source
from subspace.checkpoints import from_memory
from subspace.errors import FormatError, ShapeError, SubspaceError

A, B = np.ones((2, 4), "f4"), np.ones((3, 2), "f4")

# one module in each style of keys, and which format must fit it alone
STYLES = {
    "peft": {"base_model.model.x.q.lora_A.weight": A, "base_model.model.x.q.lora_B.weight": B},
    "peft named": {
        "base_model.model.x.q.lora_A.default.weight": A,
        "base_model.model.x.q.lora_B.default.weight": B,
    },
    "peft embedding": {
        "base_model.model.wte.lora_embedding_A": A,
        "base_model.model.wte.lora_embedding_B": B,
    },
    "loralib": {"x.q.lora_A": A, "x.q.lora_B": B},
    "kohya": {
        "lora_unet_q.lora_down.weight": A,
        "lora_unet_q.lora_up.weight": B,
        "lora_unet_q.alpha": np.float32(2),
    },
    "diffusers": {"unet.x.to_q.lora.down.weight": A, "unet.x.to_q.lora.up.weight": B},
    "diffusers oldest": {"x.processor.to_q_lora.down.weight": A, "x.processor.to_q_lora.up.weight": B},
    "mlx": {"x.q.lora_a": A.T, "x.q.lora_b": B.T},
    "positional": {"w_a_000": A, "w_b_000": B},
    "pair": {"A": A, "B": B},
    "pairs": {"x.q.A": A, "x.q.B": B},
    "dense": {"delta_W": B @ A},
    "dense named": {"x.q.delta_W": B @ A},
}
CLUTTER = {
    "x.q.bias": np.ones(3, "f4"), "score.weight": np.ones((2, 4), "f4"), "junk": np.ones(3, "i8"),
    "ia3_l": np.ones((3, 1), "f4"), "emb_params": np.ones((2, 4), "f4"), "<s1>": np.ones(4, "f4"),
    "x.q.lora_E": np.ones((2, 1), "f4"), "x.hada_w1_a": A, "x.lokr_w1": A, "x.q.qweight": np.ones((2, 2), "i4"),
    "0": A, "unet:0:up": B, "x.q.lora_A": A, "x.q.lora_A.weight": A, "x.q.lora_down.weight": A, "": A, "A": A,
}  # fmt: skip


def pair(A=A, B=B):
    return {"m.lora_A.weight": A, "m.lora_B.weight": B}


def matching(tensors, config=None):
    source = Source(from_memory(tensors), config)
    return [known.name for known in formats.matching_formats(source)]


def keys_of(read):
    """Every key of the file with how it was accounted for."""
    return [entry.key for entry in read.ignored] + list(read.unknown)


@pytest.mark.parametrize("style", STYLES)
def test_each_style_has_one_format(style):
    assert len(matching(STYLES[style])) == 1
    read = load_adapter(STYLES[style])
    assert len(read) == 1
    np.testing.assert_allclose(next(iter(read.values())).scaled(Scale(1.0, "given")).delta_W(), B @ A)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sets(st.sampled_from(sorted(STYLES)), max_size=3),
    st.sets(st.sampled_from(sorted(CLUTTER)), max_size=4),
    st.randoms(use_true_random=False),
    st.sampled_from(
        [None, {}, {"peft_type": "LORA", "r": 2, "lora_alpha": 4}, {"peft_type": "IA3"}, {"peft_type": 7}]
    ),
)
@example({"peft", "kohya"}, set(), None, None)
@example({"pair"}, {"A"}, None, None)
def test_recognition_does_not_depend_on_order(styles, clutter, random, config):
    tensors = {key: value for style in sorted(styles) for key, value in STYLES[style].items()}
    tensors |= {key: CLUTTER[key] for key in sorted(clutter)}
    keys = list(tensors)
    if random is not None:
        random.shuffle(keys)
    shuffled = {key: tensors[key] for key in keys}
    assert matching(tensors, config) == matching(shuffled, config)
    first, second = outcome(tensors), outcome(shuffled)
    assert type(first) is type(second)
    if isinstance(first, Adapter):
        assert first.formats == tuple(matching(tensors))
        assert (first.format, list(first)) == (second.format, list(second))
        assert set(keys_of(first)) == set(keys_of(second))
    elif len(matching(tensors)) > 1:
        assert "Cannot tell the format" in str(first)


def outcome(tensors, **options):
    """An adapter or a one-line error, and nothing else."""
    try:
        return load_adapter(tensors, **options)
    except SubspaceError as error:
        assert "\n" not in str(error)
        return error


def test_every_format_that_fits_is_named():
    with pytest.raises(
        FormatError, match=r"^Cannot tell the format of the state dict in memory: it could be kohya or peft;"
    ):
        load_adapter({**STYLES["peft"], "x.q.lora_down.weight": A, "x.q.lora_up.weight": B})


words = st.sampled_from(
    "lora_A lora_B lora_a lora_b weight bias default A B lora_down lora_up lora down up alpha delta_W base_layer "
    "modules_to_save original_module base_model model q 0 1 lora_embedding_A lora_embedding_B lora_magnitude_vector "
    "lora_E w_a_000 w_b_000 w_a_001 w_b_001 lora_unet_q processor to_q_lora m diff lora_mid dora_scale "
    "lora_te_q".split()
)
key_names = st.one_of(st.lists(words, min_size=1, max_size=6).map(".".join), words, st.text(max_size=8))
shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)
arrays = st.tuples(shapes, st.sampled_from(["f4", "f8", "f2", "i4", "?", "c8"])).map(lambda a: np.ones(*a))
configs = st.none() | st.dictionaries(
    st.sampled_from(
        "peft_type r lora_alpha use_rslora use_dora rank_pattern alpha_pattern enable_lora target_modules "
        "target_parameters init_lora_weights layer_replication fan_in_fan_out lora_parameters use_bdlora".split()
    ),
    st.sampled_from(
        [
            None,
            "LORA",
            True,
            0,
            2,
            -1,
            2.5,
            float("nan"),
            10**400,
            [],
            [True, False],
            {"q": 2},
            {"(": 2},
            {"q": "x"},
            ["q.A"],
            "q",
        ]
    ),
    max_size=5,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(key_names, arrays, max_size=7), configs, st.none() | st.lists(st.booleans(), max_size=4)
)
@example({"w_a_000": np.ones((2, 4)), "w_b_000": np.ones((3, 2, 1))}, None, None)
def test_only_our_errors_come_out(tensors, config, enabled):
    source = Source(
        from_memory(tensors), config, config_path="adapter_config.json", enabled=enabled and tuple(enabled)
    )
    try:
        read = load.recognised(source)
    except SubspaceError as error:
        assert "\n" not in str(error)
        assert ";" in str(error) or "," in str(error)
        return
    listed = keys_of(read)
    assert len(listed) == len(set(listed))
    assert set(listed) <= set(tensors)
    for update in read.values():
        if update.scale.value is not None:
            assert update.delta_W().shape == (update.d_out, update.d_in)
    outcome(tensors, base={"q.weight": np.ones((3, 4))})


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(key_names, arrays, max_size=6), key_names)
def test_only_our_errors_come_out_of_a_base(tensors, module):
    try:
        base = load_base(tensors)
        update = load_adapter({"A": A, "B": B})[""]
        weight = base.weight(replace(update, module=module))
        assert weight is None or weight.matrix().shape in {(3, 4), (4, 3)}
    except SubspaceError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("style", STYLES)
def test_every_key_is_used_ignored_or_unknown(style):
    clutter = {
        "x.q.bias": np.ones(3, "f4"),
        "junk.thing": np.ones(3, "f4"),
        "score.modules_to_save.weight": A,
    }
    if style in {"pair", "pairs", "dense", "dense named"}:
        clutter = {}  # these formats are of files that hold nothing else
    read = load_adapter({**STYLES[style], **clutter})
    assert {entry.key for entry in read.ignored} == set(clutter) - {"junk.thing"}
    assert set(read.unknown) == {"junk.thing"} & set(clutter)
    assert all(entry.why for entry in read.ignored)


@pytest.mark.parametrize(
    ("tensors", "error", "match"),
    [
        ({"m.lora_A.weight": A}, ShapeError, r"^Incomplete pair: lora_B is missing for module m of the state dict"),
        ({"m.lora_B.weight": B}, ShapeError, r"^Incomplete pair: lora_A .* module m of .*, which has lora_B;"),
        (pair(B=np.ones((3, 5))), ShapeError, r"different ranks: A .* is \[2, 4\] and B .* is \[3, 5\], in module m"),
        (pair(A=A[0]), ShapeError, r"^The tensor m\.lora_A\.weight is not a matrix.*: its shape is \[4\], in"),
        (pair(A=A[:0]), ShapeError, r"is empty: its shape is \[0, 4\]"),
        (pair(A=A.astype("i1")), ShapeError, r"floating point.*int8.*dequantise"),
        (pair() | {"base_model.model.m.lora_A.weight": A}, FormatError, r"Two tensors for lora_A .*, in module m"),
        (pair() | {"m.lora_A.x.weight": A}, FormatError, r"\(unnamed\), x"),
        (pair(A=np.ones((2, 4, 1, 1))), ShapeError, "differ in their number of dimensions"),
        (pair(A=np.ones((2, 4, 1, 1)), B=np.ones((3, 2, 2, 1))), ShapeError, "pointwise"),
        ({"x.A": A}, ShapeError, "B is missing for module x of .*, which has A"),
        ({"m.weight": A, "m.bias": A[0]}, FormatError, r"no LoRA keys among 2 tensors \('m\.weight', '.*`base`"),
        ({}, FormatError, "no tensors"),
        ({"emb_params": A}, FormatError, "textual inversion"),
        ({"m.ia3_l": B}, ShapeError, r"not one row or column of numbers: its shape is \[3, 2\]"),
        ({"m.oft_r": B}, FormatError, "OFT"),
        ({"x\x1b[31m.lora_A": A}, ShapeError, r"module x\\x1b\[31m of"),
    ],
)  # fmt: skip
def test_errors_name_module_and_file(tensors, error, match):
    with pytest.raises(error, match=match) as raised:
        load_adapter(tensors)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("r", 0), ("r", 2.0), ("r", True), ("r", "2"), ("lora_alpha", 0), ("lora_alpha", -1), ("lora_alpha", "4"),
        ("lora_alpha", float("nan")), ("use_rslora", "yes"), ("rank_pattern", [2]), ("rank_pattern", {"m": "x"}),
        ("alpha_pattern", {"m": None}), ("alpha_pattern", {"m": 0}), ("enable_lora", [1, 0]), ("target_modules", 3),
        ("target_parameters", "x"), ("fan_in_fan_out", 1),
    ],
)  # fmt: skip
def test_fields_of_a_configuration(field, value):
    source = Source(from_memory(pair()), {field: value}, config_path="c.json")
    with pytest.raises(FormatError, match=rf"^Invalid {field}.*: .* is not .*, in c\.json"):
        load.recognised(source)


def test_ranks_that_disagree():
    config = {"peft_type": "LORA", "r": 3, "lora_alpha": 4}
    source = Source(from_memory(pair()), config, config_path="c.json")
    with pytest.raises(FormatError, match=r"r = 3 in c\.json and 2 in the factors of module m"):
        load.recognised(source)


@pytest.mark.parametrize("given_scale", [0.0, float("nan"), float("inf")])
def test_a_scale_that_is_none(given_scale):
    with pytest.raises(SubspaceError, match="finite number other than 0"):
        load_adapter(STYLES["loralib"], scale=given_scale)


@pytest.mark.parametrize("source", [3, None, object(), {"a": "text"}, {3: A}, [A]])
def test_what_is_no_adapter(source):
    with pytest.raises(SubspaceError):
        load_adapter(source)


@pytest.mark.parametrize("groups", ["101", [0, 0], [2, 1], []])
def test_groups_that_are_none(groups):
    with pytest.raises(FormatError, match="Invalid `enable_lora`"):
        load_adapter(STYLES["loralib"], enable_lora=groups)
