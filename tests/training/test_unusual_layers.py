"""Adapted layers where models are not plain: in-place operations, hooks, forwards of their own, ties, other types."""

from __future__ import annotations

import io
import pickle

import pytest
import torch
from torch import nn

from subspace import load_adapter
from subspace.errors import FormatError, ShapeError, ValueRangeError
from subspace.training import IA3, Full, LoRA, adapted, inject, merge, remove, unmerge, use
from subspace.training.export import kept_parameters, peft_files


def _shake(model):
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator).to(parameter.dtype))


def _two(d=4):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(d, d), nn.Linear(d, d))


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4)])
def test_an_output_may_be_changed_in_place(shape):
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True))
    inject(model, LoRA(r=2), ["0"])
    _shake(model)
    x = torch.randn(shape)
    found = model(x)
    found.sum().backward()
    gradient = model[0].lora_B.grad.clone()
    model[1].inplace = False
    model.zero_grad()
    expected = model(x)
    expected.sum().backward()
    assert torch.equal(found, expected)
    assert torch.equal(gradient, model[0].lora_B.grad)


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:`torch.jit.trace_method:DeprecationWarning")
def test_a_traced_model_gives_what_the_model_gives():
    model = _two(6)
    inject(model, LoRA(r=2, groups=(True, False, True)), ["0"])
    _shake(model)
    x = torch.randn(3, 6)
    traced = torch.jit.trace(model, (torch.randn(3, 6),))
    assert torch.allclose(traced(x), model(x), atol=1e-6)


def test_shapes_are_told_without_numbers():
    model = _two().to("meta")
    inject(model, LoRA(r=2), ["0"])
    assert model(torch.empty(3, 4, device="meta")).shape == (3, 4)


def test_a_forward_that_hooks_put_on_a_module_goes_on_to_be_used():
    from accelerate.hooks import AlignDevicesHook, add_hook_to_module

    x, expected = torch.randn(3, 4), _two()
    model = _two()
    add_hook_to_module(model[0], AlignDevicesHook("cpu"))
    for net in (model, expected):
        inject(net, LoRA(r=2), ["0", "1"])
        _shake(net)
    assert torch.allclose(model(x), expected(x), atol=1e-6)
    hooked = vars(model[0])["replaced_forward"]
    merge(model)
    assert torch.allclose(model(x), expected(x), atol=1e-6)
    remove(model)
    assert vars(model[0])["forward"] is hooked


class Scaled(nn.Linear):
    """A layer whose forward has an argument of its own."""

    def forward(self, x, k=1.0):
        return k * super().forward(x)


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_other_arguments_of_a_layer_reach_it(dropout):
    layer = nn.ModuleList([Scaled(4, 4)])
    x = torch.randn(3, 4)
    expected = layer[0](x, k=3.0)
    inject(layer, LoRA(r=2, dropout=dropout), ["0"])
    assert torch.allclose(layer[0](x, k=3.0), expected)
    assert torch.allclose(layer[0](k=3.0, x=x), expected)
    with pytest.raises(TypeError, match="missing its input, x"):
        layer[0](k=3.0)


def test_an_input_may_be_given_by_name():
    model = _two()
    x = torch.randn(3, 4)
    expected = model[0](x)
    inject(model, LoRA(r=2), ["0"])
    assert torch.allclose(model[0](input=x), expected)


def test_a_merge_that_would_change_the_output_is_refused_and_nothing_is_merged():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), Doubled(4, 4), Scaled(4, 4))
    inject(model, LoRA(r=2), ["0", "1", "2"])
    _shake(model)
    weights = {name: p.clone() for name, p in model.named_parameters()}
    with pytest.raises(ValueRangeError, match=r"own forward \(Doubled\).*module 1"):
        merge(model)
    assert not any(layer.merged for _, layer in adapted(model))
    assert all(torch.equal(p, weights[name]) for name, p in model.named_parameters())
    model[1] = nn.Identity()
    x = torch.randn(3, 4)
    before = model(x)
    merge(model)
    assert torch.allclose(model(x), before, atol=1e-5)


class Named(nn.Linear):
    """A layer that cannot be called without an argument of its own."""

    def forward(self, x, *, k):
        return k * super().forward(x)


def test_a_merge_that_fails_leaves_nothing_merged():
    model = nn.Sequential(nn.Linear(4, 4), Named(4, 4))
    inject(model, LoRA(r=2), ["0", "1"])
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'k'"):
        merge(model)
    assert not any(layer.merged for _, layer in adapted(model))


@pytest.mark.parametrize(
    "norm", [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm]
)
def test_a_computed_weight_is_trained_and_its_merge_refused(norm):
    model = nn.Sequential(norm(nn.Linear(4, 4)))
    inject(model, LoRA(r=2), ["0"])
    model(torch.randn(3, 4)).sum().backward()
    assert model[0].lora_B.grad is not None
    with pytest.raises(
        ValueRangeError, match="cannot be merged: its weight is computed from other parameters"
    ):
        merge(model)
    remove(model)
    inject(model, Full(everything=False), ["0"])
    assert {name for name, p in model.named_parameters() if p.requires_grad} >= {
        "0.parametrizations.weight.original0"
        if norm is nn.utils.parametrizations.weight_norm
        else "0.parametrizations.weight.original"
    }


class Positions(nn.Embedding):
    def forward(self, x, past=0):
        return super().forward(x + past)


@pytest.mark.parametrize(
    ("layer", "told"),
    [
        (Positions(9, 4), "looks up other rows"),
        (nn.Embedding(9, 4, max_norm=1.0), "has a max_norm"),
        (nn.LazyLinear(4), "has no shape before"),
    ],
)
def test_layers_that_are_not_used_in_the_way_of_their_kind_are_refused(layer, told):
    model = nn.Sequential(layer)
    with pytest.raises(ValueRangeError, match=told):
        inject(model, LoRA(r=2), ["0"])


def test_a_layer_with_another_adapter_is_refused():
    import loralib

    model = nn.Sequential(loralib.Linear(4, 4, r=2))
    with pytest.raises(ValueRangeError, match="an attribute lora_A of its own"):
        inject(model, LoRA(r=2), ["0"])


def test_layers_that_torchs_encoder_reads_are_refused_unless_it_calls_them():
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
    with pytest.raises(ValueRangeError, match="set_fastpath_enabled"):
        inject(model, LoRA(r=2), ["linear1", "linear2"])
    assert not adapted(model)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        inject(model, LoRA(r=2), ["linear1", "linear2"])
        _shake(model)
        x = torch.randn(2, 3, 8)
        with torch.no_grad():
            assert torch.allclose(model.train()(x), model.eval()(x), atol=1e-5)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


def test_the_adapter_in_use_is_the_one_that_is_trained():
    model = _two()
    for name in "ab":
        inject(model, LoRA(r=2), ["0"], name=name, keep=["1.bias"])
    use(model, "a")
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"0.lora_A", "0.lora_B", "1.bias"}
    assert set(kept_parameters(model)) == {"1.bias"}
    before = model[0].lora_B.clone()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(torch.randn(3, 4)).square().sum().backward()
    optimizer.step()
    assert not torch.equal(model[0].lora_B, before)
    use(model, None)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {"1.bias"}


def test_adapters_of_different_layers_are_written_apart():
    from safetensors.torch import load

    model = _two()
    inject(model, LoRA(r=2), ["0"], name="a")
    inject(model, LoRA(r=1), ["1"], name="b")
    for name, module, r in (("a", "0", 2), ("b", "1", 1)):
        use(model, name)
        tensors = load(peft_files(model, base="x", task="lm")["adapter_model.safetensors"])
        assert {key: tuple(t.shape) for key, t in tensors.items()} == {
            f"base_model.model.{module}.lora_A.weight": (r, 4),
            f"base_model.model.{module}.lora_B.weight": (4, r),
        }


def test_an_adapter_called_none_leaves_with_the_others():
    model = _two()
    inject(model, LoRA(r=2), ["0"], name="None")
    remove(model, "None")
    assert set(model.state_dict()) == {"0.weight", "0.bias", "1.weight", "1.bias"}
    with pytest.raises(ValueRangeError, match="no adapter called 'other'; it has none"):
        remove(model, "other")


def test_the_reader_of_models_takes_the_adapter_that_is_named():
    model = _two()
    inject(model, LoRA(r=2, alpha=4), ["0"], name="a")
    inject(model, LoRA(r=1, alpha=9), ["0", "1"], name="b")
    _shake(model)
    use(model, "a")
    _shake(model)
    for name, modules, scale in (("a", ["0"], 2.0), ("b", ["0", "1"], 9.0), (None, ["0"], 2.0)):
        found = load_adapter(model, adapter_name=name)
        assert list(found) == modules
        assert found["0"].scale.value == scale
        expected = model[0].delta_weight(name or "a")
        delta_W = found["0"].scale.value * found["0"].B @ found["0"].A
        assert torch.allclose(torch.as_tensor(delta_W, dtype=torch.float32), expected, atol=1e-6)
    with pytest.raises(FormatError, match="No adapter 'zz' in the model, which holds a, b"):
        load_adapter(model, adapter_name="zz")


_METHODS = [LoRA(r=2), LoRA(r=2, dropout=0.1), IA3(), IA3(feedforward=("0",))]
_CASES = [
    *((kind, method) for kind in (nn.Linear, nn.Conv1d) for method in _METHODS),
    *((nn.Embedding, method) for method in _METHODS[:2]),
]


@pytest.mark.parametrize(("kind", "method"), _CASES)
def test_models_in_bfloat16_stay_in_it(kind, method):
    sizes = {nn.Linear: (4, 4), nn.Conv1d: (4, 4, 1), nn.Embedding: (9, 4)}[kind]
    model = nn.Sequential(kind(*sizes)).bfloat16()
    x = torch.randint(0, 9, (2, 4)) if kind is nn.Embedding else torch.randn(2, 4, 4).bfloat16()
    expected = model(x)
    inject(model, method, ["0"])
    found = model(x)
    assert found.dtype == torch.bfloat16
    assert torch.allclose(found.float(), expected.float(), atol=0.05)
    found.float().sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_float64_stays_float64_under_autocast():
    model = _two().double()
    inject(model, LoRA(r=2), ["0"])
    _shake(model)
    x = torch.randn(3, 4, dtype=torch.float64)
    expected = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model(x), expected)


def test_an_adapted_model_can_be_pickled():
    model = _two()
    inject(model, LoRA(r=2), ["0"])
    _shake(model)
    x = torch.randn(3, 4)
    other = pickle.loads(pickle.dumps(model))
    assert torch.equal(other(x), model(x))
    stream = io.BytesIO()
    torch.save(model, stream)
    stream.seek(0)
    loaded = torch.load(stream, weights_only=False)
    remove(loaded)
    assert type(loaded[0]) is nn.Linear


def test_what_is_put_back_has_moved_with_the_model():
    model = _two()
    inject(model, LoRA(r=2), ["0"])
    _shake(model)
    weight = model[0].weight
    merge(model)
    model.to(torch.bfloat16)
    unmerge(model)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model[0].weight is weight
    merge(model)
    model.to("meta")
    unmerge(model)
    assert model[0].weight.is_meta


def test_weights_are_not_loaded_into_a_merged_model():
    model = _two()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    inject(model, LoRA(r=2), ["0"])
    merge(model)
    with pytest.raises(RuntimeError, match=r"0\.weight cannot be loaded while an adapter is merged"):
        model.load_state_dict(state, strict=False)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.mid, self.head = nn.Embedding(20, 6), nn.Linear(6, 6), nn.Linear(6, 20, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids):
        return self.head(self.mid(self.table(ids)))


def test_a_tied_weight_is_kept_and_trained_by_either_name():
    model = Tied()
    inject(model, LoRA(r=2), ["mid"], keep="head")
    assert model.table.weight.requires_grad
    assert set(kept_parameters(model)) == {"table.weight", "head.weight"}
    remove(model)
    assert inject(model, Full(everything=False), "head") == ["head"]
    assert model.head.weight.requires_grad
    assert not model.mid.weight.requires_grad


@pytest.mark.filterwarnings("ignore")
def test_peft_computes_the_same_with_a_tied_weight_that_was_kept(tmp_path):
    from peft import PeftModel

    torch.manual_seed(0)
    model, base = Tied(), Tied()
    base.load_state_dict(model.state_dict())
    inject(model, LoRA(r=2), ["mid"], keep=["head"])
    _shake(model)
    for name, content in peft_files(model, base="", task="lm").items():
        (tmp_path / name).write_bytes(content.replace(b'"CAUSAL_LM"', b"null"))
    ids = torch.arange(20)[None]
    assert torch.allclose(PeftModel.from_pretrained(base, tmp_path)(ids), model(ids), atol=1e-6)


def test_what_is_adapted_is_not_kept_too():
    model = Tied()
    for keep in ("mid", "mid.bias"):
        with pytest.raises(ValueRangeError, match="module mid is both adapted and kept trainable"):
            inject(model, LoRA(r=2), ["mid"], keep=[keep])
    with pytest.raises(ValueRangeError, match="module table is both"):  # one weight with the head
        inject(model, LoRA(r=2), ["table"], keep=["head"])
    with pytest.raises(ValueRangeError, match="in modules that are trained whole anyway: mid"):
        inject(model, LoRA(r=2), ["mid"], but=["mid"])
    assert not adapted(model)
    assert inject(model, LoRA(r=2), ["*"], but=["head"]) == ["table", "mid"]


def test_a_trained_bias_of_an_adapted_layer_has_no_place_in_pefts_files():
    from subspace.training import lora_state_dict, mark_only_lora_as_trainable

    model = _two()
    inject(model, LoRA(r=2), ["0"])
    mark_only_lora_as_trainable(model, bias="lora_only")
    assert set(lora_state_dict(model, bias="lora_only")) == {"0.lora_A", "0.lora_B", "0.bias"}
    with pytest.raises(
        ValueRangeError, match="cannot hold the trained weight or bias of an adapted layer: 0; save"
    ):
        peft_files(model, base="x", task="lm")


def test_feedforward_modules_are_among_the_targets():
    with pytest.raises(ValueRangeError, match=r"No target matches '1', .*; the targets are 0"):
        inject(_two(), IA3(feedforward=("1",)), ["0"])


def test_groups_are_of_linear_layers():
    model = nn.Sequential(nn.Embedding(8, 4), nn.Conv1d(4, 4, 1))
    for name, kind in (("0", "an embedding"), ("1", "a convolution")):
        with pytest.raises(ShapeError, match=f"fused linear layer, and this is {kind}"):
            inject(model, LoRA(r=2, groups=(True, False)), [name])


def test_a_start_is_the_same_whatever_the_caller_has_made_the_default():
    def start():
        model = nn.Sequential(nn.Linear(4, 4, dtype=torch.float32, device="cpu"))
        inject(model, LoRA(r=2), ["0"])
        return model[0].lora_A.detach()

    expected = start()
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(start(), expected)
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.device("meta"):
        assert torch.equal(start(), expected)


def test_targets_and_whole_models_that_are_not_right_are_said():
    model = _two()
    with pytest.raises(ValueRangeError, match=r"No target was given; .* layers: 0, 1"):
        inject(model, LoRA(r=2), [])
    assert inject(model, LoRA(r=2), "0") == ["0"]
    with pytest.raises(ValueRangeError, match="carries an adapter cannot be trained whole"):
        inject(model, Full(), [])


def test_numbers_that_have_no_gradient_are_left_as_they_are():
    model = _two()
    model.register_parameter("count", nn.Parameter(torch.tensor([1, 2]), requires_grad=False))
    inject(model, Full(), [])
    assert model[0].weight.requires_grad
    assert not model.count.requires_grad
