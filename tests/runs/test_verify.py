"""Every result has a record: what `verify` says where one is torn, zeroed or gone."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ect.cli.main import main
from ect.evaluation import samples
from ect.runs import verify
from ect.runtime import record
from tests.helpers.reports import Inputs

ROOT = Path("results/x")
CELL = "tune/ve/s0/k1/sigmoid/ect/k1/s0"
MADE = [
    f"{CELL}/one_step/metrics.json", "data/floor.json", "tables/methods.csv", "tables/methods.md",
    "tables/methods.tex", "figures/methods.pdf", "figures/methods.png", "figures/curves.png",
    "figures/samples.pdf", "tables/steps.csv", "index.html", f"{CELL}/one_step/png/000003.png",
]  # fmt: skip


def move(source, name):
    """A made-up result under a name, with the record of the job that would have made it."""
    path = ROOT / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with record.recorded(path, lambda: ("evaluate", {}, [], [path])):
        shutil.copy(source, path)
    return str(path)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with results/x: metrics, and what the verbs make of them."""
    folder, here = tmp_path_factory.mktemp("verify"), Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "in").mkdir()
        inputs = Inputs(folder / "in")
        cell = inputs.cell("one_step", 20.0, schedule="sigmoid", tune=1)
        metrics = move(cell, f"{CELL}/one_step/metrics.json")
        floor = move(inputs.floor(), "data/floor.json")
        words = ["tabulate", "methods", "--metrics", metrics, "--floor", floor]
        assert main([*words, "--out", f"{ROOT}/tables/methods"]) == 0
        draw("methods", {"metrics": [metrics], "floor": floor})
        draw("curves", {"runs": {"tuning": [inputs.log()]}})
        draw("samples", {"rows": [["a", inputs.images()]], "columns": 2})
        model = {"schedule": "s", "pretrain": "ve", "recipe": "ect", "kimg": 1, "tune_kimg": 1}
        steps = move(searched(inputs), f"{CELL}/steps.json")
        settings = json.dumps({"models": [model | {"seed": 0, "path": steps}]})
        assert main(["tabulate-steps", settings, "--out", f"{ROOT}/tables/steps"]) == 0
        drawn = f"{ROOT}/{CELL}/one_step/samples.npz"
        samples.write(drawn, 4, [np.zeros((4, 8, 8, 1), np.uint8)])
        Path(drawn).with_name("run.json").write_text(json.dumps(drawing(drawn)))
        assert main(["export-images", drawn, f"{ROOT}/{CELL}/one_step/png"]) == 0
        page(here)
    return folder


def searched(inputs):
    facts = {"features": "classifier", "metric": "fd", "search": {"images": 1, "seed": 0}}
    rows = [{"k": 2, "times": [0.5], "search": 1.0, "test": 2.0}]
    return inputs.file(json.dumps(facts | {"test": {"images": 1, "seed": 9}, "steps": rows}))


def drawing(path):
    settings = {"kind": "multistep", "images": 2000}
    code = {"commit": "0", "dirty": False}
    outputs = {"samples.npz": record.digest(path)}
    return {"code": code, "settings": settings, "outputs": outputs}


def draw(figure, settings):
    words = ["draw", figure, json.dumps(settings | {"width_in": 5})]
    assert main([*words, "--out", f"{ROOT}/figures/{figure}"]) == 0


def page(home):
    experiment = {"question": "Which?", "kind": "methods", "table": f"{ROOT}/tables/methods.csv"}
    settings = {
        "study": "x", "config": "0", "samplers": {"one_step": "1 step"}, "tables": {},
        "experiments": {"methods": experiment | {"figure": f"{ROOT}/figures/methods.png"}},
        "figures": {"curves": f"{ROOT}/figures/curves.png"},
    }  # fmt: skip
    words = ["--runs", f"{ROOT}/{CELL}/one_step/run.json", "--out", f"{ROOT}/index.html"]
    template = str(home / "ect" / "report" / "templates" / "page.html")
    assert main(["write-page", json.dumps(settings), "--template", template, *words]) == 0


@pytest.fixture
def results(made, tmp_path, monkeypatch):
    """A copy to spoil, in the working directory."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return ROOT


def said(capsys, root=ROOT):
    """(exit code, lines but the summary, the error)."""
    capsys.readouterr()
    code = main(["verify", str(root)])
    told = capsys.readouterr()
    return code, told.out.splitlines()[:-1], told.err.strip()


def test_what_was_just_made_is_all_checked(results, capsys):
    assert said(capsys) == (0, [], "")


def torn(path):
    path.write_bytes(path.read_bytes()[:-10])


def zeroed(path):
    path.write_bytes(bytes(path.stat().st_size))


def emptied(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("spoil", [torn, zeroed, emptied, Path.unlink])
@pytest.mark.parametrize("name", [*MADE, f"{CELL}/steps.json"])
def test_a_result_that_is_torn_zeroed_or_gone_is_named(results, capsys, name, spoil):
    spoil(results / name)
    code, lines, error = said(capsys)
    assert code == 1 and "do not match" in error
    assert any(line.startswith(f"{results / name}: ") for line in lines)


@pytest.mark.parametrize("spoil", [torn, zeroed, emptied])
@pytest.mark.parametrize("name", [*MADE, f"{CELL}/steps.json"])
def test_without_any_record_a_torn_result_is_named_too(results, capsys, name, spoil):
    for path in results.rglob(".*.record.json"):
        path.unlink()
    spoil(results / name)
    code, lines, _ = said(capsys)
    assert code == 1 and any(line.startswith(f"{results / name}: ") for line in lines)


def test_results_from_before_there_were_records_are_not_checked_in_one_line(results, capsys):
    for path in results.rglob(".*.record.json"):
        path.unlink()
    code, (line,), error = said(capsys)
    assert code == 1 and error == f"ect verify: 20 in {ROOT} are not checked"
    rules = (
        "draw_curves draw_experiment draw_samples export_images tabulate tabulate_steps write_page"
    )
    assert f"snakemake --cores all --forcerun {rules} (" in line  # no rule that made nothing here


def test_the_records_of_tables_and_figures_name_what_they_read(results, capsys):
    """Where these are made anew, older metrics and steps are compared with them."""
    for name in (f"{CELL}/one_step/metrics.json", "data/floor.json", f"{CELL}/steps.json"):
        record.beside(results / name).unlink()
    assert said(capsys)[0] == 0


@pytest.mark.parametrize("name", [f"{CELL}/one_step/run.json"])
def test_a_declared_record_that_is_gone_is_named(results, capsys, name):
    (results / name).unlink()
    record.beside(results / "index.html").unlink()  # which read it
    code, lines, _ = said(capsys)
    assert code == 1
    assert f"{results}/{CELL}/one_step/samples.npz: no record of the job that made it" in lines


def test_a_torn_hidden_record_is_named(results, capsys):
    path = record.beside(results / "tables" / "methods.csv")
    torn(path)
    code, lines, _ = said(capsys)
    assert code == 1 and any(line.startswith(f"{path}: not JSON") for line in lines)


def test_numbers_made_again_under_an_old_table_are_named(results, capsys):
    path = results / CELL / "one_step" / "metrics.json"
    with record.recorded(path, lambda: ("evaluate", {}, [], [path])):
        path.write_text(path.read_text().replace("20.0", "21.0"))
    _, lines, _ = said(capsys)
    (table,) = [line for line in lines if "methods.csv.record" in line]
    assert (
        table
        == f"{path}: its bytes are not those named in {results}/tables/.methods.csv.record.json"
    )


def test_a_failed_job_leaves_no_record_of_other_bytes(results):
    """Snakemake deletes the outputs before a job runs again, and where it fails."""
    path = results / "tables" / "methods.csv"
    for name in ("csv", "md", "tex"):
        path.with_suffix(f".{name}").unlink()
    (results / "no.json").write_text("{}")
    words = ["tabulate", "methods", "--metrics", str(results / "no.json")]
    assert main([*words, "--out", str(path.with_suffix(""))]) == 1
    assert not record.beside(path).exists()


def test_a_job_that_fails_by_hand_leaves_old_results_and_their_record(results, capsys):
    (results / "no.json").write_text("{}")
    words = ["tabulate", "methods", "--metrics", str(results / "no.json")]
    assert main([*words, "--out", str(results / "tables" / "methods")]) == 1
    assert said(capsys)[0] == 0


def test_a_record_that_cannot_be_written_costs_no_result(results, capsys):
    path = results / "tables" / "again.csv"
    record.beside(path).mkdir()
    metrics = str(results / CELL / "one_step" / "metrics.json")
    words = ["tabulate", "methods", "--metrics", metrics, "--out", str(path.with_suffix(""))]
    assert main(words) == 0 and path.exists()
    assert "no record of" in capsys.readouterr().err


def test_hidden_folders_and_a_users_files_are_no_results(results, capsys):
    for name in ("notes.md", ".k12.work/model.safetensors", "mine/a.csv", "progress.json"):
        (results / name).parent.mkdir(exist_ok=True)
        (results / name).write_text("{}")
    assert said(capsys)[0] == 0
    assert verify.RESULT.fullmatch("tables/a.csv") and not verify.RESULT.fullmatch("a.csv")
