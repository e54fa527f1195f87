"""A server that forks a process for each job of a run, with torch loaded. Loads no torch itself.

To load torch takes longer than many jobs work. So the Snakemake of a run on this machine starts one
process that loads it once. `python -m ect VERB ...` then asks that server to fork a child that does
the work: with the words, the files 0 to 2, the folder and the environment of who asks, who waits,
passes signals on, and ends as the child does. A child computes the same bits as a process of its
own (a test).

The server declines, and the work is done by who was asked, where the environment, Python, the umask
or a limit of the process is another one, the code was edited after the server loaded it, or a
package cannot be loaded. If who asks is killed, so is the child.
"""

import contextlib
import ctypes
import importlib
import json
import os
import resource
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

from ect.runtime.stop import SIGNALS

SERVE = "--serve-forks"  # `python -m ect --serve-forks SOCKET` is the server
PLACE = "ECT_FORKS"  # in the environment of a run's jobs: the server's socket
THREADS = (  # where Snakemake tells libraries how many a job has; a job with more is no child
    *(f"{name}_NUM_THREADS" for name in ("OMP", "GOTO", "OPENBLAS", "MKL", "NUMEXPR")),
    "VECLIB_MAXIMUM_THREADS",
)
# Variables that each shell or job sets anew; all others must be those of the server.
MAY_DIFFER = {"_", "SHLVL", "PWD", "OLDPWD", "TMPDIR", "TMP", "TEMP", "TEMPDIR"}
SIZE = struct.Struct("!I")  # of what is asked, before it
ALONE = ("--gpus", "--nodes")  # jobs that become other programs, or load CUDA's driver anyway
LONGEST = 107  # bytes of a socket's path
DEATH = 1  # prctl's PR_SET_PDEATHSIG: the signal that a process gets when its parent ends

# {verb: what the server loads before it first forks a child for it}, and before the first of all.
REPORT = ("ect.report.tables", "ect.report.figures", "ect.report.page")
TORCH = ("ect.training.train", "ect.evaluation.evaluate", "ect.evaluation.sample")
LOADED: dict[str, tuple[str, ...]] = {}
LOADED |= dict.fromkeys(("tabulate", "draw", "write-page"), REPORT)
LOADED |= dict.fromkeys(("train", "sample", "extract", "evaluate", "summarize", "trace"), TORCH)
FIRST = ("ect.cli.main", "ect.config.verbs", "ect.config.drawing")
SERVERS: list[subprocess.Popen] = []  # of this process; each ends when its stdin is closed


def start():
    """Start a server for the jobs of this process, which is Snakemake's; it ends with it. Where the
    environment has an empty ECT_FORKS there is none."""
    if sys.platform != "linux" or PLACE in os.environ:
        return
    folder = Path(tempfile.mkdtemp(prefix="ect-"))
    if len(os.fsencode(place := str(folder / "forks"))) > LONGEST:
        folder.rmdir()
        return
    environment = os.environ | dict.fromkeys(THREADS, "1") | {PLACE: place}
    command = [sys.executable, "-m", "ect", SERVE, place]
    pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
    SERVERS.append(
        subprocess.Popen(command, env=environment, stdin=pipe, stdout=nowhere, process_group=0)
    )
    os.environ[PLACE] = place


def delegated(words):
    """Have this run's server fork a child for `python -m ect WORDS`, and wait for it. Returns its
    exit code, ends by the signal that ended it, or returns None if there is no server or it
    declines: the work is to be done here."""
    place = os.environ.get(PLACE)
    if not place or any(word.startswith(ALONE) for word in words) or not _has_files():
        return None
    before = {n: signal.getsignal(n) for n in SIGNALS}
    ignored = [int(n) for n, handler in before.items() if handler == signal.SIG_IGN]
    received = []
    with socket.socket(socket.AF_UNIX) as line, line.makefile("rb") as said:

        def pass_on(number, frame):
            received.append(number)
            with contextlib.suppress(OSError):
                line.send(bytes([number]))

        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until all is asked
            line.connect(place)
            for number in set(SIGNALS) - set(ignored):
                signal.signal(number, pass_on)
            here = {"folder": os.getcwd(), "held": held_to()}
            _ask(line, {"words": words, "ignored": ignored, **here})
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            if said.readline() == b"yes\n" and (status := said.readline()):
                return _ended(int(status))
        except OSError:  # there is no such server, or no more; its children end with it
            pass
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    for number in received:
        os.kill(os.getpid(), number)
    return None


def _has_files():
    """Whether the files 0 to 2 are open. Where one is closed, what is opened next takes its number:
    the line to the server, which a child would then write to."""
    try:
        return all(os.fstat(file) for file in range(3))
    except OSError:
        return False


def _ask(line, what):
    asked = json.dumps(what | {"environment": dict(os.environ)}).encode()
    socket.send_fds(line, [SIZE.pack(len(asked))], [0, 1, 2])
    line.sendall(asked)


def _ended(code):
    """The exit code of a child; the signal that ended it, -code, ends this process too."""
    if code < 0:
        if -code in SIGNALS:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


def serve(place):
    """Fork a child for each job that is asked for, until Snakemake has ended and the jobs too.
    Returns None then; in a child, its words."""
    return Server(place).words()


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
        shutil.rmtree(self.place.parent, ignore_errors=True)

    def _accept(self):
        """Fork a child for the next request; returns None in the server, words in the child."""
        line, _ = self.listener.accept()
        asked, files = self._request(line)
        try:
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


def held_to():
    """What a process is held to beside its environment, and a child would have of the server: the
    options of Python and which one it is, umask, niceness, processors and limits."""
    os.umask(mask := os.umask(0o77))
    names = sorted(name for name in dir(resource) if name.startswith("RLIMIT_"))
    limits = [list(resource.getrlimit(getattr(resource, name))) for name in names]
    python = [sys.prefix, *map(int, sys.flags), dict(sys._xoptions), sys.warnoptions]
    processors = sorted(os.sched_getaffinity(0))
    return [python, mask, os.getpriority(os.PRIO_PROCESS, 0), processors, limits]


def _fixed(environment):
    return {name: value for name, value in environment.items() if name not in MAY_DIFFER}


def _sources():
    """{file: when it was edited} of the package."""
    package = Path(__file__).parents[1]
    return {path: path.stat().st_mtime_ns for path in package.rglob("*.py")}
