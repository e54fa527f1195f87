"""When a run is to stop: signals, a time limit, the end of torchrun. Loads no torch."""

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
TORCHRUN_ENDED = os.EX_UNAVAILABLE  # an exit code; its reader, torchrun, has ended


class Stopped(Exception):
    """A run that stopped with its state saved; `code` is the exit status of its process."""

    def __init__(self, message, code):
        super().__init__(message)
        self.code = code


class Obstacle(ValueError):
    """An error whose cause may be gone at the next attempt, such as a lock or a full disk."""


@contextmanager
def signals():
    """Yield a list to which each signal that asks a run to stop is appended when it is received.
    Nothing else happens; only a second SIGINT has its usual effect. A signal that was ignored
    before (SIGINT, for a command started with `&`) still is."""
    received = []

    def note(number, frame):
        received.append(number)
        if number == signal.SIGINT:  # for a second Ctrl-C; SLURM sends SIGTERM twice at once
            signal.signal(number, before[number])

    main = threading.current_thread() is threading.main_thread()  # only it may set handlers
    handled = [n for n in SIGNALS if main and signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in handled}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(frozen=True)
class Requests:
    """What may ask a run to stop: the signals received, its time, and the end of torchrun."""

    received: list
    started: float
    max_minutes: float | None = None
    torchrun_ended: Callable = lambda: False

    def code(self):
        """The exit code with which to stop now; 0: go on."""
        if self.torchrun_ended():
            return TORCHRUN_ENDED
        if self.received:
            return 128 + self.received[0]
        limit = self.max_minutes
        late = limit is not None and time.monotonic() - self.started >= 60 * limit
        return os.EX_TEMPFAIL if late else 0

    def reason(self, code):
        """Why the run stops, from the exit code alone: the same text in all processes of a run."""
        if code == TORCHRUN_ENDED:
            return "stopped when torchrun ended"
        if code == os.EX_TEMPFAIL:
            return f"stopped after {self.max_minutes:g} minutes"
        return f"stopped by {signal.Signals(code - 128).name}"
