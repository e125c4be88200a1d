"""What does a step of training cost, in time, memory and start-up, beside PEFT, loralib and full fine-tuning?"""

from __future__ import annotations

import one_thread  # noqa: F401 - before torch

# isort: split
import copy
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path

import loralib
import peft
import torch
from side_by_side import Times, child_cpu, folder, goal, machine, measured, options, table
from torch import Tensor, nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from subspace.training import LoRA, inject

_D, _LAYERS, _HEADS, _VOCABULARY, _LENGTH, _BATCH = 384, 6, 6, 2048, 128, 16
_R, _ALPHA, _LAST = 8, 16, 2
_QV = [True, False, True]
_LIMIT = "limit: frozen, one bias below"
_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Block(nn.Module):
    """Pre-norm attention and feedforward; q, k and v are three layers or one."""

    def __init__(self, *, fused: bool) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(_D), nn.LayerNorm(_D)
        names = ["qkv_proj"] if fused else ["q_proj", "k_proj", "v_proj"]
        self.qkv = nn.ModuleDict({name: nn.Linear(_D, 3 * _D // len(names)) for name in names})
        self.out, self.up, self.down = nn.Linear(_D, _D), nn.Linear(_D, 4 * _D), nn.Linear(4 * _D, _D)

    def forward(self, x: Tensor) -> Tensor:
        h = self.before(x)
        parts = [part for layer in self.qkv.values() for part in layer(h).split(_D, dim=-1)]
        q, k, v = (part.unflatten(-1, (_HEADS, -1)).transpose(1, 2) for part in parts)
        seen = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        return x + self.down(functional.gelu(self.up(self.between(x))))


class GPT(nn.Module):
    """A GPT of random weights; the first `still` blocks may be run without autograd's knowledge."""

    def __init__(self, *, fused: bool) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(_VOCABULARY, _D), nn.Embedding(_LENGTH, _D)
        self.blocks = nn.ModuleList(Block(fused=fused) for _ in range(_LAYERS))
        self.norm, self.head = nn.LayerNorm(_D), nn.Linear(_D, _VOCABULARY, bias=False)
        self.still = 0

    def forward(self, ids: Tensor) -> Tensor:
        with torch.no_grad() if self.still else nullcontext():
            x = self.tokens(ids) + self.places.weight
            for block in self.blocks[: self.still]:
                x = block(x)
        for block in self.blocks[self.still :]:
            x = block(x)
        return self.head(self.norm(x))


def in_loralib(model: GPT, *, fused: bool) -> GPT:
    """The model with loralib's layers in the place of q and v, and the weights that were there."""
    for block in model.blocks:
        for name in ["qkv_proj"] if fused else ["q_proj", "v_proj"]:
            old = block.qkv[name]
            sizes = old.in_features, old.out_features
            chosen = {"enable_lora": _QV} if fused else {}
            kind = loralib.MergedLinear if fused else loralib.Linear
            block.qkv[name] = kind(*sizes, r=_R, lora_alpha=_ALPHA, merge_weights=False, **chosen)
            block.qkv[name].load_state_dict(old.state_dict(), strict=False)
    loralib.mark_only_lora_as_trainable(model)
    return model


def in_ours(model: GPT, *, fused: bool, first: int = 0) -> GPT:
    """The model with our adapters on q and v of the blocks from `first` on."""
    method = LoRA(r=_R, alpha=_ALPHA, groups=tuple(_QV) if fused else None)
    names = ["qkv_proj"] if fused else ["q_proj", "v_proj"]
    inject(model, method, [f"blocks.{n}.qkv.{name}" for n in range(first, _LAYERS) for name in names])
    return model


def in_peft(model: GPT) -> nn.Module:
    """The model that PEFT makes of it, with LoRA on q and v."""
    config = peft.LoraConfig(r=_R, lora_alpha=_ALPHA, target_modules=["q_proj", "v_proj"])
    return peft.get_peft_model(model, config)


def trained(model: nn.Module) -> list[nn.Parameter]:
    """Parameters that are trained, in the model's order."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def models() -> dict[str, nn.Module]:
    """Every contender, of the same base weights, and those with the same factors of the same ones, B not zero."""
    torch.manual_seed(0)
    split, fused = GPT(fused=False), GPT(fused=True)
    made = {
        "ours": in_ours(copy.deepcopy(split), fused=False),
        "PEFT": in_peft(copy.deepcopy(split)),
        "loralib": in_loralib(copy.deepcopy(split), fused=False),
        "ours, fused q k v": in_ours(copy.deepcopy(fused), fused=True),
        "loralib, fused q k v": in_loralib(copy.deepcopy(fused), fused=True),
        "full": split,
        f"ours, last {_LAST} layers": in_ours(copy.deepcopy(split), fused=False, first=_LAYERS - _LAST),
    }
    for names in (("PEFT", "ours", "loralib"), ("loralib, fused q k v", "ours, fused q k v")):
        for parameters in zip(*(trained(made[name]) for name in names), strict=True):
            start = 0.02 * torch.randn(parameters[0].shape)
            with torch.no_grad():
                for parameter in parameters:
                    parameter.copy_(start)
    made[_LIMIT] = copy.deepcopy(split).requires_grad_(False)
    made[_LIMIT].blocks[0].before.bias.requires_grad_()
    made["the same, rest under no_grad"] = still = copy.deepcopy(made[f"ours, last {_LAST} layers"])
    still.still = _LAYERS - _LAST
    return made


def loss_of(model: nn.Module, ids: Tensor, dtype: torch.dtype) -> Tensor:
    """Mean loss of the next token, under autocast if the type is not float32."""
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        scores = model(ids[:, :-1])
    return functional.cross_entropy(scores.float().flatten(0, 1), ids[:, 1:].flatten())


def step_of(model: nn.Module, ids: Tensor, dtype: torch.dtype) -> Callable[[], None]:
    """One step: forward, backward, fused AdamW; afterwards no gradient is left."""
    optimizer = torch.optim.AdamW(trained(model), lr=1e-4, fused=True)

    def step() -> None:
        loss_of(model, ids, dtype).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def disagreement(first: nn.Module, second: nn.Module, ids: Tensor, dtype: torch.dtype) -> float:
    """Largest distance of two gradients of one parameter, over the norm of the second."""
    pairs = []
    for model in (first, second):
        pairs.append(torch.autograd.grad(loss_of(model, ids, dtype), trained(model)))
    return max(float((a - b).norm() / b.norm()) for a, b in zip(*pairs, strict=True))


def peak_of_tensors(step: Callable[[], None], trace: Path) -> float:
    """Most megabytes of tensors during a step over those before it, from torch's own record of its allocations."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    profiler.export_chrome_trace(str(trace))
    events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    records = sorted((e for e in events if e.get("name") == "[memory]"), key=lambda event: event["ts"])
    return max(running(record["args"]["Bytes"] for record in records)) / 2**20


def running(values: Iterable[int]) -> Iterator[int]:
    """Running totals, from 0."""
    total = 0
    yield total
    for value in values:
        total += value
        yield total


def time_and_memory(rounds: int) -> None:
    """Steps of all contenders in both types."""
    made = models()
    ids = torch.randint(0, _VOCABULARY, (_BATCH, _LENGTH + 1), generator=torch.Generator().manual_seed(1))
    for theirs, ours in (
        ("PEFT", "ours"),
        ("loralib", "ours"),
        ("loralib, fused q k v", "ours, fused q k v"),
    ):
        for kind, dtype in _TYPES.items():
            apart = disagreement(made[ours], made[theirs], ids, dtype)
            print(f"{kind}, largest relative distance of a gradient from that of {theirs}: {apart:.1e}")
    for kind, dtype in _TYPES.items():
        steps = {name: step_of(model, ids, dtype) for name, model in made.items()}
        times = {name: row.median for name, row in _table(kind, steps, rounds).items()}
        with folder() as made_in:
            peaks = {name: peak_of_tensors(step, made_in / "trace.json") for name, step in steps.items()}
        print("  peak of tensors in a step, MB: " + ", ".join(f"{n} {p:.1f}" for n, p in peaks.items()))
        _goals(kind, times, peaks)


def _table(kind: str, steps: dict[str, Callable[[], None]], rounds: int) -> dict[str, Times]:
    times = measured(steps, rounds=rounds)
    print(f"\n{kind}: d = {_D}, {_LAYERS} layers, {_BATCH} x {_LENGTH} tokens, r = {_R} on q and v")
    table(times, "ours")
    return times


def _goals(kind: str, times: dict[str, float], peaks: dict[str, float]) -> None:
    for suffix in ("", ", fused q k v"):
        for theirs in ("PEFT", "loralib"):
            if theirs + suffix in times:
                what = f"{kind}, over {theirs}{suffix}"
                goal(f"{what}, time", times["ours" + suffix] / times[theirs + suffix], "<=", 1)
                goal(f"{what}, memory", peaks["ours" + suffix] / peaks[theirs + suffix], "<=", 1)
    goal(f"{kind}, full fine-tuning over ours", times["full"] / times["ours"], ">=", 1.35)
    print(f"        {kind}, full fine-tuning over the limit: {times['full'] / times[_LIMIT]:.2f}")
    last = times[f"ours, last {_LAST} layers"]
    print(f"        {kind}, all {_LAYERS} layers over the last {_LAST}: {times['ours'] / last:.2f}")
    goal(
        f"{kind}, last {_LAST} layers over the same with the rest under no_grad",
        last / times["the same, rest under no_grad"],
        "<=",
        1.05,
    )


_TWO_LAYERS = "from torch import nn; model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64)); "
_PROGRAMS = {
    "import torch": "import torch",
    "ours": f"from subspace.training import LoRA, inject; {_TWO_LAYERS}inject(model, LoRA(r=8), ['0', '1'])",
    "PEFT": f"from peft import LoraConfig, get_peft_model; {_TWO_LAYERS}"
    "get_peft_model(model, LoraConfig(r=8, target_modules=['0', '1']))",
    "loralib": "import loralib; model = loralib.Linear(64, 64, r=8); loralib.Linear(64, 64, r=8)",
}


def start_up(rounds: int) -> None:
    """From nothing to an adapted model of two layers, a process each."""
    times = measured(
        {
            name: lambda program=program: child_cpu([sys.executable, "-c", program])
            for name, program in _PROGRAMS.items()
        },
        rounds=rounds,
        clock=lambda run: float(run()),  # type: ignore[arg-type]
    )
    print("\nstart-up: a process that adapts two linear layers")
    table(times, "ours")
    torch_alone, ours, theirs = (times[name].median for name in ("import torch", "ours", "PEFT"))
    goal("start-up, PEFT over ours, torch and all", theirs / ours, ">=", 3)
    print(
        f"        beyond `import torch`: ours {ours - torch_alone:.0f} ms, PEFT {theirs - torch_alone:.0f} ms"
    )


def main() -> None:
    """Measure steps, then start-up."""
    torch.set_num_threads(1)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else the profiler says that it starts and stops
    arguments = options(__doc__ or "", rounds=5).parse_args()
    machine()
    print(f"peft {peft.__version__}, loralib {version('loralib')}\n")
    time_and_memory(arguments.rounds)
    start_up(arguments.rounds)


if __name__ == "__main__":
    main()
