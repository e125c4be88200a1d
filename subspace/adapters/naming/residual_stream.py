"""Which modules of a language model read the residual stream through a norm, which write to it: from their names alone.

A model adds the outputs of its layers to a stream that begins as the token's embedding and is turned into logits at the
end. A module that reads it is given ``gain * norm(stream)``; what one writes meets the unembedding after the last norm.
"""

from __future__ import annotations

import re
from collections.abc import Container
from typing import NamedTuple

__all__ = ["EMBEDDINGS", "LAST_NORMS", "Stream", "norm_before", "stream_of"]

_LAYER = re.compile(
    r"(?P<model>(?:.*\.)?)(?P<stack>layers|h|blocks|layer)\.\d+\.(?P<rest>[^\d].*)", re.DOTALL
)
_ATTENTION = re.compile(r"(?:self_attn|attn|attention|self_attention)\.(?P<part>\w+)")
_READ = frozenset(
    "q_proj k_proj v_proj qkv_proj Wqkv c_attn query_key_value wq wk wv gate_proj up_proj gate_up_proj c_fc fc1 fc_in "
    "dense_h_to_4h w1 w3".split()
)
_WRITE = frozenset("o_proj out_proj c_proj dense wo down_proj fc2 fc_out dense_4h_to_h w2".split())
_MLP = re.compile(r"(?:(?:mlp|feed_forward)\.)?(?P<part>\w+)")
_BEHIND = re.compile(
    r"attention\.(?:self\.\w+|output\.dense|[qkv]_lin|out_lin)|(?:intermediate|output)\.dense|ffn\.lin[12]"
)
_BEFORE = {
    "attention": ("input_layernorm", "ln_1", "self_attn_layer_norm", "attention_norm"),
    "mlp": ("pre_feedforward_layernorm", "post_attention_layernorm", "ln_2", "final_layer_norm", "ffn_norm"),
}
_ONE = ("input_layernorm", "ln_1")  # of layers in which attention and MLP read one norm
EMBEDDINGS = ("embed_tokens", "wte", "embed_in", "word_embeddings", "tok_embeddings")
LAST_NORMS = ("norm", "ln_f", "final_layernorm", "final_layer_norm", "norm_f")


class Stream(NamedTuple):
    """What a module has to do with the residual stream.

    Attributes
    ----------
    side : "reads", "writes", or "" where it does neither
    part : "attention" or "mlp"
    layer, model : the beginnings of the names of its layer and of its model, with their last dot
    why : where it does neither, as a phrase
    """

    side: str
    part: str = ""
    layer: str = ""
    model: str = ""
    why: str = ""


def stream_of(module: str) -> Stream:
    """What a module has to do with the residual stream, from its name in the base.

    Examples
    --------
    >>> stream_of("model.layers.3.self_attn.q_proj")[:4]
    ('reads', 'attention', 'model.layers.3.', 'model.')
    >>> stream_of("h.0.mlp.c_proj")[:4]
    ('writes', 'mlp', 'h.0.', '')
    >>> stream_of("encoder.layer.0.attention.self.query").why
    'the norms of its model stand behind the layers, as in BERT, and not before them'
    """
    found = _LAYER.fullmatch(module.partition("[")[0])
    if found is None:
        return Stream("", why="its name does not say where in a language model it stands")
    layer, rest = module[: found.start("rest")], found["rest"]
    if _BEHIND.fullmatch(rest):
        return Stream(
            "", why="the norms of its model stand behind the layers, as in BERT, and not before them"
        )
    attention, mlp = _ATTENTION.fullmatch(rest), _MLP.fullmatch(rest)
    part = (attention or mlp or {"part": ""})["part"]
    kind = "attention" if attention else "mlp"
    if part in _READ:
        return Stream("reads", kind, layer, found["model"])
    if part in _WRITE:
        return Stream("writes", kind, layer, found["model"])
    return Stream(
        "", why="its name is none of a module that reads or writes the residual stream of a language model"
    )


def norm_before(stream: Stream, names: Container[str]) -> str | None:
    """Name of the norm that a module reads the stream through, of those that the base has; None without one.

    Examples
    --------
    >>> norm_before(stream_of("h.0.mlp.c_fc"), {"h.0.ln_1", "h.0.ln_2"})
    'h.0.ln_2'
    """
    wanted = [
        stream.layer + name for name in (*_BEFORE[stream.part], *(_ONE if stream.part == "mlp" else ()))
    ]
    return next((name for name in wanted if name in names), None)
