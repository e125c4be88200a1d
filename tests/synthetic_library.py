"""A seeded library of small adapters with planted facts: what belongs together, and what only looks as if it did.

Each adapter is a PEFT directory of its own. Its A begins at random rows, its own or those that a group shares, and
moves along the directions of its task; so does its B, which begins at zero. Two adapters are alike where, and only
where, their tasks, their starts or their runs were planted to be so.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from subspace.checkpoints.tensor_bytes import StoredTensor, safetensors_bytes

__all__ = ["MODULES", "Planted", "plant_library"]

# module -> (d_out, d_in)
MODULES = {
    f"model.layers.{layer}.self_attn.{name}": shape
    for layer in (0, 1)
    for name, shape in (("q_proj", (64, 64)), ("v_proj", (48, 64)))
}
_PREFIX = "base_model.model."
_BASE = "planted/base"


@dataclass
class Planted:
    """Where the adapters are and what was planted; an adapter is known by its number, its place in `paths`.

    Attributes
    ----------
    paths : directories of the adapters
    task, start, content : for each adapter, the number of its task, of its A before training, and of its bytes
    clusters : adapters of one task, where there are several; checkpoints of a run are of one task, and so are copies
    duplicates : adapters whose files of weights are the same bytes
    near_duplicates : (original, copy) where the copy's numbers differ by a thousandth
    shared_start : the one group whose members have different tasks and began at one A_0
    start_groups : every set of adapters that began at one A_0: `shared_start`, each run with its branches, and copies
    lineage : (earlier, later, "continued" or "branch"), one for each checkpoint but the first of a run
    steps : the step of each checkpoint of a run
    strangers : adapters with a task and a start of their own
    """

    paths: list[Path] = field(default_factory=list)
    task: list[int] = field(default_factory=list)
    start: list[int] = field(default_factory=list)
    content: list[int] = field(default_factory=list)
    near_duplicates: list[tuple[int, int]] = field(default_factory=list)
    shared_start: list[int] = field(default_factory=list)
    lineage: list[tuple[int, int, str]] = field(default_factory=list)
    steps: dict[int, int] = field(default_factory=dict)

    @property
    def clusters(self) -> list[list[int]]:
        return _classes(self.task)

    @property
    def duplicates(self) -> list[list[int]]:
        return _classes(self.content)

    @property
    def start_groups(self) -> list[list[int]]:
        return _classes(self.start)

    @property
    def strangers(self) -> list[int]:
        tasks, starts = (np.bincount(labels) for labels in (self.task, self.start))
        return [n for n in range(len(self.paths)) if tasks[self.task[n]] == 1 == starts[self.start[n]]]


def plant_library(
    folder: Path,
    n: int = 2000,
    *,
    seed: int = 0,
    clusters: int | None = None,
    cluster_size: int = 12,
    duplicates: int | None = None,
    near_duplicates: int | None = None,
    shared_start: int | None = None,
    checkpoints: int = 6,
    ranks: tuple[int, ...] = (8,),
    modules: dict[str, tuple[int, int]] | None = None,
    overlap: float = 0.9,
) -> Planted:
    """Write `n` adapters below a folder and return what was planted. 2,000 of them take some seconds.

    Parameters
    ----------
    folder : where; it is made, and should be empty
    n : how many in all, at least 60
    clusters, cluster_size : how many tasks are shared, and by how many adapters each (n / 40 tasks by default)
    duplicates, near_duplicates : how many copies of adapters that have a task and a start of their own (n / 100 each)
    shared_start : members of the group with one A_0 and different tasks (n / 50, at least 4)
    checkpoints : of the one run; its branch leaves it in the middle and has half as many
    ranks : drawn from for each adapter; those that share a start or a run have the first
    modules : name -> (d_out, d_in), `MODULES` by default
    overlap : share of the energy of an adapter of a cluster that lies in the cluster's directions

    Adapters are numbered in the order of a shuffle, so that nothing can be read off a number.
    """
    counts = _Counts.of(n, clusters, cluster_size, duplicates, near_duplicates, shared_start, checkpoints)
    maker = _Maker(np.random.default_rng(seed), modules or MODULES, ranks, overlap)
    maker.run(checkpoints)
    for _ in range(counts.clusters):
        maker.cluster(cluster_size)
    maker.group(counts.shared_start)
    originals = maker.strangers(n - counts.without_strangers)
    maker.copies(originals[: counts.duplicates], originals[counts.duplicates :][: counts.near_duplicates])
    return maker.written(folder)


@dataclass
class _Counts:
    clusters: int
    duplicates: int
    near_duplicates: int
    shared_start: int
    without_strangers: int

    @classmethod
    def of(cls, n, clusters, cluster_size, duplicates, near_duplicates, shared_start, checkpoints):
        clusters = max(1, n // 40) if clusters is None else clusters
        duplicates = max(1, n // 100) if duplicates is None else duplicates
        near_duplicates = max(1, n // 100) if near_duplicates is None else near_duplicates
        shared_start = max(4, n // 50) if shared_start is None else shared_start
        run = checkpoints + checkpoints // 2
        others = clusters * cluster_size + duplicates + near_duplicates + shared_start + run
        if n - others < duplicates + near_duplicates:
            raise ValueError(
                f"{n} adapters do not hold {others} with planted facts and originals of the copies"
            )
        return cls(clusters, duplicates, near_duplicates, shared_start, others)


Factors = dict[str, tuple[np.ndarray, np.ndarray]]  # module -> (B, A)


class _Maker:
    """The adapters that were made so far, with the facts about them, in the order of making."""

    def __init__(self, rng, modules, ranks, overlap) -> None:
        self.rng, self.modules, self.ranks, self.overlap = rng, modules, ranks, overlap
        self.factors: list[Factors] = []
        self.facts = Planted()
        self.names: list[str] = []

    def add(self, factors: Factors, name: str, task: int | None = None, start: int | None = None) -> int:
        """Note an adapter; without a task or a start of others it has its own."""
        number = len(self.factors)
        self.factors.append(factors)
        self.names.append(name)
        self.facts.task.append(number if task is None else task)
        self.facts.start.append(number if start is None else start)
        self.facts.content.append(number)
        return number

    def rows(self, r: int) -> dict[str, np.ndarray]:
        """A before training, of each module."""
        return {m: self.rng.standard_normal((r, d)) / np.sqrt(d) for m, (_, d) in self.modules.items()}

    def task(self, directions: int = 4) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Orthonormal columns that the updates of a task write to and read from, of each module."""
        return {
            m: tuple(np.linalg.qr(self.rng.standard_normal((d, directions)))[0] for d in shape)
            for m, shape in self.modules.items()
        }

    def trained(self, start, task, amount: float = 1.0) -> Factors:
        """What training makes of a start: A moves and B grows along the directions of the task, and a little beside."""
        found = {}
        for m, A in start.items():
            left, right = task[m]
            r, k = len(A), left.shape[1]
            mix = self.rng.standard_normal((r, k)) / np.sqrt(r)
            beside = self.rng.standard_normal((left.shape[0], r)) * np.sqrt(
                (1 - self.overlap) / self.overlap * k / left.shape[0] / r
            )
            found[m] = amount * (left @ mix.T + beside), A + amount * 4 * mix @ right.T
        return found

    def rank(self) -> int:
        return int(self.rng.choice(self.ranks))

    def cluster(self, size: int) -> None:
        task, label = self.task(), len(self.factors)
        for _ in range(size):
            self.add(self.trained(self.rows(self.rank()), task), "adapter", task=label)

    def strangers(self, count: int) -> list[int]:
        return [self.add(self.trained(self.rows(self.rank()), self.task()), "adapter") for _ in range(count)]

    def group(self, size: int) -> None:
        """Adapters of different tasks whose A began at one A_0 and moved little."""
        start, label = self.rows(self.ranks[0]), len(self.factors)
        for _ in range(size):
            trained = self.trained(start, self.task())
            moved = {m: (B, start[m] + 0.1 * (A - start[m])) for m, (B, A) in trained.items()}
            self.facts.shared_start.append(self.add(moved, "adapter", start=label))

    def run(self, count: int) -> None:
        """Checkpoints of one run, and of a branch that leaves it in the middle and turns to another task."""
        start, label = self.rows(self.ranks[0]), len(self.factors)
        ends = [self.trained(start, self.task()) for _ in range(2)]
        grown = [_between(start, ends[0], (n + 1) / count) for n in range(count)]
        trunk = [self.add(each, "run", label, label) for each in grown]
        middle, n_branch = count // 2 - 1, count // 2
        for n in range(n_branch):
            more = _between(start, ends[1], (n + 1) / count)
            factors = {
                m: (grown[middle][m][0] + B, grown[middle][m][1] + A - start[m]) for m, (B, A) in more.items()
            }
            number = self.add(factors, "run-branch", label, label)
            before, kind = (trunk[middle], "branch") if n == 0 else (number - 1, "continued")
            self.facts.lineage.append((before, number, kind))
            self.facts.steps[number] = 100 * (middle + n + 2)
        self.facts.lineage += [(a, b, "continued") for a, b in itertools.pairwise(trunk)]
        self.facts.steps |= {number: 100 * (n + 1) for n, number in enumerate(trunk)}

    def copies(self, exact: list[int], near: list[int]) -> None:
        for n in exact:
            copy = self.add(self.factors[n], "adapter", n, n)
            self.facts.content[copy] = n
        for n in near:
            noisy = {m: tuple(map(self.nearly, pair)) for m, pair in self.factors[n].items()}
            self.facts.near_duplicates.append((n, self.add(noisy, "adapter", n, n)))

    def nearly(self, M: np.ndarray) -> np.ndarray:
        return M + 1e-3 * M.std() * self.rng.standard_normal(M.shape)

    def written(self, folder: Path) -> Planted:
        """Write all in the order of a shuffle, and the facts with the numbers that this gives."""
        number = self.rng.permutation(len(self.factors))
        old, paths = np.argsort(number), [Path()] * len(number)
        for n, factors in enumerate(self.factors):
            paths[number[n]] = _write(folder, self.names[n], int(number[n]), factors, self.facts.steps.get(n))
        facts = self.facts
        return Planted(
            paths, *(_relabelled([labels[n] for n in old]) for labels in (facts.task, facts.start, facts.content)),
            near_duplicates=sorted((int(number[a]), int(number[b])) for a, b in facts.near_duplicates),
            shared_start=sorted(int(number[n]) for n in facts.shared_start),
            lineage=sorted((int(number[a]), int(number[b]), kind) for a, b, kind in facts.lineage),
            steps={int(number[n]): step for n, step in facts.steps.items()},
        )  # fmt: skip


def _between(start, end: Factors, share: float) -> Factors:
    """A checkpoint on the way from the start to the end."""
    return {m: (share * B, start[m] + share * (A - start[m])) for m, (B, A) in end.items()}


def _write(folder: Path, name: str, number: int, factors: Factors, step: int | None) -> Path:
    path = folder / f"{name}-{number:05}" if step is None else folder / name / f"checkpoint-{step}"
    path.mkdir(parents=True)
    tensors = {}
    for m, (B, A) in factors.items():
        tensors[f"{_PREFIX}{m}.lora_A.weight"] = StoredTensor(A.astype(np.float32), "float32")
        tensors[f"{_PREFIX}{m}.lora_B.weight"] = StoredTensor(B.astype(np.float32), "float32")
    (path / "adapter_model.safetensors").write_bytes(safetensors_bytes(tensors, {"format": "pt"}))
    r = len(next(iter(factors.values()))[1])
    config = {"peft_type": "LORA", "r": r, "lora_alpha": 2 * r, "base_model_name_or_path": _BASE}
    (path / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return path


def _relabelled(labels: list[int]) -> list[int]:
    """Labels as the numbers of their first holders."""
    first: dict[int, int] = {}
    return [first.setdefault(label, n) for n, label in enumerate(labels)]


def _classes(labels: list[int]) -> list[list[int]]:
    """Numbers with one label, where there are several, by the first of each."""
    found = defaultdict(list)
    for n, label in enumerate(labels):
        found[label].append(n)
    return [numbers for numbers in found.values() if len(numbers) > 1]


def damaged_copy(planted: Planted, folder: Path) -> Path:
    """A copy of the first adapter that is cut short, for those who test what is said about it."""
    copy = Path(shutil.copytree(planted.paths[0], folder))
    weights = copy / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    return copy
