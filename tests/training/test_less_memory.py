"""Gradient checkpointing: the same numbers, with dropout too, in less memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import TEXTS, tiny

from subspace.errors import ValueRangeError
from subspace.training import Job, LoRA, Recipe, embedded, inject, train
from subspace.training.less_memory import checkpoint_gradients
from subspace.training.meters import peak_bytes

RECIPE = Recipe(steps=3, batch=4, length=16, lr=1e-2, dtype="float32")


@pytest.mark.parametrize("kind", ["embedded", "gpt2", "llama", "bert", "t5"])
def test_the_numbers_are_those_without_it(kind, tmp_path):
    """GPT-2, BERT and T5 have dropout of their own."""
    data = tmp_path / "rows.tsv"
    rows = [f"{text}\t{n % 2}" for n in range(20) for text in TEXTS]
    data.write_text("\n".join(["document\tlabel", *rows]), encoding="utf-8")
    model = "embedded" if kind == "embedded" else str(tiny(kind, tmp_path / "model"))
    job = Job(model=model, data=str(data), labels=kind == "bert", recipe=RECIPE, threads=1, accounts=False)
    plain = train(job, tmp_path / "plain")
    again = train(replace(job, gradient_checkpointing=True), tmp_path / "again")
    first, second = (load_file(run.path / "adapter_model.safetensors") for run in (plain, again))
    assert first.keys() == second.keys()
    for name, value in first.items():
        # a tensor that several blocks read has a gradient that is summed in another order
        apart = 1e-5 if kind in ("gpt2", "t5") else 0
        torch.testing.assert_close(second[name], value, rtol=apart, atol=apart)
    # it is no other run
    assert train(job, again.path).resumed == RECIPE.steps


def test_a_step_takes_less_memory():
    ids = torch.randint(0, 256, (8, 128), generator=torch.Generator().manual_seed(0))

    def peak(*, again: bool) -> int:
        model = embedded.load().train()
        inject(model, LoRA(r=4), ["q_proj", "v_proj"])
        if again:
            checkpoint_gradients(model, "embedded")

        def step() -> None:
            model(ids).logsumexp(-1).mean().backward()

        step()
        return peak_bytes(step, torch.device("cpu"))

    assert peak(again=True) < 0.6 * peak(again=False)


def test_a_model_without_it_is_refused():
    with pytest.raises(
        ValueRangeError, match=r"my/model \(Linear\) has no gradient checkpointing; turn `gradient"
    ):
        checkpoint_gradients(torch.nn.Linear(2, 2), "my/model")
