"""How far a run is: `progress.json` in its folder, for those who watch it. Loads no torch.

It is no artefact: no rule declares it and nothing is computed from it. It stays when the run ends:
it then says how far a stopped run came, or how many attempts a finished run took.
"""

import os
import socket
import time
from contextlib import suppress
from pathlib import Path

from ect.runtime import checkpoint

NAME = "progress.json"
NUMBER = (int, float, type(None))
MOMENT = {
    "first": int, "total": int, "images": int, "attempt": int, "pid": int, "host": str,
    "device": str, "time": (int, float), "rate": NUMBER, "loss": NUMBER,
}  # fmt: skip
PAUSE = 2.0  # seconds between two writes, however fast the steps are
SILENCE = 120.0  # seconds without an update after which a run no longer counts as running


def reporter(out, first, total, device):
    """A function tell(seen, lines), to be called after each step: it writes `progress.json` in the
    folder `out`, at most every `PAUSE` seconds and at the end. `first` and `total` are numbers of
    images, `lines` is the log so far."""
    path, before = Path(out) / NAME, read(out)
    again = before is not None and before["images"] < before["total"]
    about = {
        "first": first, "total": total, "device": device, "pid": os.getpid(),
        "host": socket.gethostname(), "attempt": before["attempt"] + 1 if again else 1,
    }  # fmt: skip
    began = start = written = None

    def tell(seen, lines):
        nonlocal began, start, written
        now = time.monotonic()
        if written is None:
            began, start = now, seen
        elif now - written < PAUSE and seen < total:
            return
        rate = (seen - start) / (now - began) if now > began else None
        loss = lines[-1]["loss"] if lines else None
        moment = {"images": seen, "rate": rate, "loss": loss, "time": time.time()}
        # A run goes on if its progress cannot be written.
        with suppress(OSError, ValueError, FloatingPointError):
            checkpoint.write_json(path, about | moment)
        written = now

    return tell


def read(out):
    """What `reporter` wrote last in the folder `out`; None if there is nothing of it to read."""
    with suppress(ValueError):
        moment = checkpoint.read_json(Path(out) / NAME, MOMENT)
        counts = 0 <= moment["first"] <= moment["images"] <= moment["total"]
        if counts and moment["first"] < moment["total"] and 0 < moment["pid"] < 2**31:
            return moment
    return None


def status(moment):
    """'running', 'stopped' or 'silent': not known to have ended, but without an update for
    `SILENCE` seconds. `moment` is what `read` returned."""
    if moment["host"] == socket.gethostname() and not alive(moment["pid"]):
        return "stopped"
    return "running" if time.time() - moment["time"] < SILENCE else "silent"


def alive(pid):
    """Whether a process exists on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True
