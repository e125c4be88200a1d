"""Full names of modules in models of transformers and diffusers, of names that another library gave or flattened.

Each name is translated only where there is one answer: by the tables in `subspace.adapters.naming.writers`, by the
names of the base model where it is given, and for a flattened name by the words that models are known to use.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from subspace.adapters.naming.flattened import is_flat
from subspace.adapters.naming.modules import Modules
from subspace.adapters.naming.vocabulary import MODELS, with_dots
from subspace.adapters.naming.writers import gguf, litgpt, sd_unet, torchtune
from subspace.checkpoints.peft_files import PREFIX

if TYPE_CHECKING:
    from subspace.adapters.base.weights import BaseWeights
    from subspace.adapters.naming.writers._names import WriterNames

__all__ = ["LIBRARIES", "dotted", "in_one_model"]

# format of a file -> whose names its modules have
LIBRARIES: Mapping[str, WriterNames] = {
    "gguf": gguf.NAMES,
    "litgpt": litgpt.NAMES,
    "torchtune": torchtune.NAMES,
}
_FLAT_PREFIX = re.compile(r"(?P<part>lora_(?:unet|transformer|te[123]?)|lycoris)_")
_TEXT_ENCODERS = {
    "lora_te": "text_encoder.",
    "lora_te1": "text_encoder.",
    "lora_te2": "text_encoder_2.",
    "lora_te3": "text_encoder_3.",
}


def in_one_model(
    modules: Collection[str], library: WriterNames, base: BaseWeights | None
) -> dict[str, str] | set[str]:
    """Full name of every module in the one kind of model that has them all; else the kinds that remain.

    Parameters
    ----------
    base : the model, whose modules decide between kinds
    """
    found = {module: library.full_names(module) for module in modules}
    kinds = set.intersection(*(set(names) for names in found.values())) if found else set()
    if len(kinds) > 1 and base is not None:
        there = Modules(base.modules)
        kinds = {kind for kind in kinds if all(there.same(names[kind]) for names in found.values())} or kinds
    answers = {kind: {module: names[kind] for module, names in found.items()} for kind in sorted(kinds)}
    different = {tuple(names.values()) for names in answers.values()}
    return next(iter(answers.values())) if len(different) == 1 else kinds


def dotted(module: str, base: BaseWeights | None) -> str:
    """The dotted name of a module, behind the name of its model in a pipeline; as it is where that is not certain.

    Examples
    --------
    >>> dotted("lora_unet_input_blocks_4_1_proj_in", None), dotted("diffusion_model.middle_block.1.proj_in", None)
    ('unet.down_blocks.1.attentions.0.proj_in', 'unet.mid_block.attentions.0.proj_in')
    >>> dotted("base_model.model.h.0.q", None), dotted("lora_unet_blocks_0_q", None)
    ('h.0.q', 'lora_unet_blocks_0_q')
    """
    name = module.removeprefix(PREFIX)
    unet = sd_unet.NAMES.translate(name)
    if unet:
        name = unet[0] if is_flat(unet[0]) or unet[0].startswith("unet.") else f"unet.{unet[0]}"
    if not is_flat(name):
        return name
    return (None if base is None else _in_base(name, base)) or with_dots(name) or name


def _in_base(name: str, base: BaseWeights) -> str | None:
    """The module of the base whose name was flattened, None without one such module."""
    found = base.translated(name)
    match = _FLAT_PREFIX.match(name)
    if found is None or match is None or found[1].reordered:
        return None
    module, rest = found[0], name[match.end() :]
    flat = module.replace(".", "_")
    if match["part"] != "lycoris":
        return dotted(_component(match["part"], module) + module, None)
    # a published checkpoint may lack the first word of the names that its model has in memory
    before = rest.removesuffix(flat).rstrip("_") if rest.endswith(flat) else ""
    return f"{before}.{module}" if before and "_" not in before else module


def _component(part: str, module: str) -> str:
    """Name of a model in a pipeline, for a module of the base that does not say it."""
    if part in _TEXT_ENCODERS:
        return _TEXT_ENCODERS[part]
    if module.startswith(("unet.", "transformer.", "model.diffusion_model.", "diffusion_model.")):
        return ""
    if MODELS["UNet"].begins(module):
        return "unet."
    original = any(MODELS[kind].begins(module) for kind in ("Flux", "SD3"))
    return "diffusion_model." if original and not MODELS["transformer"].begins(module) else "transformer."
