"""Distances that are no numbers, and files of numbers that lack some: told by name, and no mean
hides them."""

import json
import math
from contextlib import nullcontext
from pathlib import Path

import pytest

from ect.report import gather, markup, paper, sentences, steps, tables
from ect.report.figures import plot
from tests.helpers.reports import SEEDS, Inputs

NAN, INF = math.nan, math.inf
LABELS = {"heun": "Heun", "one_step": "1 step", "two_step": "2 steps", "heun_9": "a", "dpm_9": "b"}
KINDS = {"heun": "heun", "one_step": "multistep", "two_step": "multistep", "heun_9": "heun"}
KINDS |= {"dpm_9": "dpm_solver"}


def spoiled(inputs, **changes):
    """The study's metrics; some values of one seed are others, or missing where they are None."""
    paths = inputs.solvers()
    found = json.loads(Path(paths[1]).read_text()) | changes
    Path(paths[1]).write_text(json.dumps({k: v for k, v in found.items() if v is not None}))
    return paths


@pytest.mark.parametrize(
    "change",
    [
        *({"fd": value} for value in (NAN, INF, -INF, -1)),
        *({"kd": value} for value in (NAN, INF)),
        *({"precision": value} for value in (-0.5, 1.5)),
        {"recall": 2}, {"inception_score": 0.5}, {"images": 0}, {"reference_images": -1},
        *({"repeats": {"fd": [1.0, value]}} for value in (NAN, INF, -1)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["methods", "schedules", "solvers"])
def test_numbers_that_no_job_writes_are_named(tmp_path, kind, change):
    inputs = Inputs(tmp_path)
    metrics, out = spoiled(inputs, **change), tmp_path / "t"
    solvers = {"solvers": KINDS} if kind == "solvers" else {}
    readers = {
        "table": lambda: tables.tabulate(kind, metrics, out, **solvers),
        "figure": lambda: plot(kind, {"metrics": metrics, "width_in": 5} | solvers, out),
        "floor": lambda: gather.read_floor(metrics[1]),
    }
    for read in readers.values():
        with pytest.raises(ValueError, match=rf"^{metrics[1]}: '\w+' is .*; allowed: a finite num"):
            read()
    assert not list(tmp_path.glob("t.*"))


def test_a_distance_of_equal_sets_may_be_rounded_below_zero(tmp_path):
    tables.tabulate("methods", spoiled(Inputs(tmp_path), fd=-1e-6, kd=-0.01), tmp_path / "t")


def test_a_mean_with_a_seed_that_lacks_a_number_is_no_mean_of_the_others(tmp_path):
    table = gather.spread(gather.read(spoiled(Inputs(tmp_path), kd=None)))
    row = table[(table["sampler"] == "one_step") & (table["schedule"] == "sigmoid")].iloc[0]
    assert row["n"] == len(SEEDS["one_step"])
    assert math.isnan(row["kd_mean"]) and math.isfinite(row["fd_mean"])
    others = table[(table["sampler"] == "two_step") & (table["schedule"] == "sigmoid")].iloc[0]
    assert others["kd_mean"] == pytest.approx(sum(SEEDS["two_step"]) / 300)


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
    number = type("Number", (), {"value": 3.6, "sd": 0.1, "n": 3, "setting": ()})
    facts = paper._beside(number, ours, [number])
    assert math.isnan(facts["difference"]) and facts["beyond_margin"] is None


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
        ({"fd": ...}, "found no key 'fd'"),
        ({"fd": None}, "'fd' is null"),
        ({"fd": "2.0"}, "'fd' is \"2.0\""),
        ({"fd": True}, "'fd' is true"),
        ({"kd": None}, "'kd' is null"),
        ({"precision": "x"}, "'precision' is \"x\""),
        ({"images": ...}, "found no key 'images'"),
        ({"reference_images": "many"}, "'reference_images' is \"many\""),
        ({"features": ...}, "found no key 'features'"),
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
        ('{"images": 1}', ", line 1: found no key 'loss'"),
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


@pytest.mark.parametrize("rows", range(1, 24))
def test_a_part_of_a_trace_or_of_a_perfect_loss_is_no_whole_one(tmp_path, rows):
    inputs = Inputs(tmp_path)
    files = {"trace": inputs.trace(), "perfect": inputs.perfect()}
    whole = {key: Path(path).read_text().splitlines(True) for key, path in files.items()}
    for key in (key for key, lines in whole.items() if rows < len(lines)):
        for cut in (0, -2):
            text = "".join(whole[key][:rows])
            Path(files[key]).write_text(text[:cut] if cut else text)
            with pytest.raises(ValueError, match=f"^{files[key]}: .*allowed: |not a table"):
                plot("loss", {"metrics": inputs.log(), "width_in": 5} | files, tmp_path / "f")
        Path(files[key]).write_text("".join(whole[key]))


@pytest.mark.parametrize(
    "text", ["", "images,value\n1,2\n", "images,quantity,s,ratio,sampler,value\n"]
)
def test_a_trace_that_lacks_something_is_told_by_name(tmp_path, text):
    inputs = Inputs(tmp_path)
    path = inputs.file(text)
    with pytest.raises(ValueError, match=f"^{path}: "):
        plot("loss", {"metrics": inputs.log(), "trace": path, "width_in": 5}, tmp_path / "f")


def test_traces_that_are_not_finite_are_drawn_as_gaps_and_losses_are_refused(tmp_path):
    """A run stops at a loss that is not finite, so no log of one has any."""
    inputs = Inputs(tmp_path)
    trace = Path(inputs.trace())
    trace.write_text(trace.read_text().replace(",0.1\n", ",nan\n"))
    settings = {"trace": str(trace), "width_in": 5}
    last = LINE | {"images": 8000}
    for values in ([LINE, last], [LINE | {"loss": NAN}, last], [LINE, last | {"loss": NAN}]):
        log = inputs.file("".join(json.dumps(line) + "\n" for line in values))
        finite = all(line["loss"] == line["loss"] for line in values)
        for figure, more in (
            ("loss", settings | {"metrics": log}),
            ("curves", {"runs": {"x": [log]}, "width_in": 5}),
        ):
            with nullcontext() if finite else pytest.raises(ValueError, match="a loss of nan"):
                plot(figure, more, tmp_path / figure)


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "sampler,n,fd_mean,fd_sd\nx,1,two,\n"])
def test_a_table_without_its_numbers_is_told_by_name(tmp_path, text):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=r"t\.csv: "):
        sentences.read(tmp_path / "t.csv")


def test_searched_times_that_lack_something_are_told_by_name(tmp_path):
    model = {"schedule": "s", "pretrain": "ve", "recipe": "r", "kimg": 1, "tune_kimg": 1, "seed": 0}
    for text in ("{}", '{"features": "x", "metric": "fd", "search": 1, "test": 1, "steps": [{}]}'):
        path = Inputs(tmp_path).file(text)
        with pytest.raises(ValueError, match=f"^{path}: ('search' is|found no key)"):
            steps.tabulate([model | {"path": path}], tmp_path / "t")
    with pytest.raises(ValueError, match=r"^models: found none"):
        steps.tabulate([], tmp_path / "t")
