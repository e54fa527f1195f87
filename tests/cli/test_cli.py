"""The command line: a mistake is one line on stderr and an exit code, never a traceback."""

import json
import os
import subprocess
import sys
import warnings

import pytest

from ect.cli.arguments import settings_of
from ect.cli.main import VERBS, main
from ect.data import prepare

SETTINGS = {
    "network": {"channels": 8, "multipliers": [1], "blocks": 1, "attention": []},
    "process": "ve",
    "parameterization": "edm",
    "recipe": {"dropout": 0.0, "optimizer": {"name": "adam", "lr": 1e-3, "betas": [0.9, 0.999]}},
    "seed": 0,
    "first_kimg": 0,
    "last_kimg": 1,
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a dataset and a torn checkpoint, made the working directory."""
    monkeypatch.chdir(tmp_path)
    settings = {"source": "digits", "normalize": "unit", "held_out": 1700, "split_seed": 0}
    prepare.run(settings, tmp_path / "data.file")
    (tmp_path / "torn.safetensors").write_bytes(b"\x10\x00\x00")
    (tmp_path / "run.json").write_text("{")
    return tmp_path


TRAIN = ["train", json.dumps(SETTINGS), "--out", "out"]
MISTAKES = {
    "no data": ([*TRAIN, "--data", "none.file"], "none.file"),
    "torn start": (
        [*TRAIN, "--data", "data.file", "--init", "torn.safetensors"],
        "not a readable",
    ),
    "no model": (["sample", "{}", "--model", "none.file", "--out", "o"], "none.file"),
    "no metrics": (["tabulate", "split", "--metrics", "none.json", "--out", "t"], "none.json"),
    "a long path": (
        [*TRAIN, "--data", "d/" * 3000 + "n.file"],
        "d/n.file: File name too long; allowed",
    ),
    "a long source": (
        ["import-model", "ect", "d" * 4000, "--out", "o"],
        "d: File name too long; allowed",
    ),
    "figure": (["draw", "pie", "{}", "--out", "f"], "'pie'; allowed: methods"),
    "figure's setting": (["draw", "maps", '{"colour": 1}', "--out", "f"], "width_in: missing"),
    "all held out": (
        [
            "prepare",
            '{"source": "digits", "held_out": 1797, "split_seed": 0}',
            "--out",
            "new/d.file",
        ],
        "held_out is 1797; allowed: < 1797",
    ),
}


@pytest.mark.parametrize("words, named", MISTAKES.values(), ids=MISTAKES)
def test_mistake_is_one_line(folder, capsys, words, named):
    assert main(words) == 1
    said = capsys.readouterr().err.strip()
    assert len(said) < 700, said
    assert named in said and said.startswith(f"ect {words[0]}: ") and len(said.splitlines()) == 1
    assert not (folder / "out" / "model.safetensors").exists()


@pytest.mark.parametrize("settings", ["none.json", "run.json", "{"])
def test_settings_that_cannot_be_read(folder, capsys, settings):
    with pytest.raises(SystemExit) as left:
        main(["sample", settings, "--model", "m", "--out", "o"])
    assert left.value.code != 0 and settings in capsys.readouterr().err


@pytest.mark.parametrize("held, found", {
    '{"features": "x", "steps": []}': "found no key 'settings' among features, steps; allowed: ",
    "{}": "found no key 'settings' among none; allowed: ",
    '{"settings": ["a"]}': 'settings: found ["a"]; allowed: a run.json',
    '{"settings": null}': "settings: found null; allowed: a run.json",
}.items())  # fmt: skip
@pytest.mark.parametrize("words", ["tabulate solvers --metrics a --solvers", "tabulate-steps",
                                   "tabulate ends --metrics a --about", "sample"])  # fmt: skip
def test_a_json_of_another_kind_as_settings(folder, capsys, words, held, found):
    path = folder / "other.json"
    path.write_text(held)
    with pytest.raises(SystemExit):
        main([*words.split(), str(path), "--out", "o"])
    assert f": {path}: {found}" in capsys.readouterr().err.splitlines()[-1]


def test_a_key_that_settings_of_a_file_lack_is_told_with_the_file(folder):
    (folder / "made.json").write_text('{"settings": {"seed": 1}}')
    settings = settings_of("made.json")
    with pytest.raises(ValueError, match=r"made\.json: found no key 'zzz' among .*; allowed: "):
        settings["zzz"]


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_a_closed_stdout_or_stderr_is_no_error(monkeypatch, closed):
    monkeypatch.setenv("ECT_BARS", "0")
    with monkeypatch.context() as patched:
        patched.setattr(sys, closed, None)
        patched.setattr("warnings.showwarning", warnings.showwarning)
        assert main(["completion", "bash"]) == 0


def test_a_message_goes_into_no_other_file(tmp_path):
    """Where stderr is closed, neither to stdout nor into the file that is opened next."""
    words = f"{sys.executable} -m ect plan none.yaml > out 2>&-"
    done = subprocess.run(["sh", "-c", words], cwd=tmp_path, check=False)
    assert done.returncode == 1 and (tmp_path / "out").read_text() == ""


@pytest.mark.parametrize("words", ["--help", "--version", "plan --help", "completion bash"])
@pytest.mark.parametrize("buffered", ["", "1"])
def test_what_stdout_does_not_take_is_told(words, buffered):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "ect", *words.split()], stdout=full, stderr=subprocess.PIPE,
            text=True, env=os.environ | {"PYTHONUNBUFFERED": buffered}, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and "No space left on device; allowed: " in done.stderr


def test_every_verb_has_help(capsys):
    for function in VERBS:
        with pytest.raises(SystemExit) as left:
            main([function.__name__.replace("_", "-"), "--help"])
        assert left.value.code == 0
    assert "--out" in capsys.readouterr().out
