"""Tables and figures: the numbers are those of pandas or by hand, absent cells stay empty, and the
same inputs give the same bytes."""

import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ect.report import figures, gather, markup, steps, style, tables
from tests.helpers.reports import SEEDS, Inputs, read_table

SOLVERS = {"heun": "heun", "heun_9": "heun", "dpm_9": "dpm_solver"}
SOLVERS |= {"one_step": "multistep", "two_step": "multistep"}

ENDS = {  # the maps and last gaps of schedules
    "sigmoid": {"map": "sigmoid", "gap": 0.0123},
    "con_stant": {"map": "constant", "gap": 0.0039},
}


@pytest.fixture
def inputs(tmp_path):
    return Inputs(tmp_path)


def settings(inputs):
    """The settings of every figure."""
    study, floor, samples = inputs.study(), inputs.floor(), inputs.images()
    return {
        "methods": {"metrics": study, "floor": floor},
        "schedules": {"metrics": study, "floor": floor},
        "split": {"metrics": inputs.split(), "floor": floor},
        "scaling": {"metrics": inputs.split(), "floor": floor},
        "solvers": {"metrics": inputs.solvers(), "floor": floor, "solvers": SOLVERS},
        "noise": {"metrics": inputs.nested(), "floor": floor, "about": {"ve": {}}},
        "ends": {"metrics": study[1:], "floor": floor, "about": ENDS},
        "lengths": {"metrics": study[:1], "floor": floor, "about": {"ve": {"ema_std": 0.1}}},
        "maps": {"schedules": {"sigmoid": {"map": "sigmoid", "options": {"stages": 4}}}},
        "curves": {"runs": {"pretrain ve": [inputs.log()], "sigmoid, ect": [inputs.log()]}},
        "samples": {"rows": [["1 step", samples]], "columns": 10, "data": inputs.dataset()},
        "loss": {
            "metrics": inputs.log(),
            "trace": inputs.trace(),
            "stages": 4,
            "perfect": inputs.perfect(),
        },
        "nearest": {
            "nearest": inputs.nearest(),
            "samples": samples,
            "data": inputs.dataset(),
            "columns": 10,
        },
    }


def test_csv_holds_mean_sd_and_n_over_seeds(inputs, tmp_path):
    tables.tabulate("methods", inputs.study(), tmp_path / "t", inputs.floor())
    table = pd.read_csv(tmp_path / "t.csv").set_index(["schedule", "sampler"])
    for sampler, values in SEEDS.items():
        row = table.loc[("sigmoid", sampler)]
        assert row["n"] == 3 and row["fd_min"] == min(values)
        assert row["fd_mean"] == pytest.approx(statistics.mean(values), rel=1e-5)
        assert row["fd_sd"] == pytest.approx(statistics.stdev(values), rel=1e-5)
        assert row["kd_sd"] == pytest.approx(statistics.stdev(values) / 100, rel=1e-5)
        assert (row["total_kimg"], row["pretrain_share_percent"]) == (192, 50)
    before = table.loc[(np.nan, "heun")]
    assert before["n"] == 1 and np.isnan(before["fd_sd"]) and before["total_kimg"] == 96


def test_other_metrics_have_columns_of_their_own(inputs, tmp_path):
    """The csv without them is as it was, and begins that with them."""
    tables.tabulate("methods", inputs.study(), tmp_path / "t", inputs.floor())
    before = pd.read_csv(tmp_path / "t.csv")
    assert list(before) == tables.CSV
    more = [
        inputs.cell("one_step", fd, schedule="sigmoid", tune=96, seed=seed, precision=fd / 50)
        for seed, fd in enumerate(SEEDS["one_step"])
    ]
    floor = inputs.metrics(1.5, {"floor": True}, images=360, precision=0.75)
    tables.tabulate("methods", more, tmp_path / "t", floor)
    table = pd.read_csv(tmp_path / "t.csv")
    assert list(table) == [*tables.CSV, "precision_mean", "precision_sd"]
    row, last = table.iloc[0], table.iloc[-1]
    assert row["precision_mean"] == pytest.approx(row["fd_mean"] / 50, rel=1e-5)
    assert row["precision_sd"] == pytest.approx(row["fd_sd"] / 50, rel=1e-5)
    assert last["precision_mean"] == 0.75 and np.isnan(last["precision_sd"])


def test_repeats_have_mean_sd_and_minimum_apart(inputs, tmp_path):
    """Of two tuning seeds: the mean of the variances and of the minima of their repeats."""
    sets = [[20.0, 22.5, 19.0], [30.0, 31.0, 29.0]]
    paths = [
        inputs.cell("one_step", statistics.mean(fd), schedule="sigmoid", tune=96, seed=seed,
                    repeats={"fd": fd, "kd": fd})
        for seed, fd in enumerate(sets)
    ]  # fmt: skip
    tables.tabulate("methods", paths, tmp_path / "t", inputs.floor())
    table = pd.read_csv(tmp_path / "t.csv")
    assert list(table) == tables.CSV + tables.REPEATS
    row, last = table.iloc[0], table.iloc[-1]
    means = [statistics.mean(fd) for fd in sets]
    variance = statistics.mean(statistics.variance(fd) for fd in sets)
    assert (row["n"], row["repeats"], row["fd_repeats_min"]) == (2, 3, (19 + 29) / 2)
    assert row["fd_mean"] == row["fd_repeats_mean"] == pytest.approx(statistics.mean(means), 1e-5)
    assert row["fd_sd"] == pytest.approx(statistics.stdev(means), rel=1e-5)
    assert row["fd_min"] == pytest.approx(min(means), rel=1e-5)
    assert row["fd_repeats_sd"] == pytest.approx(variance**0.5, rel=1e-5)
    assert last["repeats"] == 1 and last[tables.REPEATS[1:]].isna().all()
    assert "mean over 3 sets of 2000 images" in (tmp_path / "t.md").read_text()
    assert "FD (classifier features), 3 x 2000 images" in (tmp_path / "t.tex").read_text()
    with pytest.raises(ValueError, match="repeats is 1, but 3"):
        tables.tabulate("methods", [*paths, inputs.cell("heun", 3.0)], tmp_path / "t")


def test_a_study_without_the_kernel_distance_has_empty_columns(inputs, tmp_path):
    paths = inputs.study()
    for path in paths:
        facts = json.loads(Path(path).read_text())
        del facts["kd"]
        Path(path).write_text(json.dumps(facts))
    tables.tabulate("methods", paths, tmp_path / "t")
    table = pd.read_csv(tmp_path / "t.csv")
    assert list(table) == tables.CSV and table["kd_mean"].isna().all()


def test_a_cell_that_was_not_evaluated_is_empty(inputs, tmp_path):
    tables.tabulate("methods", inputs.study(), tmp_path / "t", inputs.floor())
    header, _, before, tuned, *_, floor = read_table(tmp_path / "t.md")
    assert header[-3:] == ["FD, 1 step", "FD, 2 steps", "FD, Heun, 35 NFE"]
    assert before[-3:] == ["", "", "2.80 (1)"]
    assert tuned[-3:] == ["20.5 ± 1.8 (3)", "11.5 ± 1.8 (3)", ""]
    assert floor[0] == "real test images (360)" and floor[-3:] == ["1.50"] * 3


def test_solvers_stand_in_rows_and_their_evaluations_in_columns(inputs, tmp_path):
    """By the NFE of the cells and the kinds of the samplers; what a label says is not read."""
    tables.tabulate("solvers", inputs.solvers(), tmp_path / "t", inputs.floor(), SOLVERS)
    header, _, *rows = read_table(tmp_path / "t.md")
    assert header[-5:] == ["Sampler", "FD, 1 NFE", "FD, 2 NFE", "FD, 9 NFE", "FD, 35 NFE"]
    found = {(row[1], row[4]): row[5:] for row in rows}
    before = "none: before tuning"
    assert found[before, "Heun"] == ["", "", "15.0 (1)", "2.80 (1)"]
    assert found[before, "DPM-Solver++(2M)"] == ["", "", "9.00 (1)", ""]
    assert found["sigmoid", "multistep"] == ["20.5 ± 1.8 (3)", "11.5 ± 1.8 (3)", "", ""]
    assert rows[-1][0] == "real test images (360)" and rows[-1][5:] == ["1.50"] * 4
    table = pd.read_csv(tmp_path / "t.csv")
    assert list(table) == [*tables.CSV, "solver"]
    assert dict(zip(table["sampler"], table["solver"])) == SOLVERS | {
        "floor": pytest.approx(np.nan, nan_ok=True)
    }
    tables.tabulate("methods", inputs.solvers(), tmp_path / "t", inputs.floor())
    assert list(pd.read_csv(tmp_path / "t.csv")) == tables.CSV


def test_a_solver_stands_once_at_each_number_of_evaluations(inputs, tmp_path):
    with pytest.raises(ValueError, match="this model, kind of sampler and NFE"):
        tables.tabulate(
            "solvers", inputs.solvers(), tmp_path / "t", None, SOLVERS | {"dpm_9": "heun"}
        )
    with pytest.raises(ValueError, match="solvers has no 'dpm_9'"):
        tables.tabulate(
            "solvers", inputs.solvers(), tmp_path / "t", None, {**SOLVERS, "dpm_9": None}
        )
    for kind, solvers, words in (("solvers", None, "missing"), ("split", SOLVERS, "is set for")):
        with pytest.raises(ValueError, match=f"solvers.* {words}"):
            tables.tabulate(kind, inputs.study(), tmp_path / "t", None, solvers)


@pytest.mark.parametrize("start", ["a_flow", "ve"])
def test_every_mean_and_every_seed_of_solvers_is_drawn(inputs, tmp_path, monkeypatch, start):
    """Also where the start of the first panel has no tuned model; tuned is filled, else hollow."""
    drawn = []
    monkeypatch.setattr(style, "save", lambda drawing, out: drawn.append(drawing))
    first = inputs.cell("heun", 4.0)
    Path(first).write_text(Path(first).read_text().replace('"ve"', f'"{start}"', 1))
    paths = [first, *inputs.solvers()[start == "ve" :]]
    settings = {"metrics": paths, "floor": inputs.floor(), "solvers": SOLVERS, "width_in": 5.0}
    figures.plot("solvers", settings, tmp_path / "f")
    axes = drawn[0].axes
    assert len(axes) == 1 + (start != "ve")
    points = [tuple(map(float, p)) for line in axes[-1].lines for p in zip(*line.get_data())]
    wanted = [(9, 15.0), (9, 9.0), (35, 4.0 if start == "ve" else 2.8)]
    wanted += [(nfe, statistics.mean(SEEDS[s])) for nfe, s in ((1, "one_step"), (2, "two_step"))]
    assert set(wanted) <= set(points)
    for values in SEEDS.values():
        assert sorted(fd for _, fd in points if fd in values) == sorted(2 * values)
    names = ["tuned: sigmoid, multistep", "tuned: con_stant, multistep"]
    names = [f"{name} (n = 3)" for name in names] + ["Heun (n = 1)", "DPM-Solver++(2M) (n = 1)"]
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == [
        "360 real test images", "mean of a tuned model, drawn on", *names,
    ]  # fmt: skip
    hollow = [keys[0].get_markerfacecolor() == "white" for keys in axes[0].containers]
    assert hollow == [False, False, True, True]


def test_the_caption_names_the_metric_and_the_images(inputs, tmp_path):
    tables.tabulate("schedules", inputs.study(), tmp_path / "t")
    text = (tmp_path / "t.md").read_text()
    assert "FD (classifier features) between 2000 generated and 1437 training images" in text
    assert "FID" not in (tmp_path / "t.md").read_text() + (tmp_path / "t.tex").read_text()
    assert gather.metric_name("inception:clean") == "FID (clean)"


def searched(path, metric="fd", seed=0):
    rows = [
        {"k": 2, "times": [0.5], "search": 19.25, "test": 18.0, "evaluations": []},
        {"k": 3, "times": [0.78125, 0.4], "search": 12.5, "test": 14.75, "evaluations": []},
    ]
    facts = {"metric": metric, "features": "classifier", "search": {"images": 50, "seed": 90}}
    path.write_text(json.dumps(facts | {"test": {"images": 20, "seed": 0}, "steps": rows}))
    model = {"schedule": "sigmoid", "pretrain": "ve", "recipe": "ect", "kimg": 60, "tune_kimg": 40}
    return model | {"seed": seed, "path": str(path)}


def test_searched_times_become_a_table_that_tells_the_test_from_the_search(tmp_path):
    models = [searched(tmp_path / f"{seed}.json", seed=seed) for seed in (0, 1)]
    steps.tabulate(models, tmp_path / "t")
    frame = pd.read_csv(tmp_path / "t.csv")
    assert list(frame["k"]) == [2, 3, 2, 3] and list(frame["seed"]) == [0, 0, 1, 1]
    header, _, first, second, *_ = read_table(tmp_path / "t.md")
    assert header[-4:] == ["Steps", "Times s", "FD, search", "FD, test"]
    assert second[-4:] == ["3", "0.781 0.4", "12.5", "14.8"] and len(first) == len(header)
    text = (tmp_path / "t.md").read_text()
    assert "saw 50 images from seed 90 on; the test 20 others, from seed 0 on" in text


def test_searches_of_different_metrics_are_not_mixed(tmp_path):
    models = [searched(tmp_path / f"{metric}.json", metric) for metric in ("fd", "kd")]
    with pytest.raises(ValueError, match=r"kd\.json: metric is kd, but fd in .*fd\.json"):
        steps.tabulate(models, tmp_path / "t")


def test_the_floor_is_the_last_row_of_every_file(inputs, tmp_path):
    tables.tabulate("split", inputs.split(), tmp_path / "t", inputs.floor())
    last = pd.read_csv(tmp_path / "t.csv").iloc[-1]
    assert (last["sampler"], last["fd_mean"], last["images"]) == ("floor", 1.5, 360)
    assert "real test images (360)" in (tmp_path / "t.tex").read_text()
    tables.tabulate("split", inputs.split(), tmp_path / "t")
    assert "floor" not in (tmp_path / "t.csv").read_text()


@pytest.mark.parametrize("kind", tables.ROWS)
def test_latex_is_balanced_and_escaped(inputs, tmp_path, kind):
    two_recipes = inputs.split()[:1] + inputs.study()
    solvers = SOLVERS if kind == "solvers" else None
    if kind == "ends":
        del two_recipes[1]  # the model before tuning
    about = {"lengths": {"ve": {"ema_std": 0.1}}, "ends": ENDS}.get(kind)
    tables.tabulate(kind, two_recipes, tmp_path / "t", inputs.floor(), solvers, about)
    text = (tmp_path / "t.tex").read_text()
    assert re.findall(r"\\begin{(\w+)}", text) == re.findall(r"\\end{(\w+)}", text)[::-1]
    assert text.count("{") == text.count("}") and "±" not in text
    bare = re.sub(r"\\[_%&#$]", "", text)
    assert (r"con\_stant" in text or kind in ("ends", "lengths")) and not re.search(r"[_%#]", bare)
    rows = bare.split(r"\midrule", 1)[1].split(r"\bottomrule")[0].replace(r"\midrule", "")
    columns = len(re.search(r"\\begin{tabular}{(\w+)}", text)[1])
    assert {row.count("&") for row in rows.strip().split("\n") if row} == {columns - 1}


@pytest.mark.parametrize(
    ("key", "value"), [("features", "inception:clean"), ("images", 50), ("reference_images", 9)]
)
def test_what_cannot_be_compared_is_refused(inputs, tmp_path, key, value):
    odd = inputs.cell("two_step", 3.0, **{key: value})
    with pytest.raises(ValueError, match=f"{odd}: {key} is {value}"):
        tables.tabulate("methods", [*inputs.study(), odd], tmp_path / "t")
    assert not (tmp_path / "t.csv").exists()


def test_a_floor_in_other_features_is_refused(inputs, tmp_path):
    floor = inputs.metrics(1.5, {"floor": True}, features="inception:clean")
    with pytest.raises(ValueError, match=floor):
        tables.tabulate("methods", inputs.study(), tmp_path / "t", floor)


def test_a_cell_counts_once(inputs):
    first, again = inputs.cell("heun", 3.0), inputs.cell("heun", 3.0)
    with pytest.raises(ValueError, match=f"{first}: found twice among the metrics"):
        gather.read([first, first])
    with pytest.raises(ValueError, match=again):
        gather.read([first, again])


def test_split_refuses_two_totals(inputs, tmp_path):
    other = inputs.cell("one_step", 9.0, kimg=50, schedule="sigmoid", tune=51)
    with pytest.raises(ValueError, match=f"{other}: 101 kimg"):
        figures.plot("split", {"metrics": [*inputs.split(), other], "width_in": 4}, tmp_path / "f")


@pytest.mark.parametrize(
    ("value", "text"),
    [(1476, "1480"), (12.34, "12.3"), (9.996, "10.0"), (0.01234, "0.0123"), (0, "0")],
)
def test_three_significant_digits(value, text):
    assert markup.digits(value) == text


def test_a_small_sd_never_reads_as_zero():
    assert markup.mean_and_sd(12.34, 0.42, 3) == "12.3 ± 0.4 (3)"
    assert markup.mean_and_sd(12.34, 0.021, 3) == "12.3 ± 0.02 (3)"
    assert markup.mean_and_sd(1476.0, 3.2, 3) == "1480 ± 3 (3)"
    assert markup.mean_and_sd(12.34, float("nan"), 1) == "12.3 (1)"
    pair = [21.5, 20.0]
    assert markup.mean_and_sd(np.mean(pair), np.std(pair, ddof=1), 2) == "20.0, 21.5 (2)"


@pytest.mark.parametrize("name", figures.FIGURES)
def test_figures_are_written(inputs, tmp_path, name):
    figures.plot(name, settings(inputs)[name] | {"width_in": 5.0}, tmp_path / "figure")
    assert (tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "figure.png").stat().st_size > 3000
    assert not list(tmp_path.glob(".*partial"))


def test_colour_images_make_a_grid(inputs, tmp_path):
    rows = [["rgb", inputs.images(channels=3)]]
    figures.plot("samples", {"rows": rows, "columns": 4, "width_in": 4.0}, tmp_path / "grid")
    with pytest.raises(ValueError, match="12 images for a grid of 13 columns; allowed: "):
        figures.plot("samples", {"rows": rows, "columns": 13, "width_in": 4.0}, tmp_path / "grid")


def test_an_unknown_figure_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"'pie'; allowed: methods, .*loss"):
        figures.plot("pie", {}, tmp_path / "f")


def test_the_same_inputs_give_the_same_bytes(inputs, tmp_path):
    """In two processes with different hash seeds."""
    study, floor = inputs.study(), inputs.floor()
    code = (
        "import sys, json; from ect.report import figures, tables\n"
        "settings, out = json.loads(sys.argv[1]), sys.argv[2]\n"
        "tables.tabulate('methods', settings['metrics'], out, settings['floor'])\n"
        "figures.plot('methods', settings, out)"
    )
    settings = {"metrics": study, "floor": floor, "width_in": 4.0}
    tables.tabulate("methods", study, tmp_path / "here", floor)
    figures.plot("methods", settings, tmp_path / "here")
    env = {"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": "1"}
    argv = [sys.executable, "-c", code, json.dumps(settings), str(tmp_path / "there")]
    subprocess.run(argv, check=True, env=env)
    for kind in ("csv", "md", "tex", "pdf", "png"):
        here, there = ((tmp_path / f"{name}.{kind}").read_bytes() for name in ("here", "there"))
        assert here == there, kind


def test_import_loads_no_torch():
    code = "import sys; from ect.report import figures, tables; sys.exit('torch' in sys.modules)"
    env = {"PYTHONPATH": ":".join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode == 0
