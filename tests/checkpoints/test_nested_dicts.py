"""Trees of dicts and lists: dotted names, settings, what stays as it was, and trees that are meant to do harm."""

import io
import time
from collections import OrderedDict, UserDict

import numpy as np
import pytest
import torch

from subspace.checkpoints import from_memory, open_tensors
from subspace.checkpoints.nested import flattened, holds_tensors, plain_values
from subspace.errors import FormatError, SubspaceError

T = np.ones((2, 3), "f4")


def as_torch(tree):
    """The tree with tensors of torch in the place of arrays."""
    if isinstance(tree, np.ndarray | np.generic):
        return torch.tensor(tree)
    if isinstance(tree, dict):
        return {key: as_torch(value) for key, value in tree.items()}
    return [as_torch(value) for value in tree] if isinstance(tree, list) else tree


@pytest.fixture(params=["memory", "torch"])
def opened(request, written):
    """Opens a tree of arrays, in memory or as a torch file."""

    def of(tree):
        if request.param == "memory":
            return from_memory(tree)
        buffer = io.BytesIO()
        torch.save(as_torch(tree), buffer)
        return open_tensors(written(buffer.getvalue()))

    return of


@pytest.mark.parametrize(
    ("tree", "keys", "settings"),
    [
        ({"weights": {"layer_0": {"q_proj": {"w_lora_A": T, "w_lora_B": T}}},
          "meta": {"r": 2, "alpha": 1.5, "of": "x"}},
         ["layer_0.q_proj.w_lora_A", "layer_0.q_proj.w_lora_B"], {"meta.r": 2, "meta.alpha": 1.5, "meta.of": "x"}),
        ({0: {"A": T, "B": T}, 1: {"A": T, "B": T}}, ["0.A", "0.B", "1.A", "1.B"], {}),
        ({"lora": {0: {"q": {"A": T}}, 11: {"q": {"A": T}}}}, ["0.q.A", "11.q.A"], {}),
        ({"layers": [{"q": {"A": T}}, {"q": {"A": T}}]}, ["layers.0.q.A", "layers.1.q.A"], {}),
        ({"layer_0": {"lora_A": T, "lora_B": T}, "layer_1": {"lora_A": T, "lora_B": T}, "r": 4},
         ["layer_0.lora_A", "layer_0.lora_B", "layer_1.lora_A", "layer_1.lora_B"], {"r": 4}),
        ({"unet": {"x.lora_A": T}, "text_encoder": {"x.lora_A": T}}, ["unet.x.lora_A", "text_encoder.x.lora_A"], {}),
        ({"layer_0": {"q": {"lora_A": T}}, "head": {"weight": T}}, ["layer_0.q.lora_A", "head.weight"], {}),
        ({"a": {"b": {"c": {"d": {"e": {"f": {"A": T}}}}}}}, ["a.b.c.d.e.f.A"], {}),
        ({"state_dict": {"q.A": T}, "step": np.float32(7), "lora_alpha": 16, "names": ["q", "v"]}, ["q.A"],
         {"lora_alpha": 16, "names": ["q", "v"], "step": 7.0}),
        ({"step": np.float32(7), "unheard of": {"q.lora_A": T}}, ["q.lora_A"], {"step": 7.0}),
        ({"logit": np.float32(7), "layer_0": {"q": {"lora_A": T}}}, ["layer_0.q.lora_A", "logit"], {}),
        ({"q.alpha": np.float32(7), "optimizer": {"m": T}}, ["q.alpha"], {}),
        ({"model": {"encoder": {"q.lora_A": T}}, "args": {"lora": {"r": 8}}}, ["q.lora_A"], {"args.lora.r": 8}),
        ({"q.lora_A": T, "config": {"r": 2}}, ["q.lora_A"], {"config.r": 2}),
        ({"model": {"name": "clip"}, "lora": {"q": {"A": T, "B": T}}}, ["A", "B"], {"model.name": "clip"}),
        ({"weights": {"q": {"A": T, "alpha": 4}, "v": {"A": T, "B": T, "alpha": 8}}}, ["q.A", "v.A", "v.B"],
         {"weights.q.alpha": 4, "weights.v.alpha": 8}),
    ],
)  # fmt: skip
def test_trees_have_dotted_names_and_settings(opened, tree, keys, settings):
    file = opened(tree)
    assert sorted(file.layout) == sorted(keys)
    assert {key: value for key, value in file.settings.items() if key in settings} == settings
    assert all((file.read(key) == T).all() for key in keys if file.layout[key].shape == T.shape)


@pytest.mark.parametrize(
    ("tree", "keys"),
    [
        ({"state_dict": {"A": T}, "optimizer": {"state": {0: {"m": T}}, "param_groups": []}}, ["A"]),
        ({"lora_weights": {"q": {"A": T, "B": T}}, "optimizer": {"state": {0: {"m": T, "v": T}}, "param_groups": []}},
         ["lora_weights.q.A", "lora_weights.q.B"]),
        ({"weights": {"q": {"A": T}, "opt": {"state": {0: {"m": T}}, "param_groups": [{"lr": 1.0}]}}}, ["A"]),
        ({"layers": {"q": {"A": T, "B": T}}, "lr_scheduler": {"x": {"y": T}}, "rng_state": [T]},
         ["layers.q.A", "layers.q.B"]),
    ],
)  # fmt: skip
def test_the_state_of_an_optimiser_is_never_part_of_it(opened, tree, keys):
    assert sorted(opened(tree).layout) == sorted(keys)


@pytest.mark.parametrize(
    ("tree", "reason"),
    [
        ({"first": {"A": T}, "second": {"A": T}}, "Several state dicts.*first, second"),
        (
            {"student": {"lora_A": T, "lora_B": T}, "teacher": {"lora_A": T, "lora_B": T}},
            "Several state dicts",
        ),
        ({"one": {"q.lora_A": T, "q.lora_B": T}, "two": {"q.lora_A": T}}, "Several state dicts"),
        ({"a": {"b": {}}, "c": []}, "No tensors"),
        ({"optimizer": {"state": {0: {"m": T}}, "param_groups": []}}, "No tensors"),
        ({"state_dict": {}, "optimizer": {"m": T}}, "No tensors"),
        ({"weights": {"0": {"A": {"x": T}}, 0: {"A": {"x": T}}}}, "Two tensors have one name: 0.A.x"),
    ],
)
def test_trees_that_leave_a_question_are_refused(opened, tree, reason):
    with pytest.raises(FormatError, match=reason) as raised:
        opened(tree)
    assert "\n" not in str(raised.value)


def test_entries_without_tensors_are_said_to_be_skipped(opened):
    file = opened({"weights": {"q": {"x": {"A": T}}}, "metadata": {"r": 2}, "epoch": 3, "none": None})
    assert set(file.skipped) == {"metadata", "epoch", "none"}


def test_other_mappings_in_memory():
    file = from_memory(
        UserDict({"params": OrderedDict(q=UserDict(lora_a=T, lora_b=T), v={"lora_a": T, "lora_b": T})})
    )
    assert list(file.layout) == ["q.lora_a", "q.lora_b", "v.lora_a", "v.lora_b"]


def test_a_number_that_cannot_be_read_is_no_setting():
    file = from_memory({"state_dict": {"A": T}, "step": torch.ones((), device="meta"), "n": torch.tensor(3)})
    assert (file.settings, set(file.skipped)) == ({"n": 3}, {"step", "n"})


@pytest.mark.parametrize("value", ["text", [1.0], 3, None, object()])
def test_a_flat_mapping_in_memory_holds_tensors_alone(value):
    with pytest.raises(FormatError, match="Not a NumPy array or torch tensor"):
        from_memory({"q.lora_A": T, "q.lora_B": T, "q.alpha": value})


def deep(levels, end):
    for _ in range(levels):
        end = {"x": end}
    return end


def looped():
    tree = {"a": {}, "b": []}
    tree["a"]["again"] = tree
    tree["b"].append(tree["b"])
    return tree


def doubled(levels):
    """A tree of 2 ** levels leaves in as many dicts as levels."""
    tree = {"x": 1}
    for _ in range(levels):
        tree = {"a": tree, "b": tree, "c": [tree]}
    return tree


def shared():
    """A large dict in many places of another."""
    big = {str(n): n for n in range(20_000)}
    return {"model": big, "weights": big} | {f"k{n}": big for n in range(20_000)}


def wide():
    return {"weights": {str(n): {"x": {"y": n}} for n in range(150_000)}}


HOSTILE = {
    "deep": lambda: deep(100_000, T), "deep without tensors": lambda: deep(100_000, 1), "self-reference": looped,
    "self-reference beside tensors": lambda: {"weights": {**looped(), "q": {"x": {"A": T}}}},
    "doubled": lambda: doubled(30), "doubled in a wrapper": lambda: {"state_dict": doubled(25), "weights": doubled(25)},
    "shared": shared, "wide": wide, "many": lambda: {"lora": {"x": {str(n): {"A": T} for n in range(510_000)}}},
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_trees_that_do_harm_end_in_bounded_time(case):
    tree = HOSTILE[case]()
    start = time.process_time()
    with pytest.raises(SubspaceError) as raised:
        from_memory(tree)
    assert time.process_time() - start < 60
    assert "\n" not in str(raised.value)


def test_settings_are_few_and_short():
    values = {
        "a": list(range(2_000)),
        "b": "x" * 5_000,
        "c": object(),
        "d": {"e": [1, [2]]},
        "f": float("nan"),
        3: 4,
    }
    assert list(plain_values(values, "")) == ["f", "3"]
    assert len(plain_values({str(n): n for n in range(10**5)}, "p.")) == 1_000
    assert plain_values(looped(), "") == {}
    assert plain_values(doubled(30), "")


def test_limits_of_a_tree():
    def is_tensor(value):
        return value is T

    with pytest.raises(FormatError, match=r"^Dicts are nested too deeply: more than 32 levels, in a\.pt;"):
        flattened(deep(40, T), is_tensor, "a.pt")
    with pytest.raises(FormatError, match=r"^Too many nested entries: more than 1000000, in a\.pt;"):
        flattened({"a": [[0] * 1000] * 1001}, is_tensor, "a.pt")
    assert not holds_tensors(doubled(30), is_tensor)
