"""What does not fit on a page is on the next one, and a note under the figure says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from subspace.errors import ValueRangeError
from subspace.plots import style

__all__ = ["in_rows", "on_page", "page_count", "some"]

T = TypeVar("T")


def page_count(n: int, *, per_page: int = style.GRID_PER_PAGE) -> int:
    """Return how many pages `n` panels of `grid` take.

    Figure 6 has 12 layers per page and figure 7 has 24, half as many with controls.

    Examples
    --------
    >>> page_count(224)
    5
    """
    return max(1, -(-n // per_page))


def on_page(items: Sequence[T], page: int, per_page: int, noun: str) -> tuple[Sequence[T], str]:
    """Return the items of one page, counted from 1, and a note saying which they are, empty when they are all.

    Raises
    ------
    ValueRangeError
        If there is no such page.
    """
    pages = page_count(len(items), per_page=per_page)
    if not 1 <= page <= pages:
        raise ValueRangeError(
            f"There is no page {page}: {len(items)} {noun} take {pages}; choose a page from 1 to {pages}"
        )
    start = (page - 1) * per_page
    chosen = items[start : start + per_page]
    span = f"{start + 1}–{start + len(chosen)}"
    return chosen, f"{noun} {span} of {len(items)} (page {page} of {pages})" if pages > 1 else ""


def some(items: Sequence[T]) -> Sequence[T]:
    """Return the items, of which there must be one at least.

    Raises
    ------
    ValueRangeError
        If there are none.
    """
    if not items:
        raise ValueRangeError(
            "There is nothing to draw: a figure needs at least one panel; compare two adapters that share a module"
        )
    return items


def in_rows(items: Sequence[T], columns: int) -> list[list[T]]:
    """Return the items in rows of `columns`, the last row being as long as it comes.

    Examples
    --------
    >>> in_rows("abcde", 2)
    [['a', 'b'], ['c', 'd'], ['e']]
    """
    return [list(items[k : k + columns]) for k in range(0, len(items), columns)]
