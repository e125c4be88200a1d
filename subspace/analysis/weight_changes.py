"""What an adapter does to each parameter of a model: its updates, and what its file holds in full.

A change is a function of a parameter's new value, in float32 at least, to which it adds, and of its own value. Several
changes of one parameter, of fused groups, experts or merged adapters, are made one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from subspace.adapters import Adapter, BaseWeights, dora
from subspace.adapters.base.weight import BaseWeight
from subspace.adapters.format import Role
from subspace.adapters.naming.modules import Modules
from subspace.adapters.place import place
from subspace.adapters.update import LowRankUpdate, Update, known
from subspace.checkpoints.peft_files import PREFIX
from subspace.errors import FormatError, InconclusiveError, located
from subspace.flags import Flag
from subspace.geometry import lapack
from subspace.text import counted, listed, module_shown, shown

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Change", "Changes", "changes_of", "require_modules"]

Change: TypeAlias = "Callable[[Tensor, Tensor], None]"

_COPIES = ("original_module",)
_AROUND = ("modules_to_save", "base_layer")  # what PEFT puts between a module and its own parameters
_UNUSED = ("lora_velora_embed", "lora_monteclora_sampler")  # by training alone


class Changes(NamedTuple):
    """What adapters do to a model.

    Attributes
    ----------
    of : key in the state dict -> changes of that parameter
    kept : keys of the parameters that the file holds in full
    left_out : tensors of the file that the model has no place for, as it is for another task
    """

    of: Mapping[str, list[Change]]
    kept: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def changes_of(
    model: nn.Module, base: BaseWeights, adapter: Adapter, weight: float = 1.0, *, alone: bool = True
) -> Changes:
    """Return what an adapter does to each parameter of a model.

    Parameters
    ----------
    model : whose parameters are changed later
    base : its weights, as `load_base` reads them from the model
    adapter : read with this base
    weight : factor of the whole change
    alone : whether no other adapter is put onto the model at the same time

    Raises
    ------
    InconclusiveError : the model has none of the adapter's modules; a scale is unknown
    FormatError : the model lacks some of them, or what the file holds in full cannot be placed; all are named
    ShapeError : a weight does not have the shape of its update
    """
    sites = require_modules(base, adapter)
    of: dict[str, list[Change]] = {}
    for module, site in sites.items():
        with located(lambda module=module: place(adapter.path, module)):  # type: ignore[misc]
            of.setdefault(site.key, []).append(_change(adapter[module], adapter, site, base, weight))
    for key, change in _biases(adapter, sites, weight):
        of.setdefault(key, []).append(change)
    kept, left_out = _kept(model, adapter, weight, alone=alone)
    for key, change in kept.items():
        of.setdefault(key, []).append(change)
    base.tensors.release()
    adapter.release()
    return Changes(of, tuple(kept), left_out)


def require_modules(base: BaseWeights, adapter: Adapter) -> dict[str, BaseWeight]:
    """Return the weight of the model for each module of the adapter; names alone are read.

    Raises
    ------
    InconclusiveError : the model has none of the adapter's modules
    FormatError : it lacks some of them; all are named
    """
    sites = {module: base.weight(update) for module, update in adapter.items()}
    missing = [module for module, site in sites.items() if site is None]
    if not missing:
        return {module: site for module, site in sites.items() if site is not None}
    kind = InconclusiveError if len(missing) == len(sites) else FormatError
    raise kind(
        f"The model lacks {len(missing)} of {counted(len(sites), 'module')} of the adapter "
        f"({listed(map(module_shown, missing), most=8)}), in {place(adapter.path)}; rename modules with `rename`, or "
        "give the model that the adapter was trained on"
    )


def _change(update: Update, adapter: Adapter, site: BaseWeight, base: BaseWeights, weight: float) -> Change:
    """The change of a parameter by the update of one module."""
    view = partial(_view, site=site, expert=_expert(update, site, base))
    scale = weight * known(update.scale, update.module)
    if Flag.DORA in update.flags:
        return _dora(update, adapter, weight, view)
    if isinstance(update, LowRankUpdate):
        A, B = _owned(update.A), _owned(update.B)
        lapack.refuse(A, name="A")
        lapack.refuse(B, name="B")
        return partial(_add_product, A, B, scale, view)

    def add(new: Tensor, own: Tensor) -> None:
        import torch

        dense = torch.from_numpy(_owned(update.matrix.load()))
        view(new).add_(dense.to(new.device, new.dtype), alpha=scale)
        adapter.release()

    return add


def _owned(M: Any) -> Any:
    """An array that torch can share: contiguous, and writable, as those of a file are not."""
    return np.require(M, requirements=["C", "W"])


def _add_product(
    A: Any, B: Any, scale: float, view: Callable[[Tensor], Tensor], new: Tensor, own: Tensor
) -> None:
    import torch

    factors = (torch.from_numpy(factor).to(new.device, new.dtype) for factor in (B, A))
    view(new).addmm_(*factors, alpha=scale)


def _dora(update: Update, adapter: Adapter, weight: float, view: Callable[[Tensor], Tensor]) -> Change:
    found = dora.magnitudes(update, adapter)
    if found is None:
        raise FormatError("DoRA's magnitudes are not in the file; give the whole adapter")
    magnitudes, by_row = np.array(found[0]), found[1]

    def add(new: Tensor, own: Tensor) -> None:
        import torch

        W = view(own.to(new.dtype)).cpu().numpy()
        change = dora.whole_change(W, update.delta_W(), magnitudes, by_row=by_row)
        view(new).add_(torch.from_numpy(change).to(new.device, new.dtype), alpha=weight)

    return add


def _expert(update: Update, site: BaseWeight, base: BaseWeights) -> int | None:
    """Number of the expert whose weight is a part of a parameter of three dimensions, None for a whole parameter."""
    if site.key not in base.tensors.layout:
        raise FormatError(
            f"The update is of a fused layer of an expert, and the model has its parts as layers: {shown(site.key)}; "
            "give the model that the adapter was trained on"
        )
    shape = base.tensors.layout[site.key].shape
    _, bracket, number = update.module.rpartition("[")
    if Flag.EXPERT in update.flags and bracket:
        return int(number.rstrip("]")) if len(shape) == 3 else None
    words = update.module.split(".")[:-1]
    single = len(shape) == 3 and tuple(site.stored.shape) == shape[1:] and words and words[-1].isdigit()
    return int(words[-1]) if single and update.kind == "linear" else None


def _view(tensor: Tensor, *, site: BaseWeight, expert: int | None) -> Tensor:
    """The part of a parameter that an update covers, (d_out, d_in), in the parameter's own memory."""
    if expert is not None:
        tensor = tensor[expert]
    matrix = tensor.view(tuple(site.stored.shape))
    if site.transposed:
        matrix = matrix.t()
    return matrix if site.rows is None else matrix[slice(*site.rows)]


def _biases(adapter: Adapter, sites: Mapping[str, BaseWeight], weight: float) -> Iterator[tuple[str, Change]]:
    """Changes of biases by the adapter itself: LoRA's own bias, and IA3's outputs, of which the bias is a part."""
    layout = adapter.tensors.layout if adapter.tensors is not None else {}
    for module, site in sites.items():
        stored = adapter.stored_names.get(module, module)
        keys = [f"{start}{stored}.{part}" for start in (PREFIX, "") for part in _BIAS_PARTS]
        key = next((key for key in keys if key in layout), None)
        if key is None or site is None or adapter.tensors is None:
            continue
        values = np.array(adapter.tensors.read(key))
        bias = f"{site.key.rpartition('.')[0]}.bias"
        if ".ia3_l" not in key:
            yield bias, partial(_add_vector, values, weight * known(adapter[module].scale, module))
        elif not _on_inputs(module, values.shape, adapter):
            yield bias, partial(_rescale, values.reshape(-1), weight)


_BIAS_PARTS = ("lora_B.bias", "lora_B.default.bias", "ia3_l", "ia3_l.default")


def _on_inputs(module: str, shape: tuple[int, ...], adapter: Adapter) -> bool:
    """Whether IA3 rescales what goes into a layer, which leaves its bias as it is."""
    if len(shape) == 2:
        return shape[0] == 1
    names = adapter.config.get("feedforward_modules") or ()
    return any(module.endswith(str(name)) for name in ([names] if isinstance(names, str) else names))


def _add_vector(values: Any, weight: float, new: Tensor, own: Tensor) -> None:
    import torch

    new.add_(torch.from_numpy(values).to(new.device, new.dtype), alpha=weight)


def _rescale(scaling: Any, weight: float, new: Tensor, own: Tensor) -> None:
    import torch

    factor = torch.from_numpy(scaling).to(new.device, new.dtype)
    new.add_((factor - 1) * own.to(new.dtype), alpha=weight)


def _kept(
    model: nn.Module, adapter: Adapter, weight: float, *, alone: bool
) -> tuple[dict[str, Change], tuple[str, ...]]:
    """Changes by the tensors that the file holds in full, such as a classifier, and those that have no place."""
    state = {key: tuple(value.shape) for key, value in model.state_dict().items() if hasattr(value, "shape")}
    names = Modules(state)
    changes: dict[str, Change] = {}
    left_out: list[str] = []
    lost: list[str] = []
    for key in _trained(adapter):
        hits = names.same(_plain(key))
        assert adapter.tensors is not None
        if len(hits) == 1 and state[hits[0]] == tuple(adapter.tensors.layout[key].shape):
            values = np.array(adapter.tensors.read(key))
            changes[hits[0]] = partial(_replace, values, weight, alone and weight == 1)
        else:  # a model for another task has no classifier
            (lost if hits or adapter.config.get("task_type") != "SEQ_CLS" else left_out).append(key)
    if lost:
        raise FormatError(
            f"The model has no place for what the file holds besides its updates: {listed(lost)}, in "
            f"{place(adapter.path)}; give the model that the adapter was trained on"
        )
    return changes, tuple(left_out)


def _trained(adapter: Adapter) -> list[str]:
    """Keys of the tensors that were trained and belong to no update, and are no bias of the adapter itself."""
    layout = adapter.tensors.layout if adapter.tensors is not None else {}
    found = []
    for item in adapter.ignored:
        parts = item.key.split(".")
        number = item.key in layout and layout[item.key].dtype.startswith(("float", "bfloat"))
        other = {*_COPIES, *_UNUSED, "lora_B"} & set(parts)
        if number and not other and (item.role is Role.TRAINED or "modules_to_save" in parts):
            found.append(item.key)
    return found


def _plain(key: str) -> str:
    """Name of a parameter without what PEFT puts around it."""
    words, rest = [], iter(key.removeprefix(PREFIX).split("."))
    for word in rest:
        if word == "modules_to_save":
            following = next(rest, "")
            words += [following] if following in ("weight", "bias") else []
        elif word not in _AROUND:
            words.append(word)
    return ".".join(words)


def _replace(values: Any, weight: float, exactly: bool, new: Tensor, own: Tensor) -> None:
    import torch

    given = torch.from_numpy(values).to(new.device, new.dtype)
    if exactly or not new.is_floating_point():
        new.copy_(given)
    else:
        new.add_(given - own.to(new.dtype), alpha=weight)
