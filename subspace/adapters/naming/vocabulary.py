"""Words of the names of modules, per model: with them the dots of a name that underscores replaced are put back.

A name is a row of words, ``down_blocks . 0 . attentions . 1 . proj_in``. Written with underscores it can be read in
one way only where the words are known, since "proj_in" is a word and "proj" followed by "in" is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

__all__ = ["MODELS", "Vocabulary", "with_dots"]

_LONGEST = 400  # characters of a name; real ones have up to 120
_MOST_WORDS = 6  # parts of a word that has underscores itself; "single_transformer_blocks" has three


@dataclass(frozen=True)
class Vocabulary:
    """Words of the modules of one model.

    Attributes
    ----------
    component : name of the model in a pipeline, "" where it is a model on its own
    first : words that a name may begin with; "*" behind a word: a number follows
    words : the other words
    source : the library's file whose attributes these are
    """

    component: str
    first: str
    words: str
    source: str

    @cached_property
    def _firsts(self) -> frozenset[str]:
        return frozenset(word.rstrip("*") for word in self.first.split())

    @cached_property
    def _numbered(self) -> frozenset[str]:
        return frozenset(word[:-1] for word in (self.first + " " + self.words).split() if word.endswith("*"))

    @cached_property
    def _plain(self) -> frozenset[str]:
        return frozenset(word for word in (self.first + " " + self.words).split() if not word.endswith("*"))

    def begins(self, path: str) -> bool:
        """Whether a dotted path begins as those of the model do.

        Examples
        --------
        >>> MODELS["UNet"].begins("mid_block.attentions.0.proj_in"), MODELS["UNet"].begins("layers.0.q")
        (True, False)
        """
        return path.partition(".")[0] in self._firsts

    def readings(self, flat: str) -> list[str]:
        """The dotted names that a name with underscores may stand for: none, one, or two where it is ambiguous."""
        parts = flat.split("_")
        # ways[n]: dotted names of the parts from n on
        ways: list[list[str]] = [[] for _ in parts] + [[""]]
        for n in range(len(parts) - 1, -1, -1):
            for word, stop in self._words(parts, n):
                if n == 0 and word.partition(".")[0] not in self._firsts:
                    continue
                ways[n] += [f"{word}.{rest}" if rest else word for rest in ways[stop]]
            ways[n] = ways[n][:2]
        return ways[0]

    def _words(self, parts: list[str], n: int) -> Iterator[tuple[str, int]]:
        """Words that begin at part n, with the number that belongs to one, and the part after each."""
        for stop in range(n + 1, min(n + _MOST_WORDS, len(parts)) + 1):
            word = "_".join(parts[n:stop])
            if word in self._plain:
                yield word, stop
            if word in self._numbered and stop < len(parts) and parts[stop].isdecimal():
                yield f"{word}.{parts[stop]}", stop + 1


_ATTENTION = "to_q to_k to_v to_out* add_q_proj add_k_proj add_v_proj to_add_out"
MODELS = {
    "UNet": Vocabulary(
        "unet",
        "down_blocks* up_blocks* mid_block conv_in conv_out time_embedding add_embedding",
        f"attentions* resnets* downsamplers* upsamplers* transformer_blocks* attn1 attn2 ff net* proj proj_in proj_out "
        f"conv conv1 conv2 conv_shortcut time_emb_proj linear_1 linear_2 {_ATTENTION}",
        "huggingface/diffusers 0.42, models/unets/unet_2d_condition.py, unet_2d_blocks.py, models/resnet.py",
    ),
    "transformer": Vocabulary(
        "transformer",
        "transformer_blocks* single_transformer_blocks* x_embedder context_embedder time_text_embed norm_out proj_out "
        "pos_embed",
        f"attn attn2 norm norm1 norm1_context norm2 ff ff_context net* proj proj_mlp linear timestep_embedder "
        f"guidance_embedder text_embedder linear_1 linear_2 img_mlp txt_mlp img_mod* txt_mod* {_ATTENTION}",
        "huggingface/diffusers 0.42, models/transformers/transformer_flux.py, transformer_sd3.py, "
        "transformer_qwenimage.py, models/attention.py",
    ),
    "CLIP": Vocabulary(
        "text_encoder",
        "text_model text_projection",
        "encoder layers* self_attn mlp q_proj k_proj v_proj out_proj fc1 fc2",
        "huggingface/transformers 4, models/clip/modeling_clip.py",
    ),
    "T5": Vocabulary(
        "text_encoder",
        "encoder",
        "block* layer* SelfAttention DenseReluDense q k v o wi wi_0 wi_1 wo",
        "huggingface/transformers, models/t5/modeling_t5.py",
    ),
    "Flux": Vocabulary(
        "diffusion_model",
        "double_blocks* single_blocks* img_in txt_in time_in vector_in guidance_in final_layer",
        "img_attn txt_attn img_mlp* txt_mlp* img_mod txt_mod qkv proj lin linear linear1 linear2 modulation in_layer "
        "out_layer adaLN_modulation*",
        "black-forest-labs/flux, src/flux/model.py, modules/layers.py",
    ),
    "SD3": Vocabulary(
        "diffusion_model",
        "joint_blocks* x_embedder context_embedder t_embedder y_embedder final_layer",
        "context_block x_block attn attn2 qkv proj mlp fc1 fc2 adaLN_modulation* linear",
        "Stability-AI/sd3-ref, mmditx.py",
    ),
    "language model": Vocabulary(
        "",
        "model transformer layers* h* lm_head embed_tokens",
        "decoder encoder self_attn encoder_attn attn mlp q_proj k_proj v_proj o_proj out_proj qkv_proj gate_proj "
        "up_proj down_proj gate_up_proj c_attn c_proj c_fc fc1 fc2 q k v o",
        "huggingface/transformers, models/llama/modeling_llama.py, gpt2/modeling_gpt2.py, opt/modeling_opt.py",
    ),
    "BERT": Vocabulary(
        "",
        "bert roberta encoder",
        "encoder layer* attention self query key value output dense intermediate pooler",
        "huggingface/transformers, models/bert/modeling_bert.py",
    ),
}  # fmt: skip
# which models a prefix of a flattened name may stand for
_PREFIXES = (
    (re.compile(r"lora_te1?_"), ("CLIP",), "text_encoder."),
    (re.compile(r"lora_te2_"), ("CLIP", "T5"), "text_encoder_2."),
    (re.compile(r"lora_te3_"), ("T5",), "text_encoder_3."),
    (re.compile(r"lora_unet_"), ("UNet", "transformer", "Flux", "SD3"), None),
    (re.compile(r"lora_transformer_"), ("transformer",), None),
    (re.compile(r"lycoris_"), tuple(MODELS), None),
)
# the name of a model that some trainers leave in the path, behind the word that stands for it
_INNER = ("diffusion_model_", "model_diffusion_model_", "unet_", "transformer_", "text_encoder_")


def with_dots(name: str) -> str | None:
    """The dotted name of a flattened one, behind the name of its model in a pipeline; None where it is not certain.

    Examples
    --------
    >>> with_dots("lora_unet_down_blocks_0_attentions_1_proj_in")
    'unet.down_blocks.0.attentions.1.proj_in'
    >>> with_dots("lora_te2_text_model_encoder_layers_11_self_attn_q_proj")
    'text_encoder_2.text_model.encoder.layers.11.self_attn.q_proj'
    >>> with_dots("lycoris_diffusion_model_double_blocks_0_img_attn_qkv")
    'diffusion_model.double_blocks.0.img_attn.qkv'
    >>> with_dots("lora_unet_something_else")
    """
    for prefix, models, component in _PREFIXES:
        match = prefix.match(name)
        if match is not None and len(name) <= _LONGEST:
            return _one(name[match.end() :], models, component)
    return None


def _one(flat: str, models: tuple[str, ...], component: str | None) -> str | None:
    found = set()
    for model in models:
        known = MODELS[model]
        before = component if component is not None else f"{known.component}." if known.component else ""
        paths = [
            flat,
            *(flat.removeprefix(word) for word in _INNER if known.component and flat.startswith(word)),
        ]
        found |= {before + path for each in paths for path in known.readings(each)}
    return found.pop() if len(found) == 1 else None
