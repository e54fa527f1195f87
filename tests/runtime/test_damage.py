"""Damaged states and results: found, put aside, never published or gone on from."""

import itertools
import json
import shutil
from pathlib import Path

import pytest
import torch

from ect.cli.main import main
from ect.runtime import checkpoint
from ect.training import loop, train
from tests.helpers.runs import contents
from tests.helpers.work import RUN, stopped_at

pytestmark = pytest.mark.usefixtures("few_lines")


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()  # the link in the run's folder keeps its bytes
    path.write_bytes(content)


def tear(path):
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[: len(content) // 2])


SPOILED = [
    *itertools.product(["model.safetensors", "metrics.jsonl"], [flip, tear, Path.unlink]),
    *itertools.product(["run.json"], [tear, Path.unlink]),  # it has no hash of its own
]


@pytest.mark.parametrize("name, spoil", SPOILED)
def test_held_files_that_are_not_as_they_were_made_are_not_published(
    held, digits_file, undisturbed, tmp_path, capsys, name, spoil
):
    shutil.copytree(held, tmp_path, dirs_exist_ok=True)
    work, out = tmp_path / ".run.work", tmp_path / "run"
    spoil(work / "published" / name)
    words = ["train", json.dumps(RUN), "--data", str(digits_file), "--out", str(out)]
    assert main(words) == 0 and contents(out) == undisturbed
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"ect train: {work / 'published'} is not as it was made (")
    assert line.endswith("): discarded") and not work.exists()


@pytest.fixture(scope="module")
def held(digits_file, tmp_path_factory):
    """What a finished run left that Snakemake did not record, and whose outputs it deleted."""
    folder = tmp_path_factory.mktemp("held")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "LOG_LINES", 3)
        train.run(RUN, digits_file, folder / "run", hold=True)
    shutil.rmtree(folder / "run")
    return folder


def nan(tensors, name):
    tensors[name] = torch.full_like(tensors[name], torch.nan)


DAMAGES = {
    "past the end": lambda tensors, about: about.update(seen=999_999),
    "at the end": lambda tensors, about: about.update(seen=1000),
    "before the start": lambda tensors, about: about.update(seen=-100),
    "within a step": lambda tensors, about: about.update(seen=450),
    "images that are no number": lambda tensors, about: about.update(seen="500"),
    "no images": lambda tensors, about: about.pop("seen"),
    "no log": lambda tensors, about: about.pop("lines"),
    "a short log": lambda tensors, about: about.update(lines=[]),
    "a log of numbers": lambda tensors, about: about.update(lines=[3]),
    "no time": lambda tensors, about: about.update(seconds=None),
    "no network": lambda tensors, about: tensors.pop(first_of(tensors, "network.")),
    "no average": lambda tensors, about: tensors.pop(first_of(tensors, "average.")),
    "no snapshot": lambda tensors, about: tensors.pop(first_of(tensors, "snapshot.")),
    "an average of NaN": lambda tensors, about: nan(tensors, first_of(tensors, "average.")),
    "one average for all": lambda tensors, about: one_value(tensors, first_of(tensors, "average.")),
    "no meter": lambda tensors, about: tensors.pop("meter.sums"),
}


def first_of(tensors, head):
    return min(name for name in tensors if name.startswith(head))


def one_value(tensors, name):
    tensors[name] = torch.zeros(1)


@pytest.fixture(scope="module")
def half(digits_file, tmp_path_factory):
    """The work folder of `RUN`, stopped at image 500, after the first snapshot."""
    folder = tmp_path_factory.mktemp("half")
    words = ["train", json.dumps(RUN), "--data", str(digits_file), "--out", str(folder / "run")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "LOG_LINES", 3)
        stopped_at(words, 500)
    return folder


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_state_is_put_aside_and_training_begins_again(
    half, words, undisturbed, tmp_path, capsys, damage
):
    shutil.copytree(half, tmp_path, dirs_exist_ok=True)
    state = tmp_path / ".run.work" / "state.safetensors"
    tensors, about = checkpoint.load(state)
    damage(tensors, about)
    checkpoint.save(state, tensors, **about)
    assert main(words) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"ect train: {state} is damaged (") and "put aside" in line
    assert contents(tmp_path / "run") == undisturbed and not state.parent.exists()


def test_a_damaged_state_is_kept_until_the_run_has_succeeded(half, words, tmp_path, capsys):
    shutil.copytree(half, tmp_path, dirs_exist_ok=True)
    state = tmp_path / ".run.work" / "state.safetensors"
    tensors, about = checkpoint.load(state)
    checkpoint.save(state, tensors, **about | {"seen": 999_999})
    assert main([*words, "--max-minutes", "0"]) == 75
    assert checkpoint.load(state)[1]["seen"] == 100
    assert checkpoint.load(state.with_name("damaged.safetensors"))[1]["seen"] == 999_999


def test_memory_that_is_short_is_no_damage(half, words, tmp_path, monkeypatch, capsys):
    def fails(*args):
        raise RuntimeError("can't allocate memory")

    shutil.copytree(half, tmp_path, dirs_exist_ok=True)
    state = tmp_path / ".run.work" / "state.safetensors"
    monkeypatch.setattr(train, "restore", fails)
    assert main(words) == 1 and "out of memory" in capsys.readouterr().err
    assert checkpoint.load(state)[1]["seen"] == 500
