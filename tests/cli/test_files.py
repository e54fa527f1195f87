"""Where a verb may write: regular files, or new ones, checked before its work."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ect
from ect.cli import files
from ect.cli.main import VERBS as VERBS_OF_ALL
from ect.cli.main import main, parser
from ect.evaluation import samples
from ect.runtime import checkpoint, options
from ect.runtime.versions import STAGES
from ect.training.train import ARTEFACTS
from tests.helpers.runs import TUNE

LINE = {"map": "zero", "options": {}}
DRAW = ["draw", "maps", json.dumps({"schedules": {"a": LINE}, "width_in": 4})]
DIGITS = {"source": "digits", "normalize": "unit", "held_out": 10, "split_seed": 0}
PREPARE = ["prepare", json.dumps(DIGITS)]
# A verb, and the name in --out (or the folder) from which the name of the spoiled output follows.
VERBS = {
    "prepare": ([*PREPARE, "--out", "at"], "at"),
    "its record": ([*PREPARE, "--out", "data.safetensors"], "run.json"),
    "a table": (["tabulate", "split", "--metrics", "m.json", "--out", "at"], "at.md"),
    "a figure": ([*DRAW, "--out", "at"], "at.png"),
    "weights": (["import-model", "ect", "m.safetensors", "--out", "at"], "at"),
    "inception": (["fetch-inception", "--out", "at"], "at"),
    "images": (["export-images", "none.npz", "at"], None),
}


def device(path):
    os.mknod(path, 0o600 | 0o020000, os.makedev(1, 3))  # as /dev/null


def fifo(path):
    os.mkfifo(path)


def folder(path):
    path.mkdir()


def link(path):
    path.with_name("target").write_text("kept")
    path.symlink_to("target")


def dangling(path):
    path.symlink_to("nowhere")


KINDS = {
    device: "a device",
    fifo: "a device",
    folder: "a folder",
    link: "a link",
    dangling: "a link",
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("words, name", [v for v in VERBS.values() if v[1]], ids=list(VERBS)[:-1])
def test_what_is_no_regular_file_is_not_replaced(here, capsys, words, name, kind):
    if kind is device and os.getuid():
        pytest.skip("only root makes devices")
    kind(here / name)
    before = os.lstat(name)
    assert main(words) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{name}: found {KINDS[kind]}" in line and "allowed: " in line
    after = os.lstat(name)
    assert (after.st_mode, after.st_ino) == (before.st_mode, before.st_ino)
    assert kind is not link or (here / "target").read_text() == "kept"
    assert {path.name for path in here.iterdir()} <= {name, "target", "m.json"}, "before the work"


@pytest.mark.parametrize("kind", [device, fifo, dangling])
@pytest.mark.parametrize("verb", ["train", "sample", "train-classifier", "export", "export-images"])
def test_a_folder_is_a_folder(here, capsys, verb, kind):
    if kind is device and os.getuid():
        pytest.skip("only root makes devices")
    kind(here / "at")
    words = {"export": ["none", "--out", "at"], "export-images": ["none", "at"]}
    args = parser().parse_args([verb, *words.get(verb, ["{}", "--out", "at", *given(verb)])])
    with pytest.raises(ValueError, match=r"^at: found a .*allowed: a folder"):
        files.require_outputs(args)


def given(verb):
    drawing = verb in ("sample", "solve_trajectories")
    return ["--model", "m"] if drawing else ["--data", "d"]


@pytest.mark.parametrize("out", ["", " "])
@pytest.mark.parametrize("verb", ["train", "sample", "train-classifier", "export", "export-images"])
def test_an_empty_path_is_not_the_working_directory(here, verb, out):
    words = {"export": ["none", "--out", out], "export-images": ["none", out]}
    args = parser().parse_args([verb, *words.get(verb, ["{}", "--out", out, *given(verb)])])
    with pytest.raises(ValueError, match=f"^--out: found '{out}'; allowed: a folder with a name"):
        files.require_outputs(args)


@pytest.mark.parametrize("verb, names", files.INTO.items(), ids=files.INTO)
def test_every_file_in_it_is_checked(here, verb, names):
    for name in names:
        (here / "at" / name).mkdir(parents=True)
        words = [verb.replace("_", "-"), "{}", "--out", "at", *given(verb)]
        with pytest.raises(ValueError, match=f"^at/{name}: found a folder"):
            files.require_outputs(parser().parse_args(words))
        (here / "at" / name).rmdir()
    assert verb != "train" or set(names) == {*ARTEFACTS, "run.json"}


@pytest.mark.parametrize(
    "out, wanted",
    [
        ("m.json/at", "m.json: found a file; allowed: a folder"),
        ("", ".: found a folder"),
        (".", ".: found a folder"),
        ("/", "/: found a folder"),
        ("a" * 240, "a name of at most 200 bytes"),
        ("ü" * 120, "a name of at most 200 bytes"),
        ("new\nline/m.json/", None),
        ("run.json", "run.json, the name of its record"),
    ],
)
def test_a_place_where_nothing_can_be_written_is_told_before_the_work(here, capsys, out, wanted):
    Path("new\nline").write_text("")
    assert main([*PREPARE, "--out", out]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert (wanted or r"new\nline: found a file") in line
    assert sorted(path.name for path in here.iterdir()) == ["m.json", "new\nline"]


def test_features_are_not_written_over_by_their_record(here, capsys):
    assert main(["extract", "{}", "--out", "at.json", "--data", "m.json"]) == 1
    words = ["extract", "{}", "--out", "at.json"]
    with pytest.raises(ValueError, match="the name of its record"):
        files.require_outputs(parser().parse_args(words))


def test_a_folder_behind_a_link_is_a_folder(here):
    """Results may lie on another disk."""
    (here / "disk").mkdir()
    (here / "at").symlink_to("disk")
    assert main([*PREPARE, "--out", "at/data.safetensors"]) == 0
    assert (here / "disk" / "run.json").is_file()


def test_without_permission_nothing_begins(here, monkeypatch, capsys):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert main([*PREPARE, "--out", "at"]) == 1
    assert "a folder without permission to write" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [fifo, folder, link])
def test_no_writer_of_the_package_replaces_it(here, kind):
    """The check is also where all files are written."""
    kind(here / "at")
    with pytest.raises(checkpoint.CheckpointError, match=r"^at: found a "):
        checkpoint.write_json(Path("at"), {})
    assert not [path for path in here.iterdir() if "partial" in path.name]


def test_every_verb_that_writes_leaves_a_record():
    """Of its own, or hidden; a download has none, and an export is a folder to give away."""
    writes = {
        function.__name__
        for function, (_, arguments) in VERBS_OF_ALL.items()
        if {"--out", "folder"} & set(arguments)
    }
    own = {*files.INTO, "prepare", "extract"}
    assert writes - {"fetch_inception", "export"} == own | set(files.STAGE)
    assert set(files.STAGE.values()) <= set(STAGES)


def test_the_loss_of_a_perfect_model_has_a_record_that_verify_compares(digits_file, here, capsys):
    words = ["perfect-loss", json.dumps(TUNE), "--data", str(digits_file)]
    assert main([*words, "--out", "run/perfect.csv"]) == 0
    assert main(["verify", "run"]) == 0
    (here / "run/perfect.csv").write_text("images,loss,standard_error\n0,1,0\n")
    capsys.readouterr()
    assert main(["verify", "run"]) == 1
    assert "run/perfect.csv: " in capsys.readouterr().out


# A verb, and the input that its --out names.
OWN_INPUTS = {
    "prepare": (["prepare", '{"source": "images", "path": "a.zip"}'], "a.zip"),
    "prepare, in the folder": (["prepare", '{"source": "images", "path": "photos"}'], "photos/new"),
    "prepare, far inside": (["prepare", '{"source": "imagenet64", "path": "."}'], "train/b/new"),
    "prepare, published": (["prepare", '{"source": "mnist", "path": "."}'], "MNIST/raw/x"),
    "extract": (["extract", "{}", "--data", "d.safetensors"], "d.safetensors"),
    "its network": (
        ["extract", '{"features": {"dinov2_path": "a.pt"}}', "--data", "d.safetensors"],
        "a.pt",
    ),
    "perfect-loss": (["perfect-loss", "{}", "--data", "d.safetensors"], "d.safetensors"),
    "evaluate": (["evaluate", "{}", "--reference", "r.safetensors"], "r.safetensors"),
    "evaluate samples": (["evaluate", "{}", "--samples", "o.npz", "s.npz"], "s.npz"),
    "a plugin": (["evaluate", '{"features": {"plugins": {"p.py": "0"}}}'], "p.py"),
    "search-steps": (["search-steps", "{}", "--reference", "r", "--model", "m"], "m"),
    "trace": (
        ["trace", "{}", "--init", "i", "--snapshots", "s", "--data", "d", "--reference", "r"],
        "s",
    ),
    "import-model": (["import-model", "edm", "a.pkl"], "a.pkl"),
    "import a folder": (["import-model", "diffusers", "photos"], "photos/unet"),
    "its words": (["import-model", "state_dict", "w", "--about", "about.json"], "about.json"),
    "write-page": (["write-page", "{}", "--template", "t.html", "--runs", "r"], "t.html"),
    "tabulate": (["tabulate", "split", "--metrics", "t.csv"], "t"),
    "draw": (["draw", "samples", '{"rows": [["a", "a.png"]]}'], "a"),
    "train": (["train", "{}", "--data", "d", "--init", "B/model.safetensors"], "B"),
    "train on": (["train", "{}", "--data", "d", "--resume", "B/state.safetensors"], "B"),
    "sample": (["sample", "{}", "--model", "B/samples.npz"], "B"),
    "solve": (["solve-trajectories", "{}", "--model", "B/trajectories.safetensors"], "B"),
}  # fmt: skip
SPELLINGS = {"as it is": "{}", "a dot": "./{}", "up and down": "photos/../{}", "a link": "here/{}"}


@pytest.fixture
def inputs(here):
    (here / "here").symlink_to(here)
    (here / "about.json").write_text('{"settings": {"network": {}}}')
    for name in (
        "photos/1.png", "train/b/1.png", "MNIST/raw/x", "a.zip", "d.safetensors", "d", "a.pt",
        "r.safetensors", "s.npz", "o.npz", "p.py", "i", "m", "r", "s", "a.pkl", "w", "t.html",
        "t.csv", "a.png", "B/model.safetensors", "B/state.safetensors", "B/samples.npz",
        "B/trajectories.safetensors",
    ):  # fmt: skip
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text("kept")
    return here


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("words, out", OWN_INPUTS.values(), ids=OWN_INPUTS)
def test_no_output_is_an_input(inputs, words, out, spelling):
    given = [*words, "--out", SPELLINGS[spelling].format(out)]
    with pytest.raises(
        ValueError, match=r"^--out: found .*, which `.*` reads; allowed: what is no"
    ):
        files.require_outputs(parser().parse_args(given))
    given[-1] = "new"
    files.require_outputs(parser().parse_args(given))


def test_a_hard_link_to_an_input_is_another_file(inputs):
    """It is replaced, and the input keeps what it had: copies of results may be made of links."""
    os.link("d.safetensors", "linked.safetensors")
    words = ["perfect-loss", "{}", "--data", "d.safetensors", "--out", "linked.safetensors"]
    files.require_outputs(parser().parse_args(words))


RECORDS = {
    "prepare": {"source": "digits", "split_seed": 0},
    "train": TUNE,
    "classifier": {"epochs": 1},
    "sample": {"kind": "multistep", "images": 1},
    "extract": {"features": {}},
}
JOBS = {
    "prepare": (["prepare", "{}"], "at/data.safetensors"),
    "train": (["train", "{}", "--data", "d"], "at"),
    "classifier": (["train-classifier", "{}", "--data", "d"], "at"),
    "sample": (["sample", "{}", "--model", "m"], "at"),
    "extract": (["extract", "{}", "--data", "d"], "at/run.safetensors"),
}


@pytest.mark.parametrize("held", [*RECORDS, "a user's", "torn"])
@pytest.mark.parametrize("stage", JOBS)
def test_no_record_of_another_job_is_replaced(here, stage, held):
    words, out = JOBS[stage]
    args = parser().parse_args([*words, "--out", out])
    (here / "at").mkdir()
    texts = {"a user's": '{"mine": 1}', "torn": "{"}
    text = texts.get(held) or json.dumps({"settings": RECORDS[held]})
    (here / "at" / "run.json").write_text(text)
    if held == stage:  # a run that is repeated
        files.require_outputs(args)
        return
    what = rf"the record of another job \({held}\)" if held in RECORDS else "a file that is no rec"
    with pytest.raises(ValueError, match=f"^at/run.json: found {what}"):
        files.require_outputs(args)


@pytest.mark.parametrize("out", ["at/run.json", "at/metrics.jsonl"])
def test_no_output_of_another_job_is_replaced(here, out):
    (here / "at").mkdir()
    (here / "at" / "metrics.jsonl").write_text("")
    record = {"settings": TUNE, "outputs": {"metrics.jsonl": "0"}}
    (here / "at" / "run.json").write_text(json.dumps(record))
    words = ["import-model", "edm", "m.json", "--out", out]
    with pytest.raises(ValueError, match=rf"^{out}: found .* of another job \(train\)"):
        files.require_outputs(parser().parse_args(words))


def test_images_go_into_a_new_or_an_empty_folder(here, capsys):
    """A user's 000003.png is not replaced, and a larger set before leaves no image."""
    samples.write(here / "s.npz", 2, [np.zeros((2, 8, 8, 1), np.uint8)])
    for folder in ("new", "empty"):
        (here / "empty").mkdir(exist_ok=True)
        assert main(["export-images", "s.npz", folder]) == 0
        assert main(["export-images", "s.npz", folder]) == 1
        assert f"{folder}: found a folder with files" in capsys.readouterr().err
        assert sorted(os.listdir(folder)) == ["000000.png", "000001.png"]


@pytest.mark.parametrize("words", [["status"], ["prepare", "{}", "--out", "/tmp/x"]])
def test_a_working_directory_that_is_gone_is_one_line(tmp_path, monkeypatch, words):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    run = [sys.executable, "-m", "ect", *words]
    environment = os.environ | {"PYTHONPATH": str(Path(ect.__file__).parent.parent)}
    end = subprocess.run(run, env=environment, capture_output=True, text=True)
    assert end.returncode == 1 and len(end.stderr.splitlines()) == 1
    assert "the working directory was deleted; allowed: " in end.stderr
    with pytest.raises(ValueError, match="the working directory was deleted; allowed: "):
        options.require_here()


@pytest.mark.parametrize("verb", ["verify", "show", "status"])
def test_an_attempt_of_a_verb_that_writes_nothing(here, capsys, verb):
    assert main(["--attempt", "2", verb, "."]) == 1
    assert "AttributeError" not in capsys.readouterr().err


@pytest.mark.parametrize("name, found", [("d.safetensors", "did not write"), ("skipped.txt", "")])
def test_a_file_that_is_no_list_of_skipped_images_is_not_deleted(here, capsys, name, found):
    (here / "skipped.txt").write_text("my notes\n" if found else "a.png: damaged\n")
    assert main([*PREPARE, "--out", name]) == 1
    line = capsys.readouterr().err
    assert found in line and "skipped.txt" in line and line.count("\n") == 1
    assert (here / "skipped.txt").exists() and not (here / "d.safetensors").exists()


def test_a_list_of_skipped_images_is_replaced(here):
    (here / "skipped.txt").write_text("a.png: damaged\n")
    assert main([*PREPARE, "--out", "d.safetensors"]) == 0
    assert not (here / "skipped.txt").exists()


def test_a_link_to_itself_is_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.symlink("loop", "loop")
    words = ["sample", "{}", "--model", "m.safetensors", "--out", "loop"]
    with pytest.raises(ValueError, match="loop: found a link; allowed: a folder"):
        files.require_outputs(parser().parse_args(words))


@pytest.mark.parametrize("option", ["--data", "--init", "--resume", "--trajectories"])
def test_an_empty_path_of_an_input_is_named(option, here, capsys):
    assert main([*PREPARE, "--out", "d.safetensors"]) == 0
    data = [] if option == "--data" else ["--data", "d.safetensors"]
    assert main(["train", "{}", *data, option, "", "--out", "o"]) == 1
    assert f"{option}: '' is an empty path; allowed: " in capsys.readouterr().err
