"""What ends a run early: signals, a time limit, the end of torchrun; nothing is lost."""

import json
import os
import signal
import time

import pytest

from ect.cli.main import main
from ect.runtime import distributed
from ect.runtime.stop import SIGNALS, Requests, signals
from ect.runtime.work import Work
from ect.training import loop
from tests.helpers.runs import contents

pytestmark = pytest.mark.usefixtures("few_lines")


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
