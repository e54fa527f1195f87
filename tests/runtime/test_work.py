"""Work in progress: locked by one process, kept through stops and errors, never trained twice."""

import errno
import itertools
import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import safetensors
import torch

from ect.cli.main import main
from ect.data.batches import Images
from ect.runtime import checkpoint, device, record
from ect.runtime.stop import Obstacle, Requests
from ect.runtime.work import Work, fcntl, locked, release
from ect.training import loop, train
from ect.training.state import State
from tests.helpers.processes import context
from tests.helpers.runs import PRETRAIN, changed, contents
from tests.helpers.work import RUN, stopped_at

pytestmark = pytest.mark.usefixtures("few_lines")


HOLD = """
import sys
from ect.runtime import work
with work.locked(sys.argv[1]):
    print(1, flush=True)
    input()
"""


def test_saving_takes_a_fiftieth_of_the_time_at_most(monkeypatch, tmp_path):
    """Steps take 1 s. A state whose saving takes no time is saved every minute, one that takes 6 s
    every five minutes; with `save_seconds`, as often as that says."""
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])

    def saves(cost, save_seconds):
        state, times = SimpleNamespace(seen=0, lines=[]), []

        def steps():
            while state.seen < 2_000:
                clock[0] += 1
                state.seen += 1
                yield

        def save():
            times.append(clock[0])
            clock[0] += cost

        settings, never = {"first_kimg": 0, "last_kimg": 2}, Requests([], 0.0)
        train._advance(state, steps(), settings, tmp_path, save, save_seconds, never)
        return [after - before - cost for before, after in itertools.pairwise(times)]

    assert set(saves(0.0, None)) == {61.0}
    assert all(300 < pause <= 301.5 for pause in saves(6.0, None))
    assert set(saves(6.0, 10.0)) == {11.0}


def child(settings, data, out):
    """A trainer in a process of its own."""
    torch.set_num_threads(1)
    device.current = lambda: torch.device("cpu")
    loop.LOG_LINES = 3
    train.run(settings, data, out, save_seconds=0.02)


def test_a_trainer_that_is_killed_again_and_again(digits_file, undisturbed, tmp_path):
    processes, source = context(), random.Random(0)
    kills, lasts = 0, 2.0
    while True:
        began = time.monotonic()
        trainer = processes.Process(target=child, args=(RUN, digits_file, tmp_path / "run"))
        trainer.start()
        trainer.join(source.uniform(0.1, lasts) if kills < 5 else None)
        if trainer.exitcode is not None:
            assert trainer.exitcode == 0
            assert contents(tmp_path / "run") == undisturbed
            run = tmp_path / "run"
            assert not [path for path in tmp_path.rglob("*") if not path.is_relative_to(run)]
            if kills >= 5:
                break
            lasts = time.monotonic() - began
            shutil.rmtree(tmp_path / "run")
        else:
            os.kill(trainer.pid, signal.SIGKILL)
            trainer.join()
            kills += 1


def test_a_second_trainer_is_told_of_the_first_which_it_outlives(words, tmp_path, capsys):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, **pipes) as holder:
        holder.stdout.readline()
        assert main(words) == 1
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 1 and f"held by pid {holder.pid} on {socket.gethostname()}" in said[0]
        assert not (tmp_path / "run" / "model.safetensors").exists()
        holder.kill()
        holder.wait()
        assert main([*words, "--max-minutes", "0"]) == 75


def test_of_many_that_ask_one_holds(tmp_path):
    """Also while holders come and go, and remove the folder as they go."""
    inside, most, held = [], [], []

    def ask():
        for _ in range(100):
            try:
                with locked(tmp_path / "run"):
                    inside.append(1)
                    most.append(len(inside))
                    time.sleep(1e-4)
                    inside.pop()
                    held.append(1)
            except ValueError:
                continue

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(ask) for _ in range(4)]:
            done.result()
    assert set(most) == {1} and len(held) > 10
    assert list(tmp_path.iterdir()) == []


def test_without_locks_there_is_a_notice(tmp_path, monkeypatch, capsys):
    def none(*args):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", none)
    with locked(tmp_path / "run") as folder:
        assert folder.is_dir()
    assert "start one training run at a time" in capsys.readouterr().err


def test_a_full_disk_leaves_the_last_state_and_says_so(
    words, undisturbed, tmp_path, monkeypatch, capsys
):
    stopped_at(words, 300)
    work = tmp_path / ".run.work"
    before = (work / "state.safetensors").read_bytes()
    capsys.readouterr()
    with monkeypatch.context() as patch:

        def full(tensors, path, metadata):
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        patch.setattr("safetensors.torch.save_file", full)
        assert main([*words, "--save-seconds", "0"]) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and "No space left on device" in said[1]
    assert said[1].endswith("; run again to go on from image 300")
    assert (work / "state.safetensors").read_bytes() == before
    assert sorted(path.name for path in work.iterdir()) == ["lock", "state.safetensors"]
    assert main(words) == 0 and contents(tmp_path / "run") == undisturbed


def test_a_real_limit_on_file_sizes(digits_file, tmp_path):
    """Half a file is written, then no more: the error names the file; the next run succeeds."""
    whole = changed(PRETRAIN, last_kimg=1)
    words = ["train", json.dumps(whole), "--data", str(digits_file), "--out", str(tmp_path / "run")]

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "ect", *words, "--save-seconds", "0"]
    done = subprocess.run(
        command, env=environment, preexec_fn=limit, capture_output=True, text=True
    )
    said = done.stderr.strip()
    assert done.returncode == 1 and len(said.splitlines()) == 1
    assert "state.safetensors: cannot be written (" in said and "File too large" in said
    assert list(tmp_path.rglob("*.partial")) == []
    assert main(words) == 0


FAILING = [OSError(errno.EIO, "Input/output error"), OSError("No such device (os error 19)")]


@pytest.mark.parametrize("error", FAILING, ids=str)
def test_a_state_that_cannot_be_read_now_is_kept(tmp_path, monkeypatch, error):
    one = Work(tmp_path, {"seed": 0})
    one.save({"x": torch.zeros(2)}, 100)

    def fails(*words, **options):
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(safetensors, "safe_open", fails)
        with pytest.raises(
            Obstacle, match=r"state\.safetensors: not a .* so it is kept: run again"
        ):
            one.load()
    assert one.load()[1]["seen"] == 100


def test_finished_files_that_cannot_be_read_now_are_kept(tmp_path, monkeypatch):
    one = Work(tmp_path, {"seed": 0})
    with one.publishing(tmp_path / "out") as folder:
        (folder / "model").write_text("weights")
        made = {"outputs": {"model": record.digest(folder / "model")}}
        checkpoint.write_json(folder / "run.json", made)

    def fails(*words, **options):
        raise FAILING[0]

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_text", fails)
        with pytest.raises(Obstacle, match=r"cannot be read .Input/output error.; it may be"):
            one.restored(tmp_path / "again")
    assert one.restored(tmp_path / "again")
    assert (tmp_path / "again" / "model").read_text() == "weights"


def test_a_torn_state_is_discarded(words, undisturbed, tmp_path, capsys):
    stopped_at(words, 200)
    state = tmp_path / ".run.work" / "state.safetensors"
    state.write_bytes(state.read_bytes()[: state.stat().st_size // 2])
    capsys.readouterr()
    assert main(words) == 0
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "not a readable checkpoint" in said[0] and "discarded" in said[0]
    assert contents(tmp_path / "run") == undisturbed


def test_what_was_published_is_not_trained_again_until_it_is_released(
    words, undisturbed, tmp_path, monkeypatch, capsys
):
    """Snakemake deletes the outputs of a job whose end it could not record."""
    run, scratch = tmp_path / "run", tmp_path / ".run.work"
    assert main([*words, "--hold"]) == 0
    before = contents(run)
    assert before == undisturbed
    shutil.rmtree(run)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "step", lambda *args: 1 / 0)
        assert main([*words, "--hold"]) == 0
    assert contents(run) == before and "was finished before" in capsys.readouterr().err
    release(tmp_path)
    assert contents(run) == before and not scratch.exists()

    assert main([*words, "--hold"]) == 0  # nothing is held: trained anew, and held
    other = changed(RUN, seed=5)
    assert main(["train", json.dumps(other), *words[2:]]) == 0
    assert contents(run) != before and not scratch.exists()


@pytest.mark.parametrize("settings", [RUN, changed(RUN, recipe__batch=300, snapshots=4)])
def test_what_a_run_has_written_follows_from_the_images_it_has_seen(
    settings, digits_file, monkeypatch
):
    state = State(settings, Images(digits_file))
    for _ in loop.loop(state, settings, Images(digits_file)):
        written = [line["images"] for line in state.lines], sorted(state.snapshots)
        assert written == loop.written_by(settings, state.seen)
        assert loop.step_ends(settings, [state.seen]) == [state.seen]


@pytest.mark.parametrize("name", [".run.work", ".run.work/lock"])
def test_a_link_to_nothing_in_the_place_of_the_lock_is_named(words, tmp_path, capsys, name):
    if "/" in name:
        (tmp_path / ".run.work").mkdir()
    (tmp_path / name).symlink_to("no/where")
    assert main(words) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path / name}: found a link to no/where, where nothing is; allowed: " in line
    release(tmp_path)


def test_what_a_trainer_holds_is_released_by_nobody_else(words, tmp_path):
    assert main([*words, "--hold"]) == 0
    with locked(tmp_path / "run"):
        release(tmp_path)
    assert (tmp_path / ".run.work" / "published").is_dir()


def killed_as_it_writes(path):
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    checkpoint.save(path, {"a": torch.zeros(10_000)})


def test_what_a_killed_save_left_is_swept(tmp_path):
    writer = context().Process(target=killed_as_it_writes, args=(tmp_path / "a.safetensors",))
    writer.start()
    writer.join()
    assert writer.exitcode == -signal.SIGXFSZ
    assert len(list(tmp_path.iterdir())) == 2  # ours, and safetensors' own beside it
    checkpoint.sweep(tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_killed_writers_left_is_swept(words, tmp_path):
    for folder in (tmp_path / "run", tmp_path / ".run.work"):
        folder.mkdir()
        (folder / ".model.safetensors.123.partial").write_bytes(b"half")
    assert main(words) == 0
    assert list(tmp_path.rglob("*.partial")) == [] and not (tmp_path / ".run.work").exists()


def test_results_that_cannot_be_written_are_one_error(words, tmp_path, monkeypatch, capsys):
    def read_only(self, *args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", read_only)
        assert main(words) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "Read-only file system" in said[0] and str(tmp_path) in said[0]


def test_an_orphans_end_is_kept_for_who_asks_again(words, undisturbed, tmp_path, monkeypatch):
    """Snakemake was killed, its trainer went on: the next Snakemake deletes what it published."""
    parents = iter([41, 1])
    with monkeypatch.context() as patch:
        patch.setattr(os, "getppid", lambda: next(parents))
        assert main(words) == 0
    assert contents(tmp_path / "run") == undisturbed
    for path in (tmp_path / "run").iterdir():
        path.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(loop, "step", lambda *args: 1 / 0)
        assert main(words) == 0
    assert contents(tmp_path / "run") == undisturbed
    assert not (tmp_path / ".run.work").exists()
