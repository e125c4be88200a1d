"""``subspace compare``: table, JSON, CSV, figures and their data."""

from __future__ import annotations

import csv
import io
import json

import contract
import numpy as np
import oracles
import pytest
from safetensors.numpy import load_file

from subspace.training import save_base, save_peft

PRESETS = ("effects", "fig3", "fig4", "fig6", "fig7", "fig8", "fig8all", "grid")
STARTS = {"png": b"\x89PNG\r\n\x1a\n", "pdf": b"%PDF-", "svg": b"<?xml"}


def _json(told):
    assert told.code == 0, told.err
    return contract.document(told.out.rstrip("\n"))


def test_the_table_has_its_columns(run, made):
    told = run("compare", made / "first", made / "second")
    assert (told.code, told.err) == (0, "")
    header, *lines = told.out.splitlines()
    assert (
        header.split()
        == (
            "module side d rank_first rank_second cosine phi_11 phi_control excess phi_full chance_full times_chance "
            "z_full shared_dim shared_dim_control flags"
        ).split()
    )
    assert len([line for line in lines if line.startswith("model.layers.")]) == 6
    whole, a, conclusion = lines[-3:]
    assert whole.startswith("The updates have the cosine ")
    assert "; 1 direction in all 6 modules shared beyond isotropic random spans, of at most 4 (" in a
    assert "; modules with the same input share 0 in the mean; phi(1, 1) " in a
    assert conclusion


def test_json_follows_the_contract_and_the_dense_definitions(run, made):
    found = _json(run("compare", made / "first", made / "second", "--json", "--grid"))
    contract.check(found, contract.COMPARE)
    one, other = (load_file(made / name / "adapter_model.safetensors") for name in ("first", "second"))
    assert found["first"] == {
        "path": str(made / "first" / "adapter_model.safetensors"),
        "format": "peft",
        "modules": 6,
    }
    for module in found["modules"]:
        key = f"base_model.model.{module['module']}.lora_A.weight"
        phi = oracles.phi(one[key], other[key])
        np.testing.assert_allclose(module["phi"], phi, rtol=0, atol=1e-10)
        assert module["phi_11"] == pytest.approx(phi[0, 0])
        assert module["phi_full"] == pytest.approx(phi[-1, -1])
        assert module["chance_full"] == pytest.approx(6 / 32)
        assert len(module["theta"]) == len(module["shared_p"]) == 4
        assert (
            (module["r_first"], module["r_second"]) == (module["rank_first"], module["rank_second"]) == (4, 6)
        )
        assert module["side"] == "a" and module["d"] == 32


def test_the_grid_is_only_there_when_asked_for(run, made):
    found = _json(run("compare", made / "first", made / "second", "--json"))
    contract.check(found, contract.COMPARE)
    assert not any("phi" in module for module in found["modules"])


def test_all_sides(run, made):
    found = _json(run("compare", made / "first", made / "second", "--side", "all", "--json"))
    assert [module["side"] for module in found["modules"]] == ["a", "b", "left", "right"] * 6
    assert found["headline"].count("1 direction in all 6 modules shared beyond isotropic random spans") == 4
    assert all(f" {name}: " in found["headline"] for name in ("A", "B", "The left side of delta_W"))


def test_values_that_do_not_exist_are_null_with_a_flag(run, made, tmp_path):
    rng = np.random.default_rng(0)
    first = {
        "l.0.q": (rng.standard_normal((4, 16)), np.zeros((16, 4))),
        "l.1.q": (rng.standard_normal((20, 16)), rng.standard_normal((16, 20))),
        "l.2.q": (rng.standard_normal((4, 12)), rng.standard_normal((16, 4))),
        "l.3.q": (rng.standard_normal((4, 16)), rng.standard_normal((16, 4))),
        "l.4.q": (rng.standard_normal((4, 16)), rng.standard_normal((16, 4))),
    }
    second = {
        m: (rng.standard_normal((3, 16)), rng.standard_normal((16, 3))) for m in [*list(first)[:4], "l.9.q"]
    }
    tensors = [
        {f"{m}.lora_{x}": t for m, pair in f.items() for x, t in zip("AB", pair, strict=True)}
        for f in (first, second)
    ]
    paths = [save_base(tmp_path / f"{n}.safetensors", arrays) for n, arrays in enumerate(tensors)]
    told = run("compare", *paths, "--side", "all", "--json", "--grid")
    found = _json(told)
    contract.check(found, contract.COMPARE)
    for module in found["modules"]:
        contract.nulls_are_flagged(module)
    flags = {flag for module in found["modules"] for flag in module["flags"]}
    assert {"untrained_first", "whole_space", "shape_differs", "rank_below_r_first"} <= flags
    assert (found["only_first"], found["only_second"]) == (["l.4.q"], ["l.9.q"])
    assert told.err.count("warning: ") == told.err.count("\n") == len(found["notes"])


def test_csv(run, made):
    told = run("compare", made / "first", made / "second", "--side", "all", "--csv")
    rows = list(csv.DictReader(io.StringIO(told.out)))
    assert len(rows) == 24 and {row["side"] for row in rows} == {"a", "b", "left", "right"}
    assert all(0 <= float(row["phi_full"]) <= 1 for row in rows)
    assert "distance_geodesic" in rows[0] and "shared_p_1" in rows[0]


def test_csv_has_every_column_in_every_row(run, tmp_path):
    """The first row has no score and so no distances: the header must not be taken from it alone."""
    rng = np.random.default_rng(0)
    good = {f"l.{n}.q": (rng.standard_normal((3, 16)), rng.standard_normal((16, 3))) for n in range(3)}
    part = {**good, "l.0.q": (good["l.0.q"][0], 0 * good["l.0.q"][1])}
    save_peft(tmp_path / "good", good, alpha=3)
    save_peft(tmp_path / "part", part, alpha=3)
    told = run("compare", tmp_path / "good", tmp_path / "part", "--csv")
    rows = list(csv.reader(io.StringIO(told.out)))
    assert {len(row) for row in rows} == {len(rows[0])}
    assert "distance_geodesic" in rows[0]


@pytest.mark.parametrize("times", [1, 2])
def test_init_shows_both_answers(times, run, made):
    words = ["--init", made / "start"] * times
    second = made / "second" if times == 1 else made / "first"
    told = run("compare", made / "first", second, *words, "--json")
    found = _json(told)
    assert [module["init"] for module in found["modules"]] == ["kept", "removed"] * 6
    assert "with the start removed" in found["headline"]
    table = run("compare", made / "first", second, *words).out
    assert table.splitlines()[0].split()[:3] == ["module", "side", "init"]


def test_a_start_of_another_adapter_is_refused(run, made):
    told = run("compare", made / "second", made / "second", "--init", made / "start")
    assert told.code == 1 and told.err.count("\n") == 1 and "start" in told.err


def test_the_level_is_said_and_a_scale_is_refused(run, made):
    assert "(level 0.05, Holm" in run("compare", made / "first", made / "second", "--level", "0.05").out
    told = run("compare", made / "first", made / "second", "--scale", "5")
    assert told.code == 2 and "do not depend on it" in told.err


def test_a_fine_tune_with_its_base(run, made, tmp_path):
    base = load_file(made / "base.safetensors")
    adapter = load_file(made / "first" / "adapter_model.safetensors")
    tuned = {}
    for key, W in base.items():
        name = f"base_model.model.{key.removesuffix('.weight')}"
        tuned[key] = W + adapter[f"{name}.lora_B.weight"] @ adapter[f"{name}.lora_A.weight"]
    save_base(tmp_path / "tuned.safetensors", tuned)
    words = ("compare", tmp_path / "tuned.safetensors", made / "second", "--side", "right", "--json")
    found = _json(run(*words, "--base", made / "base.safetensors"))
    direct = _json(run("compare", made / "first", made / "second", "--side", "right", "--json"))
    for one, other in zip(found["modules"], direct["modules"], strict=True):
        assert one["rank_first"] == 4
        assert one["phi_full"] == pytest.approx(other["phi_full"], abs=1e-4)


def test_nothing_in_common_says_what_the_names_are(run, made):
    told = run("compare", made / "first", made / "pair.npz")
    names = "the first has model.layers.0.self_attn.q_proj, the second has a matrix without a name"
    assert told.code == 3 and names in told.err and "--map" in told.err


def test_base_weights_take_directions(run, made):
    found = _json(
        run("compare", made / "base.safetensors", made / "first", "--directions", "5", "--json", "--grid")
    )
    assert {np.shape(module["phi"]) for module in found["modules"]} == {(5, 4)}
    assert found["first"]["format"] == "base weights"


def _sides(made, preset):
    return (made / "base.safetensors" if preset.startswith("fig8") else made / "first"), made / "second"


@pytest.mark.parametrize("preset", PRESETS)
def test_every_figure_and_its_data_are_written(preset, run, made, tmp_path):
    told = run("compare", *_sides(made, preset), "--figure", preset, "-o", tmp_path / "out", "--json")
    assert contract.document(told.out.rstrip("\n"))["schema"] == "subspace.compare/1"
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {f"{preset}-a.png", f"{preset}-a.json", "comparison.json"}
    assert (tmp_path / "out" / f"{preset}-a.png").read_bytes().startswith(STARTS["png"])
    drawn = json.loads((tmp_path / "out" / f"{preset}-a.json").read_text())
    assert drawn["panels"] and all(panel["d"] == 32 for panel in drawn["panels"])
    assert told.err.splitlines() == [
        f"wrote {tmp_path}/out/{name}" for name in (f"{preset}-a.png", f"{preset}-a.json", "comparison.json")
    ]


@pytest.mark.parametrize(("preset", "image"), [("fig3", "svg"), ("fig8", "pdf"), ("grid", "svg")])
def test_other_image_formats(preset, image, run, made, tmp_path):
    told = run("compare", *_sides(made, preset), "--figure", preset, "--image", image, "-o", tmp_path)
    assert told.code == 0
    assert (tmp_path / f"{preset}-a.{image}").read_bytes().startswith(STARTS[image])
    assert (tmp_path / f"{preset}-a.json").is_file()


def test_out_alone_draws_the_grid_and_keeps_the_comparison(run, made, tmp_path):
    told = run("compare", made / "first", made / "second", "-o", tmp_path / "new" / "folder")
    assert told.code == 0 and told.out.startswith("module")
    names = {path.name for path in (tmp_path / "new" / "folder").iterdir()}
    assert names == {"grid-a.png", "grid-a.json", "comparison.json"}
    kept = json.loads((tmp_path / "new" / "folder" / "comparison.json").read_text())
    contract.check(kept, contract.COMPARE)
    assert np.shape(kept["modules"][0]["phi"]) == (4, 6)


def test_a_figure_without_a_folder_goes_here(run, made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = run("compare", made / "first", made / "second", "--figure", "fig4", "--side", "b")
    assert told.code == 0 and {p.name for p in tmp_path.iterdir()} == {"fig4-b.png", "fig4-b.json"}


def test_every_side_has_its_figure(run, made, tmp_path):
    run("compare", made / "first", made / "second", "--figure", "fig4", "--side", "all", "-o", tmp_path)
    assert {p.name for p in tmp_path.glob("*.png")} == {
        f"fig4-{side}.png" for side in ("a", "b", "left", "right")
    }


def test_layer_chooses_the_layer(run, made, tmp_path):
    run("compare", made / "first", made / "second", "--figure", "fig3", "--layer", "2", "-o", tmp_path)
    drawn = json.loads((tmp_path / "fig3-a.json").read_text())
    assert all("layer 2" in panel["title"] for panel in drawn["panels"])
    told = run("compare", made / "first", made / "second", "--figure", "fig3", "--layer", "7", "-o", tmp_path)
    assert told.code == 1 and "There is no layer 7 in this comparison; it has layers 0, 1, 2" in told.err


def test_relative_figures_and_their_data_say_so(run, made, tmp_path):
    words = (
        "compare",
        made / "first",
        made / "second",
        "--figure",
        "fig3",
        "--figure",
        "effects",
        "-o",
        tmp_path,
    )
    assert run(*words, "--relative").code == 0
    for name in ("fig3", "effects"):
        drawn = json.loads((tmp_path / f"{name}-a-relative.json").read_text())
        assert {panel["drawn"] for panel in drawn["panels"]} == {"phi / null_mean"}
        assert {panel["null"] for panel in drawn["panels"]} == {"isotropic"}
    assert run(*words).code == 0
    assert (tmp_path / "fig3-a.png").read_bytes() != (tmp_path / "fig3-a-relative.png").read_bytes()


def test_the_data_of_a_figure_have_the_control(run, made, tmp_path):
    run("compare", made / "first", made / "second", "--figure", "fig3", "-o", tmp_path)
    panels = json.loads((tmp_path / "fig3-a.json").read_text())["panels"]
    rows = json.loads((tmp_path / "comparison.json").read_text())["modules"]
    controls = [panel for panel in panels if panel["control"]]
    assert len(controls) == len(panels) / 2
    for panel in controls:
        (row,) = [row for row in rows if row["module"] == panel["i_module"]]
        assert panel["control"] == row["control"]
        assert panel["phi"][0][0] == pytest.approx(row["phi_control_grid"][0][0])


def test_figure_8_wants_base_weights(run, made, tmp_path):
    told = run("compare", made / "first", made / "second", "--figure", "fig8", "-o", tmp_path)
    assert told.code == 1 and told.err.startswith("error: Figure 8 needs base weights") and told.out == ""


def test_figure_8_has_w_on_the_i_axis_whichever_way_it_was_given(run, made, tmp_path):
    pair = [made / "base.safetensors", made / "second"]
    for name, (one, other) in (("there", pair), ("back", pair[::-1])):
        assert run("compare", one, other, "--figure", "fig8", "-o", tmp_path / name).code == 0
    there, back = (
        json.loads((tmp_path / n / "fig8-a.json").read_text())["panels"] for n in ("there", "back")
    )
    for panel, again in zip(there, back, strict=True):
        assert np.shape(panel["phi"]) == (4, 6)  # a tenth of 32, against rank 6
        assert panel["i_label"] == again["i_label"]
        np.testing.assert_allclose(panel["phi"], again["phi"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("target", ["file", "file/below"])
def test_a_folder_that_cannot_be_written_is_one_line(target, run, made, tmp_path):
    (tmp_path / "file").write_text("kept")
    told = run("compare", made / "first", made / "second", "-o", tmp_path / target)
    assert told.code == 1 and told.out == ""
    assert told.err.count("\n") == 1 and "file" in told.err and told.err.startswith("error: ")
    assert (tmp_path / "file").read_text() == "kept"


def test_a_users_own_file_is_never_replaced(run, made, tmp_path):
    (tmp_path / "comparison.json").write_text('{"mine": 1}')
    told = run("compare", made / "first", made / "second", "-o", tmp_path)
    assert told.code == 1 and "comparison.json" in told.err
    assert (tmp_path / "comparison.json").read_text() == '{"mine": 1}'


def test_a_second_run_replaces_its_own_files(run, made, tmp_path):
    for _ in range(2):
        assert run("compare", made / "first", made / "second", "-o", tmp_path).code == 0
    assert {p.name for p in tmp_path.iterdir()} == {"grid-a.png", "grid-a.json", "comparison.json"}


def test_names_of_a_stranger_survive_figures_and_csv(run, tmp_path):
    rng = np.random.default_rng(0)
    names = ["$\\frac{1}{2}$.0.q_proj", "模块.0.🙂.v_proj", "=SUM(A1).0.x", "evil\x1b[31m.0.y"]
    for folder in ("one$x^2$", "two\x1b[1m"):
        pairs = {n: (rng.standard_normal((3, 16)), rng.standard_normal((16, 3))) for n in names}
        save_peft(tmp_path / folder, pairs, alpha=3)
    words = ("compare", tmp_path / "one$x^2$", tmp_path / "two\x1b[1m")
    for preset in ("grid", "fig3"):
        told = run(*words, "--figure", preset, "-o", tmp_path / "out", "--image", "svg")
        assert told.code == 0 and "\x1b" not in told.out + told.err
        assert b"\x1b" not in (tmp_path / "out" / f"{preset}-a.svg").read_bytes()
    rows = list(csv.DictReader(io.StringIO(run(*words, "--csv").out)))
    assert not any(row["module"].startswith("=") for row in rows)
    found = contract.document(run(*words, "--json").out.rstrip("\n"))
    assert {module["module"] for module in found["modules"]} == set(names)
