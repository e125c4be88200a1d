"""The training loop against PEFT's own, by hand, and against itself when it is interrupted."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

import subspace
from subspace.training import IA3, Full, LoRA, adapted, inject
from subspace.training.loop import DivergedError, Trainer, autocast_dtype, evaluate
from subspace.training.recipe import Recipe
from subspace.training.tasks import Classes, NextToken

VOCAB, D = 40, 24


class Tiny(nn.Module):
    """An embedding, two blocks of named projections and a head; takes ids, with or without a mask."""

    def __init__(self, outputs: int = VOCAB, dropout: float = 0.0) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCAB, D)
        self.blocks = nn.ModuleList(
            nn.ModuleDict({"q_proj": nn.Linear(D, D), "v_proj": nn.Linear(D, D), "norm": nn.LayerNorm(D)})
            for _ in range(2)
        )
        self.classifier = nn.Linear(D, outputs)
        self.dropout, self.pooled = nn.Dropout(dropout), outputs != VOCAB

    def forward(self, input_ids, attention_mask=None):
        h = self.embed(input_ids)
        for block in self.blocks:
            h = h + self.dropout(torch.tanh(block["q_proj"](block["norm"](h))) * block["v_proj"](h))
        return self.classifier(h.mean(1) if self.pooled else h)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Tiny()


def _text(n=4000):
    # each token follows from the one before it, but for noise: there is something to learn
    generator = torch.Generator().manual_seed(1)
    tokens = [3]
    for noise in torch.randint(0, 5, (n - 1,), generator=generator).tolist():
        tokens.append((7 * tokens[-1] + noise) % VOCAB)
    return tokens


def _task(seed=0, held=0.1):
    return NextToken.of(_text(), 4000, batch=8, length=16, seed=seed, held=held)


def _recipe(**given):
    return Recipe(**{"steps": 20, "batch": 8, "length": 16, "lr": 1e-2, "dtype": "float32", **given})


def _run(model, recipe, task=None, steps=None):
    trainer = Trainer(model, task or _task(recipe.data_seed), recipe)
    return [trainer.advance() for _ in range(steps or recipe.steps)]


def test_twenty_steps_give_the_adapter_that_peft_and_torch_give(model):
    peft = pytest.importorskip("peft")
    recipe, task = _recipe(clip=0.5, weight_decay=0.1), _task()
    ours = copy.deepcopy(model)
    inject(ours, LoRA(r=4, alpha=8), ["q_proj", "v_proj"])
    theirs = peft.get_peft_model(
        model, peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])
    )
    weights = dict(theirs.named_parameters())
    pairs = {}
    for name, layer in adapted(ours):
        for part in ("A", "B"):
            weight = weights[f"base_model.model.{name}.lora_{part}.default.weight"]
            weight.data.copy_(layer.factors("default")[f"lora_{part}"])
            pairs[name, part] = layer.factors("default")[f"lora_{part}"], weight
    _run(ours, recipe, task)
    trainable = [p for p in theirs.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=1.0, weight_decay=0.1)
    warm = 1
    for step in range(20):
        for group in optimizer.param_groups:
            along = (step - warm) / (20 - warm)
            group["lr"] = 1e-2 if step < warm else 1e-2 * 0.5 * (1 + math.cos(math.pi * along))
        task.loss(theirs, step).backward()
        nn.utils.clip_grad_norm_(trainable, 0.5)
        optimizer.step()
        optimizer.zero_grad()
    for (name, part), (mine, his) in pairs.items():
        torch.testing.assert_close(mine, his, rtol=1e-4, atol=1e-6, msg=f"{name} {part}")
    assert max(float(mine.detach().norm()) for (_, part), (mine, _) in pairs.items() if part == "B") > 0.01


@pytest.mark.parametrize(
    ("method", "keep", "changes"),
    [
        (LoRA(r=2), (), "lora_"),
        (LoRA(r=2), ("classifier",), "lora_|classifier"),
        (IA3(), (), "ia3_l"),
        (Full(), (), ""),
        (Full(everything=False), (), r"\.[qv]_proj\.weight"),
    ],
)
def test_what_is_adapted_or_kept_changes_and_nothing_else(model, method, keep, changes):
    import re

    inject(model, method, ["q_proj", "v_proj"], keep=keep)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    _run(model, _recipe(steps=5, weight_decay=0.1))
    for name, value in model.state_dict().items():
        assert torch.equal(before[name], value) != bool(re.search(changes, name)), name


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_held_out_loss_falls(model, dtype):
    inject(model, LoRA(r=8), ["q_proj", "v_proj"], keep=["classifier"])
    recipe, task = _recipe(steps=150, dtype=dtype), _task()
    before = evaluate(model, task, recipe)
    _run(model, recipe, task)
    after = evaluate(model, task, recipe)
    assert after["loss"] < 0.8 * before["loss"]
    assert after["bits_per_byte"] == pytest.approx(after["loss"] / math.log(2))


def test_the_held_out_loss_is_that_of_the_whole_of_it(model):
    task = NextToken.of(_text(), 2000, batch=8, length=16, seed=0, held=0.25)
    held = task.held[: len(task.held) // 17 * 17].view(-1, 17)
    model.eval()
    with torch.no_grad():
        logits = model(held[:, :-1]).double()
        chosen = logits.log_softmax(-1).gather(-1, held[:, 1:, None])
    assert len(held) < 256
    got = evaluate(model, task, _recipe())
    assert got["loss"] == pytest.approx(-float(chosen.mean()), rel=1e-5)
    assert got["bits_per_byte"] == pytest.approx(2 * got["loss"] / math.log(2))
    assert len(task.train) + len(task.held) == 4000


def test_accumulated_batches_are_one_large_one(model):
    other = copy.deepcopy(model)
    for one in (model, other):
        inject(one, LoRA(r=4), ["q_proj"], keep=["classifier"])
    _run(model, _recipe(steps=1, accumulate=4, clip=0))
    task = _task()
    losses = [task.loss(other, k) for k in range(4)]
    torch.stack(losses).mean().backward()
    trainable = [p for p in other.parameters() if p.requires_grad]
    torch.optim.AdamW(trainable, lr=1e-2, weight_decay=0.0).step()
    for mine, his in zip((p for p in model.parameters() if p.requires_grad), trainable, strict=True):
        torch.testing.assert_close(mine, his, rtol=1e-5, atol=1e-6)


def test_a_gradient_is_clipped_to_its_norm(model):
    inject(model, Full(), [])
    rows = _run(model, _recipe(steps=3, clip=1e-3))
    assert all(row["gradient_norm"] > 1e-3 for row in rows)  # what is logged is the norm before
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert set(rows[0]) == {"step", "loss", "lr", "gradient_norm", "seconds"}


def _fresh(dropout):
    torch.manual_seed(0)
    model = Tiny(dropout=dropout)
    inject(model, LoRA(r=4, dropout=dropout), ["q_proj", "v_proj"], keep=["norm"])
    return model.train()


@pytest.mark.parametrize("at", [0, 1, 7])
def test_a_run_that_goes_on_has_the_bits_of_one_that_was_never_interrupted(at):
    recipe = _recipe(steps=12, accumulate=2)
    whole = Trainer(_fresh(0.2), _task(), recipe)
    rows = [whole.advance() for _ in range(12)]
    first = Trainer(_fresh(0.2), _task(), recipe)
    for _ in range(at):
        first.advance()
    state = {name: value.clone() for name, value in first.state().items()}
    torch.manual_seed(99)
    second = Trainer(_fresh(0.2), _task(), recipe)
    second.restore(at, state)
    later = [second.advance() for _ in range(12 - at)]
    assert [row["loss"] for row in later] == [row["loss"] for row in rows[at:]]
    for name, value in whole.state().items():
        assert torch.equal(value, second.state()[name]), name


def test_a_state_of_another_model_is_refused(model):
    inject(model, LoRA(r=2), ["q_proj"])
    trainer = Trainer(model, _task(), _recipe())
    with pytest.raises(subspace.SubspaceError, match="checkpoint is of another model: it has no parameter/"):
        trainer.restore(3, {"parameter/else": torch.zeros(1)})


@pytest.mark.parametrize("key", ["parameter", "exp_avg", "exp_avg_sq", "step"])
@pytest.mark.parametrize("change", ["shape", "absent"])
def test_a_state_of_other_shapes_is_refused_and_nothing_is_taken(model, key, change):
    inject(model, LoRA(r=2), ["q_proj"])
    trainer = Trainer(model, _task(), _recipe())
    trainer.advance()
    state = trainer.state()
    name = next(name for name in state if name.startswith(f"{key}/"))
    if change == "shape":
        state[name] = state[name].reshape(-1)[:1]
    else:
        del state[name]
    if key == "step" and change == "shape":
        assert state[name].shape == (1,)
    before = {name: p.clone() for name, p in trainer.parameters.items()}
    with pytest.raises(subspace.SubspaceError, match="checkpoint is of another model"):
        trainer.restore(3, state)
    assert trainer.step == 1
    assert all(torch.equal(p, before[name]) for name, p in trainer.parameters.items())


def test_what_bears_on_nothing_cannot_be_trained(model):
    inject(model, LoRA(r=2), ["q_proj"])
    trainer = Trainer(model, _task(), _recipe())
    for parameter in trainer.parameters.values():
        parameter.requires_grad_(False)
    with pytest.raises(subspace.SubspaceError, match="loss does not depend on anything that is trained"):
        trainer.advance()


def test_measuring_puts_the_mode_of_every_module_back(model):
    model.train()
    model.classifier.eval()
    evaluate(model, _task(), _recipe())
    assert model.training and not model.classifier.training


def test_seeds_of_start_and_data_are_separate(model):
    def losses(seed, data_seed):
        one = copy.deepcopy(model)
        inject(one, LoRA(r=2, seed=seed), ["q_proj"], keep=["classifier"])
        return [row["loss"] for row in _run(one, _recipe(steps=4, seed=seed, data_seed=data_seed))]

    assert losses(0, 0) == losses(0, 0)
    assert losses(0, 0)[0] == losses(1, 0)[0] and losses(0, 0)[-1] != losses(1, 0)[-1]
    assert losses(0, 0)[0] != losses(0, 1)[0]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_names_the_step_and_changes_nothing(model, bad):
    inject(model, LoRA(r=2), ["q_proj"])
    trainer = Trainer(model, _task(), _recipe())
    trainer.advance()
    before = trainer.state()
    model.classifier.bias.data[0] = bad
    with pytest.raises(
        DivergedError, match="diverged at step 2: the loss is nan and the norm of the gradient nan"
    ):
        trainer.advance()
    assert all(torch.equal(before[name], value) for name, value in trainer.state().items())
    assert all(p.grad is None for p in model.parameters()) and trainer.step == 1


def test_a_model_that_is_all_frozen_cannot_be_trained(model):
    with pytest.raises(subspace.SubspaceError, match="Nothing to train"):
        Trainer(model.requires_grad_(False), _task(), _recipe())


def test_classes_are_learned_and_counted():
    generator = torch.Generator().manual_seed(3)
    texts, labels = [], []
    for n in range(400):
        label = n % 4 == 0
        words = torch.randint(0, VOCAB // 2, (int(torch.randint(3, 12, (1,), generator=generator)),))
        texts.append((words + label * (VOCAB // 2)).tolist())
        labels.append(int(label))
    torch.manual_seed(0)
    model = Tiny(outputs=2)
    inject(model, LoRA(r=4), ["q_proj", "v_proj"], keep=["classifier"])
    task = Classes.of(texts, labels, batch=16, seed=0, pad=0, held=0.2)
    recipe = _recipe(steps=60, batch=16)
    before = evaluate(model, task, recipe)
    _run(model, recipe, task)
    after = evaluate(model, task, recipe)
    assert before["majority"] == after["majority"] == pytest.approx(0.75)
    assert after["accuracy"] > 0.95 and after["loss"] < before["loss"]
    assert sorted([*task.kept, *task.apart]) == list(range(400))


def test_padding_has_no_part_in_a_loss():
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(VOCAB, 3)

        def forward(self, input_ids, attention_mask):
            h = self.table(input_ids) * attention_mask[..., None]
            return h.sum(1) / attention_mask.sum(1, keepdim=True)

    torch.manual_seed(0)
    model, texts = Masked(), [[1, 2, 3], [4], [5, 6, 7, 8, 9], [2, 2]]
    task = Classes.of(texts, [0, 1, 2, 1], batch=4, seed=0, pad=0, held=0.0)
    expected = [
        nn.functional.cross_entropy(model.table(torch.tensor(text)).mean(0), torch.tensor(label))
        for text, label in zip(texts, [0, 1, 2, 1], strict=True)
    ]
    torch.testing.assert_close(task.loss(model, 0), torch.stack(expected).mean())
    assert evaluate(model, task, _recipe()) == {}


def test_automatic_types_are_those_of_the_processor(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    assert autocast_dtype("auto", cpu) is torch.bfloat16
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    assert autocast_dtype("auto", cpu) is None
    assert autocast_dtype("bfloat16", cpu) is torch.bfloat16
    assert autocast_dtype("float32", cpu) is None


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"steps": 0}, "Invalid `steps` 0"),
        ({"lr": math.nan}, "Invalid `lr` nan: it must be finite"),
        ({"warm_up": 1.0}, r"Invalid `warm_up` 1.0: it must be in \[0, 1\)"),
        ({"held_out": 0.5}, r"Invalid `held_out` 0.5: it must be in \[0, 0.5\)"),
        ({"schedule": "x"}, "Invalid `schedule` 'x': it must be one of cosine, linear, constant"),
        ({"seed": -1}, "Invalid `seed` -1"),
    ],
)
def test_a_recipe_that_cannot_be_followed(given, told):
    with pytest.raises(subspace.SubspaceError, match=told):
        Recipe(**given)


def test_a_text_shorter_than_a_window():
    with pytest.raises(
        subspace.SubspaceError, match="too short: 16 tokens to train on are no more than one window of 16"
    ):
        NextToken.of(list(range(16)), 16, batch=1, length=16, seed=0, held=0.0)
