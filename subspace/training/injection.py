"""Adapters put into a model by the names of its modules, switched, merged, and taken out again."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from subspace.errors import ValueRangeError, located
from subspace.text import shown
from subspace.training.adapted_layer import PARTS, AdaptedLayer
from subspace.training.layer_shapes import factor_shapes, kind_of, sizes
from subspace.training.layer_types import adapted_class
from subspace.training.methods import IA3, Full, LoRA, Method, start_seed
from subspace.training.module_patterns import ancestors, ends, listed, matches, targets_in

__all__ = ["adapted", "inject", "merge", "remove", "unmerge", "use"]

DEFAULT = "default"
_NAME = re.compile(r"\w+")


def inject(
    model: nn.Module,
    method: Method,
    targets: Sequence[str],
    *,
    keep: Sequence[str] = (),
    but: Sequence[str] = (),
    name: str = DEFAULT,
) -> list[str]:
    """Put an adapter into a model, make it the active one and all that is trained; return the adapted modules.

    Every parameter is then in one of three states: of the adapter, kept trainable (`keep`), or frozen. The modules
    stay the objects that they are.

    Parameters
    ----------
    targets : patterns of modules; see `targets_in`
    keep : patterns of modules (or parameters) that go on being trained whole, such as ``classifier``
    but : patterns of modules that are left alone although a target names them
    name : of the adapter; several live on one base and `use` switches between them

    Raises
    ------
    ValueRangeError : a pattern names nothing, the name is taken, a target that cannot be adapted or is kept
    ShapeError : r is larger than a dimension of a target, groups that do not divide its rows
    """
    if isinstance(method, Full):
        return _train_whole(model, method, targets, keep)
    _require_new(model, name)
    chosen = _without(targets_in(model, targets), but)
    kept = _kept(model, keep)
    modules = dict(model.named_modules())
    if isinstance(method, IA3):
        _require_among(chosen, method.feedforward)
    for module in chosen:
        _require_called(modules, module)
        _require_apart(modules[module], module, kept)
    starts = {module: _start(modules[module], module, method) for module in chosen}
    for module, factors in starts.items():
        layer = modules[module]
        if not isinstance(layer, AdaptedLayer):
            layer.__class__ = adapted_class(layer, module)
            layer.begin()
        layer.hold(name, method, factors)
        if isinstance(method, IA3) and any(matches(module, pattern) for pattern in method.feedforward):
            layer.feedforward.add(name)
    use(model, name)
    for parameter_name, parameter in model.named_parameters():
        parameter.requires_grad_(id(parameter) in kept or parameter_name.rpartition(".")[2] in PARTS)
    return chosen


def _without(chosen: list[str], but: Sequence[str]) -> list[str]:
    """Targets that are not in a module of some other patterns."""
    left = [name for name in chosen if not any(matches(part, p) for part in ancestors(name) for p in but)]
    if not left:
        raise ValueRangeError(
            f"a target must lie outside of what is trained whole anyway: got {shown(', '.join(chosen))} alone; choose "
            "other targets"
        )
    return left


def _require_among(chosen: Sequence[str], feedforward: Sequence[str]) -> None:
    for pattern in feedforward:
        if not any(matches(name, pattern) for name in chosen):
            raise ValueRangeError(
                f"a feedforward module must be one of the targets: got {shown(pattern)}, which names none of "
                f"{ends(chosen)}; add it to the targets"
            )


def _require_apart(layer: nn.Module, name: str, kept: set[int]) -> None:
    """Refuse a layer that is kept too, which no file of adapters can say; a tied weight is one parameter."""
    if any(id(parameter) in kept for parameter in layer.parameters(recurse=False)):
        raise ValueRangeError(
            f"a module must be adapted or kept trainable, not both: got {shown(name)}; narrow the targets or what is "
            "kept"
        )


def _require_called(modules: dict[str, nn.Module], name: str) -> None:
    """Refuse a layer whose weight torch's encoder layer reads in evaluation, past what is called in training."""
    parent = modules.get(name.rpartition(".")[0])
    if isinstance(parent, nn.TransformerEncoderLayer) and torch.backends.mha.get_fastpath_enabled():
        raise ValueRangeError(
            f"a target must be called by its parent: {shown(name)} is read by nn.TransformerEncoderLayer in "
            "evaluation, which would pass the adapter by; call torch.backends.mha.set_fastpath_enabled(False) first, "
            "or choose other targets"
        )


def _require_new(model: nn.Module, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueRangeError(
            f"an adapter's name must be of letters, digits and _: got {shown(name)}; choose one"
        )
    if any(name in layer.methods for _, layer in adapted(model)):
        raise ValueRangeError(
            f"an adapter's name must be new: got {shown(name)}, which the model has; choose another"
        )


def _kept(model: nn.Module, patterns: Sequence[str]) -> set[int]:
    """The parameters that belong to a kept module, by ``id``: one that is tied has several names."""
    named = dict(model.named_parameters(remove_duplicate=False))
    names = [name for name, parameter in named.items() if parameter.is_floating_point()]
    kept: set[int] = set()
    for pattern in listed(patterns):
        hits = {id(named[name]) for name in names if any(matches(part, pattern) for part in ancestors(name))}
        if not hits:
            children = ", ".join(shown(child) for child, _ in model.named_children())
            raise ValueRangeError(
                f"a kept module must be one of the model: got {shown(pattern)}; at its top there are {children}"
            )
        kept |= hits
    return kept


def _train_whole(model: nn.Module, method: Full, targets: Sequence[str], keep: Sequence[str]) -> list[str]:
    if adapted(model):
        raise ValueRangeError("a model must carry no adapter to be trained whole: got one; remove it first")
    chosen = targets_in(model, targets) if targets else []
    modules = dict(model.named_modules())
    trained = _kept(model, keep) | {id(p) for module in chosen for p in _weights(modules[module])}
    for parameter in model.parameters():
        whole = method.everything and parameter.is_floating_point()
        parameter.requires_grad_(whole or id(parameter) in trained)
    return chosen


def _weights(layer: nn.Module) -> list[nn.Parameter]:
    """The weight of a layer, or what it is computed from."""
    own = layer._parameters.get("weight")
    if own is not None:
        return [own]
    return [p for name, p in layer.named_parameters() if name != "bias"]


@torch.no_grad()
def _start(layer: nn.Module, module: str, method: LoRA | IA3) -> dict[str, Tensor]:
    """Factors at the start, a function of the seed, the module's name and r alone."""
    adapted_class(layer, module)
    place = layer.weight
    if isinstance(method, IA3):
        return {"ia3_l": _ones(layer, module, method)}
    with located(f"module {shown(module)}"):
        shape_A, shape_B = factor_shapes(layer, method)
    generator = torch.Generator("cpu").manual_seed(start_seed(method.seed, module, method.r))
    # whatever type and device the caller has made the default: the same start everywhere
    A, B = (torch.zeros(shape, dtype=torch.float32, device="cpu") for shape in (shape_A, shape_B))
    if kind_of(layer) == "embedding":
        B.normal_(generator=generator)
    elif method.init == "gaussian":
        A.normal_(0.0, 1.0 / method.r, generator=generator)
    else:
        bound = A[0].numel() ** -0.5  # nn.init.kaiming_uniform_ with a = sqrt(5)
        A.uniform_(-bound, bound, generator=generator)
    dtype = torch.promote_types(place.dtype, torch.float32) if place.is_floating_point() else torch.float32
    return {"lora_A": A.to(place.device, dtype), "lora_B": B.to(place.device, dtype)}


def _ones(layer: nn.Module, module: str, method: IA3) -> Tensor:
    if kind_of(layer) == "embedding":
        raise ValueRangeError(
            f"an IA3 target must be a linear layer or a convolution: got the embedding {shown(module)}; leave it out"
        )
    inputs = any(matches(module, pattern) for pattern in method.feedforward)
    d_out, d_in = sizes(layer)
    shape: tuple[int, ...] = (1, d_in) if inputs else (d_out, 1)
    if kind_of(layer) == "conv":
        shape = (1, d_in if inputs else d_out, *(1 for _ in layer.weight.shape[2:]))
    return torch.ones(shape, dtype=torch.float32, device=layer.weight.device)


def adapted(model: nn.Module) -> list[tuple[str, AdaptedLayer]]:
    """Every module that carries adapters, with its name."""
    return [(name, layer) for name, layer in model.named_modules() if isinstance(layer, AdaptedLayer)]


def use(model: nn.Module, name: str | None) -> None:
    """Apply one adapter of a model from now on, or with None the base alone; nothing is copied.

    Of all adapters this one alone is trainable then. Modules that were kept trainable stay so.

    Raises
    ------
    ValueRangeError : the model has no adapter of that name
    """
    for layer in _layers_of(model, name):
        layer.use(name)


def _layers_of(model: nn.Module, name: str | None) -> list[AdaptedLayer]:
    """The adapted layers of a model that has an adapter of that name, or of any with None."""
    layers = [layer for _, layer in adapted(model)]
    names = {known for layer in layers for known in layer.methods}
    if name is not None and name not in names:
        told = ", ".join(map(shown, sorted(names))) or "none"
        raise ValueRangeError(f"an adapter must be one of the model's: got {shown(name)}, of {told}")
    return layers


def merge(model: nn.Module, *, on_eval: bool = False) -> None:
    """Put the active adapter into the weights, which costs a copy of the adapted ones until `unmerge`.

    Parameters
    ----------
    on_eval : not now, but whenever the model goes to ``eval()``, and back with ``train()``, as loralib does

    Raises
    ------
    ValueRangeError : a layer cannot be merged; the model is as it was
    """
    new: list[AdaptedLayer] = []
    for name, layer in adapted(model):
        if on_eval:
            layer.merge_on_eval = True
        elif not layer.merged:
            try:
                with located(f"module {shown(name)}"):
                    layer.merge()
            except BaseException:
                for done in new:
                    done.unmerge()
                raise
            new.append(layer)


def unmerge(model: nn.Module) -> None:
    """Put back the weights that were there before `merge`, to the bit."""
    for _, layer in adapted(model):
        layer.unmerge()


def remove(model: nn.Module, name: str | None = None) -> None:
    """Take one adapter out of a model, or with None all of them; a layer without any has its own class again.

    What was frozen stays so.

    Raises
    ------
    ValueRangeError : the model has no adapter of that name
    """
    for layer in _layers_of(model, name):
        layer.unmerge()
        for known in list(layer.methods) if name is None else [name] if name in layer.methods else []:
            layer.drop(known)
        if not layer.methods:
            original = layer.original_class
            layer.end()
            layer.__class__ = original
