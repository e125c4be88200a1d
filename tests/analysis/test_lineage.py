"""Lineage: simulated runs and branches, what must give no edge, and published checkpoints."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from subspace.adapters import load_adapter
from subspace.analysis.lineage import Edge, lineage
from subspace.geometry.cluster_tree import cluster_tree, clusters, excess
from subspace.geometry.row_alignment import combined, row_alignment
from subspace.geometry.start_groups import start_groups

P = 3000  # numbers of an update


def trained(start, n, rng, *, task, length=1.0, noise=0.3):
    """`n` checkpoints after `start`: steps along a task's direction, and a random walk."""
    found = [start]
    for _ in range(n):
        walk = rng.standard_normal(P) / np.sqrt(P)
        found.append(found[-1] + length * (task + noise * walk))
    return found[1:]


def unit(rng):
    v = rng.standard_normal(P)
    return v / np.linalg.norm(v)


def cosines(updates):
    X = np.array(updates)
    norms = np.linalg.norm(X, axis=1)
    return X @ X.T / np.outer(norms, norms), norms


def chain(numbers, kind="continued"):
    return [Edge(a, b, kind) for a, b in pairwise(numbers)]


def late_run(rng, n=5, task=None):
    """Checkpoints of a run that has come some way, so that neighbours are alike."""
    task = unit(rng) if task is None else task
    return trained(4 * task + 0.4 * unit(rng), n, rng, task=task)


@pytest.mark.parametrize("seed", range(5))
def test_checkpoints_of_a_run_are_a_chain_by_their_steps_or_by_their_norms(seed):
    rng = np.random.default_rng(seed)
    order = rng.permutation(5)
    run = late_run(rng)
    cosine, norms = cosines([run[n] for n in order])
    place = [int(n) for n in np.argsort(order)]
    expected = sorted(chain(place), key=lambda edge: edge.later)
    assert lineage(cosine, norms, [range(5)], steps=[int(100 * n) for n in order]) == expected
    if all(cosine[a, b] * norms[b] >= 1.1 * norms[a] for a, b in pairwise(place)):
        assert lineage(cosine, norms, [range(5)]) == expected


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("known", [True, False])
def test_a_branch_leaves_where_it_left(seed, known):
    rng = np.random.default_rng(seed)
    task = unit(rng)
    run = trained(3 * task, 5, rng, task=task)
    branch = trained(run[0], 2, rng, task=0.5 * task + 0.87 * unit(rng))
    cosine, norms = cosines(run + branch)
    steps = [100, 200, 300, 400, 500, 200, 300] if known else None
    assert lineage(cosine, norms, [range(7)], steps=steps) == [
        Edge(0, 1, "continued"), Edge(1, 2, "continued"), Edge(2, 3, "continued"), Edge(3, 4, "continued"),
        Edge(0, 5, "branch"), Edge(5, 6, "continued"),
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_a_run_that_wavers_has_no_branch(seed):
    rng = np.random.default_rng(seed)
    task = unit(rng)
    run = trained(4 * task, 12, rng, task=task, noise=1.0, length=0.6)
    found = lineage(*cosines(run), [range(12)], steps=list(range(12)))
    assert found == chain(range(12))


@pytest.mark.parametrize("small", [0.2, 1.0, 3.0])
def test_a_branch_of_another_pace_is_one(small):
    rng = np.random.default_rng(7)
    task = unit(rng)
    run = trained(6 * task, 3, rng, task=task)
    other = run[1] + small * unit(rng)
    found = lineage(*cosines([*run, other]), [range(4)], steps=[1, 2, 3, 3])
    assert found == [Edge(0, 1, "continued"), Edge(1, 2, "continued"), Edge(1, 3, "branch")]


def test_without_steps_and_without_growth_there_is_no_order():
    rng = np.random.default_rng(0)
    first = unit(rng)
    second = np.cos(0.3) * first + np.sin(0.3) * unit(rng)
    assert lineage(*cosines([first, second]), [(0, 1)]) == [Edge(0, 1, "unordered")]
    assert lineage(*cosines([first, 2 * second]), [(0, 1)]) == [Edge(0, 1, "continued")]
    assert lineage(*cosines([2 * first, second]), [(0, 1)]) == [Edge(1, 0, "continued")]


def test_steps_that_the_norms_deny_give_no_order():
    """A run that went on from another one counts its steps from zero again."""
    rng = np.random.default_rng(1)
    first = unit(rng)
    later = 2 * first + 0.3 * unit(rng)
    assert lineage(*cosines([first, later]), [(0, 1)], steps=[5000, 100]) == [Edge(0, 1, "unordered")]
    named = {"steps": [5000, 100], "runs": ["a", "b"]}  # steps of two runs say nothing
    assert lineage(*cosines([first, later]), [(0, 1)], **named) == [Edge(0, 1, "continued")]


def test_two_of_one_step_are_siblings():
    rng = np.random.default_rng(2)
    parent = 4 * unit(rng)
    one, other = (parent + unit(rng) for _ in range(2))
    assert lineage(*cosines([one, other]), [(0, 1)], steps=[500, 500]) == [Edge(0, 1, "unordered")]
    found = lineage(*cosines([one, other, parent]), [(0, 1, 2)], steps=[500, 500, 400])
    assert [edge[:2] for edge in found] == [(2, 0), (2, 1)]
    assert {edge.kind for edge in found} == {"continued", "branch"}


def test_no_edge_between_different_starts_or_tasks_nor_to_who_is_in_no_group():
    rng = np.random.default_rng(3)
    cosine, norms = cosines(late_run(rng, n=4))
    assert lineage(cosine, norms, []) == []
    assert lineage(cosine, norms, [(0, 1), (2, 3)]) == [Edge(0, 1, "continued"), Edge(2, 3, "continued")]
    task = unit(rng)
    seeds = [trained(np.zeros(P), 4, rng, task=task, noise=1.2)[-1] for _ in range(6)]  # two runs of one task
    others = [trained(np.zeros(P), 4, rng, task=unit(rng))[-1] for _ in range(6)]
    cosine, norms = cosines(seeds + others)
    assert 0.6 < cosine[0, 1] < 0.9
    assert lineage(cosine, norms, [range(12)]) == []


def test_copies_stand_as_one():
    rng = np.random.default_rng(4)
    run = late_run(rng, n=3)
    cosine, norms = cosines([run[0], run[0], run[1], 0.5 * run[1], run[2]])
    assert lineage(cosine, norms, [range(5)]) == [Edge(0, 2, "continued"), Edge(2, 4, "continued")]


def test_names_of_one_run_carry_farther_than_numbers():
    rng = np.random.default_rng(5)
    task = unit(rng)
    early, late = trained(np.zeros(P), 2, rng, task=task, noise=1.5)
    late = late + 2 * unit(rng)
    cosine, norms = cosines([early, late])
    assert 0.5 <= cosine[0, 1] < 0.9
    assert lineage(cosine, norms, [(0, 1)], steps=[1, 9]) == []
    assert lineage(cosine, norms, [(0, 1)], steps=[1, 9], runs=["r", "r"]) == [Edge(0, 1, "continued")]
    assert lineage(cosine, norms, [(0, 1)], steps=[1, 9], runs=["r", "s"]) == []
    assert lineage(cosine, norms, [(0, 1)], steps=[1, 1], runs=["r", "r"]) == []


def test_unknown_norms_and_pairs():
    rng = np.random.default_rng(6)
    cosine, norms = cosines(late_run(rng, n=3))
    norms = np.full(3, np.nan)
    assert lineage(cosine, norms, [range(3)], steps=[1, 2, 3]) == chain([0, 1, 2])
    assert {edge.kind for edge in lineage(cosine, norms, [range(3)])} == {"unordered"}
    assert lineage(np.full((3, 3), np.nan), norms, [range(3)]) == []
    assert lineage(np.ones((0, 0)), [], []) == []


def _pairs(adapters):
    """Cosines of dense updates, norms, and the alignment of all pairs over their modules."""
    N, modules = len(adapters), sorted(set.intersection(*(set(each) for each in adapters)))
    G = np.zeros((N, N))
    rows = [[[] for _ in range(N)] for _ in range(N)]
    for module in modules:
        factors = [(np.asarray(each[module].B), np.asarray(each[module].A)) for each in adapters]
        dense = np.array([(B.astype(float) @ A).ravel() for B, A in factors])
        G += dense @ dense.T
        for i in range(N):
            for j in range(N):
                rows[i][j].append(row_alignment(factors[i][1], factors[j][1]))
    whole = np.array([[combined(each) for each in row] for row in rows])
    norms = np.sqrt(np.diag(G))
    return G / np.outer(norms, norms), norms, start_groups(whole[..., 0], whole[..., 1], whole[..., 2])


def test_published_checkpoints_of_three_runs(real_adapters):
    names = ["runY-ck1000", "runX-ck7500", "runX-ck500", "runZ-final", "runX-ck4000"]
    cosine, norms, starts = _pairs([load_adapter(real_adapters / f"gpt2-lazie-{name}") for name in names])
    assert starts.groups == [(1, 2, 4)] and starts.untestable == ()
    # the two late ones by their numbers alone, the early one (cosine 0.7) only by its name
    assert lineage(cosine, norms, starts.groups) == [Edge(4, 1, "continued")]
    steps, runs = [1000, 7500, 500, None, 4000], ["Y", "X", "X", None, "X"]
    found = lineage(cosine, norms, starts.groups, steps=steps, runs=runs)
    assert found == [Edge(4, 1, "continued"), Edge(2, 4, "continued")]


def test_published_checkpoints_of_one_folder(real_adapters):
    adapters = [load_adapter(real_adapters / f"mlx-gemma2b-medqa-{n}") for n in ("0000100", "0000600")]
    cosine, norms, starts = _pairs(adapters)
    assert starts.groups == [(0, 1)]
    assert lineage(cosine, norms, starts.groups, steps=[100, 600]) == []  # two runs could be so near
    found = lineage(cosine, norms, starts.groups, steps=[100, 600], runs=["medqa", "medqa"])
    assert found == [Edge(0, 1, "continued")]


def _phi(adapters, side):
    """Phi of whole spans in the mean over the modules."""
    modules = sorted(set.intersection(*(set(each) for each in adapters)))
    total = np.zeros((len(adapters),) * 2)
    for module in modules:
        M = [np.asarray(each[module].A).T if side == "a" else np.asarray(each[module].B) for each in adapters]
        Q = [np.linalg.qr(each.astype(float))[0] for each in M]
        total += [[np.sum((U.T @ V) ** 2) / min(U.shape[1], V.shape[1]) for V in Q] for U in Q]
    return total / len(modules)


def test_published_runs_fall_apart_by_run_on_a_and_together_by_task_on_b(real_adapters):
    names = [
        "lazie-runX-ck500",
        "lazie-runX-ck7500",
        "lazie-runY-ck1000",
        "lazie-runZ-final",
        "udacity-anirudh",
    ]
    adapters = [load_adapter(real_adapters / f"gpt2-{name}") for name in names]
    by_a = cluster_tree(excess(_phi(adapters, "a"), 8 / 768))
    by_b = cluster_tree(excess(_phi(adapters, "b"), 8 / 2304))
    assert clusters(by_a, least=0.2) == [(0, 1)]
    assert clusters(by_b, least=0.2) == [(0, 1, 2, 3)]


def test_published_adapters_of_two_people_are_in_no_group(real_adapters):
    first = load_adapter(real_adapters / "diffusers-old-processor-bin-edinsl")
    second = load_adapter(real_adapters / "diffusers-sd-unet-lora-mvclab")
    some = sorted(first)[::16]
    cosine, norms, starts = _pairs([{m: first[m] for m in some}, {m: second[f"unet.{m}"] for m in some}])
    assert starts.groups == [] and starts.untestable == () and abs(cosine[0, 1]) < 0.01
    assert lineage(cosine, norms, starts.groups, steps=[100, 200], runs=["x", "x"]) == []
