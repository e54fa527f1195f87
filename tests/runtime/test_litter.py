"""What else can lie in the work folder of a run than training leaves: it is deleted or named, and
no retry ends with it."""

import json
import os
import shutil

import pytest

from ect.cli.main import main
from ect.runtime import checkpoint, record
from tests.helpers.runs import PRETRAIN, changed, contents

NETWORK = {"channels": 8, "multipliers": [1], "blocks": 1, "attention": []}
RUN = changed(PRETRAIN, network=NETWORK, recipe__batch=250)


@pytest.fixture(scope="module")
def left(digits_file, tmp_path_factory):
    """(what a stopped run left, what one held, the files of an undisturbed one)."""
    stopped, held = (tmp_path_factory.mktemp(name) for name in ("stopped", "held"))
    assert main([*words(digits_file, stopped), "--max-minutes", "0"]) == 75
    assert main([*words(digits_file, held), "--hold"]) == 0
    made = contents(held / "run")
    shutil.rmtree(held / "run")
    return stopped, held, made


def words(data, folder):
    return ["train", json.dumps(RUN), "--data", str(data), "--out", str(folder / "run")]


def note(**facts):
    def write(work):
        _, about = checkpoint.load(work / "state.safetensors")
        whole = {"fingerprint": about["fingerprint"], "code": record.code()}
        (work / "crash.json").write_text(json.dumps(whole | facts))

    return write


def seconds(value):
    def write(work):
        tensors, about = checkpoint.load(work / "state.safetensors")
        checkpoint.save(work / "state.safetensors", tensors, **about | {"seconds": value})
        (work / "damaged.safetensors").mkdir()

    return write


LITTER = {
    "published is a file": lambda work: (work / "published").write_text("x"),
    "published is a link": lambda work: (work / "published").symlink_to("no/where"),
    "partial is a file": lambda work: (work / "published.partial").write_text("x"),
    "crash.json is a folder": lambda work: (work / "crash.json").mkdir(),
    "a note without an image": note(message="x"),
    "a note without a message": note(image=10**9),
    "a note of text": note(message="x", image="9"),
    "seconds of NaN, damaged is a folder": seconds(float("nan")),
    "seconds before 0": seconds(-1.0),
}


@pytest.mark.parametrize("litter", LITTER.values(), ids=LITTER)
def test_litter_beside_a_saved_state_ends_no_run(left, digits_file, tmp_path, litter):
    shutil.copytree(left[0], tmp_path, dirs_exist_ok=True)
    litter(tmp_path / ".run.work")
    assert main([*words(digits_file, tmp_path), "--hold"]) == 0
    assert contents(tmp_path / "run") == left[2]
    assert sorted(path.name for path in (tmp_path / ".run.work").iterdir()) == ["lock", "published"]


def other(name, make):
    def change(published):
        (published / name).unlink()
        make(published / name)

    return change


HELD = {
    "a pipe": other("model.safetensors", os.mkfifo),
    "a folder": other("model.safetensors", os.mkdir),
    "run.json is a folder": other("run.json", os.mkdir),
    "of.json is a folder": other("of.json", os.mkdir),
    "of.json is deep": lambda published: (published / "of.json").write_text("[" * 10**5),
}


@pytest.mark.parametrize("change", HELD.values(), ids=HELD)
def test_held_files_that_are_no_files_are_discarded(left, digits_file, tmp_path, change):
    shutil.copytree(left[1], tmp_path, dirs_exist_ok=True)
    change(tmp_path / ".run.work" / "published")
    assert main(words(digits_file, tmp_path)) == 0 and contents(tmp_path / "run") == left[2]


@pytest.mark.parametrize("name, make", [
    (".run.work", lambda path: path.write_text("x")),
    (".run.work/lock", lambda path: path.mkdir(parents=True)),
    (".run.work/lock", lambda path: (path.parent.mkdir(), os.mkfifo(path))),
])  # fmt: skip
def test_what_cannot_be_locked_is_named(digits_file, tmp_path, capsys, name, make):
    make(tmp_path / name)
    assert main(words(digits_file, tmp_path)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path / name}: found no " in line and "allowed: " in line


@pytest.mark.parametrize(
    "text, refused",
    [('{"repeated": true}', False), ('{"repeated": "no", "message": "x"}', False), ("[]", False),
     ('{"repeated": true, "message": "a\\n\\u001b[2Jb"}', True)],
)  # fmt: skip
def test_a_note_of_attempts_is_whole_and_told_in_one_line(
    digits_file, tmp_path, capsys, text, refused
):
    (tmp_path / ".run.crash.json").write_text(text)
    assert main(["--attempt", "3", *words(digits_file, tmp_path)]) == refused
    said = capsys.readouterr().err
    assert len(said.splitlines()) == refused and "\x1b" not in said


@pytest.mark.parametrize("out", ["/", "x" * 250])
def test_a_folder_that_cannot_have_work_beside_it_is_named(digits_file, tmp_path, capsys, out):
    words_ = words(digits_file, tmp_path)
    assert main([*words_[:-1], str(tmp_path / out)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "allowed: " in line and "Errno" not in line
