"""What a training method is: its settings and options, what it puts into a layer, computes there, merges and saves.

Importing this module imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from torch import Tensor, nn
    from typing_extensions import Self

    from subspace.training.adapted_layer import AdaptedLayer

__all__ = ["Layers", "Method", "Option"]

Layers = Sequence[tuple[str, "AdaptedLayer"]]


@dataclass(frozen=True)
class Option:
    """One setting of a method as an option of ``subspace train``; its default is that of the setting.

    Attributes
    ----------
    flag : as it is typed, such as "--rank"
    setting : field of the method that it sets
    help : a whole phrase
    kind : "number" (of the type of the default), "flag", "choice", "names" (may be repeated) or "groups" (q,v or
        1,0,1)
    choices : the words of a "choice"
    least, below : limits of a "number": least <= value < below
    """

    flag: str
    setting: str
    help: str
    kind: Literal["number", "flag", "choice", "names", "groups"] = "number"
    choices: tuple[str, ...] = ()
    least: float | None = None
    below: float | None = None


@dataclass(frozen=True)
class Method:
    """How a model is adapted: the base of the dataclasses in `subspace.training.methods`, whose fields are settings.

    A method either puts parameters of its own into layers (`parts`, `start`, `output`, `delta_weight`), or trains some
    of those that the model has (`own_parameters`).

    Attributes
    ----------
    name : on the command line and in records
    about : what it trains, as a phrase for the help
    lr : peak learning rate where none is given
    options : of ``subspace train``
    parts : names of the parameters that it adds to a layer; () for a method that adds none
    formats : in which it can be saved: "peft", "loralib"
    keeps_start : whether a run saves what it started from, because the start is not zero or one everywhere
    """

    name: ClassVar[str]
    about: ClassVar[str]
    lr: ClassVar[float]
    options: ClassVar[tuple[Option, ...]] = ()
    parts: ClassVar[tuple[str, ...]] = ()
    formats: ClassVar[tuple[str, ...]] = ("peft",)
    keeps_start: ClassVar[bool] = False

    @classmethod
    def from_options(cls, given: Mapping[str, Any], *, seed: int, targets: Sequence[str]) -> Self:
        """Return the method of a command line.

        Parameters
        ----------
        given : value of each option that was given, by its setting
        seed : of the run
        targets : patterns of the modules to adapt; () where none was given
        """
        return cls(**given)

    def document(self) -> dict[str, Any]:
        """Return the settings as plain values by name, and the method's name as ``kind``."""
        return {"kind": self.name, **asdict(self)}

    @property
    def needs_targets(self) -> bool:
        """Whether the modules to adapt are chosen by default where none are named."""
        return True

    def own_parameters(self, model: nn.Module, chosen: Sequence[str]) -> Iterable[nn.Parameter]:
        """Return which of the model's own parameters are trained, for a method without `parts`.

        Parameters
        ----------
        model : whose parameters are all frozen otherwise
        chosen : names of the targets
        """
        raise NotImplementedError

    def require_targets(self, chosen: Sequence[str]) -> None:
        """Refuse targets that the method's settings do not fit.

        Raises
        ------
        ValueRangeError : they do not
        """

    def for_layer(self, model: nn.Module, module: str) -> Self:
        """Return the method as it applies to one layer, where that depends on the model.

        Parameters
        ----------
        model : before anything is changed in it
        module : name of the layer

        Raises
        ------
        ShapeError, ValueRangeError : the settings do not fit the layer
        """
        return self

    def remembered(self, module: str) -> Any:
        """Return what the method has to know of a layer besides its parameters: `AdaptedLayer.remembered`."""
        return None

    def start(self, layer: nn.Module, module: str) -> dict[str, Tensor]:
        """Return the parameters at the start, by the names in `parts`; nothing is changed.

        Parameters
        ----------
        layer : of a kind that can be adapted; see `kind_of`
        module : its name

        Raises
        ------
        ShapeError, ValueRangeError : the layer is not one that the method can adapt
        """
        raise NotImplementedError

    def output(self, layer: AdaptedLayer, adapter: str, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the output of a layer with its adapter applied.

        Parameters
        ----------
        layer : whose ``plain(x, *args, **kwargs)`` is the output without it
        adapter : name of the adapter, for ``layer.factors(adapter)`` and ``layer.remembered[adapter]``
        """
        raise NotImplementedError

    def delta_weight(self, layer: AdaptedLayer, adapter: str) -> Tensor:
        """Return ``delta_W`` of one adapter in the layout of the layer's own weight, in float32 at least."""
        raise NotImplementedError

    def merged_bias(self, layer: AdaptedLayer, adapter: str, bias: Tensor) -> Tensor | None:
        """Return the bias of a merged layer, None where it stays."""
        return None

    def require_mergeable(self, layer: AdaptedLayer, merged: nn.Parameter, delta_W: Tensor) -> None:
        """Refuse to merge into a layer that would not give merged what it gives unmerged.

        Raises
        ------
        ValueRangeError : it would not
        """

    def peft_tensors(self, layer: AdaptedLayer, adapter: str) -> dict[str, Tensor]:
        """Return what is saved of a layer, by the last part of its name in the file."""
        return {part: value.detach() for part, value in layer.factors(adapter).items()}

    def peft_config(self, model: nn.Module, layers: Layers, common: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``adapter_config.json``.

        Parameters
        ----------
        layers : the adapted ones, with their names
        common : entries that every method's configuration has; one of the same name here replaces it
        """
        return {"peft_type": self.name.upper(), **common}
