"""Adapters put into a model by the names of its modules, switched, merged, and taken out again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import ExitStack
from typing import cast

import torch
from torch import nn

from subspace.errors import ValueRangeError, located
from subspace.text import listed, shown
from subspace.training.adapted_layer import AdaptedLayer
from subspace.training.direct_reads import unwatch, watch
from subspace.training.layer_types import adapted_class
from subspace.training.method import Method
from subspace.training.module_patterns import ancestors, as_patterns, bare_name, matches, targets_in, without
from subspace.training.unsupported import require_here
from subspace.training.wrappers import unwrapped

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
    exclude: Sequence[str] = (),
    name: str = DEFAULT,
) -> list[str]:
    """Put an adapter into a model, make it the active one and all that is trained; return the adapted modules.

    Every parameter is then in one of three states: of the adapter, kept trainable (`keep`), or frozen. The modules
    remain the same objects.

    Parameters
    ----------
    model : any module; it is changed. Of a compiled or parallel one, what is inside it
    method : such as ``LoRA(r=8)``; `Full` adds nothing and chooses what is trained
    targets : patterns of modules; see `targets_in`
    keep : patterns of modules (or parameters) that go on being trained whole, such as ``classifier``
    but : patterns of modules that are left alone although a target matches them
    exclude : the same, of which each must match a target; of `Full` without targets, what stays frozen
    name : of the adapter; several live on one base and `use` switches between them

    Returns
    -------
    list of str : names of the adapted modules, in the model's order, without the words of wrappers

    Raises
    ------
    ValueRangeError : a pattern matches nothing, the name is taken, a target that cannot be adapted or is kept
    ShapeError : r is larger than a dimension of a target, groups that do not divide its rows
    """
    model = unwrapped(model)
    if not method.parts:
        return _train_own(model, method, targets, keep, exclude)
    _require_new(model, name)
    chosen = without(_without(targets_in(model, targets), but), exclude)
    kept = _kept(model, keep)
    modules = dict(model.named_modules())
    method.require_targets(chosen)
    for module in chosen:
        require_here(modules[module], module)
        _require_called(modules, module)
        _require_apart(modules[module], module, kept)
    _adapt(model, method, chosen, name)
    use(model, name)
    watch(model, [adapted_name for adapted_name, _ in adapted(model)])
    trained = kept | {
        id(p) for _, layer in adapted(model) if layer.active for p in layer.factors(name).values()
    }
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in trained)
    return [bare_name(module) for module in chosen]


def _adapt(model: nn.Module, method: Method, chosen: Sequence[str], name: str) -> None:
    """Make the chosen modules adapted layers that hold an adapter; none of them, where one cannot be adapted."""
    layers = {module: model.get_submodule(module) for module in chosen}
    classes = {module: adapted_class(layer, module) for module, layer in layers.items()}
    methods, starts = {}, {}
    for module, layer in layers.items():
        with located(f"module {shown(module)}"), torch.no_grad():
            methods[module] = method.for_layer(model, module)
            starts[module] = methods[module].start(layer, bare_name(module))
    for module, layer in layers.items():
        if not isinstance(layer, AdaptedLayer):
            layer.__class__ = classes[module]
            assert isinstance(layer, AdaptedLayer)
            layer.begin()
        layer.hold(name, methods[module], bare_name(module), starts[module])


def _without(chosen: list[str], but: Sequence[str]) -> list[str]:
    """Targets that are not in a module of some other patterns."""
    left = [
        name
        for name in chosen
        if not any(matches(part, p) for part in ancestors(bare_name(name)) for p in but)
    ]
    if not left:
        raise ValueRangeError(
            f"The targets lie in modules that are trained whole anyway: {listed(chosen)}; choose other targets"
        )
    return left


def _require_apart(layer: nn.Module, name: str, kept: set[int]) -> None:
    """Refuse a layer that is kept too, which no adapter file can express; a tied weight is one parameter."""
    if any(id(parameter) in kept for parameter in layer.parameters(recurse=False)):
        raise ValueRangeError(
            f"The module {shown(name)} is both adapted and kept trainable; narrow `targets` or `keep`"
        )


def _require_called(modules: dict[str, nn.Module], name: str) -> None:
    """Refuse a layer whose weight torch's encoder layer reads in evaluation, past what is called in training."""
    parent = modules.get(name.rpartition(".")[0])
    if isinstance(parent, nn.TransformerEncoderLayer) and torch.backends.mha.get_fastpath_enabled():
        raise ValueRangeError(
            f"The adapter of {shown(name)} would be bypassed: nn.TransformerEncoderLayer reads the weight itself in "
            "evaluation; call torch.backends.mha.set_fastpath_enabled(False) first, or choose other targets"
        )


def _require_new(model: nn.Module, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueRangeError(
            f"'{shown(name)}' cannot be the name of an adapter; give a `name` of letters, digits and _"
        )
    if any(name in layer.methods for _, layer in adapted(model)):
        raise ValueRangeError(f"The model already has an adapter called '{shown(name)}'; give another `name`")


def _kept(model: nn.Module, patterns: Sequence[str], wish: str = "kept trainable") -> set[int]:
    """The parameters that belong to a kept module, by ``id``: one that is tied has several names."""
    every = model.named_parameters(remove_duplicate=False)
    named = {bare_name(name): parameter for name, parameter in every if parameter.is_floating_point()}
    kept: set[int] = set()
    for pattern in as_patterns(patterns):
        hits = {id(named[name]) for name in named if any(matches(part, pattern) for part in ancestors(name))}
        if not hits:
            ends = dict.fromkeys(part.rpartition(".")[2] for name in named for part in ancestors(name))
            children = listed((end for end in ends if end and not end.isdigit()), most=12)
            raise ValueRangeError(
                f"No module matches '{shown(pattern)}', which is to be {wish}; the model has {children}"
            )
        kept |= hits
    return kept


def _train_own(
    model: nn.Module, method: Method, targets: Sequence[str], keep: Sequence[str], exclude: Sequence[str]
) -> list[str]:
    """Train parameters of the model itself, by a method that adds none."""
    if adapted(model):
        raise ValueRangeError(
            "A model that carries an adapter cannot be trained whole; remove the adapter first"
        )
    chosen = without(targets_in(model, targets), exclude) if targets else []
    method.require_targets(chosen)
    own = {id(parameter) for parameter in method.own_parameters(model, chosen)}
    trained = _kept(model, keep) | (own if targets else own - _kept(model, exclude, "excluded"))
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in trained)
    return [bare_name(module) for module in chosen]


def adapted(model: nn.Module) -> list[tuple[str, AdaptedLayer]]:
    """Return every module that carries adapters, with its name."""
    return [(name, layer) for name, layer in model.named_modules() if isinstance(layer, AdaptedLayer)]


def use(model: nn.Module, name: str | None) -> None:
    """Apply one adapter of a model from now on, or with None the base alone; nothing is copied.

    Of all adapters this one alone is trainable then. Modules that were kept trainable stay so.

    Parameters
    ----------
    model : with adapters that `inject` put in
    name : of the adapter, or None

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
        raise ValueRangeError(
            f"The model has no adapter called '{shown(name)}'; it has {listed(sorted(names), most=8)}"
        )
    return layers


def merge(model: nn.Module, *, on_eval: bool = False) -> None:
    """Put the active adapter into the weights, which costs a copy of the adapted ones until `unmerge`.

    Parameters
    ----------
    model : with adapters that `inject` put in
    on_eval : not now, but whenever the model goes to ``eval()``, and back with ``train()``, as loralib does

    Raises
    ------
    ValueRangeError : a layer cannot be merged; the model is as it was
    """
    with ExitStack() as undone:
        for name, layer in adapted(model):
            if on_eval:
                layer.merge_on_eval = True
            elif not layer.merged:
                with located(f"module {shown(name)}"):
                    layer.merge()
                undone.callback(layer.unmerge)
        undone.pop_all()


def unmerge(model: nn.Module) -> None:
    """Put back the weights that were there before `merge`, to the bit."""
    for _, layer in adapted(model):
        layer.unmerge()


def remove(model: nn.Module, name: str | None = None) -> None:
    """Take one adapter out of a model, or with None all of them; a layer without any has its own class again.

    What was frozen stays so.

    Parameters
    ----------
    model : with adapters that `inject` put in
    name : of the adapter, or None

    Raises
    ------
    ValueRangeError : the model has no adapter of that name
    """
    for layer in _layers_of(model, name):
        layer.unmerge()
        for known in list(layer.methods) if name is None else [name] if name in layer.methods else []:
            layer.drop(known)
        if not layer.methods:
            original, plain = layer.original_class, cast("nn.Module", layer)
            layer.end()
            plain.__class__ = original
    if not adapted(model):
        unwatch(model)
