"""A small decoder over bytes, in the layout and under the names of LLaMA, so that others load its files too."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

__all__ = ["ByteLlama", "Shape"]


@dataclass(frozen=True)
class Shape:
    """Sizes of a `ByteLlama`, under the names of transformers' ``LlamaConfig``."""

    hidden_size: int = 256
    intermediate_size: int = 688
    num_hidden_layers: int = 4
    num_attention_heads: int = 8
    vocab_size: int = 256
    max_position_embeddings: int = 256
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    initializer_range: float = 0.02

    def config(self) -> dict[str, Any]:
        """Return the ``config.json`` with which transformers loads the same weights."""
        fixed = {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_act": "silu",
            "num_key_value_heads": self.num_attention_heads,
            "tie_word_embeddings": True,
            "attention_bias": False,
            "mlp_bias": False,
            "bos_token_id": None,
            "eos_token_id": None,
            "pad_token_id": None,
            "dtype": "bfloat16",
        }
        return {**fixed, **asdict(self)}

    @classmethod
    def read(cls, config: dict[str, Any]) -> Shape:
        """Return the sizes that a ``config.json`` gives; fields of no concern here are passed over."""
        return cls(**{name: config[name] for name in cls.__dataclass_fields__ if name in config})


class ByteLlama(nn.Module):
    """Logits of the next byte: ``ids`` (batch, time), int64 in [0, 256), to (batch, time, 256).

    Notes
    -----
    The names and the arithmetic are those of transformers' ``LlamaForCausalLM`` (RMSNorm, rotary positions by halves,
    SwiGLU, no biases, output tied to the embedding), without its import.

    References
    ----------
    Touvron et al., arXiv 2302.13971, section 2.2.
    """

    def __init__(self, shape: Shape | None = None) -> None:
        super().__init__()
        self.shape = shape or Shape()
        self.model = _Decoder(self.shape)

    def gradient_checkpointing_enable(self, how: dict[str, Any]) -> None:
        """Compute each layer once more in the backward pass of training; as the models of transformers have it."""
        self.model.again = how

    def forward(self, ids: Tensor) -> Tensor:
        """Return logits (batch, time, vocab_size)."""
        return functional.linear(self.model(ids), self.model.embed_tokens.weight)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> ByteLlama:
        """Draw every matrix from N(0, initializer_range^2), those that write to the residual stream scaled down.

        References
        ----------
        Radford et al. 2019 (GPT-2), section 2.3: residual projections by ``1 / sqrt(2 layers)``.
        """
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                weight.normal_(0.0, self.shape.initializer_range, generator=generator)
                if name.endswith(("o_proj.weight", "down_proj.weight")):
                    weight.div_((2 * self.shape.num_hidden_layers) ** 0.5)
        return self


class _Decoder(nn.Module):
    cos: Tensor
    sin: Tensor
    again: dict[str, Any] | None = None

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(_Layer(shape) for _ in range(shape.num_hidden_layers))
        self.norm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)
        cos, sin = _rotations(shape)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        h = self.embed_tokens(ids)
        rotation = self.cos[: ids.shape[1]], self.sin[: ids.shape[1]]
        for layer in self.layers:
            if self.again is not None and self.training:
                h = checkpoint(layer, h, rotation, **self.again)
            else:
                h = layer(h, rotation)
        out: Tensor = self.norm(h)
        return out


class _Layer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.self_attn = _Attention(shape)
        self.mlp = _MLP(shape)
        self.input_layernorm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)

    def forward(self, h: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        h = h + self.self_attn(self.input_layernorm(h), rotation)
        out: Tensor = h + self.mlp(self.post_attention_layernorm(h))
        return out


class _Attention(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        d = shape.hidden_size
        self.heads = shape.num_attention_heads
        self.q_proj, self.k_proj = nn.Linear(d, d, bias=False), nn.Linear(d, d, bias=False)
        self.v_proj, self.o_proj = nn.Linear(d, d, bias=False), nn.Linear(d, d, bias=False)

    def forward(self, h: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        q, k, v = (self._by_head(projection(h)) for projection in (self.q_proj, self.k_proj, self.v_proj))
        q, k = _rotated(q, *rotation), _rotated(k, *rotation)
        mixed = functional.scaled_dot_product_attention(q, k, v.to(q.dtype), is_causal=True)
        out: Tensor = self.o_proj(mixed.transpose(1, 2).flatten(2))
        return out

    def _by_head(self, x: Tensor) -> Tensor:
        """(batch, time, d) to (batch, head, time, d / heads)."""
        by_head: Tensor = x.unflatten(-1, (self.heads, -1))
        return by_head.transpose(1, 2)


class _MLP(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        d, wide = shape.hidden_size, shape.intermediate_size
        self.gate_proj, self.up_proj = nn.Linear(d, wide, bias=False), nn.Linear(d, wide, bias=False)
        self.down_proj = nn.Linear(wide, d, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        out: Tensor = self.down_proj(functional.silu(self.gate_proj(h)) * self.up_proj(h))
        return out


def _rotations(shape: Shape) -> tuple[Tensor, Tensor]:
    """Cosines and sines (time, d / heads) of the rotary positions, each half of a head the same."""
    half = shape.hidden_size // shape.num_attention_heads // 2
    frequency = shape.rope_theta ** (-torch.arange(half, dtype=torch.float32) / half)
    angle = torch.outer(torch.arange(shape.max_position_embeddings, dtype=torch.float32), frequency)
    angle = torch.cat([angle, angle], dim=-1)
    return angle.cos(), angle.sin()


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate pairs (first half, second half) of each head: Su et al., arXiv 2104.09864, equation 34."""
    first, second = x.chunk(2, dim=-1)
    return x * cos.to(x.dtype) + torch.cat([-second, first], dim=-1) * sin.to(x.dtype)
