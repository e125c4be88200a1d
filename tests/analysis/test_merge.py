"""Merging adapters of any formats: names, ranks, scales, what is refused and what is said, and the errors stated."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import wild_adapters

import subspace
from subspace.errors import FormatError, InconclusiveError, ShapeError, ValueRangeError
from subspace.flags import Flag
from subspace.geometry import mergers

D_OUT, D_IN = 14, 12


def _lora(rng, *modules, r=3, d_out=D_OUT, d_in=D_IN):
    return {
        f"base_model.model.{module}.lora_{x}.weight": rng.standard_normal(
            (r, d_in) if x == "A" else (d_out, r)
        )
        for module in modules
        for x in "AB"
    }


def _delta(tensors, module, scale=1.0):
    A, B = (tensors[f"base_model.model.{module}.lora_{x}.weight"] for x in "AB")
    return scale * B @ A


def _pair(*modules, ranks=(3, 5), seed=0):
    rng = np.random.default_rng(seed)
    return [_lora(rng, *modules, r=r) for r in ranks]


def _directory(folder, tensors, **config):
    from safetensors.numpy import save_file

    folder.mkdir()
    save_file(
        {key: np.ascontiguousarray(M, np.float32) for key, M in tensors.items()},
        folder / "adapter_model.safetensors",
    )
    whole = {"peft_type": "LORA", "r": 3, "lora_alpha": 6, "target_modules": ["q"], **config}
    (folder / "adapter_config.json").write_text(json.dumps(whole))
    return folder


def _relative(found, wanted):
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)


# numbers


@pytest.mark.parametrize("method", mergers.names())
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_stated_errors_are_those_of_the_dense_matrices(method, dtype):
    one, other = _pair("l.0.q", "l.1.q", ranks=(3, 3))
    merged = subspace.merge([one, other], [1.0, -0.4], scale=(2.0, 0.5), method=method, dtype=dtype)
    exact = subspace.merge([one, other], [1.0, -0.4], scale=(2.0, 0.5), method=method, forecast=False)
    for row in merged:
        terms = [_delta(one, row.module, 2.0), -0.4 * _delta(other, row.module, 0.5)]
        found = merged.adapter[row.module].delta_W()
        assert row.from_sum == pytest.approx(_relative(found, sum(terms)), rel=1e-4, abs=1e-9)
        ratio = np.linalg.norm(sum(terms)) ** 2 / sum(np.linalg.norm(each) ** 2 for each in terms)
        assert row.energy_ratio == pytest.approx(ratio, rel=1e-9)
        cosine = np.vdot(*terms) / np.prod([np.linalg.norm(each) for each in terms])
        assert row.cosine == pytest.approx(cosine, rel=1e-9)
        assert row.norm == pytest.approx(np.linalg.norm(found), rel=1e-9)
        assert (row.rank, row.d_out, row.d_in) == (merged.adapter[row.module].r, D_OUT, D_IN)
        assert row.energy == pytest.approx(1 - row.error**2)
        if mergers.named(method).linear:
            assert row.error == row.from_sum
        if method in ("sum", "cat", "linear", "iso", "tsv", "knots"):  # rounding alone
            assert _relative(found, exact.adapter[row.module].delta_W()) == pytest.approx(
                row.error, rel=0.05, abs=1e-7
            )
    total = merged.total
    assert total.norm == pytest.approx(np.linalg.norm([row.norm for row in merged]))
    whole = [_delta(one, row.module, 2.0) - 0.4 * _delta(other, row.module, 0.5) for row in merged]
    away = [merged.adapter[row.module].delta_W() - D for row, D in zip(merged, whole, strict=True)]
    assert total.from_sum == pytest.approx(
        np.linalg.norm([np.linalg.norm(each) for each in away])
        / np.linalg.norm([np.linalg.norm(D) for D in whole]),
        rel=1e-4,
        abs=1e-9,
    )
    assert total.parameters == sum(row.rank * (D_OUT + D_IN) for row in merged)


@pytest.mark.parametrize("rank", [1, 4])
def test_the_error_of_a_cut_is_that_of_the_values_cut_off(rank):
    one, other = _pair("q")
    merged = subspace.merge([one, other], method="svd", rank=rank, scale=1.0)
    S = np.linalg.svd(_delta(one, "q") + _delta(other, "q"), compute_uv=False)
    assert merged["q"].error == pytest.approx(np.linalg.norm(S[rank:]) / np.linalg.norm(S), rel=1e-9)


def test_the_error_of_ties_is_taken_from_what_ties_gives():
    one, other = _pair("q")
    whole = subspace.merge([one, other], method="ties", density=0.3, rank=D_IN, scale=1.0)
    cut = subspace.merge([one, other], method="ties", density=0.3, rank=2, scale=1.0)
    assert whole["q"].error < 1e-6 and whole["q"].rank == D_IN
    S = np.linalg.svd(whole.adapter["q"].delta_W(), compute_uv=False)
    assert cut["q"].error == pytest.approx(np.linalg.norm(S[2:]) / np.linalg.norm(S), rel=1e-4)
    assert "differ by" in cut.facts()[1] and "what TIES gives" in cut.facts()[1]
    assert "From the weighted sum" in cut.facts()[2]


def test_sum_has_the_rank_that_the_sum_has():
    one = _pair("q")[0]
    twice = subspace.merge([one, one, one], [1.0, 2.0, -0.5], scale=1.0)
    assert twice["q"].rank == 3
    assert _relative(twice.adapter["q"].delta_W(), 2.5 * _delta(one, "q")) < 1e-6
    assert subspace.merge([one, one], method="cat", scale=1.0)["q"].rank == 6


def test_float16_that_overflows_is_said_with_the_module():
    one, other = _pair("q")
    with pytest.raises(ValueRangeError, match=r"too large.*module q of"):
        subspace.merge([one, other], [1e12, 1e12], scale=1.0, dtype="float16")


def test_an_energy_that_rounding_does_not_keep_is_flagged():
    one, other = _pair("q")
    merged = subspace.merge([one, other], scale=1.0, method="svd", energy=1.0, dtype="bfloat16")
    assert Flag.ENERGY_BELOW_WANTED in merged["q"].flags


def test_the_seed_decides_and_other_modules_do_not():
    both, alone = _pair("l.0.q", "l.1.q"), _pair("l.0.q", "l.1.q")
    alone = [{key: M for key, M in each.items() if "l.1" in key} for each in alone]
    settings = {"method": "dare", "scale": 1.0, "forecast": False}
    found = [subspace.merge(each, seed=3, **settings).adapter["l.1.q"].delta_W() for each in (both, alone)]
    assert np.array_equal(*found)
    other = subspace.merge(both, seed=4, **settings).adapter["l.1.q"].delta_W()
    assert _relative(other, found[0]) > 0.1


# names, formats, modules


def test_modules_that_one_lacks_are_kept_with_a_note():
    rng = np.random.default_rng(0)
    one, other = _lora(rng, "l.0.q", "l.1.q"), _lora(rng, "l.1.q", "l.2.q")
    merged = subspace.merge([one, other], [2.0, -1.0], scale=1.0)
    assert [(row.module, row.adapters, row.weights) for row in merged] == [
        ("l.0.q", 1, (2.0,)),
        ("l.1.q", 2, (2.0, -1.0)),
        ("l.2.q", 1, (-1.0,)),
    ]
    assert _relative(merged.adapter["l.2.q"].delta_W(), -_delta(other, "l.2.q")) < 1e-6
    assert any("2 modules of 3 not in all 2 adapters" in note and "l.0.q" in note for note in merged.notes)
    assert merged["l.0.q"].cosine is None and merged["l.0.q"].energy_ratio == pytest.approx(1)


def test_adapters_with_nothing_in_common_are_put_together_and_it_is_said():
    rng = np.random.default_rng(0)
    merged = subspace.merge([_lora(rng, "vision.q"), _lora(rng, "text.q")], scale=1.0)
    assert len(merged) == 2 and merged.forecast is None
    assert any("No module in common" in note and "`rename`" in note for note in merged.notes)


def test_a_prefix_that_one_lacks():
    rng = np.random.default_rng(0)
    one, other = _lora(rng, "model.l.0.q"), _lora(rng, "l.0.q", "l.1.q")
    for pair, names in (((one, other), ["model.l.0.q", "model.l.1.q"]), ((other, one), ["l.0.q", "l.1.q"])):
        merged = subspace.merge(pair, scale=1.0)
        assert [row.module for row in merged] == names


@pytest.mark.parametrize("first", ["peft", "kohya", "mlx"])
@pytest.mark.parametrize("second", ["peft", "kohya", "mlx"])
def test_formats_are_mixed(first, second, tmp_path):
    """The same updates in any two formats, once with the weight 1 and once with -0.5, are half of them."""
    rng = np.random.default_rng(1)
    names = [f"model.layers.{n}.self_attn.{x}_proj" for n in (0, 1) for x in "qv"]
    source = _directory(tmp_path / "source", _lora(rng, *names), target_modules=["q_proj", "v_proj"])
    paths = [_in_format(source, each, tmp_path / f"{n}") for n, each in enumerate((first, second))]
    merged = subspace.merge(paths, [1.0, -0.5])
    merged.save(tmp_path / "merged")
    back = subspace.load_adapter(tmp_path / "merged")
    whole = subspace.load_adapter(source)
    assert list(back) == list(whole)
    for name in whole:
        assert _relative(back[name].delta_W(), 0.5 * whole[name].delta_W()) < 1e-5
        assert back[name].scale.value == 1


def _in_format(source, name, place):
    if name == "peft":
        return source
    if name == "kohya":
        path = place.with_suffix(".safetensors")
        subspace.convert(source, to="kohya").save(path)
        return path
    from safetensors.numpy import save_file

    place.mkdir()
    tensors = {}
    for module, update in subspace.load_adapter(source).items():
        tensors[f"{module}.lora_a"] = np.ascontiguousarray(update.A.T, np.float32)
        tensors[f"{module}.lora_b"] = np.ascontiguousarray(update.B.T, np.float32)
    save_file(tensors, place / "adapters.safetensors")
    settings = {"fine_tune_type": "lora", "lora_parameters": {"rank": 3, "scale": 2.0, "dropout": 0.0}}
    (place / "adapter_config.json").write_text(json.dumps(settings))
    return place


@pytest.mark.parametrize("to", ["kohya", "loralib", "peft"])
def test_other_formats_are_written(to, tmp_path):
    pair = [
        _directory(tmp_path / str(n), each, target_modules=["q_proj"])
        for n, each in enumerate(_pair("model.layers.0.self_attn.q_proj", ranks=(3, 3)))
    ]
    out = tmp_path / {"kohya": "out.safetensors", "loralib": "out.pt", "peft": "out"}[to]
    merged = subspace.merge(pair, to=to)
    merged.save(out)
    back = subspace.load_adapter(out, scale=1.0 if to == "loralib" else None)
    ((_, update),) = back.items()
    assert _relative(update.delta_W(), merged.adapter[merged.modules[0].module].delta_W()) < 1e-6


def test_adapters_in_the_format_that_is_written_keep_their_names(tmp_path):
    rng = np.random.default_rng(2)
    names = ["lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"]
    pair = [
        {
            f"{n}.{x}.weight": rng.standard_normal((3, D_IN) if "down" in x else (D_OUT, 3))
            for n in names
            for x in ("lora_down", "lora_up")
        }
        for _ in range(2)
    ]
    merged = subspace.merge(pair, to="kohya", scale=1.0)
    merged.save(tmp_path / "out.safetensors")
    assert list(subspace.load_adapter(tmp_path / "out.safetensors")) == names


def test_a_fused_layer_and_its_parts_are_merged_part_by_part():
    rng = np.random.default_rng(3)
    stem = "transformer.double_blocks.0.img_attn.qkv"
    fused = {
        f"{stem}.lora_A.weight": rng.standard_normal((3, D_IN)),
        f"{stem}.lora_B.weight": rng.standard_normal((3 * D_IN, 3)),
    }
    parts = {
        f"transformer.transformer_blocks.0.attn.to_{x}.lora_{s}.weight": rng.standard_normal(
            (2, D_IN) if s == "A" else (D_IN, 2)
        )
        for x in "qkv"
        for s in "AB"
    }
    merged = subspace.merge([fused, parts], scale=1.0, to="peft")
    assert len(merged) == 3 and all(row.adapters == 2 and row.rank == 5 for row in merged)


def test_the_configuration_is_what_all_agree_on(tmp_path):
    pair = [
        _directory(
            tmp_path / str(n), each, base_model_name_or_path=base, task_type="CAUSAL_LM", use_rslora=bool(n)
        )
        for n, (each, base) in enumerate(zip(_pair("q", ranks=(3, 3)), ("org/a", "org/b"), strict=True))
    ]
    merged = subspace.merge(pair)
    config = json.loads(merged.files["adapter_config.json"])
    assert config["base_model_name_or_path"] == "org/a" and config["task_type"] == "CAUSAL_LM"
    assert (config["r"], config["lora_alpha"]) == (6, 6) and not config.get("use_rslora")
    assert any("name different base models: org/a, org/b" in note for note in merged.notes)
    one, other = (subspace.load_adapter(path)["q"].delta_W() for path in pair)
    assert _relative(merged.adapter["q"].delta_W(), one + other) < 1e-6  # alpha / r and alpha / sqrt(r)


# what is refused, and what is named


def test_other_shapes_are_other_models():
    rng = np.random.default_rng(4)
    with pytest.raises(ShapeError, match=r"different base models.*module q is \(14, 12\) and \(14, 10\)"):
        subspace.merge([_lora(rng, "q"), _lora(rng, "q", d_in=10)], scale=1.0)


def test_an_unknown_scale_is_asked_for():
    rng = np.random.default_rng(5)
    pair = [
        {f"q.lora_{x}": rng.standard_normal((3, 12) if x == "A" else (14, 3)) for x in "AB"} for _ in range(2)
    ]
    with pytest.raises(InconclusiveError, match=r"scale of delta_W is unknown.*`scale`"):
        subspace.merge(pair)
    with pytest.raises(InconclusiveError, match="scale of delta_W is unknown"):
        subspace.merge(pair, scale=(1.0, None))
    assert subspace.merge(pair, scale=[1.0, 2.0])["q"].rank == 6


def test_dora_is_refused_or_merged_without_its_magnitudes():
    one, other = _pair("q")
    with_magnitudes = {**one, "base_model.model.q.lora_magnitude_vector": np.ones(D_OUT)}
    with pytest.raises(FormatError, match=r"DoRA cannot be merged.*`allow` dora"):
        subspace.merge([with_magnitudes, other], scale=1.0)
    merged = subspace.merge([with_magnitudes, other], scale=1.0, allow={"dora"})
    assert _relative(merged.adapter["q"].delta_W(), _delta(one, "q") + _delta(other, "q")) < 1e-6
    assert not any("magnitude" in key for key in merged.files)


def test_a_start_that_changed_the_base_is_refused(tmp_path):
    pair = [
        _directory(tmp_path / str(n), each, init_lora_weights=init)
        for n, (each, init) in enumerate(zip(_pair("q", ranks=(3, 3)), ("pissa", True), strict=True))
    ]
    with pytest.raises(FormatError, match="init_lora_weights 'pissa' changed"):
        subspace.merge(pair)
    assert len(subspace.merge(pair, allow=["init"])) == 1


def test_a_dense_update_is_refused():
    W = {"q.weight": np.eye(D_OUT, D_IN)}
    tuned = subspace.load_adapter({"q.weight": 2 * np.eye(D_OUT, D_IN)}, base=W)
    with pytest.raises(FormatError, match=r"no product of two factors.*subspace truncate"):
        subspace.merge([_pair("q")[0], tuned], scale=1.0)


def test_biases_and_whole_modules_are_named():
    one, other = _pair("q")
    extra = {
        **one,
        "base_model.model.classifier.weight": np.ones((2, 12)),
        "base_model.model.q.bias": np.ones(14),
    }
    merged = subspace.merge([extra, other], scale=1.0)
    assert any(
        "2 trained tensors NOT in the merge" in note and "classifier.weight" in note for note in merged.notes
    )


def test_numbers_that_are_not_finite_name_the_module_and_the_adapters():
    one, other = _pair("l.0.q", "l.1.q")
    one["base_model.model.l.1.q.lora_A.weight"][0, 0] = np.nan
    with pytest.raises(ValueRangeError, match=r"Not a finite number.*module l.1.q"):
        subspace.merge([one, other], scale=1.0)


def test_updates_that_cancel():
    one, other = _pair("l.0.q", "l.1.q")
    half = {key: M for key, M in one.items() if "l.0" in key} | {
        key: M for key, M in other.items() if "l.1" in key
    }
    merged = subspace.merge([one, half], [1.0, -1.0], scale=1.0)
    assert merged["l.0.q"].rank == 0 and merged["l.0.q"].flags == (Flag.CANCELLED,)
    assert merged["l.0.q"].error is None and merged["l.0.q"].energy_ratio == 0
    assert list(merged.adapter) == ["l.1.q"]
    assert any("cancel to less than the rounding" in note for note in merged.notes)
    with pytest.raises(InconclusiveError, match="Nothing to write: the weighted updates cancel"):
        subspace.merge([one, one], [1.0, -1.0], scale=1.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "average"}, "Unknown method of merging 'average'"),
        ({"rank": 3}, "The method sum takes no `rank`; it has no settings"),
        ({"method": "cat", "density": 0.5}, "The method cat takes no `density`"),
        ({"method": "svd", "seed": 1}, "takes no `seed`; it has rank, energy"),
        ({"method": "svd", "rank": 0}, "Invalid rank 0"),
        ({"method": "svd", "rank": True}, "Invalid rank True"),
        ({"method": "svd", "energy": 1.5}, "Invalid energy 1.5"),
        ({"method": "ties", "density": 0}, "Invalid density 0"),
        (
            {"method": "ties", "entries": "rows"},
            "Unknown word 'rows': give `entries` one of updates, factors",
        ),
        (
            {"method": "ties", "entries": "factors", "rank": 2},
            "their own rank; leave `rank` and `energy` out",
        ),
        ({"method": "ties", "entries": "factors"}, "different ranks"),
        ({"weights": [1.0]}, "1 weight for 2 adapters"),
        ({"weights": [1.0, float("nan")]}, "Invalid weight nan"),
        ({"weights": [1.0, 0.0]}, r"Invalid weight 0\.0"),
        ({"scale": [1.0, 2.0, 3.0]}, "3 scales for 2 adapters"),
        ({"dtype": "int8"}, "Invalid type 'int8'"),
        ({"allow": ["bias"]}, "Unknown step 'bias' to allow"),
        ({"to": "gguf"}, "cannot be written in the format 'gguf'"),
        ({"forecast": False, "inputs": "x"}, "inputs are for the forecast"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    pair = _pair("q")
    with pytest.raises(subspace.SubspaceError, match=message):
        subspace.merge(pair, **{"scale": 1.0, **settings})


def test_one_adapter_is_no_merge():
    with pytest.raises(ValueRangeError, match="Nothing to merge: 1 adapter"):
        subspace.merge(_pair("q")[:1], scale=1.0)


# what to expect


def test_the_forecast_is_that_of_the_same_adapters_and_weights():
    one, other = _pair("l.0.q", "l.1.q")
    merged = subspace.merge([one, other], [1.0, -2.0], scale=1.0)
    whole = [[_delta(each, f"l.{n}.q") for n in (0, 1)] for each in (one, other)]
    inner = sum(-2 * np.vdot(a, b) for a, b in zip(*whole, strict=True))
    sizes = [np.linalg.norm(whole[0]), 2 * np.linalg.norm(whole[1])]
    total = merged.forecast.total
    assert total.cosine == pytest.approx(inner / np.prod(sizes))
    assert total.energy_ratio == pytest.approx(merged.total.energy_ratio)
    assert merged.expected()[0].startswith("Before merging: in 2 modules the weighted updates")
    assert merged.document()["forecast"]["energy_ratio"] == pytest.approx(total.energy_ratio)


def test_measured_figures_are_quoted_and_a_number_that_fails_is_said_to(tmp_path, monkeypatch):
    from subspace.results import forecast_reliability

    numbers = dict.fromkeys([each.name for each in dataclasses.fields(forecast_reliability.Reliability)], 0.1)
    rows = [
        numbers | {"predictor": name, "label": label, "outcome": outcome, "verdict": verdict, "spearman": rho}
        for name, label, outcome, verdict, rho in [
            ("norms", "norm ratio", "harm", "agrees", 0.61),
            ("cosine", "cosine", "harm", "differs", -0.04),
            ("cosine", "cosine", "transfer", "agrees", 0.99),
            ("cosine_functional", "cosine of outputs", "harm", "agrees", 0.77),
        ]
    ]
    (tmp_path / "figures.json").write_text(json.dumps({"rows": rows}))
    monkeypatch.setattr(forecast_reliability, "_FILE", tmp_path / "figures.json")
    forecast_reliability.stored.cache_clear()
    merged = subspace.merge(_pair("q"), scale=1.0, dry_run=True)
    assert "norm ratio +0.61 (foretells it), cosine -0.04 (fails)." in merged.expected()[-1]
    monkeypatch.setattr(forecast_reliability, "_FILE", tmp_path / "none.json")
    forecast_reliability.stored.cache_clear()
    assert not any("foretold" in fact for fact in merged.expected())
    forecast_reliability.stored.cache_clear()


def test_a_dry_run_merges_nothing(tmp_path):
    merged = subspace.merge(_pair("q"), scale=1.0, dry_run=True)
    assert merged.adapter is None and not merged.files and merged["q"].rank is None
    assert merged.facts() == merged.expected() and "error" not in merged.columns()
    with pytest.raises(InconclusiveError, match="Nothing to save"):
        merged.save(tmp_path / "out")


def test_inputs_reach_the_forecast(tmp_path):
    from subspace.results.inputs import Inputs

    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Linear(D_IN, D_OUT))
    batches = [torch.randn(40, D_IN) for _ in range(3)]
    inputs = subspace.inputs(model, batches)
    assert isinstance(inputs, Inputs)
    one, other = _pair("0")
    merged = subspace.merge([one, other], scale=1.0, inputs=inputs)
    assert merged["0"].cosine_functional is not None
    assert any("On the measured inputs" in fact for fact in merged.expected())


# the contract


def test_the_document_has_the_fields_of_the_contract(tmp_path):
    merged = subspace.merge(_pair("q"), scale=1.0, method="svd", rank=2)
    document = json.loads(merged.to_json())
    assert document["schema"] == "subspace.merge/1" and document["method"] == "svd"
    assert document["settings"] == {"rank": 2}
    assert isinstance(document["forecast"], dict)
    (row,) = document["modules"]
    assert {
        "module", "rank", "error", "energy_ratio", "cosine", "overlap", "overlap_control", "flags"
    } <= set(row)  # fmt: skip
    assert [each["weight"] for each in document["adapters"]] == [1.0, 1.0]


def test_an_input_is_never_overwritten(tmp_path):
    pair = [_directory(tmp_path / str(n), each) for n, each in enumerate(_pair("q", ranks=(3, 3)))]
    merged = subspace.merge(pair)
    for path in pair:
        with pytest.raises(subspace.SubspaceError, match="is the input, or lies in its directory"):
            merged.save(path, overwrite=True)
    merged.save(tmp_path / "out")
    with pytest.raises(subspace.SubspaceError, match="exists already"):
        merged.save(tmp_path / "out")
    (tmp_path / "out/README.md").write_text("mine")
    merged.save(tmp_path / "out", overwrite=True)
    assert (tmp_path / "out/README.md").read_text() == "mine"


@pytest.mark.parametrize("name", sorted(wild_adapters.WRITERS))
def test_every_format_with_itself_is_three_halves_of_it_or_is_refused_in_one_line(name, tmp_path):
    """Weights 1 and 0.5 of one file: 1.5 times its updates, whatever the format."""
    path = wild_adapters.wild(name, tmp_path / "it").path
    try:
        merged = subspace.merge([path, path], [1.0, 0.5], scale=1.0, forecast=False, allow={"dora", "init"})
    except subspace.SubspaceError as error:
        assert "\n" not in str(error)
        return
    whole = subspace.load_adapter(path, scale=1.0)
    trained = [update for update in whole.values() if np.any(update.delta_W())]
    assert sum(row.rank > 0 for row in merged) == len(trained)
    for (_, found), wanted in zip(merged.adapter.items(), trained, strict=True):
        found_S, wanted_S = (np.linalg.svd(M, compute_uv=False) for M in (found.delta_W(), wanted.delta_W()))
        assert np.allclose(found_S, 1.5 * wanted_S, rtol=1e-4, atol=1e-6 * wanted_S[0])
