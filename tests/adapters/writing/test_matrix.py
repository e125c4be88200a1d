"""Every format that is read, written in every format that is written: the library that reads it has the same delta_W.

A pair that no library could load is refused, with the reason that is stated here.
"""

from __future__ import annotations

import pytest
from library_loaders import (
    MODELS,
    assert_same,
    clip,
    comfy_names,
    load_by_keys,
    load_diffusers,
    load_loralib,
    load_lycoris,
    load_peft,
    sd_scripts_names,
    unet,
)
from writable_sources import FORMATS
from written_files import put

from subspace.adapters import formats, load_adapter
from subspace.adapters.writers import every
from subspace.analysis.convert import convert
from subspace.analysis.truncate import truncate
from subspace.errors import FormatError

pytestmark = [
    pytest.mark.filterwarnings(r"ignore:::peft\..*"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

_SEVERAL = r"The adapter is of 2 models \(text_encoder, unet\), and a file of the format .* is of one"
_NO_PIPELINE = "No pipeline of diffusers has a module called"
_NO_NAMES = r"No names for 3 modules: the file does not say which layers unet:0, unet:1, unet:2 are.*`rename`"
# (format, target) -> why it is refused
REFUSED = {
    **{(name, to): _SEVERAL for name in ("diffusers", "pipeline") for to in ("peft", "loralib")},
    ("kohya", "peft"): _SEVERAL,
    ("kohya", "loralib"): "The format loralib cannot hold a module of kind conv",
    **{("cloneofsimo", to): _NO_NAMES for to in ("peft", "loralib", "kohya", "diffusers")},
    ("positional", "diffusers"): _NO_PIPELINE,
    ("xlabs", "diffusers"): "Flux has other layers in diffusers than double_blocks.*choose the format kohya",
}
OF_LLAMA = {
    "peft", "adalora", "loralib", "minlora", "mlx", "mlxvlm", "pair", "gguf", "torchtune", "litgpt", "vera",
    "peft_lycoris", "dense", "ia3", "oft",
}  # fmt: skip
REFUSED |= {(name, "diffusers"): _NO_PIPELINE for name in OF_LLAMA}
_SUFFIX = {"peft": "", "loralib": ".pt"}
FALLBACKS = {known.name for known in formats.every() if known.fallback}


def test_every_format_that_is_read_is_in_the_matrix():
    assert set(FORMATS) | FALLBACKS == {known.name for known in formats.every()} | FALLBACKS
    assert set(every()) == {"peft", "loralib", "kohya", "diffusers"}


def written(case, to, tmp_path):
    """The adapter as a file of a format, cut to a rank first where it is dense."""
    if case.rank is not None:
        with pytest.raises(FormatError, match="cut it to factors of a rank first, by subspace truncate"):
            convert(case.source, to=to, **case.options)
        cut = truncate(case.source, rank=case.rank, **case.options)
        made = convert(cut.adapter, to=to, dtype="float32", allow={"rounding"})
    else:
        made = convert(case.source, to=to, **case.options)
    return made, put(made, tmp_path / f"out{_SUFFIX.get(to, '.safetensors')}")


def in_one_model(deltas):
    """The names without that of the one model of a pipeline."""
    return {name.removeprefix("unet."): delta for name, delta in deltas.items()}


def loaded(case, to, made, path):
    """delta_W as the library of a format has it, and as it is wanted."""
    if to == "peft":
        return load_peft(path, MODELS[case.model]()), in_one_model(case.deltas)
    if to == "loralib":
        return load_loralib(path, made.modules[0].scale), in_one_model(case.deltas)
    if to == "diffusers":
        return load_diffusers(path), case.deltas
    if case.model == "unet":
        names = sd_scripts_names({"unet": unet(), "text_encoder": clip()})
        # the names of a checkpoint, which stay where a file has them; for ComfyUI, and for SDXL in sd-scripts
        names["lora_unet_middle_block_1_proj_in"] = "unet.mid_block.attentions.0.proj_in"
        return load_by_keys(path, names), case.deltas
    if case.model == "flux":
        return load_by_keys(path, comfy_names(case.deltas)), case.deltas
    flat = {f"lycoris_{name.replace('.', '_')}": delta for name, delta in case.deltas.items()}
    return load_lycoris(path, MODELS[case.model]()), flat


@pytest.mark.parametrize("to", sorted(every()))
@pytest.mark.parametrize("name", FORMATS)
def test_what_is_written_is_loaded_or_refused(name, to, tmp_path):
    case = FORMATS[name](tmp_path / "in")
    reason = REFUSED.get((name, to))
    if reason is not None:
        with pytest.raises(FormatError, match=reason):
            written(case, to, tmp_path)
        return
    made, path = written(case, to, tmp_path)
    found, wanted = loaded(case, to, made, path)
    assert_same(found, wanted, rtol=1e-5 if case.rank else 1e-6)
    read = load_adapter(path)
    assert (read.format, read.unknown) == (to, ())
