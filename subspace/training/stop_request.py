"""Ctrl-C and SIGTERM as a question that a training run asks after each step."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["INTERRUPTED", "stop_requests"]

INTERRUPTED = 130  # exit code of a process that was interrupted, as shells have it


@contextmanager
def stop_requests(announce: Callable[[], None] = lambda: None) -> Iterator[Callable[[], bool]]:
    """Give a function that tells whether Ctrl-C or SIGTERM has come; a second one raises `KeyboardInterrupt`.

    Parameters
    ----------
    announce : called when the first one comes
    """
    came: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)
        announce()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
