"""Work in progress: locked by one process, kept through stops and errors, never trained twice."""

import errno
import itertools
import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import safetensors
import torch

from ect.cli.main import main
from ect.data.batches import Images
from ect.models import build
from ect.objective import Objective, Terms
from ect.runtime import checkpoint, device, distributed, record
from ect.runtime.stop import SIGNALS, Obstacle, Requests, signals
from ect.runtime.work import Path, Work, fcntl, locked, release
from ect.training import log, loop, parts, train
from ect.training.parts import make_objective
from ect.training.state import State
from tests.helpers.processes import context
from tests.helpers.runs import PRETRAIN, TUNE, changed, contents

# Ten steps, three lines of the log: most steps end within a line.
RUN = changed(TUNE, recipe__dropout=0.1, snapshots=3)


@pytest.fixture(autouse=True)
def few_lines(monkeypatch):
    monkeypatch.setattr(loop, "LOG_LINES", 3)


@pytest.fixture(scope="module")
def undisturbed(digits_file, tmp_path_factory):
    """The artefacts of `RUN` when nothing stops it."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "LOG_LINES", 3)
        train.run(RUN, digits_file, out)
    return contents(out)


@pytest.fixture
def words(digits_file, tmp_path):
    """The command that trains `RUN`."""
    out = str(tmp_path / "run")
    return ["train", json.dumps(RUN), "--data", str(digits_file), "--out", out]


def test_a_run_stopped_after_every_step_has_the_bits_of_an_undisturbed_one(
    words, undisturbed, tmp_path, capsys
):
    codes = []
    while not codes or codes[-1]:
        codes.append(main([*words, "--max-minutes", "0"]))
        said = capsys.readouterr().err.splitlines()
        if codes[-1]:
            stop = f"stopped after 0 minutes at image {100 * len(codes)} of 1000"
            assert said[-1] == f"ect train: {stop}; run again to go on"
            assert not (tmp_path / "run" / "model.safetensors").exists()
    assert codes == [75] * 9 + [0]
    assert contents(tmp_path / "run") == undisturbed
    assert list(tmp_path.iterdir()) == [tmp_path / "run"]
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["resumed_at"] == list(range(100, 1000, 100))


@pytest.fixture
def interrupts():
    """SIGINT has its usual effect, also where the tests run behind a shell's `&`."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_saves_the_step_and_stops(
    number, words, undisturbed, tmp_path, monkeypatch, capsys, interrupts
):
    before, step, taken = signal.getsignal(number), loop.step, []

    def shot(*args):
        taken.append(1)
        if len(taken) == 4:
            os.kill(os.getpid(), number)
        return step(*args)

    monkeypatch.setattr(loop, "step", shot)
    assert main(words) == 128 + number
    assert f"stopped by {number.name} at image 400 of 1000; run again" in capsys.readouterr().err
    assert signal.getsignal(number) is before
    assert main(words) == 0 and len(taken) == 10
    assert contents(tmp_path / "run") == undisturbed


def test_the_second_sigint_has_its_usual_effect(interrupts):
    with signals() as received:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
    assert received == [signal.SIGINT]


def test_a_second_sigterm_is_only_noted():
    """SLURM sends two, shortly one after the other."""
    with signals() as received:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
    assert received == [signal.SIGTERM] * 2


def test_an_ignored_signal_is_still_ignored():
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        with signals() as received:
            os.kill(os.getpid(), signal.SIGUSR1)
            assert signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN
        assert received == []
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_time_is_up_after_the_limit_and_not_before(monkeypatch):
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    for started, stops in ((0.0, True), (400.0, True), (401.0, False)):
        requests = Requests([], started, 10)
        assert requests.code() == (os.EX_TEMPFAIL if stops else 0)
    assert requests.reason(os.EX_TEMPFAIL) == "stopped after 10 minutes"
    assert Requests([], 0.0).code() == 0


def test_the_end_of_torchrun_stops_its_processes_whatever_else_asks():
    requests = Requests([signal.SIGTERM], 0.0, torchrun_ended=lambda: True)
    assert requests.code() == os.EX_UNAVAILABLE
    assert requests.reason(os.EX_UNAVAILABLE) == "stopped when torchrun ended"


@pytest.mark.parametrize("world, parent, ended", [(1, 7, False), (2, 7, True), (2, 5, False)])
def test_torchrun_ended_where_the_parent_is_another(world, parent, ended, monkeypatch):
    """A single process has no torchrun as its parent."""
    monkeypatch.setattr(distributed, "world", lambda: world)
    monkeypatch.setattr(os, "getppid", lambda: parent)
    assert distributed.torchrun_ended((5, None)) == ended


def test_clocks_that_jump_stop_and_save_nothing(words, undisturbed, tmp_path, monkeypatch):
    """Only the monotonic clock counts: jumps of the wall clock by years change nothing."""
    leaps = iter(range(0, 10**12, 10**8))
    monkeypatch.setattr(time, "time", lambda: next(leaps))
    monkeypatch.setattr(Work, "save", lambda *args, **kwargs: 1 / 0)
    assert main([*words, "--max-minutes", "60"]) == 0
    assert contents(tmp_path / "run") == undisturbed


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
            assert list(tmp_path.iterdir()) == [tmp_path / "run"]
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


def diverging(monkeypatch, at, patience=1):
    """Make the loss of the step that ends at image `at` infinite where s > 1; the loop asks
    the device for it every `patience` steps."""

    class Spoiled(Objective):
        def __call__(self, f, x, eps, s, progress, *rest):
            terms = super().__call__(f, x, eps, s, progress, *rest)
            if round(1000 * progress) + 100 != at:
                return terms
            return terms._replace(loss=torch.where(terms.s > 1, torch.inf, terms.loss))

    class Seldom(log.Meter):
        def __init__(self):
            super().__init__()
            self.patience = patience

    monkeypatch.setattr(parts, "Objective", Spoiled)
    monkeypatch.setattr(loop, "Meter", Seldom)


def test_a_run_that_diverges_says_where_and_is_not_repeated(
    words, undisturbed, tmp_path, monkeypatch, capsys
):
    work = tmp_path / ".run.work"
    step, taken = loop.step, []
    monkeypatch.setattr(loop, "step", lambda *args: taken.append(1) or step(*args))
    with monkeypatch.context() as patch:
        diverging(patch, at=600)
        assert main([*words, "--save-seconds", "0"]) == 1
        said = capsys.readouterr().err
        assert re.search(r"loss is not finite at image 600 where ln s is 0 to (\d|inf): ", said)
        assert f"the last good checkpoint is {work / 'state.safetensors'} (image 500)" in said
        assert len(said.splitlines()) == 1 and len(taken) == 6

        assert main(words) == 1 and len(taken) == 6
        again = capsys.readouterr().err.splitlines()
        assert said.strip() in again[-1] and f"delete {work / 'crash.json'}" in again[-1]
        patch.setattr(record, "code", lambda: "mended")
        assert main(words) == 1 and len(taken) == 7
    (work / "crash.json").unlink()
    assert main(words) == 0 and len(taken) == 12
    assert contents(tmp_path / "run") == undisturbed


@pytest.mark.parametrize("patience, save_seconds", [(1, -1.0), (50, -1.0), (1, 60.0), (4, 60.0)])
def test_no_state_after_a_divergence_is_saved(
    patience, save_seconds, digits_file, tmp_path, monkeypatch
):
    """However seldom the device is asked, the step is named and the state before it is kept."""
    diverging(monkeypatch, at=600, patience=patience)
    with pytest.raises(FloatingPointError, match="image 600 where"):
        train.run(RUN, digits_file, tmp_path / "run", save_seconds=save_seconds)
    kept = tmp_path / ".run.work" / "state.safetensors"
    assert kept.exists() == (save_seconds < 0)
    if kept.exists():
        tensors, about = checkpoint.load(kept)
        assert about["seen"] == 500 and all(v.isfinite().all() for v in tensors.values())


@pytest.mark.parametrize(
    "levels, words",
    [
        ([-9, -4.5, 9], "-inf to -4, 3 to inf"),
        ([0.5], "0 to 1"),
        ([-3.5, -2.5, 0.5], "-4 to -2, 0 to 1"),
        (range(-9, 9), "-inf to inf"),
    ],
)
def test_noise_levels_are_named_by_their_bins(levels, words):
    s = torch.tensor(levels, dtype=torch.float32).exp()
    loss = torch.full_like(s, torch.nan)
    with pytest.raises(log.Diverged, match=f"at image 7 where ln s is {words}$"):
        log.Meter().add(Terms(loss, s, s, s), torch.tensor(False), 7)


@pytest.mark.parametrize("loss, gradient", [(1.0, 1.0), (torch.inf, 1.0), (1.0, torch.nan)])
def test_finite_is_the_loss_and_every_gradient(loss, gradient):
    parameters = [torch.zeros(3, requires_grad=True) for _ in range(3)]
    parameters[0].grad = torch.ones(3)
    parameters[2].grad = torch.tensor([0.0, gradient, 0.0])
    fine = log.finite(torch.tensor(loss), parameters)
    assert bool(fine) == (loss == gradient == 1.0)


def test_a_gradient_that_is_no_number_is_named():
    terms = Terms(torch.ones(2), torch.ones(2), torch.zeros(2), torch.ones(2))
    with pytest.raises(log.Diverged, match=r"^the gradient is not finite at image 7$"):
        log.Meter().add(terms, torch.tensor(False), 7)


def stopped_at(words, image):
    while main([*words, "--max-minutes", "0"]) == 75:
        state = checkpoint.load(Path(words[-1]).parent / ".run.work" / "state.safetensors")
        if state[1]["seen"] == image:
            return


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


@pytest.fixture(scope="module")
def in_parts(digits_file, tmp_path_factory):
    """{size of a microbatch: (losses of every step, weights)} of runs in double precision with
    dropout, with batches of 64 images, the last of 40."""
    folder, found = tmp_path_factory.mktemp("parts"), {}
    whole = changed(TUNE, recipe__batch=64)
    torch.set_default_dtype(torch.float64)
    for size in (64, 16):
        settings, out = changed(whole, recipe__microbatch=size), folder / str(size)
        train.run(whole if size == 64 else settings, digits_file, out)
        lines = (out / "metrics.jsonl").read_text().splitlines()
        losses = torch.tensor([json.loads(line)["loss"] for line in lines])
        found[size] = losses, checkpoint.load(out / "model.safetensors")[0]
    torch.set_default_dtype(torch.float32)
    return found


def test_microbatches_are_the_whole_batch(in_parts):
    (wanted, weights), (losses, others) = in_parts[64], in_parts[16]
    assert len(wanted) == 16 and wanted.dtype == torch.float64
    torch.testing.assert_close(losses, wanted, rtol=1e-10, atol=0)
    for name, value in weights.items():
        assert value.dtype == torch.float64
        torch.testing.assert_close(others[name], value, rtol=1e-8, atol=1e-10)


def test_microbatches_keep_noise_labels_and_images_in_place(digits_file, monkeypatch):
    """The inputs of the objective are the same in parts as at once."""
    images, given = Images(digits_file), {}
    settings = changed(PRETRAIN, network__classes=10, recipe__dropout=0.0)
    for microbatch in (100, 16):
        whole = changed(settings, recipe__microbatch=microbatch)
        state, seen = State(whole, images), []
        objective = make_objective(whole, images.sd)

        def noted(f, x, eps, s, *rest, objective=objective, seen=seen):
            seen.append((f.label, x, eps, s))
            return objective(f, x, eps, s, *rest)

        noted.levels = objective.levels
        about = build.description(whole, images)
        f = build.make_consistency(state.network, objective.process, about)
        loop.step(state, whole, images, noted, f, 1000)
        given[microbatch] = [torch.cat(parts) for parts in zip(*seen)]
        assert len(seen) == -(-100 // microbatch)
    assert all(torch.equal(a, b) for a, b in zip(given[100], given[16]))
