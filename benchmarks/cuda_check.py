"""Does training on one GPU give what it gives on a processor, and what does a step cost there beside PEFT's?

Trains the embedded base, kills a run and goes on with it, merges, and compares with the processor; then times steps of
a LLaMA of random weights. ``--device cpu`` tries the script itself where there is no GPU.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors.torch import load_file
from side_by_side import folder, goal, machine
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from subspace.training import LoRA, embedded, inject, merge, unmerge
from subspace.training.less_memory import checkpoint_gradients
from subspace.training.loop import precision
from subspace.training.meters import milliseconds, peak_bytes

_TARGETS = ["q_proj", "v_proj"]
_WIDTH = {"cuda": (2048, 8, 8, 512), "cpu": (128, 2, 2, 64)}  # hidden size, layers, batch, tokens


def command(device: str, out: Path, *more: str) -> list[str]:
    """The command line of one run of 60 steps, saved every 20."""
    own = ["--steps", "60", "--save-every", "20", "--dtype", "float32", "--no-accounts", "--device", device]
    return [sys.executable, "-m", "subspace", "train", *own, *more, "-o", str(out)]


def run(device: str, out: Path) -> dict[str, Tensor]:
    """The tensors of a run that nothing disturbs; or of one that goes on."""
    subprocess.run(command(device, out), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return load_file(out / "adapter_model.safetensors")


def killed(device: str, out: Path) -> None:
    """Begin a run, and kill it once it has saved a checkpoint."""
    child = subprocess.Popen(command(device, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while time.monotonic() < end and child.poll() is None:
        if any(out.glob("checkpoint*/*")):
            break
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    print(f"a run was killed: exit {child.wait()}, in its folder {sorted(p.name for p in out.iterdir())}")


def apart(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    """Largest distance of two tensors of one name, over the norm of the second."""
    return max(float((first[name] - value).norm() / (value.norm() + 1e-30)) for name, value in second.items())


def same_numbers(device: str, into: Path) -> None:
    """Twice, after a kill, and on the processor."""
    whole = run(device, into / "whole")
    print(
        f"the same run once more, largest relative distance: {apart(run(device, into / 'twice'), whole):.1e}"
    )
    killed(device, into / "killed")
    goal(f"killed and gone on with, over {device}", apart(run(device, into / "killed"), whole), "<=", 1e-3)
    goal(f"{device} over the processor", apart(whole, run("cpu", into / "cpu")), "<=", 2e-2)


def merged(device: str) -> None:
    """Outputs with the adapter in the weights and beside them."""
    model = embedded.load().to(device)
    inject(model, LoRA(r=8, alpha=16), _TARGETS)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.05 * torch.randn(parameter.shape))
        ids = torch.randint(0, 256, (4, 64)).to(device)
        beside = model(ids)
        merge(model)
        within = model(ids)
        unmerge(model)
        goal("merged over unmerged", float((within - beside).abs().max() / beside.abs().max()), "<=", 1e-4)
        goal("unmerged again", float((model(ids) - beside).abs().max()), "<=", 0.0)


def contenders(device: str, dtype: str) -> dict[str, Callable[[], None]]:
    """One step of each: forward, backward, fused AdamW."""
    width, layers, batch, length = _WIDTH[device]
    ids = torch.randint(0, 1000, (batch, length + 1), generator=torch.Generator().manual_seed(1)).to(device)

    def step_of(model: nn.Module) -> Callable[[], None]:
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True)

        def step() -> None:
            with precision(model, dtype):
                scores: Any = model(ids[:, :-1]).logits
            functional.cross_entropy(scores.float().flatten(0, 1), ids[:, 1:].flatten()).backward()
            optimizer.step()
            optimizer.zero_grad()

        return step

    def base() -> LlamaForCausalLM:
        torch.manual_seed(0)
        config = LlamaConfig(hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
                             num_attention_heads=width // 64, vocab_size=1000, use_cache=False)  # fmt: skip
        return LlamaForCausalLM(config).to(device).train()

    ours, again = base(), base()
    for model in (ours, again):
        inject(model, LoRA(r=8, alpha=16), _TARGETS)
    checkpoint_gradients(again, "LLaMA")
    theirs = peft.get_peft_model(base(), peft.LoraConfig(r=8, lora_alpha=16, target_modules=_TARGETS))
    return {"ours": step_of(ours), "PEFT": step_of(theirs), "ours, gradient checkpointing": step_of(again)}


def costs(device: str, rounds: int) -> None:
    """Step time, interleaved, and peak of tensors in a step."""
    for dtype in ("float32", "bfloat16"):
        steps = contenders(device, dtype)
        for step in steps.values():
            step()
        taken: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(rounds):
            for name, step in steps.items():
                taken[name].append(milliseconds(step, torch.device(device)))
        times = {name: statistics.median(values) for name, values in taken.items()}
        peaks = {name: peak_bytes(step, torch.device(device)) for name, step in steps.items()}
        for name in steps:
            print(f"{dtype}, {name}: {times[name]:.1f} ms per step, {peaks[name] / 2**20:.0f} MB of tensors")
        goal(f"{dtype}, time over PEFT's", times["ours"] / times["PEFT"], "<=", 1)
        goal(f"{dtype}, memory over PEFT's", peaks["ours"] / peaks["PEFT"], "<=", 1)


def main() -> None:
    """Check, then measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="default %(default)s")
    parser.add_argument("--rounds", type=int, default=10, help="timed steps of each (default %(default)s)")
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        sys.exit("torch sees no GPU; --device cpu tries the script without one")
    machine()
    if given.device == "cuda":
        print(torch.cuda.get_device_name(), torch.version.cuda)
    began = time.monotonic()
    with folder() as into:
        same_numbers(given.device, into)
    merged(given.device)
    costs(given.device, given.rounds)
    print(f"{time.monotonic() - began:.0f} s in all")


if __name__ == "__main__":
    main()
