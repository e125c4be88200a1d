"""A study of adapters that were not trained but planted: its files, its numbers, its page, its folder."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import fake_runs
import numpy as np
import pytest

import subspace
from subspace.errors import FileError, ValueRangeError
from subspace.report import page, write_page
from subspace.study.plan import planned
from subspace.study.study import conduct, settings_of
from subspace.training.embedded import FOLDER


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    plan = planned(steps=5, full=True)
    # the record comes first, as in a real study, or the folder would be one of something else
    from subspace.study.study_folder import claimed

    with claimed(folder, settings_of(plan)):
        pass
    fake_runs.make(plan, folder / "runs")
    made = conduct(plan, folder, workers=1)
    write_page(made)
    return made


@pytest.fixture
def undrawn(monkeypatch):
    """Studies without figures, most of the time of one; for tests of what a study says and not of what it draws."""
    monkeypatch.setattr("subspace.study.study_figures.pictures", lambda measures: iter(()))


def _record(study):
    return json.loads((study.folder / "study.json").read_text())


def test_everything_is_there(study):
    names = {path.relative_to(study.folder).as_posix() for path in study.folder.rglob("*") if path.is_file()}
    figures = (
        "fig3",
        "fig3-scrambled",
        "fig4",
        "fig4-scrambled",
        "fig6",
        "fig7",
        "fig8-r4",
        "fig8-r8",
        "fig8-r64",
    )
    assert names >= {f"figures/{name}.{kind}" for name in figures for kind in ("png", "json")}
    assert names >= {
        "index.html",
        "study.json",
        "dose.csv",
        "figures/dose.png",
        "table5.csv",
        "table6.csv",
        "table7.csv",
        "shared-dimension.csv",
    }
    assert {path.relative_to(study.folder).as_posix() for path in study.files} <= names


def _plain(records):
    return json.loads(json.dumps(records))


def test_the_numbers_are_those_of_compare_and_amplify(study):
    runs, record = study.folder / "runs", _record(study)
    for name, first, second in (("ranks", "r8", "r64"), ("seeds", "r64", "r64-seed1")):
        starts = (runs / first / "start", runs / second / "start")
        direct = subspace.compare(runs / first, runs / second, side=("a", "b"), init=starts)
        assert record["comparisons"][name]["modules"] == _plain(direct.records())
    for name in ("r2", "r4", "r8", "r64"):
        assert record["amplification"][name] == _plain(subspace.amplify(FOLDER, runs / name).records())
        direct = subspace.compare(FOLDER, runs / name)
        assert record["against_base"][name]["modules"] == _plain(direct.records())
    assert "r1" not in record["amplification"]  # a ratio to one scalar
    # the scrambled text's adapter in the place of the second one
    direct = subspace.compare(
        runs / "r8",
        runs / "scrambled-r64",
        side=("a", "b"),
        init=(runs / "r8/start", runs / "scrambled-r64/start"),
    )
    found = record["controls"]["scrambled"]["ranks"]
    assert found["modules"] == _plain(direct.records()) and found["cosine"] == direct.cosine
    assert record["controls"]["scrambled"]["amplification"]["r64"] == _plain(
        subspace.amplify(FOLDER, runs / "scrambled-r64").records()
    )


def test_what_was_planted_is_found_and_noise_is_not(study):
    findings = {finding["key"]: finding for finding in _record(study)["findings"]}
    assert len(findings) == 9
    found = findings["contained"]["here"]["numbers"]
    assert found["shared"] == [1] * 8
    assert min(found["phi_11"]) > 10 / fake_runs.D
    assert findings["contained"]["verdict"] == "agrees"
    assert findings["seeds_agree"]["verdict"] == "agrees"
    assert findings["seeds_agree"]["here"]["numbers"]["random"] == [0] * 8
    for key in ("contained", "seeds_agree"):
        assert {met["verdict"] for met in findings[key]["controls"].values()} == {"differs"}
        assert "is the inputs alone" in findings[key]["inputs"]
    # planted alike in q and v
    assert findings["higher_in_q"]["verdict"] == "cannot be told"


def test_the_projection_on_random_directions_is_what_random_directions_give(study):
    from safetensors.torch import load_file

    module = "model.layers.2.self_attn.q_proj"
    row = next(row for row in study.tables[0].rows if (row["run"], row["module"]) == ("r8", module))
    W = load_file(FOLDER / "model.safetensors")[f"{module}.weight"].double().numpy()
    rng = np.random.default_rng(0)

    def frame():
        return np.linalg.qr(rng.standard_normal((256, 8)))[0]

    squares = [np.linalg.norm(frame().T @ W @ frame()) ** 2 for _ in range(200)]
    assert np.sqrt(np.mean(squares)) == pytest.approx(row["proj_random"], rel=0.05)
    assert row["factor"] == pytest.approx(row["norm_delta_W"] / row["proj_delta_W"])
    assert row["factor_random"] == pytest.approx(row["norm_delta_W"] / row["proj_random"])


def test_figure_8_is_of_the_top_tenth_of_w_and_four_directions(study):
    finding = next(finding for finding in study.findings if finding.key == "not_the_top")
    direct = subspace.compare(FOLDER, study.folder / "runs" / "r4")
    assert finding.here.numbers["phi"] == [row.phi[25, 3] for row in direct.modules]
    assert finding.here.numbers["isotropic"] == [26 / 256] * 8
    # which is true of any directions: no finding
    assert finding.controls["random"].verdict == "agrees"
    assert finding.verdict in ("holds, but so does noise", "differs")


def test_random_adapters_have_the_norms_of_the_trained_ones_and_share_nothing(study):
    from subspace.adapters import load_adapter
    from subspace.study.random_adapter import random_adapter

    trained = load_adapter(study.folder / "runs" / "r8")
    drawn, again, other = (random_adapter(trained, seed=seed) for seed in (0, 0, 1))
    for module, update in trained.items():
        assert np.linalg.norm(drawn[module].A) == pytest.approx(np.linalg.norm(update.A))
        assert np.linalg.norm(drawn[module].delta_W()) == pytest.approx(np.linalg.norm(update.delta_W()))
        assert np.array_equal(drawn[module].B, again[module].B)
    assert abs(subspace.compare(drawn, other).cosine) < 0.02


def test_dose_and_response_go_from_the_same_text_to_none(study):
    rows = next(table for table in study.tables if table.key == "dose").rows
    assert rows[0]["r64_trained_on"] == "the same text" and rows[-1]["r64_trained_on"] == "random characters"
    assert min(rows[0][key] for key in ("cosine", "phi_11_B")) > max(
        rows[-1][key] for key in ("cosine", "phi_11_B")
    )
    assert rows[-1]["phi_11_isotropic"] == 1 / fake_runs.D


def test_a_reversal_is_told_first():
    from subspace.study.claims_on_pairs import HigherInQ

    said = HigherInQ().says({"q": [8], "v": [4], "q_start_removed": [28], "v_start_removed": [40]})
    assert said.startswith("The order reverses once the start is removed: q 28, v 40.")
    said = HigherInQ().says({"q": [8], "v": [4], "q_start_removed": [28], "v_start_removed": [20]})
    assert said.startswith("directions shared: q 8, v 4")


def test_tables_are_files_of_the_same_numbers(study):
    for table in study.tables:
        with (study.folder / f"{table.key}.csv").open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        assert len(rows) == len(table.rows)
        assert list(rows[0]) == list(table.rows[0])
    table_6 = next(table for table in study.tables if table.key == "table6")
    assert [row["r"] for row in table_6.rows] == [1, 2, 4, 8, 64]
    assert all(
        row["loss_untrained"] == 5.0 and row["between_seeds"] == pytest.approx(0.01) for row in table_6.rows
    )
    table_7 = study.tables[0]
    assert [round(row["factor"], 2) for row in table_7.rows[:2]] == [21.59, 1.88]


class _Page(HTMLParser):
    """Every tag with its attributes, and the text."""

    def __init__(self):
        super().__init__()
        self.tags, self.text = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


def _read(html):
    parser = _Page()
    parser.feed(html)
    return parser


def test_the_page_needs_nothing_from_elsewhere(study):
    html = (study.folder / "index.html").read_text()
    read = _read(html)
    assert not [tag for tag, _ in read.tags if tag in ("script", "link", "iframe", "object", "embed")]
    for _, attributes in read.tags:
        for name in ("src", "href", "srcset", "data", "action"):
            assert attributes.get(name, "data:").startswith("data:")
        assert not [name for name in attributes if name.startswith("on")]
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)[1]
    assert "url(" not in style and "@import" not in style
    images = [attributes for tag, attributes in read.tags if tag == "img"]
    assert len(images) == len(study.pictures)
    assert all(image["src"].startswith("data:image/png;base64,iVBOR") and image["alt"] for image in images)
    assert "prefers-color-scheme: dark" in style and "@media print" in style and "viewport" in html


def test_the_page_says_each_finding_with_its_controls_and_its_verdict(study):
    text = " ".join("".join(_read((study.folder / "index.html").read_text()).text).split())
    for finding in study.findings:
        for part in (
            finding.claim,
            finding.paper,
            finding.here.says,
            finding.here.verdict,
            *finding.nulls.values(),
            finding.rule,
            finding.verdict,
            finding.why,
            finding.inputs,
            *(part for met in finding.controls.values() for part in (met.verdict, met.says)),
        ):
            assert " ".join(part.split()) in text, part
    assert "Of 9 claims of the paper" in text
    assert "By chance" not in text and "seconds of processors" in text
    assert "subspace reproduce --steps 5 --full -o" in text


def test_names_from_elsewhere_are_escaped(study):
    hostile = "<script>alert(1)</script>\u202e\x1b[31m\"'&"
    record = json.loads(json.dumps(study.record))
    record["settings"]["model"] = record["settings"]["data"] = hostile
    table = study.tables[1]
    rows = tuple({**row, "module": hostile} for row in table.rows)
    pictures = (replace(study.pictures[0], title=hostile, caption=hostile), *study.pictures[1:])
    html = page(
        replace(study, record=record, tables=(study.tables[0], replace(table, rows=rows)), pictures=pictures)
    )
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "\x1b" not in html
    assert all(set(attributes) <= {"src", "alt"} for tag, attributes in _read(html).tags if tag == "img")


def test_the_second_time_it_only_draws(study, monkeypatch, undrawn):
    from subspace.study import study as module

    def train_all(*args, **kwargs):
        raise AssertionError("trained again")

    monkeypatch.setattr(module, "train_all", train_all)
    before = _record(study)
    again = conduct(study.measures.plan, study.folder, workers=1)
    write_page(again)
    assert [finding.here for finding in again.findings] == [finding.here for finding in study.findings]
    assert again.record["tables"] == before["tables"]


def test_other_settings_are_named(study):
    with pytest.raises(
        ValueRangeError,
        match=r"The study in .* begun with other settings: steps 5, now 6; choose another folder",
    ):
        conduct(planned(steps=6), study.folder, workers=1)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("thesis.txt", "years of work", "holds thesis.txt, but no study.json; choose another name"),
        ("study.json", '{"schema": "other/1"}', "holds a study.json of schema other/1"),
        (
            "study.json",
            '{"schema": "subspace.study/1", "settings": {}}',
            r"holds a study.json of schema subspace.study/1, of another version of subspace \(this one writes "
            r"subspace.study/2\); choose another name",
        ),
        ("study.json", "[]", "holds a study.json of something else"),
    ],
)
def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path, name, content, told):
    (tmp_path / name).write_text(content)
    with pytest.raises(FileError, match=told):
        conduct(planned(steps=5), tmp_path, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == content


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileError, match=r"Not a directory: .*file is a file"):
        conduct(planned(steps=5), tmp_path / "file", workers=1)


def _begun(folder, settings):
    from subspace.study.study_folder import claimed

    with claimed(folder, settings) as record:
        return record


def test_settings_may_change_until_a_run_has_begun(tmp_path):
    _begun(tmp_path, {"data": "a slip"})
    assert _begun(tmp_path, {"data": "reviews.tsv"})["settings"] == {"data": "reviews.tsv"}
    (tmp_path / "runs" / "r8").mkdir(parents=True)
    (tmp_path / "runs" / "r8" / "run.json").write_text("{}")
    with pytest.raises(ValueRangeError, match=r"other settings: data reviews\.tsv, now other"):
        _begun(tmp_path, {"data": "other"})


def test_one_process_has_a_folder_to_itself(tmp_path):
    from subspace.study.study_folder import claimed

    with (
        claimed(tmp_path / "study", {"data": "x"}),
        pytest.raises(FileError, match=r"Another process is using the directory .*study; wait"),
    ):
        _begun(tmp_path / "study", {"data": "other"})
    assert _begun(tmp_path / "study", {"data": "other"})["settings"] == {"data": "other"}


def test_data_that_changed_are_another_study(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("one text\n" * 100)
    plan = planned(data=str(text), steps=5)
    _begun(tmp_path / "study", settings_of(plan))
    fake_runs.make(plan, tmp_path / "study" / "runs")
    text.write_text("another text\n" * 100)
    with pytest.raises(ValueRangeError, match=r"other settings: data_sha256"):
        conduct(plan, tmp_path / "study", workers=1)


def test_runs_of_two_bases_are_no_study(tmp_path):
    plan = planned(steps=5)
    _begun(tmp_path, settings_of(plan))
    fake_runs.make(plan, tmp_path / "runs")
    paths = [tmp_path / "runs" / name / "run.json" for name in ("r8", "r64")]
    for n, path in enumerate(paths):  # as older versions have it
        path.write_text(json.dumps(json.loads(path.read_text()) | {"computed": {"base": str(n) * 64}}))
    with pytest.raises(ValueRangeError, match="Different base weights: r64 was trained on others than r8"):
        conduct(plan, tmp_path, workers=1)
    paths[0].write_text(
        paths[1].read_text().replace('"settings": {', f'"settings": {{"model_sha256": "{64 * "0"}",')
    )
    with pytest.raises(
        ValueRangeError, match="Different base weights: r8 was trained on others than the study"
    ):
        conduct(plan, tmp_path, workers=1)


def test_a_run_on_another_base_is_refused_before_anything_is_trained(tmp_path, monkeypatch):
    plan = planned(steps=5)
    _begun(tmp_path, settings_of(plan))
    fake_runs.make(plan, tmp_path / "runs")
    other = {"settings": {"model_sha256": "0" * 64}, "done": False}
    (tmp_path / "runs" / "r64" / "run.json").write_text(json.dumps(other))
    monkeypatch.setattr("subspace.study.study.train_all", lambda *args, **given: pytest.fail("it trains"))
    with pytest.raises(ValueRangeError, match="r64 was trained on others than the study"):
        conduct(plan, tmp_path, workers=1)


def test_the_heads_of_classifiers_are_not_their_base(tmp_path, undrawn):
    """A new head depends on the seed, and older versions took it for a part of the base."""
    plan = planned(steps=5)
    _begun(tmp_path, settings_of(plan))
    fake_runs.make(plan, tmp_path / "runs")
    for n, path in enumerate(sorted((tmp_path / "runs").glob("*/run.json"))):
        record = {"task": "classify", "computed": {"base": f"{n:064}", "length": 64}}
        path.write_text(json.dumps(json.loads(path.read_text()) | record))
    assert conduct(plan, tmp_path, workers=1).record["done"]


def test_a_study_goes_on_under_another_spelling_of_its_paths(tmp_path, undrawn, monkeypatch):
    text = tmp_path / "text.txt"
    text.write_text("one text\n" * 100)
    plan = planned(data=str(text), steps=5)
    _begun(tmp_path / "study", settings_of(plan))
    fake_runs.make(plan, tmp_path / "study" / "runs")
    monkeypatch.chdir(tmp_path)
    assert conduct(planned(data="./text.txt", steps=5), tmp_path / "study", workers=1).record["done"]


def test_a_model_that_changed_is_another_study(tmp_path, monkeypatch):
    plan = planned(steps=5)
    _begun(tmp_path, settings_of(plan) | {"model_sha256": "0" * 64})
    fake_runs.make(plan, tmp_path / "runs")
    monkeypatch.setattr("subspace.study.study.train_all", lambda *args, **given: pytest.fail("it trains"))
    with pytest.raises(ValueRangeError, match=r"The model embedded has changed since the study in .* began"):
        conduct(plan, tmp_path, workers=1)


@pytest.mark.parametrize(
    ("task", "batches", "unit"),
    [
        ("lm", "8 windows of 64 tokens", "per token"),
        pytest.param("classify", "8 texts of 64 tokens at most", "per text", marks=pytest.mark.slow),
    ],
)
def test_the_page_says_what_a_step_took_and_not_what_was_asked_for(tmp_path, undrawn, task, batches, unit):
    plan = planned(steps=5, full=True)
    _begun(tmp_path, settings_of(plan))
    fake_runs.make(plan, tmp_path / "runs")
    for path in (tmp_path / "runs").glob("*/run.json"):
        record = json.loads(path.read_text()) | {"task": task, "computed": {"length": 64}}
        path.write_text(json.dumps(record))
    made = conduct(plan, tmp_path, workers=1)
    text = re.sub(r"\s+", " ", page(made))
    assert f"5 steps of {batches} unless" in text
    captions = [table.caption for table in made.tables if table.key in ("table5", "table6")]
    assert len(captions) == 2 and all(f"nats {unit}" in caption for caption in captions)
    assert all(caption in text.replace("&#39;", "'") for caption in captions)
