"""Checkpoint files: round trip, the same bytes each time, never half a file."""

import os
import subprocess
import sys

import pytest
import torch

from ect.runtime import checkpoint

WRITE = """
import sys, torch
from ect.runtime import checkpoint
tensors = {n: torch.arange(6.0).view(2, 3) * i for i, n in enumerate(("b", "a", "c.d"))}
checkpoint.save(sys.argv[1], tensors, seen=3, lines=[{"z": 1.5, "a": None}], name="x")
"""


def test_round_trip(tmp_path):
    tensors = {
        "a": torch.randn(2, 3),
        "b.c": torch.arange(4),
        "half": torch.ones(3, dtype=torch.bfloat16),
        "scalar": torch.tensor(7.0),
        "strided": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
    }
    about = {"seen": 5, "lines": [{"loss": 0.1}], "none": None}
    checkpoint.save(tmp_path / "new" / "x.safetensors", tensors, **about)
    found, found_about = checkpoint.load(tmp_path / "new" / "x.safetensors")
    assert found_about == about and found.keys() == tensors.keys()
    for name, value in tensors.items():
        assert found[name].dtype == value.dtype and torch.equal(found[name], value)


def test_prefixed_and_within_are_inverse():
    tensors = {"a": 1, "b.c": 2}
    both = checkpoint.prefixed("net", tensors) | checkpoint.prefixed("net2", {"a": 3})
    assert checkpoint.within("net", both) == tensors


def test_processes_write_the_same_bytes(tmp_path):
    contents = []
    for seed in ("1", "2"):
        path = tmp_path / f"{seed}.safetensors"
        subprocess.run([sys.executable, "-c", WRITE, path], check=True,
                       env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": seed})  # fmt: skip
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]


@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_a_torn_file_is_named(tmp_path, kept):
    path = tmp_path / "torn.safetensors"
    checkpoint.save(path, {"a": torch.ones(100)}, seen=1)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(checkpoint.CheckpointError, match=r"torn\.safetensors"):
        checkpoint.load(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(checkpoint.CheckpointError, match=r"absent\.safetensors"):
        checkpoint.load(tmp_path / "absent.safetensors")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "file.json"
    checkpoint.write_json(path, {"a": 1})
    before = path.read_bytes()
    with pytest.raises(error), checkpoint.replacing(path) as scratch:
        scratch.write_text("half")
        raise error
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["file.json"]


def test_a_reader_never_sees_the_file_before_it_is_whole(tmp_path):
    path = tmp_path / "file.txt"
    with checkpoint.replacing(path) as scratch:
        scratch.write_text("half")
        assert not path.exists() and scratch.parent == path.parent
    assert path.read_text() == "half"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


@pytest.mark.parametrize("mask, mode", [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_weights_are_for_whom_the_umask_says(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        checkpoint.save(tmp_path / "x.safetensors", {"a": torch.zeros(2)})
    finally:
        os.umask(before)
    assert (tmp_path / "x.safetensors").stat().st_mode & 0o777 == mode
