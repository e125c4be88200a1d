import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from subspace.checkpoints import folder_swap
from subspace.errors import FileError
from subspace.plots import drawn, figure_3, heatmap, numbered, save


def _strict(path: Path):
    def refuse(name: str):
        raise AssertionError(f"{name} is not JSON")

    return json.loads(path.read_bytes(), parse_constant=refuse)


def _drawn_from(record) -> np.ma.MaskedArray:
    phi = np.array(record["phi"], dtype=float)
    i = np.arange(phi.shape[0])[:, None] + record["i_start"]
    j = np.arange(phi.shape[1])[None, :] + record["j_start"]
    hidden = {"j < i": j < i, "i < j": i < j, None: np.zeros(phi.shape, bool)}[record["masked"]]
    return np.ma.masked_array(phi, np.isnan(phi) | hidden)


@pytest.fixture
def figure(make_panel):
    return figure_3([make_panel(6, 64, r_first=8, title="q"), make_panel(title="v")])


@pytest.mark.parametrize(
    ("suffix", "magic"), [("png", b"\x89PNG"), ("pdf", b"%PDF-"), ("svg", b"<?xml"), ("PNG", b"\x89PNG")]
)
def test_the_suffix_chooses_the_kind(figure, tmp_path, suffix, magic) -> None:
    paths = save(figure, tmp_path / f"figure.{suffix}")
    assert [path.name for path in paths] == [f"figure.{suffix}", "figure.json"]
    assert paths[0].read_bytes().startswith(magic)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(path.name for path in paths)


def test_the_json_is_exactly_what_was_drawn(figure, tmp_path) -> None:
    _, data = save(figure, tmp_path / "f.png")
    content = _strict(data)
    assert (content["version"], content["null"]) == (2, "isotropic")
    assert content["null_mean"].startswith("max(i, j) / d")
    records = content["panels"]
    images = [ax.images[0] for ax in figure.axes if len(ax.images) == 2]
    assert len(records) == len(images) == 4
    for record, image in zip(records, images, strict=True):
        left, _, _, top = image.get_extent()
        assert (left + 0.5, top + 0.5) == (record["j_start"], record["i_start"])
        np.testing.assert_array_equal(np.ma.getmaskarray(image.get_array()), _drawn_from(record).mask)
        np.testing.assert_array_equal(image.get_array().filled(-1), _drawn_from(record).filled(-1))
        assert list(image.get_clim()) == record["limits"]
    levels = [record["null_mean"] for record in records]
    assert levels[1] == {"smallest": 1 / 768, "largest": 64 / 768}
    assert levels[3] == {"smallest": 1 / 768, "largest": 8 / 768}  # the zoomed panel's own
    assert {(record["null"], record["drawn"], record["control"]) for record in records} == {
        ("isotropic", "phi", None)
    }
    assert records[0]["phi"][7][0] is None


def test_the_csv_has_a_line_per_cell_and_says_its_state(figure, tmp_path) -> None:
    _, data, table = save(figure, tmp_path / "f.png", csv=True)
    with table.open(newline="", encoding="utf-8") as stream:
        lines = list(csv.DictReader(stream))
    records = _strict(data)["panels"]
    assert len(lines) == sum(len(row) for record in records for row in record["phi"])
    first = [line for line in lines if line["panel"] == "1"]
    assert {(line["i"], line["j"]): line["state"] for line in first}[("2", "1")] == "masked"
    assert {line["phi"] == "" for line in first if line["state"] == "undefined"} == {True}
    assert all(
        float(line["phi"]) == records[0]["phi"][int(line["i"]) - 1][int(line["j"]) - 1]
        for line in first
        if line["phi"]
    )
    assert all(float(line["null_mean"]) == max(int(line["i"]), int(line["j"])) / 768 for line in first)
    assert {(line["null"], line["drawn"], line["control"]) for line in lines} == {("isotropic", "phi", "")}
    for line in first:
        if line["phi"]:
            assert float(line["phi_over_null"]) == pytest.approx(
                float(line["phi"]) / float(line["null_mean"])
            )


def test_the_data_say_that_a_ratio_was_drawn_and_whose_control(make_panel, tmp_path) -> None:
    control = make_panel(title="control", control={"kind": "same_input", "pairs": 2})
    figure = figure_3([make_panel(title="q")], controls=[control], relative=True)
    _, data, table = save(figure, tmp_path / "f.png", csv=True)
    records = _strict(data)["panels"]
    assert [record["control"] for record in records] == [None, None] + 2 * [
        {"kind": "same_input", "pairs": 2}
    ]
    assert {record["drawn"] for record in records} == {"phi / null_mean"}
    assert [record["limits"] for record in records] == 4 * [[0.1, 100.0]]
    with table.open(newline="", encoding="utf-8") as stream:
        lines = list(csv.DictReader(stream))
    assert {(line["drawn"], line["control"], line["control_pairs"]) for line in lines} == {
        ("phi / null_mean", "", ""),
        ("phi / null_mean", "same_input", "2"),
    }


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "＝"])
def test_no_csv_cell_is_a_formula(make_panel, tmp_path, start) -> None:
    figure = heatmap(make_panel(2, 2, title=f"{start}cmd|' /C calc'!A0")).figure
    *_, table = save(figure, tmp_path / "f.png", csv=True)
    with table.open(newline="", encoding="utf-8") as stream:
        titles = {line["title"] for line in csv.DictReader(stream)}
    assert titles == {f"'{start}cmd|' /C calc'!A0"}


def test_a_csv_title_is_one_line(make_panel, tmp_path) -> None:
    figure = heatmap(make_panel(1, 1, title="a\r\n=b\t" + "x" * 10_000)).figure
    *_, table = save(figure, tmp_path / "f.png", csv=True)
    _, line = table.read_text(encoding="utf-8").splitlines()
    assert line.split(",")[1].startswith("a\\r\\n=b\\t")
    assert len(line) < 400


def test_any_title_survives_in_the_data(make_panel, tmp_path) -> None:
    title = "注\n🎉\x00\ud800\"'<script>"
    _, data, _ = save(heatmap(make_panel(2, 2, title=title)).figure, tmp_path / "f.svg", csv=True)
    assert data.read_bytes().isascii()
    assert _strict(data)["panels"][0]["title"] == title


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_equal_figures_give_equal_bytes(make_panel, tmp_path, suffix) -> None:
    once, _ = save(figure_3([make_panel(6, 8, r_first=8)]), tmp_path / f"a.{suffix}")
    again, _ = save(figure_3([make_panel(6, 8, r_first=8)]), tmp_path / f"b.{suffix}")
    assert once.read_bytes() == again.read_bytes()
    assert not re.search(rb"\d{4}-\d{2}-\d{2}T|/CreationDate", once.read_bytes())


@pytest.mark.parametrize("failing", ["replace", "open"])
def test_a_failure_leaves_what_was_there_and_nothing_else(figure, tmp_path, monkeypatch, failing) -> None:
    paths = save(figure, tmp_path / "f.png")
    before = {path: path.read_bytes() for path in paths}
    original = Path.open

    def full_disk(self, mode="r", *args, **kwargs):
        if "x" in mode:
            raise OSError(28, "No space left on device")
        return original(self, mode, *args, **kwargs)

    def refuse(self, target):
        raise OSError(13, "Permission denied")

    monkeypatch.setattr(folder_swap, "_exchanged", lambda *_: False)
    monkeypatch.setattr(Path, failing, full_disk if failing == "open" else refuse)
    with pytest.raises(FileError, match=r"Cannot write .*Permission|No space left"):
        save(heatmap(drawn(figure)[0].panel).figure, tmp_path / "f.png")
    monkeypatch.undo()
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_figure_may_be_saved_again_over_itself(figure, tmp_path) -> None:
    for suffix in ("png", "pdf", "svg"):
        assert save(figure, tmp_path / f"f.{suffix}", csv=True) == save(
            figure, tmp_path / f"f.{suffix}", csv=True
        )


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_config.csv", "adapter_config.png"])
def test_a_file_that_is_not_ours_is_never_replaced(figure, tmp_path, name) -> None:
    (tmp_path / name).write_text('{"r": 8}')
    with pytest.raises(FileError, match="it is a file of another kind"):
        save(figure, tmp_path / "adapter_config.png", csv=True)
    assert (tmp_path / name).read_text() == '{"r": 8}'
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_directory_is_refused_a_folder_made_a_link_replaced(figure, tmp_path) -> None:
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(FileError, match="not a regular file"):
        save(figure, tmp_path / "folder.png")
    assert save(figure, tmp_path / "nowhere" / "f.png")[0].is_file()
    kept = tmp_path / "weights.safetensors"
    kept.write_bytes(b"weights")
    (tmp_path / "link.png").symlink_to(kept)
    save(figure, tmp_path / "link.png")
    assert kept.read_bytes() == b"weights"


@pytest.mark.parametrize("name", ["f.jpg", "f", "f.png.exe", "f.json"])
def test_other_endings_are_refused(figure, tmp_path, name) -> None:
    with pytest.raises(FileError, match=r"cannot be saved as .* ends in \.png, \.pdf or \.svg"):
        save(figure, tmp_path / name)


def test_a_new_file_has_the_usual_permissions(figure, tmp_path) -> None:
    path, _ = save(figure, tmp_path / "f.png")
    plain = tmp_path / "plain"
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode


def test_names_in_a_series_hold_nothing_of_a_title() -> None:
    name = numbered("out/grid.png", 7, title="../../etc/passwd\ud800").name
    assert re.fullmatch(r"grid-007-[0-9a-f]{8}\.png", name)
    assert numbered("g.png", 1, title="a") != numbered("g.png", 1, title="b")


def test_the_data_name_the_modules_of_both_adapters_the_side_and_the_start(make_panel, tmp_path) -> None:
    names = {"i_module": "a.0.注.q", "j_module": "b." + "x" * 300 + ".q", "side": "left", "init": "removed"}
    figure = figure_3([make_panel(8, 2, **names)])
    _, data, table = save(figure, tmp_path / "f.png", csv=True)
    exchanged = {**names, "i_module": names["j_module"], "j_module": names["i_module"]}  # the lower rank is i
    for record in _strict(data)["panels"]:
        assert {key: record[key] for key in names} == exchanged
    with table.open(newline="", encoding="utf-8") as stream:
        for line in csv.DictReader(stream):
            assert {key: line[key] for key in names} == exchanged


def test_data_of_an_earlier_version_may_be_replaced(figure, tmp_path) -> None:
    (tmp_path / "f.csv").write_text("panel,title,i,j,phi,chance,state,vmin,vmax\n")
    save(figure, tmp_path / "f.png", csv=True)
    assert (tmp_path / "f.csv").read_text().splitlines()[0].endswith(",i_module,j_module,side,init")


def test_a_formula_in_the_name_of_a_module_is_no_formula(make_panel, tmp_path) -> None:
    *_, table = save(
        heatmap(make_panel(1, 1, i_module="=A1", j_module="@x")).figure, tmp_path / "f.png", csv=True
    )
    with table.open(newline="", encoding="utf-8") as stream:
        (line,) = csv.DictReader(stream)
    assert (line["i_module"], line["j_module"]) == ("'=A1", "'@x")


def _modules_after(code: str) -> set[str]:
    script = f"{code}\nimport sys; print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return set(
        subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        ).stdout.split()
    )


def test_importing_the_package_does_not_import_matplotlib() -> None:
    assert not {"matplotlib", "scipy", "torch"} & _modules_after("import subspace.plots")


def test_drawing_and_saving_never_import_pyplot(tmp_path) -> None:
    code = (
        "import numpy as np; from subspace.plots import *\n"
        "panel = Panel(np.full((2, 2), 0.5), d=9)\n"
        f"save(heatmap(panel).figure, {str(tmp_path / 'f.pdf')!r}); save(grid([panel]), {str(tmp_path / 'g.png')!r})"
    )
    modules = _modules_after(code)
    assert "matplotlib.figure" in modules
    assert "matplotlib.pyplot" not in modules
