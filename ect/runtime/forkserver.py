"""The server of `forks`: what it has loaded, which requests it takes, its children from the fork to
their end.

It declines, and the work is done by who asked, where the environment, Python, the umask or a limit
of the process is another one, the code was edited after the server loaded it, or a package cannot
be loaded. If who asks is killed, so is the child.
"""

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import struct
import sys
import tempfile
import threading
from pathlib import Path

from ect.runtime.forks import SIZE, held_to
from ect.runtime.stop import SIGNALS

# Variables that each shell or job sets anew; all others must be those of the server.
MAY_DIFFER = {"_", "SHLVL", "PWD", "OLDPWD", "TMPDIR", "TMP", "TEMP", "TEMPDIR"}
DEATH = 1  # prctl's PR_SET_PDEATHSIG: the signal that a process gets when its parent ends

# {verb: what the server loads before it first forks a child for it}, and before the first of all.
TABLES = ("ect.report.tables", "ect.report.page", "pyarrow.pandas_compat")
FIGURES = (
    "ect.report.figures",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_pdf",
)
TORCH = ("ect.training.train", "ect.evaluation.evaluate", "ect.evaluation.sample")
OPTIMIZER = (*TORCH, "torch._dynamo")  # torch's optimizers import it
LOADED = {
    **dict.fromkeys(("tabulate", "tabulate-steps", "write-page"), TABLES),
    "draw": (*TABLES, *FIGURES),
    **dict.fromkeys(("sample", "extract", "summarize", "search-steps", "perfect-loss"), TORCH),
    **dict.fromkeys(("train", "train-classifier", "trace"), OPTIMIZER),
    "evaluate": (*TORCH, "cleanfid.fid"),
}
FIRST = ("ect.cli.main", "ect.config.verbs", "ect.config.drawing")


def serve(place, work):
    """Fork a child for each job that is asked for, until Snakemake has ended and the jobs too. A
    child does `work(words)`, and ends with the exit code that it returns."""
    words = Server(place).words()
    if words is not None:
        end(work(words))


class Server:
    """`lines` are the connections of those who wait: {line: the child's pid}."""

    def __init__(self, place):
        self.place = Path(place)
        self.environment, self.sources = _fixed(os.environ), _sources()
        self.held = held_to()
        self.lines: dict[socket.socket, int] = {}
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(place)
        self.listener.listen(128)
        self.open = [self.listener, sys.stdin.buffer]
        self.woken, self.waker = socket.socketpair()
        self.waker.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(self.waker.fileno())

    def words(self):
        while self.open or self.lines:
            ready, _, _ = select.select([*self.open, *self.lines, self.woken], [], [])
            if sys.stdin.buffer in ready:  # Snakemake has ended
                self._close()
            elif self.listener in ready:
                words = self._accept()
                if words is not None:
                    return words
            for line in [line for line in ready if line in self.lines]:
                self._pass_on(line)
            if self.woken in ready:
                self.woken.recv(4096)
                self._reap()
        return None

    def _close(self):
        self.open = []
        self.listener.close()
        with contextlib.suppress(OSError):
            self.place.unlink()
            self.place.parent.rmdir()

    def _accept(self):
        """Fork a child for the next request; returns None in the server, words in the child."""
        line, _ = self.listener.accept()
        asked, files = self._request(line)
        try:
            gc.freeze()  # a child's collector leaves alone what the server has loaded
            child = os.fork() if asked else None
        except OSError:  # too many processes
            child = None
        if child == 0:
            return self._begin(asked, files)
        for file in files:
            os.close(file)
        if child is None:
            line.close()
            return None
        self.lines[line] = child
        with contextlib.suppress(OSError):
            line.sendall(b"yes\n")
        return None

    def _request(self, line):
        """(What is asked, None if the server declines; the open files 0 to 2 of who asks.)"""
        files = []
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, struct.error):
            line.settimeout(10)
            head, files, _, _ = socket.recv_fds(line, SIZE.size, 3)
            asked = json.loads(_exactly(line, SIZE.unpack(head)[0]))
            if self._fits(asked):
                return asked, files
        return None, files

    def _fits(self, asked):
        """Whether a child would do what a process of its own does; loads what its verb needs."""
        if _fixed(asked["environment"]) != self.environment or _sources() != self.sources:
            return False
        if asked["held"] != self.held:
            return False
        verb = next((word for word in asked["words"] if word in LOADED), "")
        try:
            for module in (*FIRST, *LOADED.get(verb, ())):
                importlib.import_module(module)
        except (Exception, SystemExit):  # of a package that is broken, as who asked will say
            return False
        return True

    def _begin(self, asked, files):
        """Become the process that was asked for: in a child, which returns its words."""
        ctypes.CDLL(None).prctl(DEATH, signal.SIGKILL)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number in SIGNALS:
            usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, signal.SIG_IGN if number in asked["ignored"] else usual)
        for line in [*self.lines, self.listener, self.woken, self.waker]:
            line.close()
        for standard, file in enumerate(files):
            os.dup2(file, standard)
            os.close(file)
        sys.stdout, sys.stderr = _opened(sys.stdout, 1), _opened(sys.stderr, 2)
        os.environ.clear()
        os.environ.update(asked["environment"])
        tempfile.tempdir = None
        os.chdir(asked["folder"])
        sys.argv[1:] = asked["words"]
        return asked["words"]

    def _pass_on(self, line):
        """A signal for the child, or its end if who asked for it was killed."""
        with contextlib.suppress(ConnectionError):
            for number in set(received := line.recv(64)) & set(SIGNALS):
                os.kill(self.lines[line], number)
            if received:
                return
        os.kill(self.lines[line], signal.SIGKILL)

    def _reap(self):
        while True:
            try:
                child, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not child:
                return
            for line in [line for line, pid in self.lines.items() if pid == child]:
                with contextlib.suppress(OSError):
                    line.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
                del self.lines[line]
                line.close()


def _exactly(line, size):
    parts = []
    while size:
        parts.append(line.recv(size))
        size -= len(parts[-1])
        if not parts[-1]:
            raise ConnectionError("ended early")
    return b"".join(parts)


def _opened(stream, number):
    """A stream such as this one, of a file that may be of another kind: a pipe, a terminal."""
    told = {"encoding": stream.encoding, "errors": stream.errors, "closefd": False}
    return open(number, "w", buffering=1 if number == 2 else -1, **told)


def end(code):
    """End a child. Python would free all that the server has loaded, and so copy the memory that
    both share: that takes longer than many jobs work."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _fixed(environment):
    return {name: value for name, value in environment.items() if name not in MAY_DIFFER}


def _sources():
    """{file: when it was edited} of the package."""
    package = Path(__file__).parents[1]
    return {path: path.stat().st_mtime_ns for path in package.rglob("*.py")}
