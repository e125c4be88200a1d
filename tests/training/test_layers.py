"""Adapted layers against PEFT and loralib from the same start: outputs, gradients, merging, names."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from subspace.errors import ShapeError, ValueRangeError  # noqa: E402
from subspace.training import IA3, Full, LoRA  # noqa: E402
from subspace.training.adapted_layer import AdaptedLayer  # noqa: E402
from subspace.training.injection import adapted, inject, merge, remove, unmerge, use  # noqa: E402
from subspace.training.loralib_names import lora_state_dict, mark_only_lora_as_trainable  # noqa: E402
from subspace.training.module_patterns import targets_in  # noqa: E402


class Net(nn.Module):
    """One layer of every kind that can be adapted, at work in one forward pass."""

    def __init__(self):
        super().__init__()
        from transformers.pytorch_utils import Conv1D

        self.table = nn.Embedding(20, 12, padding_idx=3)
        self.c_attn = Conv1D(18, 12)
        self.conv1 = nn.Conv1d(18, 8, 3, padding=1, stride=2)
        self.conv2 = nn.Conv2d(1, 6, (3, 2), padding=1)
        self.conv3 = nn.Conv3d(1, 5, 2, padding=1)
        self.fc = nn.Linear(5, 7)
        self.classifier = nn.Linear(7, 3, bias=False)

    def forward(self, ids):
        h = torch.tanh(self.c_attn(self.table(ids)))
        h = torch.tanh(self.conv1(h.transpose(1, 2)))
        h = torch.tanh(self.conv2(h[:, None])).mean(1)
        h = torch.tanh(self.conv3(h[:, None, None])).flatten(2).mean(2)
        return self.classifier(torch.tanh(self.fc(h)))


TARGETS = ["table", "c_attn", "conv1", "conv2", "conv3", "fc"]


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


@pytest.fixture
def ids():
    return torch.randint(0, 20, (4, 9), generator=torch.Generator().manual_seed(1))


def _shake(model):
    """Move every factor from its start, so that no gradient is zero for that reason."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))


def _peft(net, **config):
    from peft import LoraConfig, get_peft_model

    return get_peft_model(net, LoraConfig(r=2, lora_alpha=6, target_modules=TARGETS, **config))


def _peft_name(name):
    module, _, part = name.rpartition(".")
    if module.endswith("table"):
        return f"base_model.model.{module}.{part.replace('lora_', 'lora_embedding_')}.default"
    return f"base_model.model.{module}.{part}.default.weight"


_PEFT_TELLS = pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to")


@_PEFT_TELLS
@pytest.mark.parametrize("rslora", [False, True])
def test_outputs_and_gradients_are_those_of_peft(net, ids, rslora):
    theirs = _peft(copy.deepcopy(net), use_rslora=rslora, fan_in_fan_out=False)
    inject(net, LoRA(r=2, alpha=6, rslora=rslora), TARGETS)
    _shake(net)
    ours = {name: p for name, p in net.named_parameters() if p.requires_grad}
    their_parameters = dict(theirs.named_parameters())
    assert {_peft_name(name) for name in ours} == {n for n, p in their_parameters.items() if p.requires_grad}
    with torch.no_grad():
        for name, parameter in ours.items():
            their_parameters[_peft_name(name)].copy_(parameter)
    found, expected = net(ids), theirs(ids)
    assert torch.allclose(found, expected, atol=1e-6)
    found.square().sum().backward()
    expected.square().sum().backward()
    for name, parameter in ours.items():
        gradient = their_parameters[_peft_name(name)].grad
        assert float((parameter.grad - gradient).norm()) <= 1e-6 * max(1.0, float(gradient.norm())), name


def test_fused_groups_are_those_of_loralib():
    import loralib

    torch.manual_seed(0)
    theirs = loralib.MergedLinear(10, 24, r=3, lora_alpha=6, enable_lora=[True, False, True])
    ours = nn.Sequential(nn.Linear(10, 24))
    ours.load_state_dict({"0.weight": theirs.weight, "0.bias": theirs.bias})
    inject(ours, LoRA(r=3, alpha=6, groups=(True, False, True)), ["0"])
    _shake(ours)
    state = lora_state_dict(ours)
    assert {name: tuple(t.shape) for name, t in state.items()} == {"0.lora_A": (6, 10), "0.lora_B": (16, 3)}
    theirs.load_state_dict({k.removeprefix("0."): v for k, v in state.items()}, strict=False)
    x = torch.randn(5, 10)
    assert torch.allclose(ours(x), theirs(x), atol=1e-6)
    ours(x).square().sum().backward()
    theirs(x).square().sum().backward()
    assert torch.allclose(ours[0].lora_A.grad, theirs.lora_A.grad, rtol=1e-5, atol=1e-5)
    assert torch.allclose(ours[0].lora_B.grad, theirs.lora_B.grad, rtol=1e-5, atol=1e-5)
    assert torch.allclose(ours[0].delta_weight("default"), theirs.merge_AB() * 2, atol=1e-6)


def test_gradients_are_those_of_autograd():
    from subspace.training.lowrank import low_rank_linear

    torch.manual_seed(0)
    tensors = [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in
               [(2, 3, 5), (8, 5), (8,), (4, 5), (8, 2)]]  # fmt: skip

    def found(x, W, bias, A, B):
        return low_rank_linear(x, W, bias, A, B, scale=0.7, rows=((0, 4), (4, 8)))

    assert torch.autograd.gradcheck(found, tensors)


def test_a_start_changes_nothing(net, ids):
    before = net(ids)
    inject(net, LoRA(r=2), TARGETS)
    assert torch.equal(net(ids), before) or torch.allclose(net(ids), before, atol=1e-6)


def test_modules_stay_the_objects_that_they_are(net):
    fc, weight = net.fc, net.fc.weight
    inject(net, LoRA(r=2), TARGETS)
    assert net.fc is fc
    assert net.fc.weight is weight
    assert isinstance(net.fc, nn.Linear)
    remove(net)
    assert type(net.fc) is nn.Linear
    assert not any("lora" in name for name in net.state_dict())
    assert not adapted(net)


def test_merged_and_unmerged_outputs_agree_and_weights_come_back_to_the_bit(net, ids):
    inject(net, LoRA(r=2), TARGETS)
    _shake(net)
    before, weights = net(ids), {n: p.clone() for n, p in net.named_parameters()}
    merge(net)
    assert torch.allclose(net(ids), before, atol=1e-5)
    assert not torch.equal(net.fc.weight, weights["fc.weight"])
    unmerge(net)
    assert all(torch.equal(p, weights[n]) for n, p in net.named_parameters())


def test_eval_merges_where_that_was_asked_for(net, ids):
    inject(net, LoRA(r=2), TARGETS)
    _shake(net)
    weight, before = net.fc.weight.clone(), net(ids)
    merge(net, on_eval=True)
    net.eval()
    assert not torch.equal(net.fc.weight, weight)
    assert torch.allclose(net(ids), before, atol=1e-5)
    net.train()
    assert torch.equal(net.fc.weight, weight)


def test_a_tied_weight_does_not_change_with_the_merge(ids):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = nn.Embedding(20, 6), nn.Linear(6, 20, bias=False)
            self.head.weight = self.table.weight

        def forward(self, ids):
            return self.head(self.table(ids))

    model = Tied()
    inject(model, LoRA(r=2), ["table"])
    _shake(model)
    before = model(ids)
    merge(model)
    assert torch.allclose(model(ids), before, atol=1e-5)
    unmerge(model)
    assert model.head.weight is model.table.weight


def test_several_adapters_are_switched_on_one_base(net, ids):
    base = net(ids)
    outputs = {}
    for name, seed in (("first", 1), ("second", 2)):
        inject(net, LoRA(r=2, seed=seed), TARGETS, name=name)
        _shake(net)
        outputs[name] = net(ids)
    assert not torch.allclose(outputs["first"], outputs["second"])
    for name in ("first", "second", "first"):
        use(net, name)
        assert torch.equal(net(ids), outputs[name])
    use(net, None)
    assert torch.equal(net(ids), base)
    remove(net, "first")
    use(net, "second")
    assert torch.equal(net(ids), outputs["second"])
    with pytest.raises(ValueRangeError, match="no adapter called 'first'; it has second"):
        use(net, "first")


def test_only_adapted_and_kept_parameters_are_trained(net, ids):
    inject(net, LoRA(r=2), ["fc", "c_attn"], keep=["classifier"])
    before = {n: p.clone() for n, p in net.named_parameters()}
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(2):
        net(ids).square().sum().backward()
        optimizer.step()
    changed = {n for n, p in net.named_parameters() if not torch.equal(p, before[n])}
    assert changed == {"fc.lora_A", "fc.lora_B", "c_attn.lora_A", "c_attn.lora_B", "classifier.weight"}


def test_a_start_depends_on_seed_module_and_rank():
    def start(**kind):
        model = nn.ModuleDict({"a": nn.Linear(30, 30), "b": nn.Linear(30, 30)})
        inject(model, LoRA(**kind), ["a", "b"])
        return model["a"].lora_A.detach(), model["b"].lora_A.detach()

    a, b = start(r=4, seed=0)
    assert torch.equal(a, start(r=4, seed=0)[0])
    assert not torch.equal(a, b)
    assert not torch.equal(a, start(r=4, seed=1)[0])
    assert not torch.equal(a, start(r=8, seed=0)[0][:4])
    assert float(a.abs().max()) <= 30**-0.5
    gaussian = start(r=4, init="gaussian")[0]
    assert 0.15 < float(gaussian.std()) < 0.35


def test_dropout_acts_in_training_alone(net, ids):
    inject(net, LoRA(r=2, dropout=0.5), TARGETS)
    _shake(net)
    assert not torch.equal(net(ids), net(ids))
    net.eval()
    assert torch.equal(net(ids), net(ids))


@_PEFT_TELLS
@pytest.mark.parametrize("feedforward", [False, True])
def test_ia3_is_that_of_peft(net, ids, feedforward):
    from peft import IA3Config, get_peft_model

    names = ["c_attn", "conv2", "fc"]
    chosen = names if feedforward else []
    config = IA3Config(target_modules=names, feedforward_modules=chosen, fan_in_fan_out=False)
    theirs = get_peft_model(copy.deepcopy(net), config)
    inject(net, IA3(feedforward=tuple(chosen)), names)
    _shake(net)
    parameters = dict(theirs.named_parameters())
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if parameter.requires_grad:
                parameters[f"base_model.model.{name}.default"].copy_(parameter)
    found = net(ids)
    assert torch.allclose(found, theirs(ids), atol=1e-6)
    merge(net)
    assert torch.allclose(net(ids), found, atol=1e-5)


def test_full_fine_tuning_trains_everything_or_the_targets(net):
    inject(net, Full(), [])
    assert all(p.requires_grad for p in net.parameters())
    inject(net, Full(everything=False), ["fc"], keep=["classifier"])
    assert {n for n, p in net.named_parameters() if p.requires_grad} == {"fc.weight", "classifier.weight"}


def test_loralibs_verbs(net, ids):
    inject(net, LoRA(r=2), TARGETS)
    _shake(net)
    found, state = net(ids), lora_state_dict(net)
    assert set(state) == {f"{name}.lora_{part}" for name in TARGETS for part in "AB"}
    fresh = Net()
    fresh.load_state_dict({n: p for n, p in net.state_dict().items() if "lora_" not in n})
    inject(fresh, LoRA(r=2), TARGETS)
    told = fresh.load_state_dict(state, strict=False)
    assert not told.unexpected_keys
    assert torch.equal(fresh(ids), found)
    mark_only_lora_as_trainable(fresh, bias="lora_only")
    trained = {n for n, p in fresh.named_parameters() if p.requires_grad}
    assert "fc.bias" in trained
    assert "classifier.weight" not in trained
    assert set(lora_state_dict(fresh, bias="all")) >= {"conv1.bias", "fc.lora_A"}
    with pytest.raises(ValueRangeError, match="Unknown choice of biases: 'some'"):
        mark_only_lora_as_trainable(fresh, bias="some")


def test_loralib_itself_saves_our_layers(net):
    import loralib

    inject(net, LoRA(r=2), TARGETS)
    ours = lora_state_dict(net)
    assert loralib.lora_state_dict(net).keys() == ours.keys()


def test_our_own_reader_reads_an_adapted_model(net):
    from subspace import load_adapter

    inject(net, LoRA(r=2, alpha=6), ["fc"])
    _shake(net)
    update = load_adapter(net)["fc"]
    assert update.scale.value == 3.0


def test_a_frozen_prefix_costs_no_backward():
    model = nn.Sequential(*(nn.Linear(6, 6) for _ in range(4)))
    inject(model, LoRA(r=2), ["3"])
    seen = []
    model[2].register_forward_hook(lambda module, inputs, output: seen.append(output.requires_grad))
    model(torch.randn(2, 6)).sum().backward()
    assert seen == [False]
    assert model[3].lora_B.grad is not None


def test_patterns(net):
    assert targets_in(net, ["conv?", "fc"]) == ["conv1", "conv2", "conv3", "fc"]
    deep = nn.ModuleDict({"layers": nn.ModuleList(nn.ModuleDict({"q": nn.Linear(2, 2)}) for _ in range(3))})
    assert targets_in(deep, ["q"]) == ["layers.0.q", "layers.1.q", "layers.2.q"]
    assert targets_in(deep, ["layers.1.*"]) == ["layers.1.q"]
    with pytest.raises(ValueRangeError, match=r"No layer matches the target 'k_proj'; the model has q$"):
        targets_in(deep, ["k_proj"])


@pytest.mark.parametrize(
    ("method", "targets", "error", "told"),
    [
        (
            LoRA(r=9),
            ["classifier"],
            ShapeError,
            r"Rank 9 is too large for a target of 3 x 7.*module classifier",
        ),
        (
            LoRA(r=1, groups=(True, True, False, False)),
            ["c_attn"],
            ShapeError,
            r"18 rows of a layer do not divide into 4 equal groups",
        ),
        (LoRA(r=2), ["nothing"], ValueRangeError, r"the target 'nothing'; the model has table, c_attn"),
        (IA3(), ["table"], ValueRangeError, r"IA3 cannot adapt an embedding: table"),
    ],
)
def test_what_cannot_be_adapted_is_said_and_nothing_is_changed(net, method, targets, error, told):
    with pytest.raises(error, match=told):
        inject(net, method, targets)
    assert not adapted(net)
    assert all(p.requires_grad for p in net.parameters())


def test_names_of_adapters(net):
    inject(net, LoRA(r=2), ["fc"])
    with pytest.raises(ValueRangeError, match="already has an adapter called 'default'"):
        inject(net, LoRA(r=2), ["c_attn"])
    with pytest.raises(ValueRangeError, match="letters, digits"):
        inject(net, LoRA(r=2), ["c_attn"], name="a.b")
    with pytest.raises(ValueRangeError, match=r"No module matches 'head', .*; the model has weight, table"):
        inject(net, LoRA(r=2), ["c_attn"], name="other", keep=["head"])


def test_a_layer_that_its_parent_reads_is_refused():
    attention = nn.MultiheadAttention(8, 2)
    with pytest.raises(ValueRangeError, match="read by its parent"):
        inject(attention, LoRA(r=2), ["out_proj"])


def test_a_grouped_convolution_is_refused():
    model = nn.Sequential(nn.Conv1d(4, 4, 3, groups=2))
    with pytest.raises(ShapeError, match="grouped convolution cannot be adapted: this one has 2 groups"):
        inject(model, LoRA(r=2), ["0"])


def test_a_linear_layer_with_a_forward_of_its_own_keeps_it():
    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    model = nn.Sequential(Doubled(4, 4))
    inject(model, LoRA(r=2, alpha=2), ["0"])
    _shake(model)
    x = torch.randn(3, 4)
    layer = model[0]
    added = x @ layer.lora_A.T @ layer.lora_B.T
    assert torch.allclose(model(x), 2 * (x @ layer.weight.T + layer.bias) + added, atol=1e-5)


def test_bfloat16_autocast_is_near_float32(net, ids):
    inject(net, LoRA(r=2), TARGETS)
    _shake(net)
    expected = net(ids)
    with torch.autocast("cpu", torch.bfloat16):
        found = net(ids)
    assert torch.allclose(found.float(), expected, atol=0.05)
    found.float().sum().backward()
    assert net.fc.lora_A.grad.dtype == torch.float32


def test_a_model_can_be_copied(net, ids):
    inject(net, LoRA(r=2), TARGETS)
    _shake(net)
    other = copy.deepcopy(net)
    assert isinstance(other.fc, AdaptedLayer)
    assert torch.equal(other(ids), net(ids))
    remove(other)
    assert adapted(net)


@pytest.mark.parametrize(
    ("given", "told"),
    [({"r": 0}, "at least 1"), ({"alpha": float("nan")}, "finite"), ({"dropout": 1.0}, "dropout"),
     ({"init": "eva"}, "Invalid `init` 'eva': it must be one of gaussian, kaiming, orthogonal"),
     ({"groups": (False,)}, "at least one in `groups`")],
)  # fmt: skip
def test_a_method_out_of_range(given, told):
    with pytest.raises(ValueRangeError, match=told):
        LoRA(**given)
