"""``python -m subspace.study.worker_process`` trains the jobs that it is given on standard input.

The first line of the input is a JSON list with the ``job`` and ``out``, the directory, of every run. The process that
wrote it holds its end of the pipe open: however that process ends, killed or not, this one then saves and stops.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading

from subspace.errors import SubspaceError
from subspace.text import shown
from subspace.training.job import Job
from subspace.training.stop_request import INTERRUPTED, stop_requests

__all__ = ["main"]


def main() -> int:
    """Train the jobs; return 0, or the exit code of the error that the last line of standard error says."""
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):
        return INTERRUPTED
    documents = json.loads(line)
    logging.getLogger("subspace").setLevel(
        logging.ERROR
    )  # the last line that is printed is taken for an error
    with stop_requests() as stopping:
        threading.Thread(target=_stop_when_the_input_ends, daemon=True).start()
        try:
            from subspace.training.run import train

            for document in documents:
                train(Job.from_document(document["job"]), document["out"], stopping=stopping)
        except SubspaceError as error:
            return _ended(str(error), error.exit_code)
        except MemoryError:
            return _ended("Out of memory", 1)
        except KeyboardInterrupt:
            return _ended("interrupted", INTERRUPTED)
    return 0


def _stop_when_the_input_ends() -> None:
    while os.read(0, 4096):
        pass
    signal.raise_signal(signal.SIGTERM)


def _ended(message: str, code: int) -> int:
    print(f"error: {shown(message, longest=4000)}", file=sys.stderr)  # noqa: T201 - the parent reads it
    return code


if __name__ == "__main__":
    sys.exit(main())
