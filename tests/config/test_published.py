"""The paper's table: every published number has a source and stands beside ours only where the two
are comparable; what was not published or not run stays empty."""

import json
import math
import shutil
import statistics
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from ect.cli.main import main
from ect.config import load
from ect.config import published as published_module
from ect.config.config import Config, ConfigError
from ect.config.published import FILE, METRICS, TAGS, TRAINING, of, read
from ect.report import paper
from ect.report.margin import margin
from tests.helpers.configs import changed
from tests.helpers.reports import Inputs

ROOT = Path(__file__).parents[2]
INCEPTION = {
    "features": "inception:legacy_tensorflow", "images": 50_000, "reference_images": 50_000,
}  # fmt: skip
FIDS = {"one_step": [8.0, 9.5, 9.0], "two_step": [2.5, 2.75, 2.9]}


@pytest.fixture
def cells(tmp_path):
    """An imported model before tuning, and one tuned with three seeds for 1.024 Mimg."""
    inputs = Inputs(tmp_path)
    before = [inputs.cell("heun", 2.0, kimg=0, **INCEPTION)]
    tuned = [
        inputs.cell(sampler, fid, kimg=0, schedule="fixed", tune=1024, seed=seed, **INCEPTION)
        for sampler, values in FIDS.items()
        for seed, fid in enumerate(values)
    ]
    one_hour = {"start_mimg": 200.0, "metrics": tuned, "budget_mimg": 1.024}
    return [
        {"method": "EDM", "budget_mimg": None, "start_mimg": 200.0, "metrics": before},
        {"method": "ECT", **one_hour},
        {"method": "ECT 1-hour (3 seeds)", **one_hour},
    ]


def table_of(cells, folder):
    paper.tabulate("cifar10", FILE, cells, folder / "paper")
    return pd.read_csv(folder / "paper.csv")


def line(table, method, nfe, budget=1.024):
    found = table[(table.method == method) & (table.nfe == nfe) & (table.budget_mimg == budget)]
    assert len(found) == 1
    return found.iloc[0]


def test_every_number_has_a_source_and_a_tag_and_stands_once():
    numbers = read()
    assert len(numbers) > 40 and all(n.source.strip() and n.tag in TAGS for n in numbers)
    keys = [(n.dataset, n.method, n.budget_mimg, n.nfe, n.metric) for n in numbers]
    assert len(set(keys)) == len(keys)
    assert {n.dataset for n in numbers} <= set(TRAINING)
    assert {n.metric for n in numbers} <= set(METRICS.values())
    assert all((n.sd is None) == (n.n is None) for n in numbers)


@pytest.mark.parametrize("old, new", [(",code,", ",?,"), (",code,locuslab/ect README", ",code,")])
def test_a_number_without_a_source_or_a_known_tag_is_refused(tmp_path, old, new):
    file = tmp_path / "numbers.csv"
    file.write_text(FILE.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=r"numbers.csv, line 2: tag is .* allowed: a source"):
        read(file)


def test_ours_stands_beside_the_number_of_as_many_evaluations(cells, tmp_path):
    table = table_of(cells, tmp_path)
    assert len(table) == len(of("cifar10", "fid"))
    for nfe, sampler in ((1, "one_step"), (2, "two_step")):
        ours = line(table, "ECT 1-hour (3 seeds)", nfe)
        mean, sd = statistics.mean(FIDS[sampler]), statistics.stdev(FIDS[sampler])
        assert (ours.ours_mean, ours.ours_sd) == pytest.approx((mean, sd), rel=1e-5)
        assert ours.ours_n == 3 and ours.ours_total_mimg == 201.024
        assert ours.difference == pytest.approx(mean - ours.published, abs=1e-5)
        known = [(n.sd, n.n) for n in of("cifar10", "fid") if "1-hour" in n.method]
        alike = [pair for pair, n in zip(known, (1, 2, 1, 2)) if n == nfe]
        found = margin([*alike, (sd, 3)], 3, 3)
        assert ours.margin == pytest.approx(found.width, rel=1e-5) and found.df == 8
        assert ours.beyond_margin == ("yes" if abs(ours.difference) > found.width else "no")
    before = line(table, "EDM", 35, budget=200)
    assert before.ours_mean == 2.0 and before.ours_total_mimg == before.total_mimg == 200
    alone = line(table, "ECT", 2)  # of one run: its setting's spreads, and 1 + 1 / 3 of a variance
    others = line(table, "ECT 1-hour (3 seeds)", 2)
    assert alone.margin / others.margin == pytest.approx(math.sqrt((1 + 1 / 3) / (2 / 3)), rel=1e-5)
    assert pd.isna(before.margin) and pd.isna(before.beyond_margin)  # n = 1 on both sides


def test_what_was_not_run_or_not_published_is_empty(cells, tmp_path):
    table = table_of(cells, tmp_path)
    asked = {("EDM", 200.0), ("ECT", 1.024), ("ECT 1-hour (3 seeds)", 1.024)}
    others = table[[pair not in asked for pair in zip(table.method, table.budget_mimg)]]
    assert len(others) > 20 and others.loc[:, "start":].isna().all(axis=None)
    unknown = table[table.method.isin(["PD", "TCM", "sCT"])]
    assert len(unknown) == 5 and unknown.total_mimg.isna().all()
    text = (tmp_path / "paper.md").read_text()
    assert "nan" not in text.lower() and "None" not in text and "<NA>" not in text


def test_a_budget_with_an_unknown_part_is_empty(cells, tmp_path):
    cells[1]["start_mimg"] = None
    ours = line(table_of(cells, tmp_path), "ECT", 2)
    assert ours.ours_tune_mimg == 1.024 and pd.isna(ours.ours_total_mimg)


@pytest.mark.parametrize(
    "key, value",
    [
        ("features", "classifier"),
        ("features", "inception:clean"),
        ("images", 10_000),
        ("reference_images", 1437),
        ("reference_images", 60_000),
    ],
)
def test_what_is_not_comparable_is_refused(tmp_path, key, value):
    facts = INCEPTION | {key: value}
    file = Inputs(tmp_path).cell("one_step", 3.0, kimg=0, schedule="fixed", tune=12800, **facts)
    cell = {"method": "ECT", "budget_mimg": 12.8, "start_mimg": 200.0, "metrics": [file]}
    with pytest.raises(ValueError, match=rf"{key}'?: {value!r}.*allowed beside published numbers"):
        table_of([cell], tmp_path)
    assert not (tmp_path / "paper.csv").exists()


def test_numbers_of_images_that_were_resized_otherwise_are_refused(tmp_path):
    facts = INCEPTION | {"reference_images": 1_281_167}

    def tabulated(method, budget, **more):
        file = Inputs(tmp_path).cell(
            "one_step", 5.0, kimg=0, schedule="fixed", tune=12800, **facts, **more
        )
        cell = {"method": method, "budget_mimg": budget, "start_mimg": 1073.7, "metrics": [file]}
        paper.tabulate("imagenet64", FILE, [cell], tmp_path / "paper")

    with pytest.raises(ValueError, match="'ECT-S' is of images resized by dhariwal, ours by lanc"):
        tabulated("ECT-S", 12.8)
    with pytest.raises(ValueError, match=r"'iCT-deep' .* an unknown filter, ours by dhariwal"):
        tabulated("iCT-deep", 1638.4, resize="dhariwal")
    assert not (tmp_path / "paper.csv").exists()
    tabulated("ECT-S", 12.8, resize="dhariwal")
    assert (tmp_path / "paper.csv").exists()


def test_a_config_may_not_ask_for_numbers_of_other_images():
    study = load.read(ROOT / "config.yaml", ROOT / "workflow" / "studies" / "imagenet64.yaml")
    assert Config.read(study).dataset.resizing == "dhariwal"
    study["dataset"]["resize"] = "lanczos"
    with pytest.raises(ConfigError, match=r"'EDM2-S' is of images resized by dhariwal, ours by la"):
        Config.read(study)


def test_each_line_of_imagenet_says_its_images_or_that_nobody_knows():
    for number in of("imagenet64", "fid"):
        assert number.resize in ("dhariwal", "lanczos", None)
        if number.network.startswith("EDM2") and number.method.startswith(("ECT", "EDM2", "TCM")):
            assert number.resize == "dhariwal"


def test_published_numbers_of_other_data_are_not_there(cells, tmp_path):
    with pytest.raises(ValueError, match="no published numbers of 'digits'; allowed: cifar10"):
        paper.tabulate("digits", FILE, cells, tmp_path / "paper")


def test_two_cells_for_one_number_are_refused(cells, tmp_path):
    with pytest.raises(ValueError, match="ECT at 2 NFE: 2 of our cells; allowed: one"):
        table_of([*cells, cells[1]], tmp_path)


def test_the_verb_writes_what_the_function_writes(cells, tmp_path, capsys):
    table_of(cells, tmp_path)
    settings = json.dumps({"dataset": "cifar10", "cells": cells})
    words = ["tabulate-paper", settings, "--published", str(FILE)]
    assert main([*words, "--out", str(tmp_path / "again")]) == 0
    for kind in ("csv", "md", "tex"):
        written = [(tmp_path / f"{name}.{kind}").read_bytes() for name in ("paper", "again")]
        assert written[0] == written[1]


def test_tex_has_as_many_cells_in_each_row_as_columns(cells, tmp_path):
    table_of(cells, tmp_path)
    text = (tmp_path / "paper.tex").read_text()
    columns = text.split(r"\begin{tabular}{")[1].split("}")[0]
    rows = [row for row in text.splitlines() if row.endswith(r" \\") and "multicolumn" not in row]
    assert len(rows) == 1 + len(of("cifar10", "fid"))
    assert {row.replace(r"\&", "").count("&") + 1 for row in rows} == {len(columns)}


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex at hand")
def test_tex_compiles(cells, tmp_path):
    table_of(cells, tmp_path)
    (tmp_path / "all.tex").write_text(
        r"\documentclass{article}\usepackage{booktabs}\begin{document}\input{paper.tex}"
        r"\end{document}"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == 0


def asking(published, **features):
    """The digits with a row beside published numbers, and other features."""
    config = changed("experiments/methods/rows/2/published", published)
    config["features"] |= features
    return config


def test_a_config_may_not_ask_for_what_is_not_comparable():
    with pytest.raises(ConfigError, match=r"rows\.2\.published\.0: no published numbers of 'digi"):
        Config.read(asking([{"method": "ECT"}]))
    rows = changed("experiments/methods/rows/1/published", [{"method": "ECT"}])
    with pytest.raises(ConfigError, match=r"rows\.1: published is set for rows of 2 models"):
        Config.read(rows)
    for key in ("published/0/methd", "published/0/budget_mimg"):
        config = asking([{"method": "ECT"}])
        config["experiments"]["methods"]["rows"][2]["published"][0][key.split("/")[-1]] = "x"
        with pytest.raises(ConfigError, match=r"rows\.2\.published\.0\."):
            Config.read(config)


@pytest.fixture
def comparable(monkeypatch):
    """As if there were published numbers for the digits in their classifier's features."""
    numbers = of("cifar10", "fid")
    monkeypatch.setattr(published_module, "require_comparable", lambda *facts: "fid")
    monkeypatch.setattr(published_module, "of", lambda *names: numbers)


@pytest.mark.parametrize(
    "wanted, words",
    [
        ({"method": "ECM"}, r"published\.0\.method: found 'ECM'; allowed: EDM, .*, ECT, "),
        ({"method": "ECT"}, r"budget_mimg: found None; allowed: 1.024, 12.8, 25.6, 51.2"),
        ({"method": "ECT", "budget_mimg": 13.0}, r"found 13.0; allowed: 1.024, 12.8"),
        ({"method": "TCM", "budget_mimg": 13.0}, r"found 13.0; allowed: no such key"),
    ],
)
def test_a_number_that_is_not_published_is_named(comparable, wanted, words):
    with pytest.raises(ConfigError, match=words):
        Config.read(asking([wanted]))


def test_a_number_stands_beside_one_cell_of_the_study(comparable):
    config = asking([{"method": "TCM"}])
    cells = Config.read(config).beside_published()["cells"]
    assert [cell["method"] for cell in cells] == ["TCM"] and cells[0]["start_mimg"] == 0
    assert len(cells[0]["metrics"]) == 2 and all("/ect_slope/" in m for m in cells[0]["metrics"])
    config["experiments"]["methods"]["rows"][2]["published"] *= 2
    with pytest.raises(ConfigError, match=r"'TCM' at 1 NFE stands beside one_step, and .*rows.2"):
        Config.read(config)
    config = asking([{"method": "TCM"}])
    config["samplers"]["shifted"] = {"like": "one_step", "sigma_min": 0.003}
    config["experiments"]["methods"]["rows"][2]["samplers"].append("shifted")
    with pytest.raises(ConfigError, match=r"stands beside shifted, and beside one_step"):
        Config.read(config)


def test_a_study_beside_which_nothing_is_published_has_no_such_table():
    assert Config.read(changed("study", "mine")).beside_published() == {}
