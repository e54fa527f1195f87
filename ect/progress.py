"""Work in progress: where it lies, who holds it, and when a run is to stop.

The work of the folder `k12` lies in `.k12.work` beside it: no rule declares it, and Snakemake,
which deletes the outputs of a job that failed or runs again, leaves it alone. Its fingerprint says
which run it is of. One process holds it, by a lock that ends with the process. Loads no torch.
"""

import errno
import fcntl
import json
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ect import checkpoint, machine

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
PUBLISHED, OF = "published", "of.json"
TORCHRUN_ENDED = os.EX_UNAVAILABLE  # the exit code, which nobody is left to read
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # some network file systems have none


class Stopped(Exception):
    """A run that stopped with its state saved; `code` is the exit status of its process."""

    def __init__(self, message, code):
        super().__init__(message)
        self.code = code


class Obstacle(ValueError):
    """What keeps a run from going on now, and may be gone at the next try."""


def notice(text):
    """One line on stderr."""
    print(f"ect train: {text}", file=sys.stderr)


def scratch_of(out):
    """The scratch folder of the artefact folder `out`."""
    whole = Path(out).resolve()
    return whole.with_name(f".{whole.name}.work")


@contextmanager
def held(out):
    """Yield the scratch folder of the artefact folder `out`, which no other process holds until the
    block ends or this process does. Raises `Obstacle` that names the process that has it.

    A holder that leaves nothing in the folder removes it.
    """
    folder = scratch_of(out)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder) as lock:
        lock.truncate(0)
        print(f"pid {os.getpid()} on {socket.gethostname()}", end="", file=lock, flush=True)
        checkpoint.sweep(folder)
        try:
            yield folder
        finally:
            if {path.name for path in folder.glob("*")} == {"lock"}:
                shutil.rmtree(folder, ignore_errors=True)


def _locked(folder):
    """The open lock file, ours alone. If a holder removed the folder meanwhile, the file we opened
    has lost its name, and is sought anew."""
    while True:
        with suppress(FileExistsError):
            folder.mkdir()
        with suppress(FileNotFoundError), ExitStack() as stack:
            file = stack.enter_context(open(folder / "lock", "a+"))
            _flock(file)
            if os.path.samestat(os.fstat(file.fileno()), os.stat(file.name)):
                stack.pop_all()
                return file


def _flock(file):
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read() or "another process"
        raise Obstacle(
            f"{Path(file.name).parent} is held by {holder}, which is training this model: wait for"
            " it, or end it"
        ) from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        notice(f"{file.name}: no locks on this file system; start one trainer at a time")


def release(root):
    """Forget what trainings under `root` hold: Snakemake has noted that they ended. Where that
    cannot be done, it stays."""
    for published in Path(root).rglob(f".*.work/{PUBLISHED}"):
        name = published.parent.name.removeprefix(".").removesuffix(".work")
        with suppress(Obstacle, OSError), held(published.parent.with_name(name)):
            shutil.rmtree(published)


class Work:
    """The work in progress of one run in a scratch folder that is held. `fingerprint`, JSON-able,
    is all that the run's bits depend on."""

    def __init__(self, folder, fingerprint):
        self.state, self.crash = folder / "state.safetensors", folder / "crash.json"
        self.published = folder / PUBLISHED
        self.fingerprint = json.loads(json.dumps(fingerprint))
        self.kept = None  # images seen, of the state that is saved

    def load(self):
        """(tensors, about) as saved last; None if there are none, or if they are torn or another
        run's, which discards them."""
        if not self.state.exists():
            return None
        try:
            tensors, about = checkpoint.load(self.state)
            if about.get("fingerprint") == self.fingerprint:
                self.kept = about["seen"]
                return tensors, about
            notice(f"{self.state} is of other settings, inputs or code: discarded")
        except checkpoint.CheckpointError as error:
            notice(f"{error}: discarded")
        self.state.unlink()
        return None

    def save(self, tensors, seen, **about):
        """Replace what was saved before, or leave it whole and raise `Obstacle`."""
        about |= {"seen": seen, "fingerprint": self.fingerprint}
        try:
            checkpoint.save(self.state, tensors, **about)
        except checkpoint.CheckpointError as error:
            last = "the start" if self.kept is None else f"image {self.kept}"
            raise Obstacle(f"{error}; run again to go on from {last}") from None
        self.kept = seen

    def crashed(self, seen, message):
        """Leave word of a run that cannot go on, for those that would only repeat it."""
        what = {"fingerprint": self.fingerprint, "code": machine.code()}
        checkpoint.write_json(self.crash, what | {"image": seen, "message": message})

    def refuse_to_repeat(self, seen):
        """Raise `FloatingPointError` if this run, at image `seen`, is known to end in a crash."""
        if not self.crash.exists():
            return
        found = json.loads(self.crash.read_text())
        known = [found["fingerprint"], found["code"]] == [self.fingerprint, machine.code()]
        if known and seen < found["image"]:
            raise FloatingPointError(
                f"{found['message']} (known from before; to try again, delete {self.crash})"
            )
        self.crash.unlink()

    def clear(self):
        """Remove all of it: the run has ended well."""
        self.state.unlink(missing_ok=True)
        self.crash.unlink(missing_ok=True)

    @contextmanager
    def publishing(self, out):
        """Yield an empty folder for the files of `out`; in the end they are in `out` too, and held
        here until `release`: a Snakemake that is killed before it has noted the end of the job
        deletes them there. At no moment is a finished run neither here nor a state to go on from.
        """
        part = self.published.with_name(f"{PUBLISHED}.partial")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        yield part
        checkpoint.write_json(part / OF, self.fingerprint)
        os.replace(part, self.published)
        self._restore(out)

    def restored(self, out):
        """Whether this run's files were held; they are in `out` again."""
        try:
            known = json.loads((self.published / OF).read_text()) == self.fingerprint
        except (OSError, ValueError):
            known = False
        if not known:
            shutil.rmtree(self.published, ignore_errors=True)
            return False
        self._restore(out)
        self.clear()
        notice(f"{out} was published before, and is as it was")
        return True

    def _restore(self, out):
        """Give the files that are held their names in `out`, and a new time."""
        out.mkdir(parents=True, exist_ok=True)
        for path in self.published.iterdir():
            if path.name != OF:
                with checkpoint.replacing(out / path.name) as scratch:
                    _linked(path, scratch)
                os.utime(out / path.name)


def _linked(path, name):
    """A second name of a file; a copy where the file system knows none."""
    try:
        os.link(path, name)
    except OSError:
        shutil.copy(path, name)


@contextmanager
def signals():
    """Yield the list of signals received since, of those that ask a run to stop. They are only
    noted; a second SIGINT has its usual effect. One that was ignored before (SIGINT behind a
    shell's `&`) still is."""
    received = []

    def note(number, frame):
        received.append(number)
        if number == signal.SIGINT:  # a person's second Ctrl-C; SLURM sends two SIGTERM at once
            signal.signal(number, before[number])

    main = threading.current_thread() is threading.main_thread()  # no other may set handlers
    heard = [n for n in SIGNALS if main and signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in heard}
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
        """The exit code that is asked for; 0 where nothing asks."""
        if self.torchrun_ended():
            return TORCHRUN_ENDED
        if self.received:
            return 128 + self.received[0]
        limit = self.max_minutes
        late = limit is not None and time.monotonic() - self.started >= 60 * limit
        return os.EX_TEMPFAIL if late else 0

    def reason(self, code):
        """What asked for it: the same in all processes of a run, whichever was asked."""
        if code == TORCHRUN_ENDED:
            return "stopped when torchrun ended"
        if code == os.EX_TEMPFAIL:
            return f"stopped after {self.max_minutes:g} minutes"
        return f"stopped by {signal.Signals(code - 128).name}"
