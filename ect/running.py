"""Where a run is: `progress.json` in its folder, for those who watch it. Loads no torch.

It is no artefact: no rule declares it and nothing is computed from it. It stays when the run ends,
so that a run that was stopped says how far it came, and one that is done how often it was started.
"""

import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path

from ect import checkpoint

NAME = "progress.json"
PAUSE = 2.0  # seconds between two writings, however fast the steps are
SILENCE = 120.0  # seconds without a word after which a run is no longer taken to be alive


def teller(out, first, total, device):
    """tell(seen, lines), to be called after each step: it writes `progress.json` in the folder
    `out`, now and then and at the end. `first` and `total` are images, `lines` the log so far."""
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
        with suppress(OSError):  # a run does not end because nobody can be told
            checkpoint.write_json(path, about | moment)
        written = now

    return tell


def read(out):
    """What `teller` wrote last in the folder `out`; None where there is nothing to read."""
    with suppress(OSError, ValueError):
        return json.loads((Path(out) / NAME).read_text())
    return None


def state(told):
    """'running', 'stopped' or, where nothing was told for a while and the end is not known,
    'silent'."""
    if told["host"] == socket.gethostname() and not alive(told["pid"]):
        return "stopped"
    return "running" if time.time() - told["time"] < SILENCE else "silent"


def alive(pid):
    """Whether a process of this machine exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True
