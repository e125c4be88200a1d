"""Fuzz the readers: ``python tests/fuzz/run.py --seconds 120`` shares the time among all, or ``--target gguf``.

With atheris (``pip install atheris``) the fuzzer follows the lines that an input reaches; without it, seeded damage to
valid files. A finding is printed and stays in build/fuzz/, and the exit code is 1. ``--lines`` tells which lines of
each reader the inputs reach that were kept there.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import random
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
FINDINGS = HERE.parent.parent / "build" / "fuzz"
_ROUND = 240  # seconds of one process; the next goes on from the inputs that this one kept
# imported late by the targets, and to be watched by the fuzzer
_DEEP = [f"subspace.checkpoints.{name}" for name in ("torch_file", "safetensors", "numpy_file", "gguf_file")]
sys.path[:0] = [str(HERE), str(HERE.parent.parent)]


def main() -> int:
    from targets import TARGETS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120, help="Processor time for all targets together.")
    parser.add_argument("--target", choices=list(TARGETS), action="append", help="Target; may be repeated.")
    parser.add_argument(
        "--lines", action="store_true", help="Fuzz nothing; run what was kept, and count lines."
    )
    given = parser.parse_args()
    names = given.target or list(TARGETS)
    if given.lines:
        for name in names:
            # lines that run on import are counted in a process of their own
            subprocess.run([sys.executable, __file__, "--reached", name], check=True)
        return 0
    FINDINGS.mkdir(parents=True, exist_ok=True)
    share = given.seconds / len(names)
    failed = [name for name in names if not _without_finding(name, share)]
    print(
        f"Findings in {', '.join(failed)}; see {FINDINGS}"
        if failed
        else f"No finding in {len(names)} reader{'s' if len(names) > 1 else ''}"
    )
    return 1 if failed else 0


def _without_finding(name: str, seconds: float) -> bool:
    if importlib.util.find_spec("atheris") is None:
        return unguided(name, seconds)
    # atheris takes over the process that it runs in
    words = [sys.executable, __file__, "--guided", name]
    end = _processor_seconds() + seconds
    while (left := end - _processor_seconds()) > 0:
        if subprocess.run([*words, str(min(left, _ROUND))], check=False).returncode != 0:
            return False
    return True


def _processor_seconds() -> float:
    """The processor time of the rounds that have ended: on a busy machine less than the clock's."""
    return os.times().children_user + os.times().children_system


def unguided(name: str, seconds: float) -> bool:
    """Damage to the seeds until the time is up; whether all was read or refused."""
    from inside_containers import damage
    from targets import TARGETS

    target, end, seed = TARGETS[name], time.monotonic() + seconds, 0
    seeds = target.seeds()
    while time.monotonic() < end:
        content = damage(seeds[seed % len(seeds)], seed)
        try:
            target(content)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is a finding
            (FINDINGS / f"{name}-{seed}").write_bytes(content)
            print(f"{name}: seed {seed}: {type(error).__name__}: {error}")
            return False
        seed += 1
    print(f"{name}: {seed} inputs")
    return True


def guided(name: str, seconds: float) -> int:
    """The same with atheris, which ends the process."""
    import atheris

    with atheris.instrument_imports(include=["subspace"]):
        from targets import TARGETS

        for module in _DEEP:
            importlib.import_module(module)
    target = TARGETS[name]
    corpus = FINDINGS / f"corpus-{name}"
    corpus.mkdir(parents=True, exist_ok=True)
    for n, content in enumerate(target.seeds()):
        target(content)  # and everything that is imported late
        (corpus / f"seed-{n}").write_bytes(content)
    flags = [f"-max_total_time={max(1, round(seconds))}", "-timeout=20", "-rss_limit_mb=2048", "-print_final_stats=0",
             "-verbosity=0", f"-artifact_prefix={FINDINGS}/{name}-", "-max_len=65536", str(corpus)]  # fmt: skip
    atheris.Setup([sys.argv[0], *flags], target, custom_mutator=_mutator())
    atheris.Fuzz()
    return 0


def _mutator():
    """One change of three is made anywhere, two are made inside the container, by the fuzzer or by our own hand."""
    import atheris
    from inside_containers import changed_inside
    from mutation import damaged

    def changed(content: bytes, longest: int, seed: int) -> bytes:
        rng = random.Random(seed)
        hands = (lambda part: atheris.Mutate(part, max(longest, len(part))), lambda part: damaged(part, seed))
        hand = rng.choice(hands)
        made = hand(content) if rng.random() < 1 / 3 else changed_inside(content, hand, rng)
        return bytes(made[:longest])

    return changed


def reached(name: str) -> int:
    """Print of each file of a reader the share of its lines that the kept inputs reach, and the others by number."""
    import coverage

    measured = coverage.Coverage(data_file=None, config_file=False, messages=False)
    measured.exclude(r"if TYPE_CHECKING:")
    measured.start()
    from targets import TARGETS

    target = TARGETS[name]
    inputs = [
        *target.seeds(),
        *(path.read_bytes() for path in sorted((FINDINGS / f"corpus-{name}").glob("*"))),
    ]
    for content in inputs:
        target(content)
    measured.stop()
    print(f"{name}: {len(inputs)} inputs")
    total, missed = 0, 0
    for file in target.reader:
        _, lines, _, missing, numbers = measured.analysis2(str(HERE.parent.parent / file))
        total, missed = total + len(lines), missed + len(missing)
        print(
            f"  {file}: {1 - len(missing) / len(lines):.1%} of {len(lines)}{f'; not {numbers}' if missing else ''}"
        )
    print(f"  all: {1 - missed / total:.1%} of {total} lines")
    return 0


_APART = {"--guided": lambda name, seconds: guided(name, float(seconds)), "--reached": reached}

if __name__ == "__main__":
    part = _APART.get("".join(sys.argv[1:2]))
    sys.exit(part(*sys.argv[2:]) if part else main())
