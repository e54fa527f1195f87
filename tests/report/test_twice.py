"""Tables count a file once, a model once, and take no cell that does not say which it is."""

import json

import pytest

from ect.cli.main import main
from ect.runtime import checkpoint

CELL = {
    "pretrain": "ve", "process": "ve", "parameterization": "edm", "kimg": 1, "schedule": "sigmoid",
    "recipe": "ect", "tune_kimg": 1, "seed": 0, "sampler": "one_step", "label": "1 step", "nfe": 1,
}  # fmt: skip
FACTS = {"images": 20, "reference_images": 297, "features": "classifier", "fd": 3.5, "kd": 0.25}
MODEL = {"schedule": "a", "pretrain": "ve", "recipe": "ect", "kimg": 1, "tune_kimg": 1, "seed": 0}


def metrics(folder, name="m.json", **changed):
    checkpoint.write_json(folder / name, FACTS | {"cell": CELL | changed})
    return str(folder / name)


def searched(folder, name="steps.json", search=(0, 20), test=(100, 20)):
    seeds = {
        k: dict(zip(("seed", "images"), v)) for k, v in {"search": search, "test": test}.items()
    }
    step = {"k": 2, "times": [1.0], "search": 3.0, "test": 3.1, "evaluations": []}
    facts = {"metric": "fd", "features": "classifier", "steps": [step], **seeds}
    checkpoint.write_json(folder / name, facts)
    return str(folder / name)


def refused(capsys, *words):
    assert main(list(map(str, words))) == 1
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    return line


def test_one_file_twice_is_no_second_seed(tmp_path, capsys):
    path, link = metrics(tmp_path), tmp_path / "link.json"
    link.symlink_to(path)
    for again in (path, tmp_path / "." / "m.json", tmp_path / "x" / ".." / "m.json", link):
        words = ["tabulate", "methods", "--metrics", path, again, "--out", tmp_path / "t"]
        (tmp_path / "x").mkdir(exist_ok=True)
        assert "found twice among the metrics; allowed: each file once" in refused(capsys, *words)
    assert main(["tabulate", "methods", "--metrics", path, "--out", str(tmp_path / "t")]) == 0


@pytest.mark.parametrize("key", ["pretrain", "kimg", "seed", "sampler", "label", "nfe"])
def test_a_cell_says_which_it_is(key, tmp_path, capsys):
    for value in (None, "", " ") if isinstance(CELL[key], str) else (None,):
        path = metrics(tmp_path, **{key: value})
        line = refused(capsys, "tabulate", "methods", "--metrics", path, "--out", tmp_path / "t")
        assert f"{path}: cell: {key} is {value!r}; allowed" in line


@pytest.mark.parametrize("key", ["schedule", "recipe", "process", "parameterization"])
def test_what_a_cell_may_leave_open_is_null_and_not_blank(key, tmp_path, capsys):
    path = metrics(tmp_path, **{key: ""})
    line = refused(capsys, "tabulate", "methods", "--metrics", path, "--out", tmp_path / "t")
    assert f"{path}: cell: {key} is ''" in line


@pytest.mark.parametrize("lost", [("schedule",), ("recipe", "tune_kimg"), ("tune_kimg",)])
def test_a_cell_is_of_a_tuned_model_or_of_none(lost, tmp_path, capsys):
    path = metrics(tmp_path, **dict.fromkeys(lost))
    line = refused(capsys, "tabulate", "methods", "--metrics", path, "--out", tmp_path / "t")
    assert "found some of a tuned model" in line


@pytest.mark.parametrize("test", [(0, 20), (19, 5), (10, 2)])
def test_times_are_tested_on_other_seeds_than_the_searchs(test, tmp_path, capsys):
    path = searched(tmp_path, test=test)
    settings = json.dumps({"models": [MODEL | {"path": path}]})
    line = refused(capsys, "tabulate-steps", settings, "--out", tmp_path / "t")
    assert f"{path}: found a search on the seeds 0 to 19, tested on {test[0]} to" in line


def test_a_model_is_in_the_table_of_times_once(tmp_path, capsys):
    one, other = searched(tmp_path), searched(tmp_path, "other.json")
    for first, second, what in (
        (MODEL | {"path": one}, MODEL | {"path": one, "seed": 1}, "file"),
        (MODEL | {"path": one}, MODEL | {"path": other}, "model"),
    ):
        settings = json.dumps({"models": [first, second]})
        line = refused(capsys, "tabulate-steps", settings, "--out", tmp_path / "t")
        assert f"found its {what} twice; allowed: each once" in line
    settings = json.dumps({"models": [MODEL | {"path": one}, MODEL | {"path": other, "seed": 1}]})
    assert main(["tabulate-steps", settings, "--out", str(tmp_path / "t")]) == 0
