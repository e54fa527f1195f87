"""Inputs of a report that hold something else than jobs write: one line that names the file."""

import json

import pytest

from ect.report import curves, gather, losspage, page, steps
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


def test_an_empty_log_is_named(tmp_path):
    path = tmp_path / "in.json"
    path.write_text("")
    assert "found no lines" in line_of(READERS["losspage"], str(path), tmp_path)


WRONG = {
    "metrics": [
        ({"fd": None}, "'fd' is null; allowed: a whole number or a number"),
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
    ],
    "floor": [
        ({"cell": None}, "'cell' is null"),
        ({"fd": "x"}, "'fd' is \"x\""),
        ({"images": None}, "'images' is null"),
    ],
    "steps": [
        ({"search": None}, "'search' is null"),
        ({"test": {}}, "test: no key 'images'"),
        ({"steps": {}}, "'steps' is {}; allowed: a list"),
        ({"steps": [3]}, "step 1: found a whole number; allowed: a JSON object"),
        ({"steps": [{"k": 2}]}, "step 1: no key 'times'"),
        ({"steps": [{"k": 2, "times": ["a"], "search": 1, "test": 1}]}, "times that are"),
        ({"metric": 3}, "'metric' is 3"),
    ],
    "curves": [({"loss": None}, "line 1: 'loss' is null"), ({"images": "1"}, "'images' is \"1\"")],
    "losspage": [({"share_r_zero": None}, "'share_r_zero' is null; allowed: a whole number")],
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
