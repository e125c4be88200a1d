"""Costs against counts by hand, files that were saved, and a tracker of living tensors that uses no profiler."""

from __future__ import annotations

import copy
import json
import math
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from subspace.errors import InconclusiveError, ValueRangeError
from subspace.training import IA3, Full, LoRA, adapted, embedded, inject, merge, meters
from subspace.training import accounts as accounts_module
from subspace.training.accounts import account
from subspace.training.adapted_layer import AdaptedLayer
from subspace.training.loop import Trainer
from subspace.training.lowrank import low_rank_linear
from subspace.training.recipe import Recipe
from subspace.training.tasks import NextToken

V, D, H, R, BATCH, LENGTH = 40, 24, 56, 3, 4, 8
N = BATCH * LENGTH
CPU = torch.device("cpu")


class Tiny(nn.Module):
    """Token -> D -> H -> V, with batch normalisation and dropout between."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(V, D)
        self.up = nn.Linear(D, H)
        self.norm = nn.BatchNorm1d(H)
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(H, V)

    def forward(self, ids):
        h = torch.tanh(self.up(self.embed(ids)))
        return self.head(self.dropout(self.norm(h.transpose(1, 2)).transpose(1, 2)))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Tiny()


def _task(vocabulary=V, batch=BATCH, length=LENGTH):
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, vocabulary, (2000,), generator=generator).tolist()
    return NextToken.of(tokens, 2000, batch=batch, length=length, seed=0, held=0.0)


def _recipe(**given):
    return Recipe(**{"batch": BATCH, "length": LENGTH, "dtype": "float32", **given})


def _trained(model, scale=0.3):
    """Give every B a value, as training would."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("lora_B", "ia3_l")):
                parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return model


def _account(model, **given):
    recipe = given.pop("recipe", None) or _recipe()
    return account(model, given.pop("task", None) or _task(), recipe, **{"rounds": 2, **given})


def _low_rank(scale, rows, B_rows):
    x, W = torch.randn(N, D, requires_grad=True), torch.randn(H, D)
    A, B = torch.randn(R * len(rows), D, requires_grad=True), torch.randn(B_rows, R, requires_grad=True)
    return low_rank_linear(x, W, torch.randn(H), A, B, scale=scale, rows=rows)


def test_the_products_of_a_low_rank_layer_are_all_counted():
    forward = 2 * N * D * H + 2 * N * R * (D + H)
    # dB and dh, dA, dx through W and through A
    backward = 2 * (2 * N * H * R) + 2 * N * R * D + 2 * N * D * H + 2 * N * R * D
    assert meters.flops(lambda: _low_rank(2.0, ((0, H),), H)) == forward
    assert meters.flops(lambda: _low_rank(2.0, ((0, H),), H).sum().backward()) == forward + backward


def test_only_the_rows_that_groups_adapt_are_counted():
    half = H // 2
    forward = 2 * N * D * H + 2 * N * (2 * R) * D + 2 * (2 * N * R * half)
    assert meters.flops(lambda: _low_rank(1.0, ((0, half), (half, H)), H)) == forward


@pytest.mark.parametrize(
    ("first", "second", "ends", "expected"),
    [
        ((12, 16), (3, 16, 8), [4, 4, 12], 2 * 12 * 16 * 8),
        ((16, 16), (16, 8), [8, 8, 16], 2 * 16 * 16 * 8),
        ((3, 16, 8), (3, 8, 16), None, 2 * 3 * 16 * 8 * 16),
    ],
)
def test_products_of_experts_are_counted(first, second, ends, expected):
    product = getattr(torch, "_grouped_mm", None)
    if product is None:
        pytest.skip("this torch has no grouped products")
    a, b = (torch.randn(shape).bfloat16() for shape in (first, second))
    offsets = None if ends is None else torch.tensor(ends, dtype=torch.int32)
    assert meters.flops(lambda: product(a, b, offs=offsets)) == expected


def test_attention_and_products_in_place_are_counted():
    q = torch.randn(2, 3, 7, 5, requires_grad=True)
    k, v = torch.randn(2, 3, 9, 5, requires_grad=True), torch.randn(2, 3, 9, 5, requires_grad=True)
    one = 2 * (2 * 3) * 7 * 9 * 5  # q k^T, and as much for p v

    def forward():
        return functional.scaled_dot_product_attention(q, k, v)

    assert meters.flops(forward) == 2 * one
    # backward: q k^T again, and the gradients of p, v, q and k
    assert meters.flops(lambda: forward().sum().backward()) == 7 * one
    into, first, second = torch.zeros(4, 6, 3), torch.ones(4, 6, 5), torch.ones(4, 5, 3)
    assert meters.flops(lambda: into.baddbmm_(first, second)) == 2 * 4 * 6 * 5 * 3


@pytest.mark.parametrize("accumulate", [1, 3])
def test_operations_and_parameters_are_those_counted_by_hand(model, accumulate):
    inject(model, LoRA(r=R), ["up"])
    found = _account(model, recipe=_recipe(accumulate=accumulate))
    products = 2 * N * D * H + 2 * N * H * V
    full = 3 * products  # each product once more for its inputs and once more for its weights
    update = 2 * N * R * (D + H)
    # the embedding is frozen: no gradient of the adapted layer's inputs; twice N H r for dB and dh
    run = products + update + 2 * N * H * V + 2 * (2 * N * H * R) + 2 * N * R * D
    assert (found.full.flops, found.run.flops) == (accumulate * full, accumulate * run)
    total = V * D + D * H + H + 2 * H + H * V + V
    assert (found.total, found.full.trainable, found.run.trainable) == (total, total, R * (D + H))


def test_checkpoints_are_as_large_as_the_files(model, tmp_path):
    from safetensors.torch import save_file

    inject(model, LoRA(r=R), ["up", "head"], keep=["norm"])
    found = _account(model)
    trained = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    save_file(trained, tmp_path / "run.safetensors")
    save_file(dict(Tiny().named_parameters()), tmp_path / "full.safetensors")
    assert found.run.checkpoint_bytes == (tmp_path / "run.safetensors").stat().st_size
    assert found.full.checkpoint_bytes == (tmp_path / "full.safetensors").stat().st_size


def test_the_size_of_a_file_of_several_types(tmp_path):
    from safetensors.torch import save_file

    tensors = {
        "b": torch.zeros(3, 5, dtype=torch.bfloat16),
        "ä": torch.zeros(7),
        "a": torch.zeros(2, 2, dtype=torch.float64),
    }
    save_file(tensors, tmp_path / "x.safetensors")
    assert meters.safetensors_bytes(tensors) == (tmp_path / "x.safetensors").stat().st_size


def test_the_peak_is_the_most_that_lives_at_once():
    def call():
        a = torch.empty(1000)  # 4000
        b = torch.empty(500)  # 6000
        del a  # 2000
        c = torch.empty(1500)  # 8000: the peak
        del b, c
        return torch.empty(10)

    kept = torch.empty(10_000)
    assert meters.peak_bytes(call, CPU) == 8000
    assert meters.peak_bytes(lambda: kept.add_(1), CPU) < 100
    # what was there before and goes makes no room
    before = [torch.empty(3000)]
    assert meters.peak_bytes(lambda: (before.append(torch.empty(700)), before.clear()), CPU) == 2800


def test_the_profiler_says_nothing(capfd):
    import os

    before = dict(os.environ)
    meters.peak_bytes(lambda: torch.empty(3), CPU)
    assert capfd.readouterr() == ("", "")
    assert dict(os.environ) == before


class _Living(TorchDispatchMode):
    """Most bytes of the storages that operators made and that live at one time."""

    def __init__(self, before):
        super().__init__()
        self.now, self.peak = 0, 0
        self.known = {t.untyped_storage()._cdata for t in before}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, list | tuple) else [out]:
            if isinstance(tensor, torch.Tensor):
                self._see(tensor.untyped_storage())
        return out

    def _see(self, storage):
        key, size = storage._cdata, storage.nbytes()
        if key not in self.known:
            self.known.add(key)
            weakref.finalize(storage, self._gone, key, size)
            self.now += size
            self.peak = max(self.peak, self.now)

    def _gone(self, key, size):
        self.known.discard(key)
        self.now -= size


@pytest.mark.parametrize("way", ["run", "full"])
def test_the_memory_of_a_step_is_what_a_tracker_of_tensors_finds(way):
    chain = nn.Sequential(nn.Embedding(V, D), nn.Linear(D, H), nn.Tanh(), nn.Linear(H, V))
    plain = copy.deepcopy(chain)
    inject(chain, LoRA(r=R), ["1"])
    cost = getattr(_account(chain), way)
    trainer = Trainer(plain if way == "full" else chain, _task(), _recipe())
    trainer.advance()
    moments = [t for state in trainer.optimizer.state.values() for t in state.values()]
    with _Living([*moments, *trainer.model.parameters(), trainer.task.train]) as living:
        trainer.advance()
    by_hand = sum(t.nbytes for t in moments) + living.peak
    # kernels use a little inside, which operators do not show
    assert by_hand <= cost.peak_bytes <= 1.1 * by_hand


def test_full_fine_tuning_of_a_wide_layer_needs_gradients_and_two_moments():
    wide = nn.Sequential(nn.Embedding(V, 8), nn.Linear(8, 4000), nn.Linear(4000, V))
    weights = 4 * sum(p.numel() for p in wide.parameters())
    inject(wide, LoRA(r=1), ["2"])
    found = _account(wide, task=_task(batch=1, length=2))
    few = 4 * 2 * (3 * 4000)  # activations of 2 tokens
    assert 3 * weights <= found.full.peak_bytes <= 3 * weights + 4 * few
    assert found.run.peak_bytes < weights


def _state(model):
    """Everything that must stay: values, gradients, what is trained, modes, classes and attributes of layers."""
    tensors = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = {n: None if p.grad is None else p.grad.clone() for n, p in model.named_parameters()}
    rest = [(n, p.requires_grad, id(p)) for n, p in model.named_parameters()]
    rest += [(n, m.training, type(m), sorted(vars(m))) for n, m in model.named_modules()]
    rest += [(n, layer.active, layer.merged, layer.merge_on_eval) for n, layer in adapted(model)]
    return tensors, gradients, rest


def _same(first, second):
    for mine, theirs in zip(first[:2], second[:2], strict=True):
        assert list(mine) == list(theirs)
        for name, value in mine.items():
            assert (value is None) == (theirs[name] is None), name
            assert value is None or torch.equal(value, theirs[name]), name
    assert first[2] == second[2]


@pytest.mark.parametrize(
    "case", ["train", "eval", "merged", "merge on eval", "ia3", "full", "two", "computed"]
)
def test_the_model_and_the_random_numbers_are_left_as_they_were(model, case):
    method = {"ia3": IA3(), "full": Full()}.get(case, LoRA(r=R, dropout=0.1))
    inject(model, method, [] if case == "full" else ["up", "head"])
    if case == "two":
        inject(model, LoRA(r=1), ["up"], name="second")
    _trained(model)
    _task().loss(model, 0).backward()
    model.train(case not in ("eval", "merged"))
    if case.startswith("merge"):
        merge(model, on_eval=case != "merged")
    if case == "computed":
        model.up.cached = (
            model.up.weight.clone().requires_grad_() * 2
        )  # no leaf, so that torch would not copy it
    before, numbers = _state(model), torch.get_rng_state()
    found = _account(model, rounds=1)
    _same(before, _state(model))
    assert torch.equal(numbers, torch.get_rng_state())
    assert math.isnan(found.merged_difference) == (case == "full")


def test_weights_that_are_tied_stay_tied_and_count_once(model):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.up, self.head = nn.Embedding(V, D), nn.Linear(D, D), nn.Linear(D, V, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, ids):
            return self.head(self.up(self.embed(ids)))

    tied = Tied()
    inject(tied, LoRA(r=R), ["up", "head"])
    merge(_trained(tied))
    found = _account(tied)
    assert found.total == found.full.trainable == V * D + D * D + D
    assert found.merged_difference <= 1e-5
    assert tied.embed.weight is tied.head.original[0]


@pytest.mark.parametrize(
    "method", [LoRA(r=R), LoRA(r=R, groups=(True, False)), IA3(), IA3(feedforward=("up",))]
)
def test_merged_outputs_are_the_unmerged_ones(model, method):
    inject(model, method, ["up", "head"])
    found = _account(_trained(model))
    assert 0 < found.merged_difference <= 1e-5
    assert min(found.base_ms, found.merged_ms, found.adapter_ms, found.run.step_ms, found.full.step_ms) > 0
    assert found.latency_ratio == found.merged_ms / found.base_ms


def test_a_merge_that_is_wrong_is_found(model, monkeypatch):
    inject(model, LoRA(r=R), ["up"])
    right = AdaptedLayer.delta_weight
    monkeypatch.setattr(AdaptedLayer, "delta_weight", lambda layer, name: 1.1 * right(layer, name))
    assert _account(_trained(model)).merged_difference > 1e-3


def test_the_difference_is_found_in_float32_at_least(model):
    inject(model.to(torch.bfloat16), LoRA(r=R), ["up"])
    found = _account(_trained(model), recipe=_recipe(dtype="bfloat16"))
    assert found.dtype == "bfloat16"
    assert 0 < found.merged_difference <= 1e-5


def test_full_fine_tuning_is_not_measured_beside_itself(model):
    inject(model, Full(), [])
    found = _account(model)
    assert found.full is None
    assert found.run.trainable == found.total
    assert found.notes == ("this run is full fine-tuning itself",)
    assert all(math.isnan(x) for x in (found.merged_ms, found.adapter_ms, found.latency_ratio))
    assert found.base_ms > 0
    assert "nan" not in "\n".join(found.lines()).lower()


def test_a_part_that_is_trained_whole_is_measured_beside_all(model):
    inject(model, Full(everything=False), ["up"])
    found = _account(model)
    assert found.run.trainable == D * H
    assert found.full.trainable == found.total
    assert found.run.peak_bytes < found.full.peak_bytes
    assert math.isnan(found.merged_difference)


def test_ia3_trains_one_factor_for_every_output(model):
    inject(model, IA3(), ["up", "head"])
    found = _account(model)
    assert found.run.trainable == H + V
    assert found.run.flops < found.full.flops


def test_without_memory_for_it_full_fine_tuning_is_left_out(model, monkeypatch):
    inject(model, LoRA(r=R), ["up"])
    weights = 4 * sum(p.numel() for p in model.parameters())
    monkeypatch.setattr(meters, "available_bytes", lambda device: 2 * weights)
    told = []
    found = _account(model, progress=lambda *numbers: told.append(numbers))
    assert found.full is None
    assert found.notes[0].startswith("full fine-tuning was not measured: it needs about ")
    assert found.merged_difference <= 1e-5
    assert told[-1][0] == told[-1][1]
    monkeypatch.setattr(meters, "available_bytes", lambda device: None)
    assert _account(model).full is not None
    monkeypatch.setattr(meters, "available_bytes", lambda device: 2 * weights - 1)
    with pytest.raises(InconclusiveError, match="two copies"):
        _account(model)


def test_where_full_fine_tuning_fails_its_reason_is_noted(model, monkeypatch):
    inject(model, LoRA(r=R), ["up"])
    made = Trainer.advance

    def fails(trainer):
        if len(trainer.parameters) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory\nand a trace")
        return made(trainer)

    monkeypatch.setattr(Trainer, "advance", fails)
    told = []
    found = _account(model, progress=lambda *numbers: told.append(numbers))
    assert found.full is None
    assert found.notes[0].endswith("DefaultCPUAllocator: can't allocate memory")
    assert told[-1][0] == told[-1][1]


@pytest.mark.parametrize(("longest", "timed"), [(1e9, 4), (0.0, 1)])
def test_long_steps_are_timed_once(model, monkeypatch, longest, timed):
    inject(model, LoRA(r=R), ["up"])
    monkeypatch.setattr(accounts_module, "_LONG_MS", longest)
    told = []
    _account(model, rounds=4, progress=lambda *numbers: told.append(numbers))
    assert told[-1] == (2 * (2 + timed) + 2 * timed,) * 2
    assert [done for done, _ in told] == list(range(1, len(told) + 1))


def test_what_cannot_be_measured_is_said(model):
    class Elsewhere:
        def loss(self, model, step):
            return sum(p.sum() for p in model.parameters())

    with pytest.raises(ValueRangeError, match="Invalid `rounds` 0"):
        _account(model, rounds=0)
    inject(model, LoRA(r=R), ["up"])
    with pytest.raises(ValueRangeError, match="without calling the model"):
        _account(model, task=Elsewhere())
    with pytest.raises(ValueRangeError, match="Nothing to train"):
        _account(model.requires_grad_(False))


def test_as_a_document_and_as_lines(model):
    inject(model, LoRA(r=R), ["up"])
    found = _account(_trained(model))
    document = json.loads(json.dumps(found.document(), allow_nan=False))
    assert document["run"]["trainable"] == R * (D + H)
    assert document["full"]["flops"] == found.full.flops
    assert document["lines"] == found.lines()
    assert f"{found.run.trainable:,}" in found.lines()[1]
    assert f"{found.run.trainable / found.full.trainable:.3g}" in found.lines()[1]
    assert len({len(line) for line in found.lines()[:6]}) == 1
    whole = Tiny()
    inject(whole, Full(), [])
    document = json.loads(json.dumps(_account(whole).document(), allow_nan=False))
    assert document["merged_ms"] is document["merged_difference"] is document["full"] is None


def test_memory_that_a_container_leaves(tmp_path):
    for name, text in (("max", "9000\n"), ("current", "5000\n"), ("stat", "anon 1\ninactive_file 700\n")):
        (tmp_path / f"memory.{name}").write_text(text)
    assert meters._of_container(tmp_path) == 9000 - 5000 + 700
    (tmp_path / "memory.max").write_text("max\n")
    assert meters._of_container(tmp_path) is None
    assert meters._of_container(tmp_path / "none") is None
    there = meters.available_bytes(CPU)
    assert there is None or there > 1e6


def test_the_embedded_base_bears_out_the_paper():
    base = embedded.load()
    inject(base, LoRA(r=4), ["q_proj", "v_proj"])
    found = account(_trained(base, 0.02), _task(256, 2, 32), _recipe(), rounds=1)
    assert found.run.trainable == 4 * 2 * 4 * (256 + 256)
    assert found.total == found.full.trainable == 3_229_952
    assert found.run.flops < 0.75 * found.full.flops
    assert found.run.peak_bytes < 0.5 * found.full.peak_bytes
    assert found.run.checkpoint_bytes < 0.02 * found.full.checkpoint_bytes
    assert 0 < found.merged_difference <= 1e-5
    assert found.threads == torch.get_num_threads()
