"""A model that computes with the weight of an adapted layer itself is refused in its first forward, and no other."""

from __future__ import annotations

import copy
import pickle

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from subspace.errors import ValueRangeError  # noqa: E402
from subspace.training import IA3, LoRA, inject, merge, remove  # noqa: E402


class Attention(nn.Module):
    """Reads the weights of its projections, as WavLM's does."""

    def __init__(self):
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x):
        bias = torch.cat([self.q_proj.bias, self.k_proj.bias, self.v_proj.bias])
        return functional.multi_head_attention_forward(
            x, x, x, 8, 2, None, bias, None, None, False, 0.0, self.out_proj.weight, self.out_proj.bias,
            use_separate_proj_weight=True, q_proj_weight=self.q_proj.weight,
            k_proj_weight=self.k_proj.weight, v_proj_weight=self.v_proj.weight,
        )[0]  # fmt: skip


class Product(nn.Module):
    """Its output is a product with the table of its embedding, without a layer for it."""

    def __init__(self):
        super().__init__()
        self.table, self.mid = nn.Embedding(9, 8), nn.Linear(8, 8)

    def forward(self, ids):
        return functional.linear(self.mid(self.table(ids)), self.table.weight)


class Transposed(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x):
        return x @ self.fc.weight.T


class OnlyInEvaluation(Transposed):
    def forward(self, x):
        return self.fc(x) if self.training else super().forward(x)


class Several(Transposed):
    def forward(self, x):
        return x @ torch.block_diag(*[self.fc.weight, self.fc.weight])[:8, :8]


class Computed(Transposed):
    def forward(self, x):
        return self.fc(x) * self.fc.weight.detach().norm()


X, IDS = torch.randn(3, 4, 8), torch.arange(6).view(2, 3)


@pytest.mark.parametrize("method", [LoRA(r=2), LoRA(r=2, dropout=0.1)])
@pytest.mark.parametrize(
    ("model", "target", "x", "reader"),
    [
        *((Attention, name, X, "Attention") for name in ("q_proj", "k_proj", "v_proj", "out_proj")),
        (Product, "table", IDS, "Product"),
        (Transposed, "fc", X, "Transposed"),
        (Several, "fc", X, "Several"),
        (Computed, "fc", X, "Computed"),
        (lambda: nn.Sequential(nn.Identity(), Attention()), "1.q_proj", X, "Attention"),
    ],
)
def test_a_weight_that_is_read_past_its_layer_is_refused(model, target, x, reader, method):
    model = model()
    inject(model, method, [target])
    match = f"adapter of {target} would be bypassed: {reader} computes with the weight of {target} itself"
    with pytest.raises(ValueRangeError, match=match):
        model(x)


def test_ia3_is_bypassed_too():
    model = Transposed()
    inject(model, IA3(), ["fc"])
    with pytest.raises(ValueRangeError, match="adapter of fc would be bypassed"):
        model(X)


def test_evaluation_is_watched_like_training():
    model = OnlyInEvaluation()
    inject(model, LoRA(r=2), ["fc"])
    model(X)
    with pytest.raises(ValueRangeError, match="OnlyInEvaluation computes with the weight of fc"):
        model.eval()(X)


def test_a_copy_is_watched_and_so_is_what_was_pickled():
    for copied in (copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))):
        model = Transposed()
        inject(model, LoRA(r=2), ["fc"])
        with pytest.raises(ValueRangeError, match="bypassed"):
            copied(model)(X)


def test_parts_that_are_called_in_place_of_the_model_are_watched():
    model = nn.ModuleDict({"encoder": nn.Sequential(Transposed())})
    inject(model, LoRA(r=2), ["fc"])
    with pytest.raises(ValueRangeError, match=r"adapter of encoder\.0\.fc would"):
        model["encoder"](X)


def test_each_forward_is_refused_until_the_adapter_is_gone():
    model = Transposed()
    inject(model, LoRA(r=2), ["fc"])
    for _ in range(3):
        with pytest.raises(ValueRangeError, match="bypassed"):
            model(X)
    remove(model)
    assert torch.equal(model(X), X @ model.fc.weight.T)
    assert not model._forward_hooks and not model._forward_pre_hooks


class Fine(nn.Module):
    """Asks what a weight is like, has an expert that is not called, calls a forward itself, and a tied output layer."""

    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(9, 8), nn.Linear(8, 9, bias=False)
        self.head.weight = self.table.weight
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.wo = nn.Linear(8, 8)

    def forward(self, ids, expert=0):
        h = self.table(ids).to(self.wo.weight.dtype)
        assert self.wo.weight.shape == (8, 8) and self.wo.weight.is_floating_point()
        assert self.wo.weight.device == h.device and self.wo.weight.size(0) == 8
        return self.head(self.wo.forward(self.experts[expert](h)))


@pytest.mark.parametrize("merged", [False, True])
def test_what_models_do_otherwise_is_left_alone(merged):
    model = Fine()
    inject(model, LoRA(r=2), ["table", "experts.*", "wo"])
    if merged:
        merge(model)
    for mode in (True, False):
        model.train(mode)
        model(IDS)
    assert not model._forward_hooks and not model._forward_pre_hooks
    model(IDS, expert=2)


def test_wavlm():
    transformers = pytest.importorskip("transformers")
    config = transformers.WavLMConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=(8,),
        conv_kernel=(4,), conv_stride=(4,),
        num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, num_feat_extract_layers=1,
    )  # fmt: skip
    model = transformers.WavLMModel(config).eval()
    inject(model, LoRA(r=2), ["intermediate_dense"])
    with torch.no_grad():
        model(torch.randn(1, 160))
    remove(model)
    inject(model, LoRA(r=2), ["q_proj", "v_proj"])
    with (
        torch.no_grad(),
        pytest.raises(ValueRangeError, match="q_proj would be bypassed: WavLMAttention computes"),
    ):
        model(torch.randn(1, 160))


def test_nn_multihead_attention_is_refused_when_it_is_adapted_or_at_its_first_forward():
    model = nn.MultiheadAttention(8, 2)
    with pytest.raises(ValueRangeError, match="read by its parent"):
        inject(model, LoRA(r=2), ["out_proj"])
    model.out_proj = nn.Linear(8, 8)  # as code that rewrites models leaves it
    inject(model, LoRA(r=2), ["out_proj"])
    x = X.detach()
    for mode in (True, False):
        with pytest.raises(ValueRangeError, match="MultiheadAttention computes with the weight of out_proj"):
            model.train(mode)(x, x, x)


def test_a_compiled_model_is_left_to_the_compiler():
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
    inject(model, LoRA(r=2), ["0"])
    compiled = torch.compile(model, backend="eager")
    torch.testing.assert_close(compiled(X), model(X))
