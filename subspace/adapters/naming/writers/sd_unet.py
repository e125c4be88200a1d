"""Stable Diffusion's own names of its UNet: ``input_blocks.4.1`` is ``down_blocks.1.attentions.0`` of diffusers.

They have dots, as in a checkpoint, or underscores, as kohya writes them for SDXL. A block has two layers.
"""

from __future__ import annotations

import re

from subspace.adapters.naming.writers._names import WriterNames

__all__ = ["NAMES", "name_in_sdxl"]

_BLOCK = re.compile(
    r"(?P<prefix>(?:model\.)?(?:diffusion_model\.)?|unet\.|lora_unet_)(?P<block>input_blocks|middle_block|output_blocks)"
    r"(?P<mark>[._])(?P<n>[0-9]+)(?:(?P=mark)(?P<m>[0-9]+))?(?:(?P=mark)(?P<rest>.+))?"
)
_WHOLE = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "out.2": "conv_out",
}
_MIDDLE = {0: "mid_block.resnets.0", 1: "mid_block.attentions.0", 2: "mid_block.resnets.1"}
_LAYERS = {
    "op": "conv",
    "in_layers_2": "conv1",
    "emb_layers_1": "time_emb_proj",
    "out_layers_3": "conv2",
    "skip_connection": "conv_shortcut",
}
_PER_BLOCK = 3  # two layers and a change of resolution


def _translate(module: str) -> tuple[str, ...]:
    """Name in diffusers.

    Examples
    --------
    >>> _translate("lora_unet_output_blocks_3_1_proj_in"), _translate("middle_block.0.in_layers.2")
    (('lora_unet_up_blocks_1_attentions_0_proj_in',), ('mid_block.resnets.0.conv1',))
    """
    match = _BLOCK.fullmatch(module)
    if match is None:
        return _alone(module)
    rest, mark = match["rest"] or "", match["mark"]
    block = _block(match["block"], int(match["n"]), match["m"], rest)
    if block is None:
        return ()
    # names inside a transformer are the same in both
    inner = _LAYERS.get(rest.replace(".", "_"), rest).replace(".", mark)
    there = f"{block.replace('.', mark)}{mark}{inner}" if inner else block.replace(".", mark)
    return (f"{match['prefix']}{there}",) if mark == "_" else (there,)


def _block(block: str, n: int, m: str | None, rest: str) -> str | None:
    """Block in diffusers of the m-th layer of block n."""
    if block == "middle_block":
        return _MIDDLE.get(n) if m is None else None
    if m is None:
        return None
    if block == "input_blocks" and n == 0:
        return "conv_in" if not rest else None
    i, j = divmod(n - 1 if block == "input_blocks" else n, _PER_BLOCK)
    if block == "input_blocks" and j == _PER_BLOCK - 1:
        return f"down_blocks.{i}.downsamplers.0"
    if rest == "conv":
        return f"up_blocks.{i}.upsamplers.0"
    return f"{'down' if block == 'input_blocks' else 'up'}_blocks.{i}.{'attentions' if m == '1' else 'resnets'}.{j}"


def _alone(module: str) -> tuple[str, ...]:
    if module.startswith("lora_unet_"):
        there = {name.replace(".", "_"): other.replace(".", "_") for name, other in _WHOLE.items()}
        found = there.get(module.removeprefix("lora_unet_"))
        return () if found is None else (f"lora_unet_{found}",)
    bare = module.removeprefix("model.").removeprefix("diffusion_model.")
    return (_WHOLE[bare],) if bare in _WHOLE and bare != module else ()


_LAYER = re.compile(
    r"(?P<block>down|up)_blocks\.(?P<i>[0-9]+)\.(?P<kind>attentions|resnets|downsamplers|upsamplers)\.(?P<j>[0-9]+)"
    r"(?:\.(?P<rest>.+))?"
)
_THERE = {other: name for name, other in _WHOLE.items()} | {"conv_in": "input_blocks.0.0"}
_MIDDLE_THERE = {there: f"middle_block.{n}" for n, there in _MIDDLE.items()}
_LAYERS_THERE = {
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def name_in_sdxl(path: str) -> str:
    """The name in Stability's UNet of SDXL of a layer of diffusers' UNet; as it is where it has none.

    Examples
    --------
    >>> name_in_sdxl("down_blocks.1.attentions.0.proj_in"), name_in_sdxl("up_blocks.0.upsamplers.0.conv")
    ('input_blocks.4.1.proj_in', 'output_blocks.2.2.conv')
    """
    if path in _THERE:
        return _THERE[path]
    for middle, there in _MIDDLE_THERE.items():
        if path.startswith(f"{middle}."):
            rest = path.removeprefix(f"{middle}.")
            return f"{there}.{_LAYERS_THERE.get(rest, rest)}"
    match = _LAYER.fullmatch(path)
    if match is None:
        return path
    down, rest, first = match["block"] == "down", match["rest"], _PER_BLOCK * int(match["i"])
    if match["kind"] == "downsamplers":
        return f"input_blocks.{first + _PER_BLOCK}.0.op"
    if match["kind"] == "upsamplers":
        return f"output_blocks.{first + _PER_BLOCK - 1}.2.{rest}"  # behind attention, in every such block of SDXL
    n, m = first + int(match["j"]) + down, int(match["kind"] == "attentions")
    return f"{'input' if down else 'output'}_blocks.{n}.{m}.{_LAYERS_THERE.get(rest or '', rest)}"


NAMES = WriterNames(
    name="Stable Diffusion",
    about="CompVis and Stability's UNet (huggingface/diffusers, scripts/convert_diffusers_to_original_sdxl.py)",
    translate=_translate,
)
