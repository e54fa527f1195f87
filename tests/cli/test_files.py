"""Where a verb may write: regular files, or new ones, checked before its work."""

import json
import os
from pathlib import Path

import pytest

from ect.cli import files
from ect.cli.main import VERBS as VERBS_OF_ALL
from ect.cli.main import main, parser
from ect.runtime import checkpoint
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
    return ["--model", "m"] if verb == "sample" else ["--data", "d"]


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
