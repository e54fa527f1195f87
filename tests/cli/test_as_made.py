"""Tables and figures are made of files that are as their jobs left them, and of one study."""

import json
from pathlib import Path

import pytest

from ect.cli.main import main
from ect.report import page, sentences
from ect.runtime import checkpoint, record
from tests.helpers.reports import Inputs


@pytest.fixture
def inputs(tmp_path):
    """Metrics of two samplers and of another study, with the records of their jobs."""
    made = Inputs(tmp_path)
    found = {
        name: made.cell(sampler, 20.0, schedule="sigmoid", tune=96)
        for name, sampler in (("one", "one_step"), ("two", "two_step"), ("other", "two_step"))
    }
    found = {
        name: str(Path(path).rename(tmp_path / f"{name}.json")) for name, path in found.items()
    }
    for name, path in found.items():
        features = {"extractor": "classifier"}
        network = "0" * 64 if name == "other" else "1" * 64
        facts = {"settings": {"features": features, "cell": {}}, "stage": "evaluate"}
        facts |= {"inputs": {"c.safetensors": network, path: name * 9}}
        facts |= {"outputs": {Path(path).name: record.digest(path)}}
        checkpoint.write_json(record.beside(path), facts)
    return found


def tabulated(capsys, tmp_path, *paths):
    code = main(["tabulate", "methods", "--metrics", *paths, "--out", str(tmp_path / "table")])
    return code, capsys.readouterr().err


def test_metrics_of_one_study_make_a_table(inputs, tmp_path, capsys):
    assert tabulated(capsys, tmp_path, inputs["one"], inputs["two"]) == (0, "")


@pytest.mark.parametrize(
    "kind, option, value",
    [
        ("methods", "about", "{}"),
        ("split", "about", '{"a": {}}'),
        ("methods", "solvers", '{"a": "heun"}'),
        ("noise", "solvers", '{"a": "heun"}'),
    ],
)
def test_an_option_that_a_table_does_not_read_is_refused(
    inputs, tmp_path, capsys, kind, option, value
):
    words = ["--metrics", inputs["one"], f"--{option}", value]
    assert main(["tabulate", kind, *words, "--out", str(tmp_path / "table")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{option} is set for the kind '{kind}'; allowed: " in line
    assert not (tmp_path / "table.csv").exists()


def test_distances_in_features_of_two_classifiers_are_refused(inputs, tmp_path, capsys):
    code, line = tabulated(capsys, tmp_path, inputs["one"], inputs["other"])
    assert code == 1 and line.count("\n") == 1
    assert f"{inputs['other']}: found distances in features of another classifier" in line


def test_edited_and_swapped_metrics_are_refused(inputs, tmp_path, capsys):
    one, two = (Path(inputs[name]) for name in ("one", "two"))
    before = one.read_bytes(), two.read_bytes()
    one.write_bytes(before[1])
    two.write_bytes(before[0])
    code, line = tabulated(capsys, tmp_path, str(one), str(two))
    assert code == 1 and f"{one}: found other bytes than its job wrote" in line
    two.write_bytes(before[1])
    one.write_text(json.dumps(json.loads(before[0]) | {"fd": 1.0}))
    code, line = tabulated(capsys, tmp_path, str(one), str(two))
    assert code == 1 and f"{one}: found other bytes than its job wrote" in line


def test_every_output_of_a_job_is_known_by_the_record_beside_the_first(tmp_path):
    first, second = tmp_path / "t.csv", tmp_path / "t.md"
    for path in (first, second):
        path.write_text("as made")
    outputs = {path.name: record.digest(path) for path in (first, second)}
    checkpoint.write_json(record.beside(first), {"settings": {}, "inputs": {}, "outputs": outputs})
    assert record.of(second)["outputs"] == outputs
    second.write_text("edited")
    with pytest.raises(ValueError, match=r"t\.md: found other bytes than its job wrote"):
        record.of(second)


@pytest.mark.parametrize("ours", [True, False])
def test_a_loss_page_is_of_one_run(ours, tmp_path, capsys):
    made = Inputs(tmp_path)
    log = Path(made.log()).rename(tmp_path / "metrics.jsonl")
    trace = Path(made.trace()).rename(tmp_path / "trace.csv")
    outputs = {"metrics.jsonl": record.digest(log), "snapshots.safetensors": "5" * 64}
    checkpoint.write_json(tmp_path / "run.json", {"settings": {}, "inputs": {}, "outputs": outputs})
    inputs = {"snapshots.safetensors": ("5" if ours else "6") * 64}
    outputs = {"trace.csv": record.digest(trace)}
    checkpoint.write_json(
        record.beside(trace), {"settings": {}, "inputs": inputs, "outputs": outputs}
    )
    settings = {"metrics": str(log), "trace": str(trace), "width_in": 5}
    code = main(["draw", "loss", json.dumps(settings), "--out", str(tmp_path / "loss")])
    err = capsys.readouterr().err
    assert code == (0 if ours else 1), err
    assert ours or f"{trace}: found the trace of another run than that of {log}" in err


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("kd", 10**400, "a whole number of more than 300 digits"),
        ("features", "a\nb", r"features is 'a\nb'; allowed: a name on one line"),
        ("features", "", "features is ''"),
        ("resize", "nope", "resize is nope; allowed: lanczos, dhariwal"),
        ("resize", 5, "resize is 5; allowed"),
    ],
)
def test_what_no_metrics_hold_is_one_line(key, value, words, tmp_path, capsys):
    made = Inputs(tmp_path)
    path = made.cell("one_step", 20.0, schedule="sigmoid", tune=96, **{key: value})
    code, line = tabulated(capsys, tmp_path, path)
    assert code == 1 and line.count("\n") == 1 and path in line and words in line


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (",0.5,,", ",,,", "a residual whose ratio is not between 0 and 1"),
        (",0.5,,", ",5.0,,", "a residual whose ratio is not between 0 and 1"),
        ("end_to_end,0.1,", "end_to_end,,", "an error without its s"),
        ("1 step", "", "a distance without its sampler"),
    ],
)
def test_a_trace_without_what_its_rows_are_of_is_refused(old, new, words, tmp_path, capsys):
    made = Inputs(tmp_path)
    trace = Path(made.trace())
    trace.write_text(trace.read_text().replace(old, new))
    settings = {"metrics": made.log(), "trace": str(trace), "width_in": 5}
    assert main(["draw", "loss", json.dumps(settings), "--out", str(tmp_path / "loss")]) == 1
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and f"{trace}: found {words}" in line


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"cell": {}, "features": "classifier"}, "allowed: the record of a job, a run.json"),
        ({}, "found nothing; allowed: the record of a job"),
        ({"seconds": -1}, "'seconds' is -1; allowed: >= 0"),
        ({"seconds": 1.0, "test_accuracy": None}, "'test_accuracy' is null; allowed: "),
        ({"seconds": 1.0, "test_accuracy": 7.0}, "'test_accuracy' is 7.0; allowed: from 0 to 1"),
    ],
)
def test_the_page_counts_records_of_jobs_alone(record, words, tmp_path):
    path = tmp_path / "run.json"
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=f"{path}: .*{words}"):
        page.provenance([path])


@pytest.mark.parametrize("column", ["sampler", "pretrain", "features", "nfe"])
def test_a_table_without_a_column_is_named(column, tmp_path, capsys):
    metrics = Inputs(tmp_path).study()
    assert main(["tabulate", "methods", "--metrics", *metrics, "--out", str(tmp_path / "t")]) == 0
    table = tmp_path / "t.csv"
    first, rest = table.read_text().split("\n", 1)
    table.write_text(
        "\n".join([",".join("x" if c == column else c for c in first.split(",")), rest])
    )
    with pytest.raises(ValueError, match=f"{table}: found no column '{column}'"):
        sentences.require_columns(table, sentences.read(table)[0])


@pytest.mark.parametrize("drawn", [None, "heun", "mine"])
@pytest.mark.parametrize("told", ["heun", "mine", "multistep"])
def test_a_solver_is_told_as_what_drew_its_images(drawn, told, inputs, tmp_path, capsys):
    """By the record of its images; where none is known it is one of ect's."""
    metrics = Path(inputs["two"])
    features = tmp_path / "features.safetensors"
    features.write_text("features")
    facts = checkpoint.read_json(record.beside(metrics))
    facts["settings"]["cell"]["sampler"] = "two_step"
    facts["inputs"] |= {str(features): "0" * 64}
    checkpoint.write_json(record.beside(metrics), facts)
    if drawn:
        how = {"settings": {"sampling": {"kind": drawn}}, "outputs": {features.name: "0" * 64}}
        checkpoint.write_json(tmp_path / "features.json", how)
    right = told == (drawn or "heun") or (not drawn and told == "multistep")
    for name, words in {
        "table": ["tabulate", "solvers", "--metrics", str(metrics), "--solvers"],
        "figure": ["draw", "solvers"],
    }.items():
        kinds = {"two_step": told}
        settings = {"metrics": [str(metrics)], "solvers": kinds, "width_in": 5}
        words.append(json.dumps(kinds if name == "table" else settings))
        code = main([*words, "--out", str(tmp_path / name)])
        line = capsys.readouterr().err
        assert code == (0 if right else 1) and line.count("\n") == code, line
        assert right or f"found two_step: '{told}'; allowed: " in line


def test_a_split_of_no_images_is_refused(tmp_path, capsys):
    made = Inputs(tmp_path)
    cells = [made.cell("one_step", 2.0, kimg=0, schedule="sigmoid", tune=0)]
    code = main(["draw", "split", json.dumps({"metrics": cells, "width_in": 5}), "--out", "o"])
    line = capsys.readouterr().err
    assert code == 1 and line.count("\n") == 1 and "tune_kimg" in line and cells[0] in line
