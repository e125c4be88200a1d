"""What a library says beside its pairs: its adapters, groups of them, and what they share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from subspace.flags import Flag

__all__ = [
    "Cluster",
    "LayerPairs",
    "LibraryAdapter",
    "Lineage",
    "Neighbour",
    "Nested",
    "SharedDirections",
    "Unread",
]


@dataclass(frozen=True)
class LibraryAdapter:
    """One adapter of a library.

    Attributes
    ----------
    path : as it was given
    name : the path without what all paths have in common
    sha256 : of the file of weights; None for tensors in memory
    format : as `Adapter` has it
    modules : number of modules that are compared: trained, and with finite numbers
    rank : median rank of these
    step : optimiser step that it was saved at, where its path says so
    cluster, start_group : place in `clusters` and `start_groups` of the result, None where it is in none
    flags : what to know of it; of untrained modules only where all are
    """

    path: str
    name: str
    sha256: str | None
    format: str
    modules: int
    rank: float | None = None
    step: int | None = None
    cluster: int | None = None
    start_group: int | None = None
    flags: tuple[Flag, ...] = ()


@dataclass(frozen=True)
class Cluster:
    """Adapters that are alike: their paths, and the mean likeness between the last two parts that were joined."""

    adapters: tuple[str, ...]
    similarity: float


@dataclass(frozen=True)
class Lineage:
    """One adapter that continued from another.

    Attributes
    ----------
    earlier, later : paths; "from" and "to" in JSON
    kind : "continued", "branch" (another continued from the same one another way) or "unordered": one run, whose order
        the numbers do not tell
    """

    earlier: str
    later: str
    kind: str


@dataclass(frozen=True)
class Neighbour:
    """An adapter that is near another: its path, the cosine of the two delta_W, and phi of each side."""

    path: str
    cosine: float | None
    phi: Mapping[str, float | None]


@dataclass(frozen=True)
class SharedDirections:
    """How concentrated the directions of a library are, in one module and side.

    Attributes
    ----------
    module, side : where
    adapters : how many have the module
    mean_removed : whether the mean update of the library was taken out of each
    d, total : dimension, and number of directions of all adapters together
    directions, directions_random : how many directions hold 90 % of all energy; mean of the same over random directions
        of the same strengths
    top, share, share_random : share of the energy in the `top` leading directions, and the same of random ones
    residual : what a random unit vector has left outside of so many random directions
    narrow : whether `total` is at least half of `d`, so that the library holds half of anything
    """

    module: str
    side: str
    adapters: int
    mean_removed: bool
    d: int
    total: int
    directions: int
    directions_random: float
    top: int
    share: float
    share_random: float
    residual: float
    narrow: bool


@dataclass(frozen=True)
class Nested:
    """Two adapters of unequal ranks, the smaller of which lies in part inside the larger.

    Attributes
    ----------
    inner, outer : paths
    side : where
    share, chance : phi of the whole spans, which is how much of the smaller lies inside the larger, and its mean for
        isotropic random spans
    """

    inner: str
    outer: str
    side: str
    share: float
    chance: float


@dataclass(frozen=True)
class LayerPairs:
    """phi between the layers of one kind of module, over pairs of adapters.

    Attributes
    ----------
    kind, side : what is compared
    layers : their numbers
    phi : mean of phi of the whole spans of layer l of one adapter and layer k of another, a row per layer
    chance : mean of the same over isotropic random spans
    """

    kind: str
    side: str
    layers: tuple[int, ...]
    phi: tuple[tuple[float, ...], ...]
    chance: float


@dataclass(frozen=True)
class Unread:
    """A path that could not be read, and why."""

    path: str
    why: str
