"""An index of adapters on disk: what adding costs as it grows, what it takes on disk, and what neighbours are found.

python benchmarks/index.py [--adapters 1000] [--recall 2000]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import one_thread  # noqa: F401 - before NumPy

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from synthetic_library import plant_library

from subspace.index import Index
from subspace.index.neighbours import neighbours


def timed(work, *arguments):
    """CPU seconds, seconds, and the result."""
    cpu, wall = time.process_time(), time.perf_counter()
    found = work(*arguments)
    return time.process_time() - cpu, time.perf_counter() - wall, found


def adding(folder: Path, n: int) -> None:
    """One more adapter, added alone, to an index of 1, 10, 100, ... and n."""
    paths = plant_library(folder / "library", n + 20).paths
    with Index(folder / "index") as index:
        there = 0
        for size in sorted({1, 10, 100, n}):
            cpu, wall, _ = timed(index.add, paths[there : size - 1])
            if size - 1 - there > 20:
                print(
                    f"  {size - 1 - there} at once: {1e3 * cpu / (size - 1 - there):.1f} ms CPU each ({wall:.0f} s)"
                )
            there = max(there, size - 1)
            costs = [timed(index.add, [path]) for path in paths[there : there + 5]]
            there += 5
            print(f"  one more, to {size}: {1e3 * median(c for c, _, _ in costs):.1f} ms CPU")
        files = [path.stat().st_size for path in (folder / "index").rglob("*.safetensors")]
        own = [(path / "adapter_model.safetensors").stat().st_size for path in paths[:there]]
        index.close()
        manifest = (folder / "index" / "manifest.sqlite").stat().st_size
        print(
            f"  bytes: {np.mean(files):.0f} a file of an adapter of {np.mean(own):.0f}, "
            f"and {manifest / there:.0f} of the manifest"
        )
        cpu, wall, _ = timed(lambda: Index(folder / "index").close())
        print(f"  opened: {1e3 * cpu:.0f} ms CPU")
        cpu, wall, _ = timed(lambda: [index.forms(m, index.holders(m)) for m in index.modules])
        print(
            f"  every form read: {1e6 * cpu / there / len(index.modules):.0f} us CPU a module of an adapter"
        )
        cpu, wall, _ = timed(index.repair)
        print(f"  everything checked: {1e3 * cpu / there:.2f} ms CPU an adapter")


def recall(folder: Path, n: int) -> None:
    """How many of the ten nearest by exact phi a shortlist holds, of members of planted clusters of 12 and of all."""
    from subspace.analysis.all_pairs import all_pairs

    planted = plant_library(folder / "planted", n, overlap=0.6)
    clustered = sorted({number for cluster in planted.clusters if len(cluster) >= 11 for number in cluster})
    with Index(folder / "clusters") as index:
        index.add(planted.paths)
        for side in ("a", "left"):
            found = all_pairs(index, sides=[side], controls="none", cosine=False, z=False)
            phi = found.square(found.sides[side].phi_full, diagonal=-1)[0]
            exact = -np.sort(-phi, axis=1)[:, :10]
            asked = np.random.default_rng(0).choice(clustered, min(100, len(clustered)), replace=False)
            for size in (512, 2048):
                for shortlist in (30, 100):
                    question = partial(neighbours, index, asked, side=side, size=size, shortlist=shortlist)
                    cpu, _, near = timed(question)
                    hit = near.phi >= exact[asked][:, -1:] - 1e-6
                    print(
                        f"  side {side}, {size} numbers, shortlist of {shortlist}: recall@10 {hit.mean():.3f} "
                        f"({1e3 * cpu / len(asked):.0f} ms CPU a question, sketches included the first time)"
                    )
            similar = phi[np.ix_(asked, clustered)]
            print(f"  phi: tenth nearest {exact[asked][:, -1].mean():.3f}, mean of all {similar.mean():.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--adapters", type=int, default=1000)
    parser.add_argument("--recall", type=int, default=2000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print("adding")
        adding(Path(folder), given.adapters)
        print("neighbours")
        recall(Path(folder), given.recall)


if __name__ == "__main__":
    main()
