"""The settings of a figure, written by hand: one line for each mistake, before anything is read."""

import json

import pytest

from ect.cli.main import main
from ect.config import drawing
from ect.report import figures

LINE = {"map": "fixed", "options": {"q": 2.0}}
GOOD = {
    "methods": {"width_in": 5, "metrics": ["a.json"], "floor": "f.json"},
    "split": {"width_in": 5, "metrics": ["a.json"]},
    "scaling": {"width_in": 5.5, "metrics": ["a.json", "b.json"], "floor": None},
    "schedules": {"width_in": 5, "metrics": ["a.json"]},
    "solvers": {"width_in": 5, "metrics": ["a.json"], "solvers": {"heun": "heun"}},
    "maps": {"width_in": 5, "schedules": {"a": LINE}},
    "curves": {"width_in": 5, "runs": {"pretrain ve": ["a.jsonl"]}},
    "samples": {"width_in": 5, "rows": [["data", "a.npz"]], "columns": 4, "data": "d"},
    "loss": {"width_in": 5, "metrics": "m.jsonl", "trace": "t.csv", "stages": 4, "perfect": None},
    "nearest": {"width_in": 5, "nearest": "n", "samples": "s.npz", "data": "d", "columns": 4},
    "ends": {"width_in": 5, "metrics": ["a.json"]}
    | {"about": {"sigmoid": {"map": "sigmoid", "gap": 0.01}}},
    "lengths": {"width_in": 5, "metrics": ["a.json"], "about": {"middle": {"ema_std": 0.075}}},
    "noise": {"width_in": 5, "metrics": ["a.json"]} | {"about": {"ve": {"process": "ve"}}},
}
WRONG = [
    ("methods", {"width_in": "5"}, "width_in: found '5'; allowed: "),
    ("methods", {"width_in": 0.1}, "width_in: found 0.1; allowed: greater than or equal to 2"),
    ("methods", {"width_in": True}, "width_in: found True"),
    ("methods", {"metrics": "a.json"}, "metrics: found 'a.json'; allowed: "),
    ("methods", {"metrics": []}, "metrics: found []; allowed: at least 1 of them"),
    ("methods", {"metrics": ["a", "a"]}, "metrics: found 'a' more than once; allowed: once"),
    ("methods", {"metrics": [None]}, "metrics.0: found None"),
    ("methods", {"metrics": {"a": 1}}, "metrics: found {'a': 1}"),
    ("methods", {"floor": 3}, "floor: found 3"),
    ("methods", {"floors": "a"}, "floors: unknown key; allowed: width_in, metrics, floor; did you"),
    ("split", {"solvers": {}}, "solvers: unknown key"),
    ("solvers", {"solvers": {"heun": 1}}, "solvers.heun: found 1"),
    ("solvers", {"solvers": {}}, "solvers: found {}; allowed: at least 1"),
    ("solvers", {"solvers": None}, "solvers: found None"),
    ("maps", {"schedules": {}}, "schedules: found {}; allowed: at least 1"),
    ("maps", {"schedules": {"a": {"map": "fixd", "options": {}}}}, "found 'fixd'; allowed: "),
    ("maps", {"schedules": {"a": {"map": "fixed"}}}, "schedules.a.options: missing"),
    ("maps", {"schedules": {"a": LINE | {"options": {"q": "2"}}}}, "q is '2'; allowed: float"),
    ("maps", {"schedules": {"a": LINE | {"options": {"z": 2}}}}, "unknown option 'z'"),
    ("maps", {"schedules": {"a": LINE | {"options": [2]}}}, "schedules.a.options: found [2]"),
    ("maps", {"schedules": ["a"]}, "schedules: found ['a']; allowed: "),
    ("curves", {"runs": {}}, "runs: found {}; allowed: at least 1"),
    ("curves", {"runs": {"a": []}}, "runs.a: found []; allowed: at least 1"),
    ("curves", {"runs": {"a": "a.jsonl"}}, "runs.a: found 'a.jsonl'"),
    ("curves", {"runs": {"a": ["x", "x"]}}, "runs.a: found 'x' more than once"),
    ("curves", {"runs": ["x"]}, "runs: found ['x']"),
    ("samples", {"rows": []}, "rows: found []; allowed: at least 1"),
    ("samples", {"rows": [["a"]]}, "rows.0: found ['a']; allowed: at least 2"),
    ("samples", {"rows": [["a", "b", "c"]]}, "rows.0: found ['a', 'b', 'c']; allowed: at most 2"),
    ("samples", {"rows": [["a", None]]}, "rows.0.1: found None"),
    ("samples", {"rows": [["", "b"]]}, "rows.0.0: found ''; allowed: a text that can be seen"),
    ("samples", {"rows": [["a", "b"], ["a", "c"]]}, "rows: found 'a' more than once"),
    ("samples", {"columns": 0}, "columns: found 0; allowed: greater than or equal to 1"),
    ("samples", {"columns": 4.5}, "columns: found 4.5"),
    ("samples", {"columns": 10**9}, "columns: found 1000000000"),
    ("samples", {"columns": None}, "columns: found None"),
    ("samples", {"data": ["d"]}, "data: found ['d']"),
    ("loss", {"stages": 0}, "stages: found 0"),
    ("loss", {"stages": "4"}, "stages: found '4'"),
    ("loss", {"stages": True}, "stages: found True"),
    ("loss", {"metrics": ["m"]}, "metrics: found ['m']"),
    ("loss", {"trace": None}, "trace: found None"),
    ("loss", {"perfect": 1}, "perfect: found 1"),
    ("nearest", {"columns": 0}, "columns: found 0"),
    ("nearest", {"samples": None}, "samples: found None"),
    ("ends", {"about": {}}, "about: found {}; allowed: at least 1"),
    ("noise", {"about": {"ve": 3}}, "about.ve: found 3"),
]  # fmt: skip


def test_every_figure_has_a_block_of_what_its_function_takes():
    assert set(drawing.BLOCKS) == set(figures.FIGURES) == set(GOOD)
    for figure, settings in GOOD.items():
        drawing.require(figure, settings)


@pytest.mark.parametrize("figure, change, wanted", WRONG)
def test_a_mistake_is_one_line_before_any_file_is_read(figure, change, wanted, tmp_path, capsys):
    settings = json.dumps(GOOD[figure] | change)
    assert main(["draw", figure, settings, "--out", str(tmp_path / "f")]) == 1
    line = capsys.readouterr().err
    assert line.startswith("ect draw: settings: ") and line.count("\n") == 1
    assert wanted in line, line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("figure", GOOD)
def test_a_missing_key_is_named(figure, tmp_path, capsys):
    optional = {"floor", "data", "stages", "perfect"}
    for key in GOOD[figure].keys() - optional:
        settings = json.dumps({k: v for k, v in GOOD[figure].items() if k != key})
        assert main(["draw", figure, settings, "--out", str(tmp_path / "f")]) == 1
        assert f"settings: {key}: missing" in capsys.readouterr().err


def test_a_mistyped_figure_is_told_the_nearest(tmp_path, capsys):
    assert main(["draw", "map", "{}", "--out", str(tmp_path / "f")]) == 1
    assert "did you mean 'maps'?" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [None, 3, "", ["heun"]])
def test_the_kind_of_a_sampler_is_a_word(kind, tmp_path, capsys):
    (tmp_path / "m.json").write_text("{}")
    words = ["tabulate", "solvers", "--metrics", str(tmp_path / "m.json"), "--solvers"]
    assert main([*words, json.dumps({"a": kind}), "--out", str(tmp_path / "t")]) == 1
    assert (
        f"--solvers: a is {kind!r}; allowed: multistep, flow_map, euler" in capsys.readouterr().err
    )
