"""The one place for colours, sizes, tick positions and text of every figure.

Nothing here changes matplotlib's settings for the caller: `paper_style` restores them, and everything else is given
to the artists one by one. Text from files is drawn literally (no math, no TeX), broken into lines, in DejaVu Sans,
the font that comes with matplotlib, so figures look the same on every machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subspace.text import shown

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

__all__ = [
    "axis_label",
    "colours",
    "colours_around",
    "fitted",
    "paper_style",
    "text",
    "ticks",
    "title",
    "title_pad",
]

FONT = "DejaVu Sans"
TITLE_SIZE, LABEL_SIZE, TICK_SIZE, NOTE_SIZE = 8.0, 8.0, 7.0, 7.0  # points
TITLE_LINES = 5  # what the longest unique ending of a module's path needs over the narrowest heatmap
LINE_WIDTH = 0.6
PRINT_DPI, SCREEN_DPI = 300, 120

MASKED = "#e9e9ec"  # the triangle that one panel leaves out and another shows
UNDEFINED, HATCH, HATCH_COLOUR = "#c9c9ce", "//////", "#77777f"
NULL_LINE, NULL_HALO = "#ffffff", "#000000"
# dots on what is below isotropic random spans: on dark colours and on light ones
BELOW, ON_DARK, ON_LIGHT = "....", "#ffffff", "#000000"
# from the darkest colour of `colours` to a pale blue
_BLUES = ("#07061c", "#0f3057", "#1f6f9f", "#5fb4d8", "#c4ebf7")
# Okabe and Ito's colours without their yellow, which is too pale for a line: safe for the colour-blind
CATEGORIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
OTHERS = "#9a9aa2"
CONTROL_FRAME = (0, (4, 2))
NOTE_COLOUR = "#444449"
LEVEL_LINE = 0.125  # inches of a heatmap's line about isotropic random spans

# inches: one heatmap per kind of panel
WIDE, SQUARE, SINGLE = (2.1, 1.35), (1.35, 1.35), (3.0, 2.6)
SINGLE_SIDE, LAYER_SIDE, TALL, GRID_WIDTH = 1.9, 1.55, 1.9, 1.75
# how far the label of an axis may reach past it: a page of heatmaps leaves that much room
PAST_WIDTH, PAST_HEIGHT = 0.2, 0.4
GRID_COLUMNS, GRID_PER_PAGE = 6, 48
LAYER_ROWS_PER_PAGE, LAYER_COLUMNS, LAYERS_PER_PAGE = 12, 4, 24

# Figure 3's j axis, as printed
_PAPER_TICKS = {(1, 64): (1, 6, 12, 18, 23, 29, 35, 40, 46, 52, 58)}

# mean advance of DejaVu Sans, in em, over names such as `layers.11.self_attn.q_proj` (rounded up)
_EM_PER_CHARACTER = 0.60


def paper_style() -> AbstractContextManager[None]:
    """Return a context in which matplotlib has its defaults and this package's few choices.

    The caller's settings (a seaborn theme, `text.usetex`) do not reach the figure and are back afterwards.
    """
    from matplotlib import style

    choices: dict[str, Any] = {
        "font.family": [FONT],
        "hatch.linewidth": 0.5,
        "pdf.fonttype": 42,  # publishers refuse Type 3
        "svg.fonttype": "path",  # no live text: a title cannot be markup
        "svg.hashsalt": "subspace",  # same figure, same bytes
    }
    context: AbstractContextManager[None] = style.context(["default", choices])
    return context


def colours() -> Colormap:
    """Return the colour map: dark purple, red, peach; lightness grows evenly, safe for the colour-blind.

    It is matplotlib's magma without its two ends, so that neither black nor white is a value. Undefined cells are
    transparent, so that the hatched ground shows through.
    """
    import numpy as np
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    chosen = ListedColormap(colormaps["magma"](np.linspace(0.06, 0.95, 256)), name="subspace")
    return chosen.with_extremes(bad=(0.0, 0.0, 0.0, 0.0))


def colours_around(dark: float) -> Colormap:
    """Return a colour map that is darkest at `dark` in [0, 1]: blues lighten below it, `colours` above it."""
    import numpy as np
    from matplotlib.colors import LinearSegmentedColormap, ListedColormap

    blues = LinearSegmentedColormap.from_list("blues", _BLUES)
    n = round(512 * dark)
    below = blues(np.linspace(0.0, 1.0, n, endpoint=False)[::-1] if n else [])
    both = np.concatenate([below, colours()(np.linspace(0.0, 1.0, 512 - n))])
    return ListedColormap(both, name="subspace_ratio").with_extremes(bad=(0.0, 0.0, 0.0, 0.0))


def ticks(first: int, last: int, *, at_most: int) -> list[int]:
    """Return the integer ticks of an axis from `first` to `last`, ascending, at most `at_most` (>= 2).

    Every integer if they fit, the paper's own list for 1..64, else the first index and the multiples of a
    round step.

    Examples
    --------
    >>> ticks(1, 8, at_most=8)
    [1, 2, 3, 4, 5, 6, 7, 8]
    >>> ticks(1, 64, at_most=8)
    [1, 8, 16, 24, 32, 40, 48, 56]
    >>> ticks(451, 1229, at_most=8)
    [451, 551, 651, 751, 851, 951, 1051, 1151]
    """
    if last - first < at_most:
        return list(range(first, last + 1))
    paper = _PAPER_TICKS.get((first, last), ())
    if paper and len(paper) <= at_most:
        return list(paper)
    step = next(s for s in _round_steps() if 1 + (last - first) // s <= at_most)
    # from 1, multiples of the step read better than 1, 9, 17; but 1, 2, 4, 6 does not
    rest = range(step, last, step) if first == 1 and step > 2 else range(first + step, last + 1, step)
    return [first, *rest]


def _round_steps() -> Iterator[int]:
    power = 1
    while True:
        for digit in (1, 2, 4, 5, 8):
            yield digit * power
        power *= 10


def text(untrusted: str, *, longest: int = 200) -> str:
    r"""Return one line that DejaVu Sans can draw: characters without a glyph are escaped, a long text is cut.

    Examples
    --------
    >>> text("a$b\n注")
    'a$b\\n\\u6ce8'
    """
    line = shown(untrusted, longest=longest)
    glyphs = _glyphs()
    drawn = "".join(c if ord(c) in glyphs else c.encode("unicode_escape").decode("ascii") for c in line)
    # an escape is up to ten characters for one
    return drawn if len(drawn) <= longest else shown(drawn, longest=longest)


@cache
def _glyphs() -> frozenset[int]:
    import matplotlib
    from matplotlib.font_manager import get_font

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return frozenset(get_font(str(path)).get_charmap())


def fitted(untrusted: str, *, inches: float, size: float, lines: int = 2) -> str:
    r"""Return `text` broken into at most `lines` lines that fit `inches` at `size` points.

    Examples
    --------
    >>> fitted("layers.0.self_attn.q_proj", inches=1.1, size=8.0)
    'layers.0.\nself_attn.q_proj'
    """
    width = max(8, int(inches * 72 / (size * _EM_PER_CHARACTER)))
    broken = _broken(text(untrusted, longest=lines * width), width)
    if len(broken) > lines:
        # breaking only after dots takes more lines than there are: break it anywhere
        line = text(untrusted, longest=lines * width - 1)
        broken = [line[k : k + width] for k in range(0, len(line), width)]
    return "\n".join(broken)


def title(untrusted: str, *, inches: float) -> str:
    """Return a title `fitted` to a heatmap `inches` wide and to part of the gap next to it."""
    return fitted(untrusted, inches=inches + 0.15, size=TITLE_SIZE, lines=TITLE_LINES)


def title_pad(relative: bool) -> float:
    """Return the points between a heatmap and its title: those of the line about isotropic random spans, or few."""
    return 4.0 if relative else 4.0 + LEVEL_LINE * 72


def axis_label(untrusted: str, *, inches: float) -> str:
    """Return the label of an axis `inches` long, on one line, `fitted` to it and to the gap at its ends."""
    return fitted(untrusted, inches=inches, size=LABEL_SIZE, lines=1)


def _broken(line: str, width: int) -> list[str]:
    """Return the lines of at most `width` characters, broken after a space, a dot or a slash if possible."""
    lines = [""]
    for piece in re.split(r"(?<=[ ./])", line):
        parts = [piece[k : k + width] for k in range(0, len(piece), width)]
        for part in parts:
            if len(lines[-1]) + len(part.rstrip()) > width:
                lines.append("")
            lines[-1] += part
    return [line.strip() for line in lines]
