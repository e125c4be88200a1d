"""What does a step cost in models of transformers beside PEFT, and how soon does ``subspace train`` begin?"""

from __future__ import annotations

import one_thread  # noqa: F401 - before torch

# isort: split
import copy
import sys
from collections.abc import Callable
from functools import partial

import peft
import torch
import transformers
from side_by_side import child_cpu, folder, goal, machine, measured, options, table
from torch import Tensor, nn

from subspace.training import LoRA, inject

_BATCH, _LENGTH, _R, _ALPHA = 8, 128, 8, 16
_ENCODER = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 6, "intermediate_size": 1536}


def llama() -> tuple[nn.Module, list[str]]:
    """A decoder with q, k and v apart."""
    config = transformers.LlamaConfig(
        **{**_ENCODER, "intermediate_size": 1024}, vocab_size=2048, use_cache=False
    )
    return transformers.LlamaForCausalLM(config), ["q_proj", "v_proj"]


def gpt2() -> tuple[nn.Module, list[str]]:
    """A decoder with q, k and v in one Conv1D."""
    config = transformers.GPT2Config(n_embd=384, n_layer=6, n_head=6, vocab_size=2048, use_cache=False)
    return transformers.GPT2LMHeadModel(config), ["c_attn"]


def electra() -> tuple[nn.Module, list[str]]:
    """An encoder with a classifier, which is trained whole."""
    config = transformers.ElectraConfig(**_ENCODER, embedding_size=128, vocab_size=2048, num_labels=2)
    return transformers.ElectraForSequenceClassification(config), ["query", "key", "value"]


def step_of(model: nn.Module, batch: dict[str, Tensor]) -> Callable[[], None]:
    """One step: forward, backward, fused AdamW."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)

    def step() -> None:
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def shape(name: str, make: Callable[[], tuple[nn.Module, list[str]]], rounds: int) -> None:
    """Steps of one architecture, ours and PEFT's."""
    torch.manual_seed(0)
    model, targets = make()
    model.train()
    keep = ["classifier"] if name == "ELECTRA" else []
    theirs, ours = copy.deepcopy(model), model
    inject(ours, LoRA(r=_R, alpha=_ALPHA), targets, keep=keep)
    config = peft.LoraConfig(r=_R, lora_alpha=_ALPHA, target_modules=targets, modules_to_save=keep or None)
    theirs = peft.get_peft_model(theirs, config)
    ids = torch.randint(0, 2048, (_BATCH, _LENGTH))
    batch = {"input_ids": ids, "labels": torch.randint(0, 2, (_BATCH,)) if keep else ids}
    times = measured({"ours": step_of(ours, batch), "PEFT": step_of(theirs, batch)}, rounds=rounds)
    print(f"\n{name}: {_BATCH} x {_LENGTH} tokens, r = {_R} on {', '.join(targets)}, float32")
    table(times, "ours")
    goal(f"{name}, time over PEFT's", times["ours"].median / times["PEFT"].median, "<=", 1)


def start_up(rounds: int) -> None:
    """A run of one step on the embedded base, over what it cannot do without."""
    needed = (
        "import torch; from subspace.training import embedded; model = embedded.load(); "
        "model(torch.zeros(16, 128, dtype=torch.long)).sum().backward(); "
        "torch.optim.AdamW(model.parameters(), fused=True).step()"
    )
    own = "from subspace.cli import main; main()"
    with folder() as into:
        asked = [
            "train",
            "--steps",
            "1",
            "--held-out",
            "0",
            "--no-accounts",
            "--save-every",
            "0",
            "--overwrite",
        ]
        run = [sys.executable, "-c", own, *asked, "-o", str(into / "run")]
        programs = {
            "subspace train, one step": run,
            "torch, the base, one step": [sys.executable, "-c", needed],
        }
        clocks = {name: partial(child_cpu, program) for name, program in programs.items()}
        times = measured(clocks, rounds=rounds, clock=lambda run: float(run()))  # type: ignore[arg-type]
    print("\nstart-up: a process that trains the embedded base for one step")
    table(times, "subspace train, one step")
    ratio = times["subspace train, one step"].median / times["torch, the base, one step"].median
    goal("start-up over what it needs", ratio, "<=", 1.5)


def main() -> None:
    """Measure steps, then start-up."""
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    arguments = options(__doc__ or "", rounds=7).parse_args()
    machine()
    print(f"peft {peft.__version__}, transformers {transformers.__version__}")
    for name, make in (("LLaMA", llama), ("GPT-2", gpt2), ("ELECTRA", electra)):
        shape(name, make, arguments.rounds)
    start_up(arguments.rounds)


if __name__ == "__main__":
    main()
