"""How far a run of Snakemake on this machine is, for those who watch it from another terminal.

`terminal` writes it when a job begins or ends, into .snakemake/progress/; it is no artefact. Loads
no torch.
"""

import os
import socket
import time
from contextlib import suppress
from pathlib import Path

from ect.report.markup import duration
from ect.runtime import checkpoint
from ect.runtime.progress import NUMBER, alive

FOLDER = Path(".snakemake", "progress")
NUMBERS = {"jobs": int, "done": int, "left": NUMBER, "time": (int, float), "pid": int}
MOMENT = NUMBERS | {"host": str, "bound": str}


def file_of(root):
    """Where the run whose results are in the folder `root` says how far it is."""
    return FOLDER / f"{str(root).replace(os.sep, '__')}.json"


def tell(root, jobs, done, left, bound="about"):
    """Write that `done` of `jobs` jobs are done and `left` seconds are left, None where that is
    unknown; `bound` says how well it is known. A run goes on if it cannot be written."""
    moment = {"jobs": jobs, "done": done, "left": left, "time": time.time(), "bound": bound}
    with suppress(OSError, ValueError):
        about = {"pid": os.getpid(), "host": socket.gethostname()}
        checkpoint.write_json(file_of(root), moment | about)


def ended(root):
    """Nothing runs any more."""
    with suppress(OSError):
        file_of(root).unlink(missing_ok=True)


def read(root):
    """What `tell` wrote last of a run that goes on here; None where none does."""
    with suppress(ValueError):
        moment = checkpoint.read_json(file_of(root), MOMENT)
        here = moment["host"] == socket.gethostname() and 0 < moment["pid"] < 2**31
        if here and alive(moment["pid"]) and 0 <= moment["done"] <= moment["jobs"]:
            return moment
    return None


def line(moment):
    """One line on what `read` returned; between two jobs the time left runs down."""
    count = f"the run: {moment['done']} of {moment['jobs']} jobs done"
    if moment["left"] is None:
        return f"{count}; time left: unknown before the first ones"
    left = max(0.0, moment["left"] - (time.time() - moment["time"]))
    return f"{count}; {moment['bound']} {duration(left)} left"
