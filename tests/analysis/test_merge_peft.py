"""PEFT's own `add_weighted_adapter` is the oracle of each method that it has, and it loads what `merge` writes."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest

import subspace
from subspace.geometry import mergers

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
pytorch_utils = pytest.importorskip("transformers.pytorch_utils")

MODULES = ("emb", "lin", "fan", "conv", "point")
WEIGHTS = [1.0, -0.6, 0.5]


class _Model(torch.nn.Module):
    """A layer of every kind that LoRA adapts."""

    def __init__(self):
        super().__init__()
        self.emb = torch.nn.Embedding(30, 12)
        self.lin = torch.nn.Linear(12, 16)
        self.fan = pytorch_utils.Conv1D(14, 16)
        self.conv = torch.nn.Conv2d(3, 8, 3)
        self.point = torch.nn.Conv2d(9, 10, 1)


def _model():
    torch.manual_seed(0)
    return _Model()


def _trained(model, name):
    """Random factors in place of trained ones."""
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if f".{name}" in key and "lora_" in key:
                parameter.copy_(torch.randn_like(parameter))


def _built(folder, *configs):
    """A PEFT model of several adapters, and their directories."""
    torch.manual_seed(1)
    names = [f"a{n}" for n in range(len(configs))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(_model(), configs[0], adapter_name=names[0])
        for name, config in zip(names[1:], configs[1:], strict=True):
            model.add_adapter(name, config)
        for name in names:
            _trained(model, name)
        model.save_pretrained(folder)
    return model, [folder / name for name in names]


def _config(r=3, targets=MODULES, **more):
    return peft.LoraConfig(r=r, lora_alpha=7, target_modules=list(targets), **more)


def _deltas(model, name):
    """delta_W of each module, as (d_out, d_in)."""
    found = {}
    for path, layer in model.base_model.model.named_modules():
        if hasattr(layer, "get_delta_weight") and name in {*layer.lora_A, *layer.lora_embedding_A}:
            delta = layer.get_delta_weight(name).detach().double().numpy()
            kind = path.rpartition(".")[2]
            found[kind] = delta.T if kind in ("emb", "fan") else delta.reshape(len(delta), -1)
    return found


def _peft_merge(model, kind, weights, **settings):
    names = [f"a{n}" for n in range(len(weights))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.add_weighted_adapter(names, list(weights), "merged", combination_type=kind, **settings)
    return _deltas(model, "merged")


def _alike(ours, theirs, tolerance=3e-6):
    assert set(ours) == set(theirs)
    for module, wanted in theirs.items():
        found = ours.adapter[module].delta_W() if isinstance(ours, subspace.Merging) else ours[module]
        assert found.shape == wanted.shape, module
        assert np.linalg.norm(found - wanted) <= tolerance * np.linalg.norm(wanted), module


def _rows(result):
    return {row.module: result.adapter[row.module].delta_W() for row in result}


SAME_RANK = [
    ("linear", {"method": "linear"}, {}),
    ("ties", {"method": "ties", "entries": "factors", "density": 0.4}, {"density": 0.4}),
    (
        "ties",
        {"method": "ties", "entries": "factors", "density": 0.4, "sign_method": "frequency"},
        {"density": 0.4, "majority_sign_method": "frequency"},
    ),
    (
        "magnitude_prune",
        {"method": "magnitude_prune", "entries": "factors", "density": 0.3},
        {"density": 0.3},
    ),
]
ANY_RANK = [
    ("cat", {"method": "cat"}, {}),
    ("svd", {"method": "svd"}, {}),
    ("svd", {"method": "svd", "rank": 6}, {"svd_rank": 6}),
    ("cat", {"method": "sum"}, {}),
    ("cat", {"method": "knots", "inner": "sum"}, {}),
    ("ties_svd", {"method": "ties", "density": 0.4}, {"density": 0.4}),
    (
        "ties_svd",
        {"method": "ties", "density": 0.6, "sign_method": "frequency", "rank": 2},
        {"density": 0.6, "majority_sign_method": "frequency", "svd_rank": 2},
    ),
    ("magnitude_prune_svd", {"method": "magnitude_prune", "density": 0.3}, {"density": 0.3}),
]


@pytest.mark.parametrize(("kind", "ours", "theirs"), SAME_RANK + ANY_RANK)
def test_one_rank_everywhere(kind, ours, theirs, tmp_path):
    model, paths = _built(tmp_path, _config(), _config(), _config(use_rslora=True))
    merged = subspace.merge(paths, WEIGHTS, forecast=False, **ours)
    _alike(_rows(merged), _peft_merge(model, kind, WEIGHTS, **theirs))


@pytest.mark.parametrize(("kind", "ours", "theirs"), ANY_RANK)
def test_mixed_ranks_scales_and_modules(kind, ours, theirs, tmp_path):
    """Ranks, alphas and modules differ; PEFT takes the largest rank of any module for svd."""
    configs = [
        _config(5, rank_pattern={"lin": 2}, alpha_pattern={"conv": 3.5}),
        _config(4, ("lin", "conv"), use_rslora=True),
        _config(1, ("emb", "lin", "fan")),
    ]
    model, paths = _built(tmp_path, *configs)
    rank = {} if "svd" not in kind or "rank" in ours else {"rank": 5}
    merged = subspace.merge(paths, WEIGHTS, forecast=False, **ours, **rank)
    _alike(_rows(merged), _peft_merge(model, kind, WEIGHTS, **theirs))
    assert [row.adapters for row in merged] == [{"lin": 3, "point": 1}.get(row.module, 2) for row in merged]


@pytest.mark.parametrize("entries", ["updates", "factors"])
@pytest.mark.parametrize("kind", ["dare_linear", "dare_ties"])
def test_dare_with_the_same_random_entries(kind, entries, tmp_path, monkeypatch):
    """PEFT draws its masks elsewhere: it is given ours."""
    from subspace.analysis.merged_module import _seed

    model, paths = _built(tmp_path, *[_config(targets=["lin"])] * 3)
    seed = _seed(5, "lin")
    orders = [(n, 0) for n in range(3)] + [(n, 1) for n in range(3)]
    drawn = iter(np.random.default_rng([seed, n, side]) for n, side in orders)

    def ours(tensor, density, rescale):
        mask = next(drawn).random(tuple(tensor.shape)) < density
        return tensor * torch.tensor(mask).to(tensor) / (density if rescale else 1)

    monkeypatch.setattr("peft.utils.merge_utils.random_pruning", ours)
    whole = kind if entries == "factors" else f"{kind}_svd"
    theirs = _peft_merge(model, whole, WEIGHTS, density=0.4)
    method = {"dare_linear": "dare", "dare_ties": "dare_ties"}[kind]
    merged = subspace.merge(
        paths, WEIGHTS, method=method, entries=entries, density=0.4, seed=5, forecast=False
    )
    _alike(_rows(merged), theirs)


@pytest.mark.parametrize(
    ("method", "dtype"), [*((name, "float32") for name in mergers.names()), ("svd", "bfloat16")]
)
def test_peft_loads_what_is_written(method, dtype, tmp_path):
    """The delta_W of PEFT is that of the adapter that was measured, and its distance from the sum is the stated one."""
    _, paths = _built(tmp_path, _config(4), _config(4, bias="none", use_rslora=True))
    merged = subspace.merge(paths, [1.0, -0.5], method=method, dtype=dtype, forecast=False)
    merged.save(tmp_path / "merged")
    settings = json.loads((tmp_path / "merged/adapter_config.json").read_text())
    assert "use_rslora" not in settings or not settings["use_rslora"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = peft.PeftModel.from_pretrained(_model(), tmp_path / "merged")
        first = [peft.PeftModel.from_pretrained(_model(), path) for path in paths]
    layers = [m for m in loaded.modules() if hasattr(m, "scaling") and "default" in getattr(m, "scaling", {})]
    assert len(layers) == len(MODULES) and all(layer.scaling["default"] == 1 for layer in layers)
    deltas = _deltas(loaded, "default")
    _alike(_rows(merged), deltas)
    terms = [_deltas(each, "default") for each in first]
    for row in merged:
        whole = terms[0][row.module] - 0.5 * terms[1][row.module]
        away = np.linalg.norm(deltas[row.module] - whole) / np.linalg.norm(whole)
        assert away == pytest.approx(row.from_sum, rel=1e-3, abs=1e-6), row.module


def test_it_is_merged_into_the_base_as_the_two_were(tmp_path):
    """One forward pass: the merged adapter, and both with their weights."""
    model, paths = _built(tmp_path, _config(2), _config(4))
    subspace.merge(paths, [0.7, 0.7]).save(tmp_path / "merged")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = peft.PeftModel.from_pretrained(_model(), tmp_path / "merged")
    base = _model()
    for module in ("lin", "conv"):
        x = torch.randn(5, 12) if module == "lin" else torch.randn(2, 3, 6, 6)
        plain = getattr(base, module)(x)
        both = plain.clone()
        for name in ("a0", "a1"):
            model.set_adapter(name)
            both += 0.7 * (getattr(model.base_model.model, module)(x) - plain)
        found = getattr(loaded.base_model.model, module)(x)
        assert torch.allclose(found, both, atol=1e-4), module
