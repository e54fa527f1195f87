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
MOMENT = {
    "jobs": int, "done": int, "left": NUMBER, "untimed": dict, "time": (int, float), "pid": int,
    "host": str,
}  # fmt: skip


def file_of(root, what=""):
    """Where the run whose results are in the folder `root` says how far it is."""
    return FOLDER / f"{str(root).replace(os.sep, '__')}{what}.json"


def tell(root, jobs, done, left, untimed):
    """Write that `done` of `jobs` jobs are done and about `left` seconds are left, None where that
    is unknown, beside the jobs of `untimed`, {rule: jobs}. A run goes on if it cannot be written.
    """
    moment = {"jobs": jobs, "done": done, "left": left, "untimed": untimed, "time": time.time()}
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


def keep_means(root, means):
    """Keep {rule: mean seconds of its jobs} for later runs, which may have other jobs left."""
    with suppress(OSError, ValueError):
        checkpoint.write_json(file_of(root, "-means"), means)


def means(root):
    """What `keep_means` kept last; {} before the first run."""
    with suppress(OSError, ValueError):
        found = checkpoint.read_json(file_of(root, "-means"))
        return {rule: float(mean) for rule, mean in found.items() if isinstance(mean, (int, float))}
    return {}


def left(seconds, untimed):
    """The time left in words, beside the jobs of `untimed`; None if nothing is known."""
    if seconds is None:
        return None
    others = ", ".join(f"{n} {rule}" for rule, n in untimed.items())
    return f"about {duration(seconds)} left" + (f" and, not timed yet, {others}" if others else "")


def line(moment):
    """One line on what `read` returned; between two jobs the time left runs down."""
    count = f"the run: {moment['done']} of {moment['jobs']} jobs done"
    if moment["left"] is None:
        return f"{count}; time left: unknown before the first ones"
    seconds = max(0.0, moment["left"] - (time.time() - moment["time"]))
    return f"{count}; {left(seconds, moment['untimed'])}"
