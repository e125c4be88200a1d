"""Many adapters at once, against comparisons of single pairs, planted facts, and files that others published."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from synthetic_library import plant_library

import subspace
from subspace.adapters.naming.across import CommonNames, in_best_order
from subspace.analysis.adapter_sources import adapters_below
from subspace.analysis.adapters_in_memory import opened
from subspace.analysis.resolve import Loading
from subspace.analysis.short_names import short_names
from subspace.errors import FileError, InconclusiveError, ValueRangeError
from subspace.flags import Flag

D_IN, D_OUT = 40, 30
MODULES = [f"model.layers.{n}.self_attn.{kind}_proj" for n in range(3) for kind in "qv"]


def adapter(seed, r=4, modules=MODULES, start=None, task=None, prefix="base_model.model."):
    """Tensors by PEFT's names; a start gives A, and a task the directions that B writes to."""
    rng = np.random.default_rng(seed)
    found = {}
    for n, module in enumerate(modules):
        A = np.random.default_rng([1, start, n]).standard_normal((r, D_IN)) if start is not None else None
        A = rng.standard_normal((r, D_IN)) if A is None else A + 0.1 * rng.standard_normal((r, D_IN))
        B = rng.standard_normal((D_OUT, r))
        if task is not None:
            shared = np.random.default_rng([2, task, n])
            u, v = shared.standard_normal(D_OUT), shared.standard_normal(D_IN)
            w = rng.standard_normal(r)
            A, B = A + 3 * np.outer(w, v), 0.2 * B + 3 * np.outer(u, w)
        found[f"{prefix}{module}.lora_A.weight"], found[f"{prefix}{module}.lora_B.weight"] = A, B
    return {key: value.astype(np.float32) for key, value in found.items()}


def written(folder: Path, tensors, alpha=8):
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    r = min(min(value.shape) for value in tensors.values())
    (folder / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "r": r, "lora_alpha": alpha})
    )
    return folder


# the numbers, against `compare`


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """Adapters of several ranks and ways of writing names, one of them with fewer modules."""
    folder = tmp_path_factory.mktemp("several")
    written(folder / "r4", adapter(0))
    written(folder / "r2", adapter(1, r=2, task=0))
    written(folder / "r8", adapter(2, r=8, task=0))
    plain = adapter(3, prefix="", modules=[m.removeprefix("model.") for m in MODULES[:4]])
    np.savez(folder / "plain.npz", **{key.removesuffix(".weight"): value for key, value in plain.items()})
    return folder


@pytest.fixture(scope="module")
def found(several):
    return subspace.library(several, side="all", metric="geodesic", leading=(1, 2), shared=2, layers=True)


def test_every_number_is_that_of_a_comparison_of_the_two(found):
    assert len(found.pairs) == 6 * 4
    for row in found.pairs:
        one = subspace.compare(row.first, row.second, side=row.side)
        rows = list(one)
        assert row.modules == len(rows)
        assert row.phi_full == pytest.approx(np.mean([each.phi_full for each in rows]), abs=2e-6)
        assert row.chance == pytest.approx(np.mean([each.chance_full for each in rows]), abs=1e-12)
        i, j = (1, 2) if row.phi_leading is None else (0, 1)
        assert row.phi_leading == pytest.approx(np.mean([each.phi[i, j] for each in rows]), abs=2e-6)
        angles = [np.sum(np.square(each.theta)) for each in rows]
        assert row.distance == pytest.approx(np.sqrt(np.mean(angles)), rel=1e-4)


def test_the_cosine_is_that_of_the_whole_dense_updates(found, several):
    for row in found.pairs:
        one, other = (subspace.load_adapter(path) for path in (row.first, row.second))
        names = {module.removeprefix("model."): module for module in one}
        pairs = [(names[m.removeprefix("model.")], m) for m in other if m.removeprefix("model.") in names]
        # no scale of the plain file is known: its updates count as they are
        scale = [each[next(iter(each))].scale.value or 1.0 for each in (one, other)]
        X = [
            s * (u[m].B @ u[m].A).astype(float).ravel() for u, s, k in ((one, scale[0], 0),) for m, _ in pairs
        ]
        Y = [scale[1] * (other[m].B @ other[m].A).astype(float).ravel() for _, m in pairs]
        X, Y = np.concatenate(X), np.concatenate(Y)
        assert row.cosine == pytest.approx(X @ Y / np.linalg.norm(X) / np.linalg.norm(Y), abs=2e-6)


def test_pairs_are_compared_on_the_modules_that_both_have_and_it_is_said(found):
    assert found.common == 4
    assert {row.modules for row in found.pairs if "plain" in row.first + row.second} == {4}
    assert {row.modules for row in found.pairs if "plain" not in row.first + row.second} == {6}
    assert found.facts()[0] == "4 adapters with 4 modules in common, all 6 pairs compared."


def test_the_smaller_rank_is_nested_in_the_larger_where_they_share_a_task(found):
    assert {(Path(each.inner).name, Path(each.outer).name) for each in found.nested} == {("r2", "r8")}
    assert "Nested in part:" in found.headline()


def test_rows_by_layer_and_by_module_average_to_the_total(several):
    by_module = subspace.library(several, by="module", side="b", shared=0)
    by_layer = subspace.library(several, by="layer", side="b", shared=0)
    total = subspace.library(several, side="b", shared=0)
    assert {row.part for row in by_layer.pairs} == {"0", "1", "2"}
    assert {row.part for row in by_module.pairs} == {*MODULES}
    whole = total["r2", "r8"].phi_full
    for each in (by_module, by_layer):
        rows = [row for row in each.pairs if {row.first_name, row.second_name} == {"r2", "r8"}]
        assert np.average([r.phi_full for r in rows], weights=[r.modules for r in rows]) == pytest.approx(
            whole, abs=1e-6
        )


# the result


def test_a_pair_is_found_by_its_names_in_any_order(found):
    assert (
        found["r2", "r8", "b"] is not None
        and found["r8", "r2", "b"].phi_full == found["r2", "r8", "b"].phi_full
    )
    with pytest.raises(KeyError, match="4 rows, of sides"):
        found["r2", "r8"]
    with pytest.raises(ValueRangeError, match=r"No adapter is called 'r9'; there are plain\.npz, r2, r4"):
        found.neighbours("r9")


def test_the_neighbours_of_an_adapter_come_nearest_first(found):
    near = found.neighbours("r2", most=2)
    assert Path(near[0].path).name == "r8" and len(near) == 2
    assert near[0].cosine > near[1].cosine and set(near[0].phi) == {"a", "b", "left", "right"}


def test_rows_are_the_most_alike_first_and_can_be_chosen(found):
    cosines = [row.cosine for row in found.pairs]
    assert cosines == sorted(cosines, reverse=True)
    assert {row.first_name for row in found.selected(modules=["r4"]).pairs} <= {"r2", "r4", "r8", "plain.npz"}
    assert all("r4" in (row.first_name, row.second_name) for row in found.selected(modules=["r4"]).pairs)
    phi = [row.phi_full for row in found.selected(sort="-phi_full", top=5).pairs]
    assert phi == sorted(phi) and len(phi) == 5
    assert found.selected(sort="side").pairs[0].side == "a"
    with pytest.raises(ValueRangeError, match="No column 'nope' to sort by"):
        found.selected(sort="nope")
    with pytest.raises(ValueRangeError, match="No adapter matches"):
        found.selected(modules=["nope*"])


def test_records_json_csv_and_the_notebook(found, tmp_path):
    document = json.loads(found.to_json())
    assert document["schema"] == "subspace.library/1" and document["headline"] == " ".join(found.facts())
    keys = {
        "first",
        "second",
        "side",
        "modules",
        "phi_full",
        "chance",
        "phi_control",
        "p_library",
        "distance",
        "cosine",
    }
    assert (
        keys <= set(document["pairs"][0]) and len(document["pairs"]) == len(found) == document["pairs_in_all"]
    )
    assert {"path", "sha256", "modules", "start_group", "flags"} <= set(document["adapters"][0])
    assert {each["path"] for each in document["neighbours"]} == {each.path for each in found.adapters}
    assert len(found.to_csv().splitlines()) == 1 + len(found)
    assert "<table>" in found._repr_html_() and "\n" not in repr(found)
    found.save(tmp_path / "out.json")
    with pytest.raises(FileError, match="exists already"):
        found.save(tmp_path / "out.json")


def test_parquet_has_the_rows(found, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    assert found.save_parquet(tmp_path / "pairs.parquet") == [tmp_path / "pairs.parquet"]
    rows = pq.read_table(tmp_path / "pairs.parquet").to_pylist()
    assert [row["phi_full"] for row in rows] == [row.phi_full for row in found.pairs]
    assert rows[0]["p_library"] is None and rows[0]["first"] == found.pairs[0].first
    with pytest.raises(FileError, match="exists already"):
        found.save_parquet(tmp_path / "pairs.parquet")


@pytest.mark.parametrize("kind", ["heatmap", "neighbours", "layers"])
def test_a_library_draws_itself(found, kind):
    axes = found.plot(kind)
    assert axes.figure is not None and (axes.images or axes.collections or axes.patches)
    with pytest.raises(ValueRangeError, match="Unknown `kind` of plot"):
        found.plot("pie")


def test_lineage_is_drawn_where_there_is_one(found):
    with pytest.raises(InconclusiveError):
        found.plot("lineage")


def test_layers_against_layers(found):
    (q,) = [each for each in found.layers if each.kind.endswith("q_proj")]
    assert q.layers == (0, 1, 2) and np.allclose(q.phi, np.transpose(q.phi))


# which adapters there are


def test_a_directory_stands_for_all_adapters_below(tmp_path):
    written(tmp_path / "run" / "checkpoint-100", adapter(0))
    written(tmp_path / "run" / "checkpoint-20", adapter(1))
    written(tmp_path / "run" / "final", adapter(2))
    save_file(adapter(3), tmp_path / "run" / "final" / "0000600_adapters.safetensors")
    written(tmp_path / ".hidden", adapter(4))
    (tmp_path / "whole").mkdir()
    save_file({"w": np.zeros((2, 2), np.float32)}, tmp_path / "whole" / "model.safetensors")
    (tmp_path / "run" / "optimizer.pt").write_bytes(b"x")
    (tmp_path / "twice.bin").write_bytes(b"x")
    save_file(adapter(5), tmp_path / "twice.safetensors")
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    found = adapters_below([tmp_path, tmp_path / "run" / "final"])
    names = [os.path.relpath(path, tmp_path) for path in found.paths]
    assert names == [
        "twice.safetensors", "run/checkpoint-20", "run/checkpoint-100", "run/final",
        "run/final/0000600_adapters.safetensors",
    ]  # fmt: skip
    assert len(found.notes) == 1 and found.notes[0].startswith("1 file of whole models not read")


def test_names_are_as_short_as_they_can_be():
    assert short_names(["runs/a/r8", "runs/b/r8", "x/r4/adapter_model.safetensors"]) == ["a/r8", "b/r8", "r4"]
    assert short_names(["run/checkpoint-100", "run/checkpoint-200"]) == [
        "run/checkpoint-100",
        "run/checkpoint-200",
    ]
    assert len({*short_names(["same"] * 3)}) == 3


def test_what_cannot_be_read_is_left_out_and_named(tmp_path):
    written(tmp_path / "one", adapter(0))
    written(tmp_path / "other", adapter(1))
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    untrained = adapter(2)
    untrained.update({key: 0 * value for key, value in untrained.items() if "lora_B" in key})
    written(tmp_path / "untrained", untrained)
    damaged = adapter(3)
    damaged[next(key for key in damaged if "lora_A" in key)][0, 0] = np.nan
    written(tmp_path / "damaged", damaged)
    found = subspace.library([tmp_path, "no/such/file"], shared=0)
    assert [Path(each.path).name for each in found.skipped] == ["broken.safetensors", "file"]
    assert "2 paths not read" in " ".join(found.notes) and "not all finite" not in found.headline()
    flags = {each.name: each.flags for each in found.adapters}
    assert Flag.UNTRAINED in flags["untrained"] and Flag.NOT_FINITE in flags["damaged"]
    assert "1 adapter is untrained and in no pair: untrained." in found.facts()
    assert {row.modules for row in found.pairs if "damaged" in (row.first_name, row.second_name)} == {5}
    assert "untrained" not in {name for row in found.pairs for name in (row.first_name, row.second_name)}


def test_too_few_adapters_and_nothing_in_common(tmp_path):
    written(tmp_path / "one", adapter(0))
    with pytest.raises(FileError, match="Too few adapters: 1 can be read; give at least two"):
        subspace.library(tmp_path)
    with pytest.raises(FileError, match=r"Too few adapters: 0 can be read, 1 path cannot be read: .*no/such"):
        subspace.library(["no/such"])
    other = {"x.lora_A": np.ones((2, 5)), "x.lora_B": np.ones((4, 2))}
    with pytest.raises(InconclusiveError, match="No module in common: none of 2 adapters"):
        subspace.library({"a": adapter(0), "b": other})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"by": "kind"}, "Unknown `by` 'kind'; choose one of total"),
        ({"side": "c"}, "Unknown `side` 'c'"),
        ({"side": ()}, "No side to compare"),
        ({"metric": "euclid"}, "Unknown `metric`"),
        ({"similarity": "phi"}, "Unknown `similarity`"),
    ],
)
def test_settings_that_are_none(wrong, message):
    with pytest.raises(ValueRangeError, match=message):
        subspace.library({"a": adapter(0), "b": adapter(1)}, **wrong)


def test_tensors_and_adapters_in_memory():
    one = subspace.load_adapter(adapter(0))
    found = subspace.library({"one": one, "two": adapter(1), "again": adapter(0)}, shared=0)
    assert found["one", "again", "b"].cosine == pytest.approx(1, abs=1e-6)
    assert [each.path for each in found.adapters] == ["one", "two", "again"]
    listed = subspace.library([one, adapter(1)], shared=0)
    assert len({each.path for each in listed.adapters}) == 2
    collection = opened([adapter(0), adapter(1)], Loading())
    assert len(subspace.library(collection, shared=0).pairs) == 2


def test_a_collection_is_opened_again_where_it_is_unpickled(several):
    collection = opened(adapters_below([several]).paths, Loading())
    other = pickle.loads(pickle.dumps(collection))
    module = collection.modules[0]
    for one, again in zip(
        collection.forms(module, collection.holders(module)),
        other.forms(module, other.holders(module)),
        strict=True,
    ):
        assert np.array_equal(one.right, again.right)


# one name for every module


def test_names_of_many_adapters_are_matched_in_any_order():
    layouts = [
        ("transformer.h.0.attn.c_attn", "transformer.h.1.attn.c_attn"),
        ("h.0.attn.c_attn", "h.1.attn.c_attn"),
        ("lora_te_h_0_attn_c_attn",),
        ("h.1.attn.c_attn", "h.2.attn.c_attn"),
    ]
    for order in (layouts, layouts[::-1]):
        names = CommonNames()
        found = {layout: names.of(layout) for layout in in_best_order(order)}
        assert found[layouts[1]]["h.1.attn.c_attn"] == "transformer.h.1.attn.c_attn"
        assert found[layouts[3]] == {
            "h.1.attn.c_attn": "transformer.h.1.attn.c_attn",
            "h.2.attn.c_attn": "h.2.attn.c_attn",
        }
        assert not names.ambiguous


def test_a_name_that_could_be_several_modules_is_left_apart():
    names = CommonNames()
    assert names.of(["text.layers.0.q", "vision.layers.0.q"]) == {
        n: n for n in ("text.layers.0.q", "vision.layers.0.q")
    }
    assert names.of(["layers.0.q"]) == {"layers.0.q": "layers.0.q"}
    assert names.ambiguous == {"layers.0.q": ["text.layers.0.q", "vision.layers.0.q"]}
    # what was met first does not make two modules one
    names = CommonNames()
    for layout in (["layers.0.q"], ["text.layers.0.q"], ["vision.layers.0.q"]):
        found = names.of(layout)
    assert found == {"vision.layers.0.q": "vision.layers.0.q"} and "vision.layers.0.q" in names.ambiguous


def test_two_adapters_of_one_module_each_are_not_a_pair_by_that():
    names = CommonNames()
    names.of(["q"])
    assert names.of(["v"]) == {"v": "v"}


def test_one_name_and_two_shapes_are_two_modules():
    small = {"q.lora_A": np.random.default_rng(5).standard_normal((2, 7)), "q.lora_B": np.ones((6, 2))}
    large = [
        {"q.lora_A": np.random.default_rng(n).standard_normal((2, 9)), "q.lora_B": np.ones((6, 2))}
        for n in (0, 1)
    ]
    found = subspace.library({"small": small, "one": large[0], "two": large[1]}, shared=0, controls="none")
    assert {(row.first, row.second) for row in found.pairs} == {("one", "two")}
    assert "another shape" in " ".join(found.notes)


def test_a_fused_layer_is_split_where_others_have_its_parts():
    rng = np.random.default_rng(0)
    block, r, d = "transformer.transformer_blocks.0.attn", 2, 12
    A, B = rng.standard_normal((r, d)), rng.standard_normal((3 * d, r))
    fused = {"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": A,
             "lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight": B}  # fmt: skip
    parts = {}
    for n, part in enumerate(("to_q", "to_k", "to_v")):
        parts[f"{block}.{part}.lora_A.weight"], parts[f"{block}.{part}.lora_B.weight"] = (
            A,
            B[n * d : (n + 1) * d],
        )
    found = subspace.library({"fused": fused, "parts": parts}, shared=0, controls="none")
    assert {row.modules for row in found.pairs} == {3}
    assert all(row.phi_full == pytest.approx(1) for row in found.pairs)
    assert found.pairs[0].cosine == pytest.approx(1)


# groups, and what they must not be


def test_starts_fall_apart_on_a_and_tasks_on_b():
    library = {f"start{s}-task{t}": adapter([s, t], r=8, start=s, task=t) for s in range(3) for t in range(2)}
    on_a = subspace.library(library, similarity="a", least=0.5, shared=0)
    assert {frozenset(each.adapters) for each in on_a.clusters} == {
        frozenset(name for name in library if name.startswith(f"start{s}")) for s in range(3)
    }
    tasks = {frozenset(name for name in library if name.endswith(f"task{t}")) for t in range(2)}
    by_cosine = subspace.library(library, shared=0)
    assert {frozenset(each.adapters) for each in by_cosine.clusters} == tasks
    assert {frozenset(group) for group in on_a.start_groups} == {
        frozenset(each.adapters) for each in on_a.clusters
    }
    assert all(
        (Flag.SHARED_START in row.flags) == (row.side == "a" and row.first[:6] == row.second[:6])
        for row in on_a.pairs
    )


@pytest.mark.parametrize("n", [38, 39])
def test_the_library_is_its_own_null_from_39_adapters_up(n):
    found = subspace.library({f"{k}": adapter(k, modules=MODULES[:1], r=2) for k in range(n)}, shared=0)
    p = [row.p_library for row in found.pairs]
    if n < 39:
        assert found.p_floor is None and set(p) == {None}
    else:
        assert found.p_floor == pytest.approx(1 / 38) and min(p) == pytest.approx(1 / 38) and max(p) <= 1
        assert "p_library" in found.columns()


def test_the_shared_subspace_of_unrelated_adapters_is_that_of_random_ones():
    found = subspace.library({f"{k}": adapter(k, modules=MODULES[:2], r=2) for k in range(9)}, shared=2)
    assert {(each.side, each.mean_removed) for each in found.shared} == {
        (side, removed) for side in ("right", "left") for removed in (True, False)
    }
    for each in found.shared:
        assert each.directions == pytest.approx(each.directions_random, abs=1.5)
    together = subspace.library(
        {f"{k}": adapter(k, modules=MODULES[:1], r=2, task=1) for k in range(9)}, shared=1
    )
    (whole,) = [each for each in together.shared if each.side == "left" and not each.mean_removed]
    assert whole.directions < whole.directions_random / 2


def as_sets(groups):
    return {frozenset(group) for group in groups}


def require_planted(found, planted):
    """Every planted fact is found, and no other."""
    place = {os.path.realpath(path): n for n, path in enumerate(planted.paths)}
    own = {each.path: place[os.path.realpath(each.path)] for each in found.adapters}
    assert len(own) == len(planted.paths)

    def numbers(groups):
        return as_sets([own[path] for path in group] for group in groups)

    assert numbers(found.duplicates) == as_sets(planted.duplicates)
    assert numbers(found.start_groups) == as_sets(planted.start_groups)
    assert {(own[e.earlier], own[e.later], e.kind) for e in found.lineage} == set(planted.lineage)
    copies = as_sets([*planted.duplicates, *planted.near_duplicates])
    assert numbers(found.near_duplicates) == copies
    assert numbers(each.adapters for each in found.clusters) == as_sets(planted.clusters)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted") / "library"
    return folder, plant_library(folder, 60, seed=3)


def test_every_planted_fact_is_found_and_none_invented(planted, tmp_path):
    folder, facts = planted
    found = subspace.library(folder, shared=0)
    require_planted(found, facts)
    assert found.p_floor == pytest.approx(1 / 59, rel=0.2)
    kept = subspace.library(folder, shared=0, index=tmp_path / "index")
    require_planted(kept, facts)
    for row in found.selected(top=50).pairs:
        other = kept[row.first_name, row.second_name, row.side]
        assert other.phi_full == pytest.approx(row.phi_full, abs=2e-6)
        assert other.cosine == pytest.approx(row.cosine, abs=2e-6)


def test_an_index_is_extended_and_says_the_same(planted, tmp_path):
    _, facts = planted
    index = tmp_path / "index"
    first = subspace.library(facts.paths[:20], index=index, shared=0)
    assert (len(first.adapters), first.new) == (20, 20)
    both = subspace.library(facts.paths[20:], index=index, shared=0)
    assert (len(both.adapters), both.new) == (60, 40)
    again = subspace.library([], index=index, shared=0)
    assert again.new == 0 and [row.cosine for row in again.pairs] == [row.cosine for row in both.pairs]
    require_planted(again, facts)


def test_the_neighbourhood_of_one_adapter_is_what_all_pairs_say_of_it(planted, tmp_path):
    _, facts = planted
    index = tmp_path / "index"
    whole = subspace.library(facts.paths, index=index, shared=0, side="b")
    asked = facts.clusters[0][0]
    found = subspace.library([], index=index, near=facts.paths[asked], nearest=12, shared=0, side="b")
    assert len(found.adapters) == 13 and found.new == 0
    mates = {str(facts.paths[n]) for n in facts.clusters[0]}
    assert mates <= {each.path for each in found.adapters}
    for row in found.pairs:
        other = whole[row.first, row.second, "b"]
        assert row.cosine == pytest.approx(other.cosine, abs=2e-6)
        assert row.phi_full == pytest.approx(other.phi_full, abs=2e-6)
    assert any("Of 60 adapters in the index only" in note for note in found.notes)


def test_a_neighbourhood_of_no_one_is_refused(planted, tmp_path):
    _, facts = planted
    with pytest.raises(ValueRangeError, match="give `index` with `near`"):
        subspace.library(facts.paths[:3], near=facts.paths[0])
    with pytest.raises(ValueRangeError, match="No adapter of the index is called 'nobody'"):
        subspace.library(facts.paths[:3], index=tmp_path / "index", near="nobody")
    with pytest.raises(ValueRangeError, match="at least 1"):
        subspace.library([], index=tmp_path / "index", near="nobody", nearest=0)


def test_the_numbers_of_two_processes_are_those_of_one(several):
    one, two = (subspace.library(several, jobs=jobs, shared=0) for jobs in (1, 2))
    assert [row.record() for row in one.pairs] == [row.record() for row in two.pairs]


# files that others published


def test_published_runs_fall_apart_on_a_and_together_on_b(real_adapters):
    runs = ["runX-ck500", "runX-ck4000", "runX-ck7500", "runY-ck1000", "runZ-final"]
    paths = [real_adapters / f"gpt2-lazie-{run}" for run in runs]
    strangers = [real_adapters / "gpt2-udacity-anirudh", real_adapters / "gpt2-cproj-bin-thesotti"]
    found = subspace.library([*paths, *strangers], similarity="a", least=0.5, shared=0)
    X = {str(path) for path in paths[:3]}
    assert as_sets(each.adapters for each in found.clusters) == {frozenset(X)} == as_sets(found.start_groups)
    together = subspace.library([*paths, *strangers], similarity="b", shared=0)
    assert as_sets(each.adapters for each in together.clusters) == {frozenset(map(str, paths))}
    assert as_sets(each.adapters for each in subspace.library([*paths, *strangers], shared=0).clusters) == {
        frozenset(map(str, paths))
    }
    # fused q, k and v are one module of 2304 rows, and the stranger's c_proj is in nobody else
    assert {row.modules for row in found.pairs} == {12} and found.common == 12
    one = subspace.compare(paths[0], paths[4], side="b")
    assert found["gpt2-lazie-runX-ck500", "gpt2-lazie-runZ-final", "b"].phi_full == pytest.approx(
        np.mean([row.phi_full for row in one]), abs=2e-6
    )
    edges = [(e.earlier.rpartition("-")[2], e.later.rpartition("-")[2], e.kind) for e in found.lineage]
    assert sorted(edges) == [("ck4000", "ck7500", "continued"), ("ck500", "ck4000", "continued")]


def test_a_published_rank_sweep_is_nested_on_b(real_adapters):
    found = subspace.library([real_adapters / f"sam-vitb-r{r}" for r in (2, 8, 16)], shared=0)
    assert [(each.side, round(each.share, 2)) for each in found.nested] == [
        ("b", 0.66),
        ("b", 0.60),
        ("b", 0.45),
    ]
    assert not found.start_groups and not found.lineage
    ranks = {each.path: each.rank for each in found.adapters}
    assert all(ranks[each.inner] < ranks[each.outer] for each in found.nested)
    assert "Nested in part: 66 % of B" in found.headline()


def test_published_checkpoints_of_one_run_are_one_lineage(real_adapters):
    paths = [real_adapters / f"mlx-gemma2b-medqa-0000{step}" for step in (600, 100)]
    found = subspace.library(paths, shared=0)
    (edge,) = found.lineage
    assert (edge.earlier, edge.later, edge.kind) == (str(paths[1]), str(paths[0]), "continued")
    assert as_sets(found.start_groups) == {frozenset(map(str, paths))}


def test_published_files_of_one_update_in_two_formats(real_adapters):
    names = ["sd-anime-peft-faithsang", "sd-anime-diffusers-faithsang"]
    others = ["diffusers-old-processor-bin-edinsl", "diffusers-sd-unet-lora-mvclab"]
    paths = [str(real_adapters / name) for name in (*names, *others)]
    found = subspace.library(paths, shared=0, controls="none")
    assert as_sets(found.near_duplicates) == {frozenset(paths[:2])} == as_sets(found.start_groups)
    assert not found.duplicates and not found.lineage
    assert {row.modules for row in found.pairs} == {96, 128}


# thousands


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_thousand_adapters_are_indexed_extended_killed_and_resumed(tmp_path):
    facts = plant_library(tmp_path / "library", 2000, seed=11)
    index = tmp_path / "index"
    paths = sorted(map(str, facts.paths))
    (tmp_path / "part").write_text("\n".join(paths[:1200]))
    code = (
        "import sys, pathlib, subspace\n"
        "paths = pathlib.Path(sys.argv[1]).read_text().split()\n"
        "subspace.library(paths, index=sys.argv[2], shared=0)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "part"), str(index)]
    with subprocess.Popen(command) as process:
        while process.poll() is None and len(list(index.glob("adapters/*/*"))) < 500:
            time.sleep(0.05)
        process.kill()
    assert process.returncode != 0
    first = subspace.library(paths[:1200], index=index, shared=0)
    assert len(first.adapters) == 1200 and 0 < first.new < 1200
    found = subspace.library(paths, index=index, shared=0)
    assert found.new == 800 and len(found.adapters) == 2000
    require_planted(found, facts)
    assert found.p_floor == pytest.approx(1 / 1999, rel=0.2)
    assert len(found.facts()) >= 5 and len(found.selected(top=3).pairs) == 3
