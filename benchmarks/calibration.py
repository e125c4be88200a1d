"""Does every test hold its level, and what does it see? Simulated rejection rates over shapes, inputs and stored types.

Writes one row a case to a CSV file. Where the null of a test holds, `size` is what its level can amount to (less than
the level where p has steps), and the rate is read against that: "nominal" as far as the draws can tell, "below"
(conservative) or "above" (the test claims too much), at one in ten thousand, since there are hundreds of rows. Other
rates are power, or how often a test rejects where its null does not hold although nothing was learned in common. The
same numbers on every run.
"""

from __future__ import annotations

import one_thread  # noqa: F401 - before NumPy

# isort: split
import argparse
import csv
import time
from pathlib import Path

import calibration_cases as cases

_PARTS = (
    cases.random_spans,
    cases.stored_matrices,
    cases.shared_inputs,
    cases.known_inputs,
    cases.starts,
    cases.layers,
    cases.references,
    cases.families,
)


def written(value: object) -> str:
    """A cell of the table."""
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Simulate, print what does not hold its level, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a fiftieth of the draws, under a minute")
    default = Path(__file__).with_suffix(".csv")
    parser.add_argument("--out", type=Path, default=default, help="default %(default)s")
    arguments = parser.parse_args()
    shrink = 50 if arguments.quick else 1
    rows: list[cases.Row] = []
    for part in _PARTS:
        began = time.process_time()
        rows += part(lambda n: max(24, n // shrink))
        print(f"{part.__name__}: {len(rows)} rows so far, {time.process_time() - began:.0f} s", flush=True)
    with arguments.out.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([*cases.Row._fields, "reading"])
        writer.writerows([*map(written, row), row.reading] for row in rows)
    for row in rows:
        if row.reading == "above":
            print("above:", *map(written, row), sep="  ")


if __name__ == "__main__":
    main()
