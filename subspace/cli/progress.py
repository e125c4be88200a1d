"""Progress on work over two seconds: on standard error, and only on a terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

__all__ = ["Progress"]

_PATIENCE = 2.0


class Progress:
    """A callback ``(done, all)`` that shows a bar once the work has taken two seconds.

    Examples
    --------
    >>> with Progress("comparing") as progress:
    ...     progress(1, 2)
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._began = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, done: int, total: int) -> None:
        """Say how many of how many steps are done."""
        if self._bar is None and time.monotonic() - self._began > _PATIENCE and sys.stderr.isatty():
            self._show(total)
        if self._bar is not None:
            self._bar.update(self._task, completed=done)

    def _show(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import Progress as Bar

        self._bar = Bar(console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task(self._what, total=total)
        self._bar.start()
