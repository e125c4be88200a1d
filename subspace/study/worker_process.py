"""``python -m subspace.study.worker_process WORDS`` is ``subspace WORDS`` until standard input ends: then it saves and stops.

Whoever started it holds the other end of that input. However that process ends, killed or not, nothing is trained on
without it.
"""

from __future__ import annotations

import os
import runpy
import signal
import threading


def _stop_with_the_input() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_stop_with_the_input, daemon=True).start()
    runpy.run_module("subspace", run_name="__main__", alter_sys=True)
