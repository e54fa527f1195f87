"""Distances that are not finite numbers, and files of numbers that lack some: a table, a figure, a
sentence and the page say so, and no mean hides them."""

import csv
import json
import math
from pathlib import Path

import pytest

from ect.report import gather, markup, page, paper, sentences, steps, tables
from ect.report.figures import plot
from tests.helpers.reports import SEEDS, Inputs, read_table

NAN, INF = math.nan, math.inf
LABELS = {"heun": "Heun", "one_step": "1 step", "two_step": "2 steps", "heun_9": "a", "dpm_9": "b"}
KINDS = {"heun": "heun", "one_step": "multistep", "two_step": "multistep", "heun_9": "heun"}
KINDS |= {"dpm_9": "dpm_solver"}


def spoiled(inputs, value, every=False):
    """The study's metrics; those of one seed, or all, are `value`."""
    paths = inputs.solvers()
    for path in paths if every else paths[1:2]:
        found = json.loads(Path(path).read_text())
        Path(path).write_text(json.dumps(found | {"fd": value, "kd": value}))
    return paths


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize("kind", ["methods", "schedules", "solvers"])
def test_tables_sentences_and_figures(tmp_path, kind, value, every):
    inputs = Inputs(tmp_path)
    metrics, out = spoiled(inputs, value, every), tmp_path / "t"
    solvers = {"solvers": KINDS} if kind == "solvers" else {}
    tables.tabulate(kind, metrics, out, inputs.floor(), **solvers)
    cells = [cell for row in read_table(out.with_suffix(".md")) for cell in row]
    assert any("nan" in cell or "inf" in cell for cell in cells)
    rows, floor = sentences.read(f"{out}.csv")
    said = sentences.answer(kind, rows, LABELS)
    told = [text for text in said if text.startswith("Left out, since")]
    assert len(told) == 1 and floor and not any("nan" in text for text in said)
    plot(kind, {"metrics": metrics, "width_in": 5, "floor": inputs.floor()} | solvers, out)


def test_a_mean_with_a_seed_that_is_not_finite_is_no_mean_of_the_others(tmp_path):
    table = gather.spread(gather.read(spoiled(Inputs(tmp_path), NAN)))
    row = table[(table["sampler"] == "one_step") & (table["schedule"] == "sigmoid")].iloc[0]
    assert row["n"] == len(SEEDS["one_step"])
    assert all(math.isnan(row[f"fd_{end}"]) for end in ("mean", "sd", "min", "repeats_min"))
    assert math.isnan(row["kd_mean"])
    others = table[(table["sampler"] == "two_step") & (table["schedule"] == "sigmoid")].iloc[0]
    assert others["fd_mean"] == pytest.approx(sum(SEEDS["two_step"]) / 3)


def test_the_best_row_is_never_one_without_a_number():
    row = {"fd_sd": 1.0, "n": 3, "pretrain": "ve", "schedule": "s"}
    row |= {"sampler": "x", "recipe": "", "pretrain_kimg": "1", "tune_kimg": "1"}
    rows = [row | {"schedule": name, "fd_mean": v} for name, v in zip("abc", (NAN, 2.0, 1.0))]
    for order in (rows, rows[::-1]):
        best, left = sentences.answer("schedules", order, {"x": "x"})
        assert best.startswith("x: best is c with") and left.endswith(": a (x).")
    assert sentences.p_value(row | {"fd_mean": 1.0, "fd_sd": NAN}, row | {"fd_mean": 2.0}) is None


@pytest.mark.parametrize("before, after", [(0.0, 1.0), (1.0, 0.0), (-1e-9, 1.0)])
def test_there_is_no_ratio_to_nothing(before, after):
    row = {"fd_sd": NAN, "n": 1, "pretrain": "ve", "pretrain_kimg": "1", "name": "x"}
    rows = [row | {"schedule": "", "fd_mean": before}, row | {"schedule": "s", "fd_mean": after}]
    (text,) = sentences.gains(rows, "1 step")
    assert "times" not in text


@pytest.mark.parametrize("value, text", [(NAN, "nan"), (INF, "inf"), (-INF, "-inf"), (0.0, "0")])
def test_digits(value, text):
    assert markup.digits(value) == text
    assert markup.mean_and_sd(value, NAN, 2) == f"{text} (2)"
    assert markup.mean_and_sd(1.0, INF, 2) == "1.00 (2)"


def test_a_published_number_is_not_met_by_none(tmp_path):
    ours = {"fd_mean": NAN, "fd_sd": NAN, "n": 3, "tune_kimg": 1, "kimg": 1, "start_mimg": 0}
    ours |= dict.fromkeys(("pretrain", "schedule", "recipe", "sampler"), "x")
    number = type("Number", (), {"value": 3.6, "sd": 0.1})
    facts = paper._beside(number, ours)
    assert math.isnan(facts["difference"]) and facts["within_published_sd"] is None


# Files that lack what is needed are told by name.


def cell_of(tmp_path, **changes):
    path = Path(Inputs(tmp_path).cell("one_step", 2.0))
    found = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in found.items() if v is not ...}))
    return str(path)


@pytest.mark.parametrize(
    "changes, wanted",
    [
        ({"cell": ...}, "found no cell"),
        ({"cell": None}, "'cell' is null"),
        ({"cell": []}, "'cell' is []"),
        ({"cell": {}}, "its cell has no pretrain"),
        ({"fd": ...}, "no key 'fd'"),
        ({"fd": None}, "'fd' is null"),
        ({"fd": "2.0"}, "'fd' is \"2.0\""),
        ({"fd": True}, "'fd' is true"),
        ({"kd": None}, "'kd' is null"),
        ({"precision": "x"}, "'precision' is \"x\""),
        ({"images": ...}, "no key 'images'"),
        ({"reference_images": "many"}, "'reference_images' is \"many\""),
        ({"features": ...}, "no key 'features'"),
        ({"repeats": {}}, "repeats of fd are None"),
        ({"repeats": {"fd": []}}, "repeats of fd are []"),
        ({"repeats": {"fd": [1.0, None]}}, "repeats of fd are [1.0, None]"),
        ({"repeats": [1.0]}, "'repeats' is [1.0]"),
    ],
)
def test_metrics_that_lack_something_are_told_by_name(tmp_path, changes, wanted):
    path = cell_of(tmp_path, **changes)
    readers = [lambda: gather.read([path])]
    readers += [lambda: gather.read_floor(path)] if "its cell" not in wanted else []
    for read in readers:
        with pytest.raises(ValueError) as error:
            read()
        assert str(error.value).startswith(f"{path}: {wanted}")
    assert len(str(error.value).splitlines()) == 1


LINE = {"images": 1000, "loss": 2.5, "share_r_zero": 0.5, "residual_by_ln_s": [0.1] * 10}


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("", ": found no lines"),
        ("null", ", line 1: found null"),
        ('{"images": 1}', ", line 1: no key 'loss'"),
        (json.dumps(LINE | {"loss": None}), ", line 1: 'loss' is null"),
        (json.dumps(LINE) + "\n{", ", line 2: not JSON"),
    ],
)
def test_a_log_that_lacks_something_is_told_by_name_and_line(tmp_path, text, wanted):
    inputs = Inputs(tmp_path)
    path = inputs.file(text)
    for name, settings in {"curves": {"runs": {"x": [path]}}, "loss": {"metrics": path}}.items():
        more = {"trace": inputs.trace()} if name == "loss" else {}
        with pytest.raises(ValueError) as error:
            plot(name, settings | more | {"width_in": 5}, tmp_path / "f")
        assert str(error.value).startswith(f"{path}{wanted}")


@pytest.mark.parametrize(
    "text", ["", "images,value\n1,2\n", "images,quantity,s,ratio,sampler,value\n"]
)
def test_a_trace_that_lacks_something_is_told_by_name(tmp_path, text):
    inputs = Inputs(tmp_path)
    path = inputs.file(text)
    with pytest.raises(ValueError, match=f"^{path}: "):
        plot("loss", {"metrics": inputs.log(), "trace": path, "width_in": 5}, tmp_path / "f")


def test_losses_and_traces_that_are_not_finite_are_drawn_as_gaps(tmp_path):
    inputs = Inputs(tmp_path)
    lines = [LINE | {"loss": NAN}, LINE | {"images": 2000, "loss": 1.0}]
    for values in (lines, lines[:1]):
        log = inputs.file("".join(json.dumps(line) + "\n" for line in values))
        trace = Path(inputs.trace())
        trace.write_text(trace.read_text().replace(",0.1\n", ",nan\n"))
        settings = {"metrics": log, "trace": str(trace), "width_in": 5}
        plot("loss", settings, tmp_path / "loss")
        plot("curves", {"runs": {"x": [log]}, "width_in": 5}, tmp_path / "curves")


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "sampler,n,fd_mean,fd_sd\nx,1,two,\n"])
def test_a_table_without_its_numbers_is_told_by_name(tmp_path, text):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=r"t\.csv: "):
        sentences.read(tmp_path / "t.csv")


def test_searched_times_that_lack_something_are_told_by_name(tmp_path):
    model = {"schedule": "s", "pretrain": "ve", "recipe": "r", "kimg": 1, "tune_kimg": 1, "seed": 0}
    for text in ("{}", '{"features": "x", "metric": "fd", "search": 1, "test": 1, "steps": [{}]}'):
        path = Inputs(tmp_path).file(text)
        with pytest.raises(ValueError, match=f"^{path}: ('search' is|no key)"):
            steps.tabulate([model | {"path": path}], tmp_path / "t")
    with pytest.raises(ValueError, match=r"^models: found none"):
        steps.tabulate([], tmp_path / "t")


def test_the_page_of_a_study_with_a_distance_that_is_none(tmp_path):
    inputs = Inputs(tmp_path)
    out, figure = tmp_path / "t", tmp_path / "f.png"
    tables.tabulate("methods", spoiled(inputs, NAN), out, inputs.floor())
    figure.write_bytes(b"")
    block = {"question": "?", "kind": "methods", "table": f"{out}.csv", "figure": str(figure)}
    run = inputs.file("{}")
    page.write_page(
        "x", "0", LABELS, {"methods": block}, {}, {}, "ect/report/templates/page.html", [run],
        tmp_path / "index.html",
    )  # fmt: skip
    text = (tmp_path / "index.html").read_text()
    assert "nan (3)" in text and "Left out, since" in text
    with open(f"{out}.csv", newline="") as file:
        assert any(row["fd_mean"] == "" for row in csv.DictReader(file))
