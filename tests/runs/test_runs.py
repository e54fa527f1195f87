"""What runs, what it reached, whether it fits together: all from the files that runs leave."""

import copy
import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml

from ect.config.cells import Milestone, Tuned
from ect.config.config import Config
from ect.evaluation import classifier, evaluate, sample
from ect.report import markup
from ect.runs import compare, find, status, verify
from ect.runtime import checkpoint, progress, record
from ect.runtime.versions import STAGES
from ect.study import settings as study_settings
from ect.training import train
from tests.helpers.measured import ONE_STEP, measure
from tests.helpers.runs import PRETRAIN, TUNE, changed

ROOT = Path(__file__).parents[2]
SPACE = {"extractor": "classifier", "inception_mode": "clean", "inception_path": None}
START = Milestone("ve", 0, 1)
TUNED = [Tuned(START, "sigmoid", "ect", 1, seed) for seed in (0, 1)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, digits_file):
    """A folder with results/tiny: a start, two tuning runs from it, their images and distances."""
    folder = tmp_path_factory.mktemp("runs")
    root = folder / "results" / "tiny"
    data, start = root / "data" / "dataset.npz", root / START.folder
    data.parent.mkdir(parents=True)
    shutil.copy(digits_file, data)
    before = Path.cwd()
    os.chdir(folder)  # so that records name paths as Snakemake gives them
    try:
        data, start = data.relative_to(folder), start.relative_to(folder)
        network = {"channels": 4, "epochs": 1, "batch": 64, "lr": 1e-3}
        space = Path("results/tiny/features")
        classifier.run(network, data, space)
        weights = {"classifier": space / "classifier.safetensors"}
        extracting = {"features": SPACE}
        evaluate.extract(extracting, space / "reference.safetensors", data=data, **weights)
        train.run(PRETRAIN, data, start)
        for model in TUNED:
            out = Path("results/tiny") / model.folder
            settings = changed(TUNE, seed=model.seed)
            train.run(settings, data, out, init=start / "model.safetensors")
            sample.run(ONE_STEP, out / "model.safetensors", out / "one_step")
            drawn = {"drawn": out / "one_step" / "samples.npz", **weights}
            evaluate.extract(extracting, out / "one_step" / "features.safetensors", **drawn)
            measure(out / "one_step", model)
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def results(trained, tmp_path, monkeypatch):
    """A copy of results/tiny to spoil, in the working directory."""
    shutil.copytree(trained / "results", tmp_path / "results")
    monkeypatch.chdir(tmp_path)
    return Path("results/tiny")


# Where a run is.


def test_a_run_tells_where_it_is(results):
    for model in (START, *TUNED):
        told = progress.read(results / model.folder)
        lines = (results / model.folder / "metrics.jsonl").read_text().splitlines()
        assert told["images"] == told["total"] == 1000 and told["attempt"] == 1
        assert told["loss"] == json.loads(lines[-1])["loss"] and told["pid"] == os.getpid()


def test_attempts_are_counted_until_a_run_ends(tmp_path):
    def start(*moments):
        tell = progress.reporter(tmp_path, 0, 100, "cpu")
        for seen in moments:
            tell(seen, [{"loss": 1.0}])
        return progress.read(tmp_path)["attempt"]

    assert [start(10), start(10, 20), start(100), start(10)] == [1, 2, 3, 1]


def test_it_is_written_now_and_then_and_at_the_end(tmp_path, monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock) * 0.5)
    written = []
    monkeypatch.setattr(checkpoint, "write_json", lambda path, value: written.append(value))
    tell = progress.reporter(tmp_path, 0, 80, "cpu")
    for seen in range(10, 90, 10):
        tell(seen, [])
    assert [told["images"] for told in written] == [10, 50, 80]
    assert written[0]["rate"] is None and written[1]["rate"] == 40 / 2.0
    assert all(told["loss"] is None for told in written)


def test_a_run_goes_on_where_nothing_can_be_told(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_json", full)
    progress.reporter(tmp_path, 0, 10, "cpu")(5, [])
    assert progress.read(tmp_path) is None


def test_a_dead_process_has_stopped(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    told = {"host": socket.gethostname(), "pid": os.getpid(), "time": time.time()}
    assert progress.status(told) == "running"
    assert progress.status(told | {"pid": dead.pid}) == "stopped"
    assert progress.status(told | {"pid": dead.pid, "host": "elsewhere"}) == "running"
    assert progress.status(told | {"host": "elsewhere", "time": time.time() - 1000}) == "silent"


# What a study's runs are at.


def study_of(**changes):
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    return Config.read(copy.deepcopy(config) | {"study": "tiny"} | changes)


def test_a_study_before_its_first_job_waits(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = study_of()
    rows = status.of_study(study)
    names = [row["model"] for row in rows]
    wanted = {cell.model.folder for cell in study.all_cells()}
    wanted |= {m.folder for name in study.pretrain for m in study.chain(name)}
    assert {row["state"] for row in rows} == {"waiting"}
    assert len(set(names)) == len(names) and wanted <= set(names)


def test_a_model_with_other_settings_is_outdated(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = study_of()
    model = next(m for m in (cell.model for cell in study.all_cells()) if isinstance(m, Tuned))
    out = Path(study.root) / model.folder
    record = {
        "settings": study_settings.train(study, model),
        "device": "cpu",
        "images_per_second": 5.0,
    }
    checkpoint.write_json(out / "run.json", record)

    def state(study):
        return next(r["state"] for r in status.of_study(study) if r["model"] == model.folder)

    assert state(study) == "done"
    block = yaml.safe_load((ROOT / "config.yaml").read_text())["tune"]
    block[model.recipe]["optimizer"]["lr"] = 5.0e-4
    assert state(study_of(tune=block)) == "outdated"


def test_distances_are_counted(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    study = study_of()
    cells = study.all_cells()
    for cell in cells[:3]:
        checkpoint.write_json(Path(study.root) / cell.folder / "metrics.json", {})
    Path("tiny.yaml").write_text("study: tiny\n")
    shutil.copy(ROOT / "config.yaml", "config.yaml")
    status.show("tiny.yaml")
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith(f"waiting; 3 of {len(cells)} distances measured")


def test_a_folder_of_runs_is_done_and_one_that_was_stopped_says_how_far(results, capsys):
    status.show(results)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and lines[-1] == "3 models: 3 done"
    folder = results / TUNED[1].folder
    (folder / "run.json").unlink()
    told = progress.read(folder) | {"images": 250, "rate": 50.0, "attempt": 2}
    checkpoint.write_json(folder / progress.NAME, told)
    row = next(r for r in status.of_folder(results) if r["model"] == TUNED[1].folder)
    assert (row["state"], row["done"], row["left"]) == ("running", 0.25, 15.0)
    checkpoint.write_json(folder / progress.NAME, told | {"pid": 2**22 + 1})
    status.show(results)
    assert "stopped  25 %" in capsys.readouterr().out


def test_live_draws_anew_until_all_is_done_or_it_is_interrupted(results, capsys, monkeypatch):
    folder = results / TUNED[1].folder
    record = (folder / "run.json").read_bytes()
    (folder / "run.json").unlink()
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(time, "sleep", lambda _: (folder / "run.json").write_bytes(record))
    status.show(results, live=True)
    pictures = capsys.readouterr().out.split(status.CLEAR)[1:]
    assert [picture.splitlines()[-1] for picture in pictures] == [
        "3 models: 2 done, 1 waiting", "3 models: 3 done",
    ]  # fmt: skip

    def interrupted(_):
        raise KeyboardInterrupt

    (folder / "run.json").unlink()
    monkeypatch.setattr(time, "sleep", interrupted)
    status.show(results, live=True)
    assert capsys.readouterr().out.count(status.CLEAR) == 1


@pytest.mark.parametrize("name", ["ve", "flow", "a_b2"])
def test_a_folder_says_which_cell_it_is(name):
    start = Milestone(name, 3, 12)
    assert find.facts(f"results/x/{start.folder}") == {
        "pretrain": name,
        "start_seed": 3,
        "kimg": 12,
    }
    found = find.facts(f"/any/where/{Tuned(start, 's1', name, 24, 5).folder}")
    told = {"schedule": "s1", "recipe": name, "tune_kimg": 24, "seed": 5}
    assert found == {"pretrain": name, "start_seed": 3, "kimg": 12, **told}
    assert find.facts("again") == {}


@pytest.mark.parametrize(
    "seconds, text",
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")],
)
def test_durations(seconds, text):
    assert markup.duration(seconds) == text


# Runs side by side.


def shown(capsys, *words, **options):
    compare.show(*words, **options)
    return capsys.readouterr().out


def test_formats_say_the_same(results, capsys):
    csv = pd.read_csv(io.StringIO(shown(capsys, [results], form="csv")))
    again = pd.DataFrame(json.loads(shown(capsys, [results], form="json")))
    assert list(csv) == list(again) and len(csv) == 3
    for key in ("fd", "kd", "images_per_second", "recipe.dropout"):
        assert csv[key].equals(again[key].astype(csv[key].dtype)), key
    table = shown(capsys, [results], form="md")
    assert table.count("\n| ") == 4 and " dropout " in table and "recipe.dropout" not in table
    assert len(shown(capsys, [results]).splitlines()) == 4


@pytest.mark.parametrize("more", ["results/tiny", "results/../results/tiny", "results/tiny/tune"])
def test_a_run_given_twice_is_no_second_row(results, more):
    with pytest.raises(ValueError, match=r"results/tiny/.*: found twice under the folders"):
        compare.show([results, Path(more)])


@pytest.mark.parametrize("width", [60, 80, 1000])
def test_on_a_terminal_a_table_fits_it_and_says_what_is_left_out(width, capsys, monkeypatch):
    """Run and distance stay to the last; what the folder says too goes first."""
    metrics, rows = ["fd", "kd"], []
    for seed in range(3):
        run = f"results/tiny/tune/ve/s0/k60/sigmoid/ect/k60/s{seed}"
        lengths = {f"recipe.optimizer.option_{n}": seed + n for n in range(9)}
        rows.append({"run": run, "sampler": f"step_{seed}", "seed": seed, **lengths, "kimg": 60}
                    | {"fd": 1.5 * seed, "kd": 0.1, "seconds": 12.3})  # fmt: skip
    frame = pd.DataFrame(rows)
    frame.attrs["metrics"] = metrics
    monkeypatch.setattr(compare, "read", lambda places: frame)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(compare.shutil, "get_terminal_size", lambda: os.terminal_size((width, 40)))
    head, *lines = shown(capsys, ["results/tiny"]).splitlines()
    assert "fd" in head.split() and lines[0].split()[0].endswith("s0")
    assert all(len(line) <= width for line in (head, *lines[:3]))
    if width == 1000:
        assert len(lines) == 3 and "option_8" in head
    else:
        assert lines[3].startswith("left out: seed") and "--format csv" in lines[3]
    assert "left out" not in shown(capsys, ["results/tiny"], form="csv")


def test_only_what_differs_is_shown(results, capsys):
    frame = pd.read_csv(io.StringIO(shown(capsys, [results], form="csv")))
    always = {"run", "kimg", "tune_kimg", "fd", "kd", "seconds", "images_per_second"}
    for key in set(frame) - always:
        assert frame[key].nunique(dropna=False) > 1, key
    tuned = shown(capsys, [results], filters=["schedule=sigmoid"], form="csv")
    header = tuned.splitlines()[0].split(",")
    assert set(header) == always | {"seed"} and len(tuned.splitlines()) == 3


def test_sorting_and_filters(results, capsys):
    text = shown(capsys, [results], "fd", ["sampler=one_step"], "csv")
    assert list(pd.read_csv(io.StringIO(text))["fd"]) == [29.5, 30.5]
    text = shown(capsys, [results], None, ["sampler=one_step", "seed=1"], "csv")
    assert list(pd.read_csv(io.StringIO(text))["fd"]) == [29.5]
    lr = shown(capsys, [results], None, ["lr=0.002"], "csv")
    assert lr == shown(capsys, [results], None, ["recipe.optimizer.lr=2e-3"], "csv")


@pytest.mark.parametrize("text", ["=", "=1", " = ", "seed", "", "\x1b[1m"])
def test_a_filter_without_a_column_is_one_line(results, text):
    with pytest.raises(ValueError, match=r"^--filter: found '.*'; allowed: column=value$") as end:
        compare.show([results], None, [text])
    assert str(end.value).isprintable()


def test_difference(results, capsys):
    one, other = (results / model.folder for model in TUNED)
    compare.diff(one, one / "run.json")
    assert capsys.readouterr().out == "no difference\n"
    compare.diff(one, other)
    keys = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]]
    assert {"settings.seed", "metrics.one_step.fd"} <= set(keys)
    allowed = {"settings.seed", "metrics.one_step.fd", "last", "seconds", "images_per_second"}
    assert set(keys) <= allowed
    compare.diff(results / START.folder, one)
    text = capsys.readouterr().out
    assert "inputs.model.safetensors" in text and "settings.recipe.weight" in text


# Whether it fits together.


def wrong(root, capsys):
    """The lines in which `verify` names what does not match."""
    try:
        verify.verify(root)
    except ValueError as error:
        lines = capsys.readouterr().out.splitlines()[:-1]
        assert str(error).startswith(f"{len(lines)} in {root} do not match")
        return lines
    assert len(capsys.readouterr().out.splitlines()) == 1
    return []


def test_what_was_just_made_fits_also_elsewhere(results, capsys, tmp_path, monkeypatch):
    assert wrong(results, capsys) == []
    shutil.copytree(results, tmp_path / "copy" / "tiny")
    shutil.rmtree(results)
    monkeypatch.chdir(tmp_path / "copy")
    assert wrong(Path("tiny"), capsys) == []


FILES = [
    "data/dataset.npz",
    "features/classifier.safetensors",
    "features/reference.safetensors",
    f"{START.folder}/model.safetensors",
    f"{START.folder}/metrics.jsonl",
    f"{TUNED[0].folder}/snapshots.safetensors",
    f"{TUNED[1].folder}/one_step/samples.npz",
    f"{TUNED[1].folder}/one_step/features.safetensors",
]


@pytest.mark.parametrize("name", FILES)
def test_a_changed_or_missing_file_is_named(results, capsys, name):
    content = bytearray((results / name).read_bytes())
    content[-1] ^= 1
    (results / name).write_bytes(content)
    lines = wrong(results, capsys)
    assert lines and all(f"{results / name}: its bytes" in line for line in lines)
    (results / name).unlink()
    missing = wrong(results, capsys)
    assert len(missing) == len(lines) and all("not there" in line for line in missing)


def edited(path, change):
    """Change a JSON file, and what its own record says of its bytes."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))
    if record.beside(path).exists():
        edited(record.beside(path), lambda kept: kept["outputs"].update({path.name: hashed(path)}))


def hashed(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "key, value", [("process", "flow"), ("tune_kimg", 2), ("seed", 7), ("parameterization", "x")]
)
def test_metrics_of_another_model_are_named(results, capsys, key, value):
    path = results / TUNED[0].folder / "one_step" / "metrics.json"
    edited(path, lambda metrics: metrics["cell"].update({key: value}))
    (line,) = wrong(results, capsys)
    assert line.startswith(f"{path}: ") and f"is {value}, but" in line


def test_metrics_of_other_images_are_named(results, capsys):
    path = results / TUNED[0].folder / "one_step" / "metrics.json"
    edited(path, lambda metrics: metrics.update(images=10))
    assert wrong(results, capsys) == [f"{path}: measured on 10 images, but 20 were drawn"]


def test_streamed_images_are_counted_by_the_record_of_their_features(results, capsys):
    """The samples.npz beside them is for the grid figure."""
    folder = results / TUNED[0].folder / "one_step"
    path = folder / "features.json"
    edited(path, lambda record: record["settings"].update(sampling=ONE_STEP | {"images": 10}))
    (line,) = wrong(results, capsys)
    assert line == f"{folder}/metrics.json: measured on 20 images, but 10 were drawn"


@pytest.mark.parametrize("block", ["features", "sampling"])
def test_a_plugin_edited_since_is_named(results, capsys, block):
    path = results / TUNED[0].folder / "one_step" / "features.json"
    own = SPACE if block == "features" else ONE_STEP
    own = own | {"plugins": {"own.py": hashlib.sha256(b"x = 1").hexdigest()}}
    edited(path, lambda record: record["settings"].update({block: own}))
    Path("own.py").write_text("x = 1")
    assert wrong(results, capsys) == []
    Path("own.py").write_text("x = 2")
    assert wrong(results, capsys) == [f"own.py: its bytes are not those named in {path}"]


@pytest.mark.parametrize(
    "name, stage, other", [("run", "train", "sample"), ("one_step/features", "extract", "train")]
)
def test_mixed_versions_of_a_stage_are_named(results, capsys, name, stage, other):
    path = results / TUNED[1].folder / f"{name}.json"
    edited(path, lambda record: record["stages"].update({stage: 99, other: 99}))
    (line,) = wrong(results, capsys)  # a training run says nothing of sampling
    assert line.startswith(f"{path}: version 99 of {stage}, but {STAGES[stage]} in ")


def test_records_without_hashes_of_outputs_are_counted(results, capsys):
    """What they would name is not checked, but where a later record names it as its input."""
    for path in results.rglob("run.json"):
        edited(path, lambda record: (record.pop("outputs"), record.pop("stages")))
    with pytest.raises(ValueError, match=r"^9 in results/tiny are not checked$"):
        verify.verify(results)
    assert "6 records are older" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["run", "one_step/features"])
def test_a_torn_record_is_named(results, capsys, name):
    (results / TUNED[0].folder / f"{name}.json").write_text("{")
    line, *others = wrong(results, capsys)
    assert f"{name}.json: not JSON" in line
    assert others and all(other.endswith("no record of the job that made it") for other in others)
