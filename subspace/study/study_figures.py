"""The figures of a study, drawn from what was measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from subspace.study.dose import dose_figure, dose_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from subspace.study.measurements import Measures

__all__ = ["Picture", "pictures"]


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure with its title and caption.

    Attributes
    ----------
    name : name of its file
    key : the paper's figure: "fig3", ...
    title, caption : what it is, and how to read it
    figure : matplotlib's figure
    """

    name: str
    key: str
    title: str
    caption: str
    figure: Figure


_CAPTIONS = {
    "fig3": (
        "Figure 3: directions of r = 8 in r = 64",
        "phi(i, j) of A in the middle layer, and below it of modules with the same input. The right half is the corner "
        "that the left half leaves out.",
    ),
    "fig4": (
        "Figure 4: two seeds of r = 64",
        "phi(i, j) of A in the middle layer, below it of modules with the same input, and at the right of two random "
        "Gaussian matrices of the same shape.",
    ),
    "fig6": (
        "Figure 6: figure 3 in several layers",
        "From the first layer to the last; the paper shows layers 1, 32, 64 and 96 of 96.",
    ),
    "fig7": (
        "Figure 7: figure 4 in several layers",
        "Two seeds of r = 64, from the first layer to the last.",
    ),
}
_CAPTION_8 = (
    "phi of the top i directions of W (up to a tenth of its dimension) and the top j of A, and the same for a random "
    "matrix; dark is the level of isotropic random spans at the largest i or j, bright is twice that."
)
_SCRAMBLED = {
    "fig3": "r = 8 and an adapter of scrambled text",
    "fig4": "r = 64 and an adapter of scrambled text",
}
_CAPTION_SCRAMBLED = (
    "The second adapter learned the same text with its characters shuffled: what is bright here, the inputs and the "
    "frequencies of characters explain."
)
_TITLE_DOSE = "Dose and response: r = 8 against adapters of other texts"
_CAPTION_DOSE = (
    "Medians over modules, from an adapter of the same text to one of random characters, all of other seeds. phi(1, 1) "
    "of A falls to the level of modules with the same input: that much of it is the inputs and not the text. The "
    "cosine of delta_W and phi(1, 1) of B fall to nearly nothing."
)


def pictures(measures: Measures) -> Iterator[Picture]:
    """Yield figures 3 and 4, also of the scrambled text, 6 and 7, 8 of each adapter, and dose and response.

    Every page has its own name.

    Raises
    ------
    InconclusiveError : no module has a score
    """
    ranks, seeds = measures.here.ranks, measures.here.seeds
    pairs = {"fig3": ranks, "fig4": seeds, "fig6": ranks, "fig7": seeds}
    scrambled = {"fig3": measures.controls["scrambled"].ranks, "fig4": measures.controls["scrambled"].seeds}
    for key, comparison in pairs.items():
        yield from _pages(key, key, comparison, *_CAPTIONS[key])
        if key in scrambled:
            title = f"{_CAPTIONS[key][0].partition(':')[0]} of the control: {_SCRAMBLED[key]}"
            yield from _pages(f"{key}-scrambled", key, scrambled[key], title, _CAPTION_SCRAMBLED)
    for n, name in enumerate(dict.fromkeys((measures.plan.lowest.name, "r8", "r64"))):
        title = f"Figure 8: W's top directions and those of {name}"
        caption = "The same of a higher rank." if n else _CAPTION_8
        yield from _pages(f"fig8-{name}", "fig8", measures.against_base[name], title, caption)
    if rows := dose_rows(measures.doses):
        yield Picture("dose", "dose", _TITLE_DOSE, _CAPTION_DOSE, dose_figure(rows))


def _pages(name: str, key: str, comparison: Any, title: str, caption: str) -> Iterator[Picture]:
    from subspace.plots import figures

    for n, figure in enumerate(figures(comparison, key, side="a")):
        yield Picture(f"{name}-{n + 1}" if n else name, key, title, caption, figure)
