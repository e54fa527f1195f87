"""The work in progress of a run, and the lock on it.

The work for the folder `k12` lies in the scratch folder `.k12.work` beside it. No rule declares it:
Snakemake deletes the outputs of a job that failed or runs again, but not this folder. A fingerprint
says which run it belongs to. One process at a time holds the lock, which ends with the process.
Loads no torch.
"""

import errno
import fcntl
import json
import os
import shutil
import socket
import sys
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from ect.runtime import checkpoint, crash, record
from ect.runtime.stop import Obstacle
from ect.runtime.text import parsed, shown

PUBLISHED, OF, RECORD = "published", "of.json", "run.json"
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # some network file systems have none


def log_line(text):
    """One line on stderr."""
    print(f"ect train: {text}", file=sys.stderr)


def work_folder(out):
    """The scratch folder of the artefact folder `out`."""
    path = Path(out).resolve()
    return path.with_name(f".{path.name}.work")


@contextmanager
def locked(out):
    """Lock the scratch folder of the artefact folder `out`, and yield it. The lock ends with the
    block, or with this process. Raises `Obstacle`, which names the process that holds the lock.

    At the end of the block a folder that holds only the lock is removed.
    """
    folder = work_folder(out)
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
    """The open lock file, locked. If the holder before removed the folder in the meantime, the file
    that was opened is deleted: try again."""
    while True:
        _require_lockable(folder)
        with suppress(FileExistsError):
            folder.mkdir()
        with suppress(FileNotFoundError), ExitStack() as stack:
            file = stack.enter_context(open(folder / "lock", "a+"))
            _flock(file)
            if os.path.samestat(os.fstat(file.fileno()), os.stat(file.name)):
                stack.pop_all()
                return file


def _require_lockable(folder):
    """Raise `Obstacle` where something else than a folder, with a file in it, is in the way: it
    cannot be opened, or reading it would wait."""
    for path, fits in ((folder, Path.is_dir), (folder / "lock", Path.is_file)):
        dangling = path.is_symlink() and not path.exists()
        if dangling or (path.exists() and not fits(path)):
            found = f"no {'folder' if path == folder else 'regular file'}"
            if dangling:
                found = f"a link to {os.readlink(path)}, where nothing is"
            raise Obstacle(
                f"{path}: found {found}; allowed: what training leaves there, or nothing: delete it"
            )


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
        log_line(f"{file.name}: this file system has no locks; start one training run at a time")


def release(root):
    """Delete the published files that the work folders under `root` hold: Snakemake has recorded
    their jobs. A folder that is locked, or cannot be deleted, stays."""
    for published in Path(root).rglob(f".*.work/{PUBLISHED}"):
        name = published.parent.name.removeprefix(".").removesuffix(".work")
        with suppress(Obstacle, OSError), locked(published.parent.with_name(name)):
            shutil.rmtree(published)


class Work:
    """The work in progress of one run, in a locked scratch folder. `fingerprint`, JSON-able, is all
    that the run's bits depend on."""

    def __init__(self, folder, fingerprint):
        self.state_file, self.crash_file = folder / "state.safetensors", folder / "crash.json"
        self.damaged, self.published = folder / "damaged.safetensors", folder / PUBLISHED
        self.fingerprint = json.loads(json.dumps(fingerprint))
        self.kept = None  # images seen, in the saved state

    def load(self):
        """(tensors, about) as saved last, or None. A file that is damaged or belongs to another run
        is deleted; one that could not be read now is kept, and `Obstacle` raised."""
        if not self.state_file.exists():
            return None
        try:
            tensors, about = checkpoint.load(self.state_file)
            if isinstance(about, dict) and about.get("fingerprint") == self.fingerprint:
                self.kept = about.get("seen")
                return tensors, about
            log_line(f"{self.state_file} belongs to other settings, inputs or code: discarded")
        except checkpoint.Unreadable as error:
            raise Obstacle(f"{error}; it may be intact, so it is kept: run again") from None
        except checkpoint.CheckpointError as error:
            log_line(f"{error}: discarded")
        self.state_file.unlink()
        return None

    def save(self, tensors, seen, **about):
        """Replace the saved state; if that fails, leave it as it was and raise `Obstacle`."""
        about |= {"seen": seen, "fingerprint": self.fingerprint}
        try:
            checkpoint.save(self.state_file, tensors, **about)
        except checkpoint.CheckpointError as error:
            last = "the start" if self.kept is None else f"image {self.kept}"
            raise Obstacle(f"{error}; run again to go on from {last}") from None
        self.kept = seen

    def put_aside(self, why):
        """Keep the saved state under another name, until the run has succeeded: this run cannot go
        on from it."""
        _remove(self.damaged)
        os.replace(self.state_file, self.damaged)
        self.kept = None
        log_line(f"{self.state_file} is damaged ({shown(why)}): put aside as {self.damaged.name}")

    def note_divergence(self, seen, message):
        """Note that this run diverges at image `seen`, so that it is not retried."""
        crash.note_divergence(self.crash_file, self.fingerprint, seen, message)

    def refuse_to_repeat(self, seen):
        """Raise `FloatingPointError` if this run, at image `seen`, is known to diverge."""
        crash.refuse_to_repeat(self.crash_file, self.fingerprint, seen)

    def clear(self):
        """Delete the saved state and the note of a crash: the run has succeeded."""
        for path in (self.state_file, self.damaged, self.crash_file):
            _remove(path)

    @contextmanager
    def publishing(self, out):
        """Yield an empty folder for the files of `out`. At the end of the block hard links to them
        are made in `out`; the files stay here until `release`, because Snakemake deletes those in
        `out` if it is killed before it has recorded the job. At every moment there is a saved state
        or the finished files."""
        part = self.published.with_name(f"{PUBLISHED}.partial")
        _remove(part)
        part.mkdir()
        yield part
        checkpoint.write_json(part / OF, self.fingerprint)
        _remove(self.published)
        os.replace(part, self.published)
        self._restore(out)

    def restored(self, out):
        """Whether this run's finished files are held here, as their run.json names them; if so, put
        them into `out` again."""
        try:
            known = self._is_known()
            fault = self._fault() if known else None
        except ValueError:
            known = False
        except OSError as error:
            why = f"{self.published}: cannot be read ({error.strerror})"
            raise Obstacle(f"{why}; it may be intact, so it is kept: run again") from None
        if not known or fault:
            _remove(self.published)
            if known:
                log_line(f"{self.published} is not as it was made ({fault}): discarded")
            return False
        self._restore(out)
        self.clear()
        log_line(f"{out} was finished before: its files are restored")
        return True

    def _is_known(self):
        """Whether files of this run are held."""
        of = self.published / OF
        return of.is_file() and parsed(of.read_text(encoding="utf-8")) == self.fingerprint

    def _fault(self):
        """What is wrong with the held files, or None."""
        odd = [path.name for path in self.published.iterdir() if not path.is_file()]
        if odd:
            return f"{shown(odd[0])} is no regular file"
        try:
            made = parsed((self.published / RECORD).read_text(encoding="utf-8"))["outputs"]
        except (FileNotFoundError, ValueError, LookupError, TypeError):
            return f"no readable {RECORD}"
        held = {path.name for path in self.published.iterdir()} - {OF, RECORD}
        if not isinstance(made, dict) or held != set(made):
            return f"found {', '.join(sorted(held))}"
        wrong = (
            name for name in sorted(made) if record.digest(self.published / name) != made[name]
        )
        return next((f"{name} has other bytes" for name in wrong), None)

    def _restore(self, out):
        """Hard-link the held files into `out`, with a new modification time."""
        out.mkdir(parents=True, exist_ok=True)
        for path in self.published.iterdir():
            if path.name != OF:
                with checkpoint.replacing(out / path.name) as scratch:
                    _linked(path, scratch)
                os.utime(out / path.name)


def _remove(path):
    """Delete a file, a link or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _linked(path, name):
    """Make `name` a hard link to a file, or a copy where the file system has no hard links."""
    try:
        os.link(path, name)
    except OSError:
        shutil.copy(path, name)
