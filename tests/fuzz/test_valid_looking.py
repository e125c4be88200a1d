"""Adapters that look right in every format and hold hostile names, shapes and numbers, through every question."""

import json
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save
from seeds import FORMATS
from targets import TARGETS, require_one_line

from subspace.analysis.inspect import inspect
from subspace.cli.output import as_json
from subspace.errors import SubspaceError

_NUMBERS = (0.0, -0.0, 1.0, -3.5, 1e-45, 1e-30, 1e30, 3e38, 1e300, float("nan"), float("inf"), float("-inf"))
_names = st.one_of(
    st.sampled_from(
        ["layers.0.q_proj", "h.10.attn.c_attn", "q", "0", "a.b.c.d", "model.model.model.x", "lora_A", "B"]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12),
)
_sizes = st.fixed_dictionaries(
    {side: st.integers(0, 5) for side in "rio"} | {"1": st.just(1), "3": st.just(3)}
)
_configs = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {"peft_type": st.sampled_from(["LORA", "LORA", "IA3", "ADALORA", "X"])},
        optional={
            "r": st.sampled_from([1, 2, 8, 0, -1, 2.5, "8", None, 10**30]),
            "lora_alpha": st.sampled_from([1, 16, 0, -4, 1e308, "a", None, True]),
            "rank_pattern": st.sampled_from([{}, {"q": 2}, {"(": 1}, {"(a+)+$": 2}, [], {"q": None}]),
            "alpha_pattern": st.sampled_from([{}, {".*": 4}, {"layers.0": -1}, "x"]),
            "use_rslora": st.sampled_from([True, False, None, 1]),
            "target_modules": st.sampled_from([["q_proj"], "all-linear", 3, None]),
        },
    ),
)


@st.composite
def adapters(draw):
    """Tensors of one to three modules in one format, and a configuration or none."""
    keys = FORMATS[draw(st.sampled_from(sorted(FORMATS)))]
    tensors = {}
    for name in draw(st.lists(_names, min_size=1, max_size=3, unique=True)):
        sizes = draw(_sizes)
        for key, shape in keys.items():
            size = tuple(sizes[side] for side in shape)
            if draw(st.integers(0, 19)) == 0:  # a shape that does not fit
                size = (*size, 2)
            seed = draw(st.integers(0, 99))
            values = np.random.default_rng(seed).standard_normal(size)
            if values.size and draw(st.booleans()):
                values[(0,) * values.ndim] = draw(st.sampled_from(_NUMBERS))
            with np.errstate(over="ignore", invalid="ignore"):
                tensors[key.format(name)] = np.asarray(
                    values, draw(st.sampled_from(["f4", "f4", "f2", "f8", "i4"]))
                )
    return tensors, draw(_configs)


def _ask(path, config):
    """Every question of the file; whatever is refused is refused in one line, and what is answered is strict JSON."""
    beside = path.with_name("adapter_config.json")
    beside.unlink(missing_ok=True)
    if config is not None:
        beside.write_text(json.dumps(config))
    TARGETS["questions"].read(path)
    try:
        as_json(inspect(path).document())
    except SubspaceError as error:
        require_one_line(error)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("looks-right")


def _run(folder, made):
    tensors, config = made
    path = folder / "adapter_model.safetensors"
    path.write_bytes(save({key: np.ascontiguousarray(value) for key, value in tensors.items()}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _ask(path, config)


_CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large]


@settings(max_examples=150, deadline=None, suppress_health_check=_CHECKS)
@given(made=adapters())
def test_what_looks_right(made, folder):
    _run(folder, made)


@pytest.mark.slow
@settings(max_examples=1500, deadline=None, suppress_health_check=_CHECKS)
@given(made=adapters())
def test_much_that_looks_right(made, folder):
    _run(folder, made)
