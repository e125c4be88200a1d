"""Which modules read the same input, and which are the same kind of module in other layers: from their names alone."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["Place", "place_of"]

_NUMBER = re.compile(r"(?:^|(?<=[._]))\d+(?=$|[._\[])")
# Query, key and value of one attention layer, whoever named them: q_proj, query, to_q, q_lin, wq, qkv[q], attn_q, ...
_ATTENTION = re.compile(
    r"(?P<before>(?:.*[._\[])?(?:w_?|W_)?)(?P<member>q|k|v|query|key|value)(?P<after>(?:_?(?:proj|lin|linear|layer|attn))?\]?)",
    re.DOTALL,
)
# The two layers of a gated feed-forward network that read its input; down_proj, w2 and wo read another
_GATED = re.compile(
    r"(?P<before>(?:.*[._\[])?)(?:(?P<member>gate|up)(?P<after>(?:_proj)?\]?)|w(?P<w>1|3)|wi_(?P<wi>0|1))",
    re.DOTALL,
)
# Keys and values of cross-attention are made of another sequence than its queries
_CROSS = re.compile(
    r"encdecattention|enc_dec_att|attn2|crossattention|cross_att|encoder_attn|encoder_att\b|multihead_attn",
    re.I,
)


class Place(NamedTuple):
    """Where a module stands in its model.

    Attributes
    ----------
    kind : its name with every number replaced by "*", the same for one kind of module in all layers
    layer : the numbers in its name
    input : what modules that read the same input have in common; None where no other module is known to read it
    """

    kind: str
    layer: tuple[int, ...]
    input: str | None


def place_of(module: str) -> Place:
    """The place of a module, from its dotted or flattened name.

    Examples
    --------
    >>> place_of("layers.3.self_attn.q_proj")
    Place(kind='layers.*.self_attn.q_proj', layer=(3,), input='layers.3.self_attn.{qkv}_proj')
    >>> place_of("layers.3.self_attn.v_proj").input == place_of("layers.3.self_attn.q_proj").input
    True
    >>> place_of("down_blocks_0_attn2_to_k").input, place_of("down_blocks_0_attn2_to_q").input
    ('down_blocks_0_attn2_to_{kv}', None)
    >>> place_of("mlp.up_proj").input, place_of("mlp.down_proj").input
    ('mlp.{gate,up}_proj', None)
    """
    numbers = tuple(int(number) for number in _NUMBER.findall(module) if len(number) < 10)
    return Place(_NUMBER.sub("*", module), numbers, _attention(module) or _gated(module))


def _attention(module: str) -> str | None:
    found = _ATTENTION.fullmatch(module)
    if found is None:
        return None
    before, member, after = found["before"], found["member"], found["after"]
    cross = _CROSS.search(before) is not None
    if cross and member[0] == "q":
        return None
    letters = "kv" if cross else "qkv"
    words = letters if len(member) == 1 else ",".join(("query", "key", "value")[-len(letters) :])
    return f"{before}{{{words}}}{after}"


def _gated(module: str) -> str | None:
    found = _GATED.fullmatch(module)
    if found is None:
        return None
    if found["w"] or found["wi"]:
        return f"{found['before']}{'w{1,3}' if found['w'] else 'wi_{0,1}'}"
    return f"{found['before']}{{gate,up}}{found['after']}"
