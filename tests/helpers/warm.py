"""Programs that start at once: they are forked from a Python whose packages are loaded.

A run of Snakemake starts a hundred Pythons, and most of their time is the import of packages. Here
one Python has imported those, none of them `ect`, and is forked for each program. What differs from
`python -m MODULE ...` in a new process is that time alone: the program has its own arguments,
environment, working directory, files 0 to 2, exit code, and imports `ect` itself.

    run("ect", "status", cwd=folder)    a program, to its end
    programs(folder)                    a folder for the PATH, whose `python` starts such programs
"""

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

PACKAGES = {  # of each module that is started so; what one does not use it must not find loaded
    "snakemake": (
        "snakemake.cli", "snakemake.report.html_reporter", "pydantic", "yaml", "numpy", "PIL.Image",
    ),
    "ect": (
        "pydantic", "yaml", "torch", "PIL.Image", "safetensors.torch", "pandas", "scipy.linalg",
        "scipy.stats", "sklearn.datasets", "matplotlib.figure", "matplotlib.backends.backend_agg",
        "matplotlib.backends.backend_pdf", "torch._dynamo", "cleanfid.fid", "tqdm",
    ),
}  # fmt: skip
CLIENT = """#!{python} -IS
import json, os, socket, sys
doors, words = {doors}, sys.argv[1:]
if words[:1] != ["-m"] or words[1] not in doors:
    os.execv({python!r}, [{python!r}, *words])
with socket.socket(socket.AF_UNIX) as line:
    line.connect(doors[words[1]])
    socket.send_fds(line, [b"."], [0, 1, 2])
    asked = dict(words=words[1:], cwd=os.getcwd(), env=dict(os.environ))
    line.sendall(json.dumps(asked).encode())
    line.shutdown(socket.SHUT_WR)
    sys.exit(int(line.makefile().read() or 1))
"""


@functools.cache
def door(module):
    """The socket at which a Python with the packages of a module waits. It ends with this one."""
    path = f"{_folder()}/door"
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    env |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # read once, where torch is loaded
    command = [sys.executable, "-P", __file__, path, *PACKAGES[module]]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)
    assert server.stdout.readline() == b"open\n", f"no Python with {PACKAGES[module]}"
    atexit.register(server.stdin.close)
    return path


def programs(folder):
    """Make a folder for the PATH: `python -m snakemake` and `python -m ect` are forked; what else
    is asked of its `python` a new process does."""
    made = Path(folder) / "warm"
    made.mkdir()
    text = CLIENT.format(python=sys.executable, doors={name: door(name) for name in PACKAGES})
    (made / "python").write_text(text)
    (made / "python").chmod(0o755)
    return made


@functools.cache
def _python():
    return programs(_folder()) / "python"


def _folder():
    """A new folder, which goes when this Python ends."""
    folder = tempfile.mkdtemp(prefix="warm-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def run(module, *words, cwd=None, env=None, new=False, stderr=subprocess.PIPE):
    """`python -m MODULE WORDS`, where PATH's first `python` starts such programs too; returns the
    finished process with its output as text. With `new` all of it is new processes."""
    env = dict(os.environ if env is None else env)
    if not new:
        env["PATH"] = os.pathsep.join([str(_python().parent), env["PATH"]])
        env["ECT_FORKS"] = ""  # no server of the run's own: its jobs are forked here
    command = [sys.executable if new else _python(), "-m", module, *map(str, words)]
    pipes = {"stdout": subprocess.PIPE, "stderr": stderr}
    return subprocess.run(command, cwd=cwd, env=env, text=True, **pipes)


def serve(path, packages):
    """Wait for programs to start, until the standard input ends; import the packages for the first.
    Returns in the process that is to be one: with its module."""
    with socket.socket(socket.AF_UNIX) as entry:
        entry.bind(path)
        entry.listen(64)
        print("open", flush=True)
        while entry in select.select([entry, sys.stdin], [], [])[0]:
            line = entry.accept()[0]
            while packages:
                importlib.import_module(packages.pop(0))
                gc.freeze()
            if os.fork() == 0:
                entry.close()
                return become(line)
            line.close()
            _bury()
    sys.exit()


def _bury():
    """Forget the processes that have ended."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return
        except ChildProcessError:
            return


def become(line):
    """The program that is asked for at the other end: its module. The process that was forked waits
    for the program, a child of its own, and passes the exit code on."""
    _, files, _, _ = socket.recv_fds(line, 1, 3)
    asked = json.loads(line.makefile().read())
    if child := os.fork():
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        line.sendall(str(code if code >= 0 else 128 - code).encode())
        os._exit(0)
    line.close()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    # These may be pipes, and were files.
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    module, *arguments = asked["words"]
    sys.argv[1:] = arguments
    more = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [asked["cwd"], *filter(None, more)]
    return module


def end(code):
    """End this process, and free nothing: Python would first copy what the fork shares."""
    if isinstance(code, str):
        print(code, file=sys.stderr)
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    module = serve(sys.argv[1], sys.argv[2:])
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as exit:
        end(exit.code)
    end(0)
