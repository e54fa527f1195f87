"""Inputs of a report that hold something else than jobs write: one line that names the file."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest

from ect.report import curves, ends, gather, lengths, losspage, noise, page, steps
from tests.helpers.reports import Inputs
from tests.report.test_tables_and_figures import searched


def line_of(function, *words):
    with pytest.raises(ValueError) as caught:
        function(*words)
    assert len(str(caught.value).splitlines()) == 1 and len(str(caught.value)) < 400
    return str(caught.value)


READERS = {
    "metrics": lambda path, out: gather.read([path]),
    "floor": lambda path, out: gather.read_floor(path),
    "steps": lambda path, out: steps.tabulate([searched(out / "s.json") | {"path": path}], out),
    "curves": lambda path, out: curves.read_log([path]),
    "losspage": lambda path, out: losspage.plot_losspage(path, Inputs(out).trace(), out, 5),
    "page": lambda path, out: page.provenance([path]),
}


@pytest.mark.parametrize("content", ["null", "[]", "3", '"x"', "{", "[" * 100_000, "\udcff"])
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_object_is_named(tmp_path, reader, content):
    path = tmp_path / "in.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    said = line_of(READERS[reader], str(path), tmp_path)
    assert said.startswith(str(path)) and ("not JSON" in said or "allowed: a JSON object" in said)


@pytest.mark.parametrize("value", [5, "0.1", {}, None, {"gap": "x"}, {"ema_std": [0.1]}], ids=str)
@pytest.mark.parametrize("kind, key", [("ends", "schedule"), ("lengths", "pretrain")])
def test_what_is_said_of_a_row_is_typed(tmp_path, kind, key, value):
    table = pd.DataFrame({key: ["one"]})
    said = line_of({"ends": ends, "lengths": lengths}[kind].columns, table, {"one": value})
    assert said.startswith("about: ") and ("allowed" in said or "needed" in said)


def test_a_text_that_no_file_can_hold_is_named(tmp_path):
    path = tmp_path / "m.json"
    good = Inputs(tmp_path).metrics(1.0, CELL)
    made = json.loads(Path(good).read_text())
    path.write_text(json.dumps(made | {"cell": made["cell"] | {"label": "\ud800"}}))
    said = line_of(gather.read, [str(path)])
    assert said.startswith(f"{path}: cell: label is ") and "allowed" in said


def test_an_empty_log_is_named(tmp_path):
    path = tmp_path / "in.json"
    path.write_text("")
    assert "found no lines" in line_of(READERS["losspage"], str(path), tmp_path)


STEP = {"k": 2, "times": [0.5], "search": 1.0, "test": 2.0}
CELL = Inputs(None).cell_of("heun")
WRONG = {
    "metrics": [
        ({"fd": None}, "'fd' is null; allowed: a number"),
        ({"fd": "2"}, "'fd' is \"2\""),
        ({"kd": []}, "'kd' is []"),
        ({"images": 2.5}, "'images' is 2.5; allowed: a whole number"),
        ({"features": None}, "'features' is null"),
        ({"reference_images": {}}, "'reference_images' is {}"),
        ({"cell": None}, "'cell' is null"),
        ({"cell": {}}, "its cell has no pretrain"),
        ({"repeats": None}, "'repeats' is null"),
        ({"repeats": {}}, "repeats of fd are None; allowed: a list of numbers"),
        ({"repeats": {"fd": []}}, "repeats of fd are []"),
        ({"repeats": {"fd": ["1", 2]}}, "repeats of fd are ['1', 2]"),
        ({"repeats": {"fd": [True]}, "fd": 1}, "repeats of fd are [True]"),
        ({"repeats": {"fd": [1.0, 3.0]}}, "fd is 2.8, the mean of its repeats 2.0; allowed: equal"),
        ({"images": 10**400}, "a whole number of more than 300 digits"),
        ({"cell": CELL | {"nfe": 0}}, "cell: 'nfe' is 0; allowed: a finite number and >= 1"),
        ({"cell": CELL | {"kimg": -5}}, "cell: 'kimg' is -5"),
        ({"cell": CELL | {"tune_kimg": -1}}, "cell: 'tune_kimg' is -1"),
        ({"cell": CELL | {"seed": 10**25}}, "cell: 'seed' is 1000"),
        ({"cell": CELL | {"replicate": -1}}, "cell: 'replicate' is -1"),
    ],
    "floor": [
        ({"cell": None}, "'cell' is null"),
        ({"cell": {"floor": "no"}}, "found the cell {'floor': 'no'}; allowed: a floor"),
        ({"fd": "x"}, "'fd' is \"x\""),
        ({"images": None}, "'images' is null"),
    ],
    "steps": [
        ({"search": None}, "'search' is null"),
        ({"test": {}}, "test: found no key 'images'"),
        ({"steps": {}}, "'steps' is {}; allowed: a list"),
        ({"steps": [3]}, "step 1: found a whole number; allowed: a JSON object"),
        ({"steps": [{"k": 2}]}, "step 1: found no key 'times'"),
        ({"steps": [{"k": 2, "times": ["a"], "search": 1, "test": 1}]}, "times that are"),
        ({"metric": 3}, "'metric' is 3"),
        ({"metric": "fid"}, "metric is fid; allowed: fd, kd"),
        ({"test": {"images": 0, "seed": 0}}, "test: 'images' is 0"),
        ({"search": {"images": 5, "seed": -1}}, "search: 'seed' is -1"),
        ({"steps": []}, "found steps of k = []"),
        ({"steps": [STEP, STEP]}, "found steps of k = [2, 2]; allowed: each k once"),
        *(({"steps": [STEP | {"times": times}]}, "step 1: found k = 2 with the times")
          for times in ([], [0.0], [-1.0], [90.0], [5.0, 1.0], [math.nan])),
        ({"steps": [STEP | {"times": [True]}]}, "times that are"),
        ({"steps": [STEP | {"k": 3, "times": [1.0, 2.0]}]}, "allowed: times that fall"),
        ({"steps": [STEP | {"test": -5.0}]}, "step 1: test: 'fd' is -5.0"),
        ({"steps": [STEP | {"search": math.nan}]}, "step 1: search: 'fd' is nan"),
    ],
    "curves": [({"loss": None}, "line 1: 'loss' is null"), ({"images": "1"}, "'images' is \"1\"")],
    "losspage": [
        ({"share_r_zero": None}, "'share_r_zero' is null; allowed: a number"),
        ({"share_r_zero": 2}, "line 1: share_r_zero is 2; allowed: from 0 to 1"),
        ({"images": -5}, "line 1: found -5 images after 0; allowed: rising numbers"),
        ({"images": 10**30}, "line 1: found 1000"),
        *(({"residual_by_ln_s": bins}, "line 1: residual_by_ln_s is")
          for bins in ([0.1] * 3, ["x"] * 10, [-1] * 10)),
    ],
    "page": [
        ({"code": None}, "'code' is null; allowed: an object"),
        ({"packages": [1]}, "'packages' is [1]"),
        ({"seconds": "long"}, "'seconds' is \"long\""),
        ({"device": {}}, "'device' is {}"),
    ],
}  # fmt: skip


def right(reader, folder):
    """What the reader takes, as a mapping."""
    inputs = Inputs(folder)
    if reader == "steps":
        return json.loads((folder / "s.json").read_text())
    if reader in ("curves", "losspage"):
        with open(inputs.log()) as file:
            return json.loads(file.readline())
    files = {"metrics": lambda: inputs.cell("heun", 2.8), "floor": inputs.floor}
    return json.loads(open(files[reader]()).read()) if reader in files else {"device": "cpu"}


@pytest.mark.parametrize(
    "reader, change, words", [(key, *case) for key, cases in WRONG.items() for case in cases]
)
def test_a_value_of_another_type_is_named(tmp_path, reader, change, words):
    searched(tmp_path / "s.json")
    path, whole = tmp_path / "in.json", right(reader, tmp_path)
    path.write_text(json.dumps(whole))
    if reader != "losspage":  # draws a figure
        READERS[reader](str(path), tmp_path)
    path.write_text(json.dumps(whole | change))
    said = line_of(READERS[reader], str(path), tmp_path)
    assert said.startswith(str(path)) and words in said, said


def test_a_missing_key_is_named(tmp_path):
    searched(tmp_path / "s.json")
    for reader, key in (("metrics", "fd"), ("floor", "cell"), ("steps", "metric"),
                        ("curves", "loss"), ("losspage", "residual_by_ln_s")):  # fmt: skip
        path, whole = tmp_path / "in.json", right(reader, tmp_path)
        path.write_text(json.dumps({k: v for k, v in whole.items() if k != key}))
        said = line_of(READERS[reader], str(path), tmp_path)
        assert (
            said.startswith(str(path))
            and f"no {'cell' if key == 'cell' else f'key {key!r}'}" in said
        )


def test_a_log_that_goes_back_is_named(tmp_path):
    inputs = Inputs(tmp_path)
    path = inputs.log()
    said = line_of(curves.read_log, [path, path])
    assert said == f"{path}, line 1: found 1000 images after 8000; allowed: rising numbers"


@pytest.mark.parametrize("stages", [-1, 0, 2.5, "4", 10**9])
def test_a_number_of_stages_is_bounded(tmp_path, stages):
    inputs = Inputs(tmp_path)
    words = (inputs.log(), inputs.trace(), tmp_path / "f", 5, stages)
    assert "stages: found " in line_of(losspage.plot_losspage, *words)


@pytest.mark.parametrize("key, value", [("label", "other"), ("nfe", 7)])
def test_a_sampler_has_one_label_and_one_number_of_evaluations(tmp_path, key, value):
    inputs = Inputs(tmp_path)
    cells = [inputs.cell_of("one_step", schedule=name, tune=1) for name in ("a", "b")]
    paths = [inputs.metrics(3.0, cells[0]), inputs.metrics(4.0, cells[1] | {key: value})]
    assert f"{paths[1]}: {key} of 'one_step' is {value}, but" in line_of(gather.read, paths)


ROWS = {  # a change of a trace's text: what is said
    "no distances": (lambda t: t.replace(",fd,", ",x,"), "the quantities end_to_end, residual, x"),
    "no residuals": (
        lambda t: "".join(line for line in t.splitlines(True) if "residual" not in line),
        "the quantities end_to_end, fd",
    ),
    "negative": (lambda t: t.replace(",9000", ",-5"), "negative values"),
    "infinite": (lambda t: t.replace(",9000", ",inf"), "infinite values"),
    "level 0": (lambda t: t.replace(",0.1,,,", ",0,,,"), "noise levels s <= 0"),
    "twice": (lambda t: t + t.partition("\n")[2], "images that do not rise"),
    "rows twice": (
        lambda t: t.partition("\n")[0] + "\n"
        + "".join(line * 2 for line in t.splitlines(True)[1:]), "the same row twice",
    ),
    "before the start": (lambda t: t.replace("\n0,", "\n-1,"), "images that do not rise"),
}  # fmt: skip


@pytest.mark.parametrize("change, words", ROWS.values(), ids=ROWS)
def test_a_trace_of_what_cannot_be_is_named(tmp_path, change, words):
    inputs = Inputs(tmp_path)
    path = inputs.file(change(Path(inputs.trace()).read_text()))
    said = line_of(losspage.plot_losspage, inputs.log(), path, tmp_path / "f", 5)
    assert said == f"{path}: found {words}; allowed: what `trace` wrote"


@pytest.mark.parametrize(
    "old, new", [("3.5,", "nan,"), ("3.5,", "-3.5,"), ("3000,", "1,"), ("3.5,", "inf,")]
)
def test_a_perfect_loss_of_what_cannot_be_is_named(tmp_path, old, new):
    inputs = Inputs(tmp_path)
    path = inputs.file(Path(inputs.perfect()).read_text().replace(old, new))
    words = (inputs.log(), inputs.trace(), tmp_path / "f", 5, None, path)
    assert f"{path}: found images that do not rise" in line_of(losspage.plot_losspage, *words)


@pytest.mark.parametrize("file", ["trace", "perfect"])
def test_truth_values_are_no_numbers(tmp_path, file):
    inputs = Inputs(tmp_path)
    table = pd.read_csv(getattr(inputs, file)())
    column = {"trace": "value", "perfect": "loss"}[file]
    path = inputs.file(table.assign(**{column: True}).to_csv(index=False))
    paths = {"trace": inputs.trace(), "perfect": inputs.perfect()} | {file: path}
    words = (inputs.log(), paths["trace"], tmp_path / "f", 5, None, paths["perfect"])
    assert f"{path}: found {column} that is no number" in line_of(losspage.plot_losspage, *words)


@pytest.mark.parametrize(
    "part, key, found",
    [(ends, "gap", -1), (ends, "gap", 0), (ends, "gap", 2), (lengths, "ema_std", 0),
     (lengths, "ema_std", 5), (ends, "map", " ")],
)  # fmt: skip
def test_what_is_said_of_a_row_is_possible(part, key, found):
    table = pd.DataFrame({"schedule": ["one"], "pretrain": ["one"]})
    told = {"map": "sigmoid", "gap": 0.1, "ema_std": 0.1}
    part.columns(table, {"one": told})
    said = line_of(part.columns, table, {"one": told | {key: found}})
    assert said.startswith("about: one: ") and f"{found}" in said and "allowed: " in said


@pytest.mark.parametrize("told", [[1], "x", 3])
def test_conditions_of_a_start_are_an_object(told, tmp_path):
    words = (Inputs(tmp_path).nested(), tmp_path / "t", {"ve": told})
    assert line_of(noise.tabulate, *words).startswith("about: ve: found ")
    assert not (tmp_path / "t.csv").exists()


def test_two_logs_are_not_one_line_of_a_figure(tmp_path):
    log = Inputs(tmp_path).log()
    runs = {"pretrain ve": [log], "pretraining, ve": [log]}
    said = line_of(curves.plot_curves, runs, tmp_path / "f", 5)
    assert said == "runs: found 've' of pretraining twice; allowed: another name for each"


def test_a_loss_that_is_none_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"images": 5, "loss": NaN}\n')
    said = line_of(curves.read_log, [str(path)])
    assert said == f"{path}, line 1: found a loss of nan; allowed: finite numbers"


@pytest.mark.parametrize(("loss", "scale"), [(1.0, "log"), (0.0, "linear"), (-1.5, "linear")])
def test_every_loss_is_drawn(loss, scale, tmp_path, monkeypatch):
    """Of a learned weight one may be negative, which a logarithmic axis would leave out."""
    path, seen = tmp_path / "metrics.jsonl", []
    path.write_text(f'{{"images": 5, "loss": 2.0}}\n{{"images": 9, "loss": {loss}}}\n')
    ticks = curves._share_range
    monkeypatch.setattr(curves, "_share_range", lambda axes: (seen.extend(axes), ticks(axes)))
    curves.plot_curves({"sigmoid, a": [str(path)]}, tmp_path / "f", 5)
    assert seen[0].get_yscale() == scale
