"""After the same crash twice a job is not tried a third time; after any other failure it is."""

import errno
import json
import os

import numpy as np
import pytest
import torch

from ect.cli.main import main
from ect.evaluation import sample
from ect.runtime import crash, stop
from ect.training import loop, train
from tests.helpers.runs import TUNE, contents


@pytest.fixture
def attempt(digits_file, tmp_path, capsys):
    """attempt(n): (exit code, what was said) of the n-th attempt at a training run."""

    def run(number):
        out = str(tmp_path / "run")
        words = ["train", json.dumps(TUNE), "--data", str(digits_file), "--out", out]
        code = main(["--attempt", str(number), *words, "--save-seconds", "0"])
        return code, capsys.readouterr().err

    return run


@pytest.fixture
def broken(monkeypatch):
    """broken(error, *images): the steps that begin at these images raise it, one after another;
    returns the list of the images at which steps began."""

    def spoil(error, *images):
        step, begun, images = loop.step, [], list(images)

        def broken_step(state, *rest):
            begun.append(state.seen)
            if images and state.seen == images[0]:
                images.pop(0)
                error.__notes__ = []  # as new
                raise error
            return step(state, *rest)

        monkeypatch.setattr(loop, "step", broken_step)
        return begun

    return spoil


def test_the_same_crash_twice_is_the_last_of_this_snakemake_not_of_the_next(
    attempt, broken, digits_file, tmp_path
):
    begun = broken(KeyError("lost"), 300, 300)
    codes, said = zip(*(attempt(number) for number in (1, 2, 3, 4)))
    assert codes == (1, 1, 1, 1)
    assert begun == [0, 100, 200, 300, 300]  # the second goes on from 300, the others do not start
    assert "KeyError: 'lost', at image 300" in said[0].splitlines()[-1]
    for words in said[2:]:
        assert words.startswith(
            "ect train: two attempts ended with KeyError: 'lost' at image 300; "
        )
        assert len(words.splitlines()) == 1
    assert attempt(1)[0] == 0 and begun[5:] == list(range(300, 1000, 100))
    assert list(tmp_path.iterdir()) == [tmp_path / "run"]
    train.run(TUNE, digits_file, tmp_path / "again")
    assert contents(tmp_path / "run") == contents(tmp_path / "again")


def test_a_crash_elsewhere_is_another(attempt, broken):
    begun = broken(KeyError("lost"), 200, 500, 700)
    assert [attempt(number)[0] for number in (1, 2, 3, 4)] == [1, 1, 1, 0]
    assert begun == [0, 100, 200, 200, 300, 400, 500, 500, 600, 700, 700, 800, 900]


def refused(allocate):
    """The error of an allocation larger than the address space."""
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        allocate(10**16)
    return caught.value.with_traceback(None)


SHORT = {
    "torch": refused(torch.empty),
    "numpy": refused(np.empty),
    "python": refused(bytearray),
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "mps": RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GiB)"),
}


@pytest.mark.parametrize("error", SHORT.values(), ids=SHORT)
def test_a_lack_of_memory_is_tried_again_and_says_what_needs_less(error, attempt, broken):
    broken(error, 200, 200, 200)
    codes, said = zip(*(attempt(number) for number in (1, 2, 3, 4)))
    assert codes == (1, 1, 1, 0)
    for words in said[:3]:
        line = words.splitlines()[-1]
        assert line.startswith(f"ect train: out of memory: {type(error).__name__}")
        assert all(part in line for part in ("at image 200", "`microbatch`", "`evaluation.batch`"))
        assert "Traceback" not in words


@pytest.mark.parametrize(
    "error",
    [
        stop.Stopped("stopped by SIGTERM", 143),
        stop.Obstacle("another process of this run has ended"),
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        RuntimeError("CUDA error: device lost"),
    ],
    ids=["stop", "process", "disk", "device"],
)
def test_what_may_be_gone_next_time_is_tried_again(error, attempt, broken):
    broken(error, 200, 200, 200)
    codes = [attempt(number)[0] for number in (1, 2, 3, 4)]
    assert all(codes[:3]) and codes[3] == 0


def test_what_an_earlier_run_of_snakemake_noted_is_forgotten(tmp_path):
    for number in (1, 2):
        with pytest.raises(TypeError), crash.noted(tmp_path / "out", number):
            raise TypeError("mended since")
    with pytest.raises(FloatingPointError), crash.noted(tmp_path / "out", 1):
        raise FloatingPointError("of a kind that is not noted")
    with crash.noted(tmp_path / "out", 2):
        pass


def test_one_who_runs_by_hand_always_tries(tmp_path):
    path = crash.note_of(tmp_path / "out")
    for number, repeated in ((1, False), (2, True)):
        with pytest.raises(TypeError, match="odd"), crash.noted(tmp_path / "out", number):
            raise TypeError("odd")
        assert json.loads(path.read_text())["repeated"] == repeated
    told = "two attempts ended with TypeError: odd; this run of Snakemake"
    with pytest.raises(ValueError, match=told), crash.noted(tmp_path / "out", 3):
        raise AssertionError("not reached")
    path.write_text("torn")
    with crash.noted(tmp_path / "out", 3):
        pass
    assert not path.exists()


def test_sampling_is_not_repeated_either(digits_file, tmp_path, monkeypatch, capsys):
    train.run(TUNE, digits_file, tmp_path / "model")
    drawn = []
    monkeypatch.setattr(sample, "run", lambda *given: drawn.append(1) or {}["missing"])
    settings = {"kind": "multistep", "options": {"times": []}, "images": 2, "batch": 2, "seed": 0}
    words = ["sample", json.dumps(settings), "--out", str(tmp_path / "drawn")]
    words += ["--model", str(tmp_path / "model" / "model.safetensors")]
    assert [main(["--attempt", str(n), *words]) for n in (1, 2, 3)] == [1, 1, 1]
    assert (
        len(drawn) == 2 and "two attempts ended with KeyError: 'missing'" in capsys.readouterr().err
    )
    assert main(words) == 1 and len(drawn) == 3
