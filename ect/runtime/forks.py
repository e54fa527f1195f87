"""The processes of a run's jobs are forked from one that has loaded torch. This module loads none.

To load torch takes longer than many jobs work. So the Snakemake of a run on this machine starts one
server that loads it once (`forkserver`). `python -m ect VERB ...` then asks that server to fork a
child that does the work: with the words, the files 0 to 2, the folder and the environment of who
asks, who waits, passes signals on, and ends as the child does. A child computes the same bits as a
process of its own (a test).
"""

import contextlib
import json
import os
import resource
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
SIZE = struct.Struct("!I")  # of what is asked, before it
ALONE = ("--gpus", "--nodes")  # jobs that become other programs, or load CUDA's driver anyway
LONGEST = 107  # bytes of a socket's path

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


def held_to():
    """What a process is held to beside its environment, and a child would have of the server: the
    options of Python and which one it is, umask, niceness, processors and limits."""
    os.umask(mask := os.umask(0o77))
    names = sorted(name for name in dir(resource) if name.startswith("RLIMIT_"))
    limits = [list(resource.getrlimit(getattr(resource, name))) for name in names]
    python = [sys.prefix, *map(int, sys.flags), dict(sys._xoptions), sys.warnoptions]
    processors = sorted(os.sched_getaffinity(0))
    return [python, mask, os.getpriority(os.PRIO_PROCESS, 0), processors, limits]
