"""A forked process does what one of its own does: words, files, folder, signals, end."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch

from ect.runtime import forks
from ect.training import train
from tests.helpers.runs import ARTEFACTS, PRETRAIN
from tests.helpers.workflow import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks only on Linux")

# A server, and who asks it, whose verb is a line of Python; without a server the line is not run.
SERVER = """
import os, sys
from pathlib import Path
from ect.runtime import forkserver
forkserver.FIRST, forkserver._sources = (), Path("edited").exists
forkserver.LOADED = {"broken": ("no_such_package",)}
forkserver.serve(sys.argv[1], lambda words: exec(words[0]))
"""
CLIENT = """
import sys
from ect.runtime import forks
code = forks.delegated(sys.argv[1:])
sys.exit("nobody did it" if code is None else code)
"""
PATIENT = """
import os, signal, sys
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(5))
print(os.getpid(), signal.getsignal(signal.SIGINT) == signal.SIG_IGN, flush=True)
while True: signal.pause()
"""


def begun(*words, env=None, **options):
    env = {k: v for k, v in (env or os.environ).items() if k != "PYTEST_CURRENT_TEST"}
    return subprocess.Popen([sys.executable, *words], text=True, env=env, **options)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server whose children run lines of Python in a folder of this test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    place = Path(tempfile.mkdtemp(prefix="ect-")) / "forks"
    monkeypatch.setenv(forks.PLACE, str(place))
    process = begun("-c", SERVER, str(place), stdin=subprocess.PIPE)
    until(place.exists)
    yield process
    process.stdin.close()
    assert process.wait(60) == 0 or process.returncode == -signal.SIGKILL


def asked(line, *words, **options):
    """A process that asks the server to run a line of Python."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return begun("-c", CLIENT, line, *words, **(pipes | options))


def until(happened):
    """Wait until `happened()`, for a minute at most."""
    end = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


def gone(pid):
    """Whether a process is no more, or only its parent has not noted its end."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_child_has_the_words_files_folder_and_end_of_who_asked(server, tmp_path):
    (tmp_path / "below").mkdir()
    line = "print(sys.argv[2], os.getcwd(), input(), os.environ['_']); sys.exit('so ended')"
    environment = os.environ | {"_": "mine"}
    process = asked(line, "two", cwd="below", stdin=subprocess.PIPE, env=environment)
    out, err = process.communicate("given\n", timeout=60)
    assert out == f"two {tmp_path / 'below'} given mine\n"
    assert err == "so ended\n" and process.returncode == 1


@pytest.mark.parametrize("end", [0, 7, 75, -signal.SIGKILL, -signal.SIGSEGV])
def test_who_asked_ends_as_the_child_does(server, end):
    line = f"os._exit({end})" if end >= 0 else f"os.kill(os.getpid(), {-end})"
    assert asked(line).wait(60) == end


def test_a_child_that_is_ended_has_said_and_done_all(server):
    line = "import atexit, threading; atexit.register(print, 'at exit')"
    line += "; threading.Timer(0.2, print, ['thread']).start()"
    process = asked(line + "; print('work'); forkserver.end(7)")
    assert process.communicate(timeout=60)[0] == "work\nthread\nat exit\n"
    assert process.returncode == 7


def test_each_of_many_at_once_has_its_own_output(server):
    processes = [asked(f"print({n}); sys.exit({n})") for n in range(12)]
    for n, process in enumerate(processes):
        assert process.communicate(timeout=60)[0] == f"{n}\n" and process.returncode == n


def test_signals_reach_the_child(server):
    process = asked(PATIENT)
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 5
    interrupted = asked("print(flush=True); import signal; signal.pause()")
    interrupted.stdout.readline()
    interrupted.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in interrupted.communicate(timeout=60)[1]
    assert interrupted.returncode == -signal.SIGINT


@pytest.mark.parametrize("ignores", [True, False])
def test_a_child_ignores_the_signals_that_who_asked_ignores(server, ignores):
    """As a command that was started with `&` does SIGINT."""
    what = signal.SIG_IGN if ignores else signal.default_int_handler
    process = asked(PATIENT, preexec_fn=lambda: signal.signal(signal.SIGINT, what))
    assert process.stdout.readline().split()[1] == str(ignores)
    process.terminate()
    assert process.wait(60) == 5


def test_a_child_ends_with_who_asked(server):
    process = asked(PATIENT)
    child = int(process.stdout.readline().split()[0])
    assert not gone(child)
    process.kill()
    until(lambda: gone(child))


def test_a_child_ends_with_the_server_and_the_work_is_done_by_who_asked(server):
    process = asked(PATIENT)
    child = int(process.stdout.readline().split()[0])
    server.kill()
    until(lambda: gone(child))
    assert process.communicate(timeout=60)[1] == "nobody did it\n"
    assert asked(PATIENT).communicate(timeout=60)[1] == "nobody did it\n"


def test_jobs_end_before_the_server_whose_snakemake_has_ended(server):
    process = asked(PATIENT)
    process.stdout.readline()
    server.stdin.close()
    until(lambda: not Path(os.environ[forks.PLACE]).parent.exists())
    assert asked(PATIENT).communicate(timeout=60)[1] == "nobody did it\n"
    assert server.poll() is None
    process.terminate()
    assert process.wait(60) == 5 and server.wait(60) == 0


def test_nobody_forks_for_another_environment_other_code_or_gpus(server, tmp_path, monkeypatch):
    line = "sys.exit(3)"
    assert asked(line).wait(60) == 3
    assert asked(line, env=os.environ | {"OMP_NUM_THREADS": "7"}).wait(60) == 1
    assert asked(line, "--gpus", "1").wait(60) == asked(line, "--nodes=2").wait(60) == 1
    (tmp_path / "edited").touch()
    assert asked(line).wait(60) == 1


HELD = {
    "umask": lambda: os.umask(0o137),
    "niceness": lambda: os.nice(1),
    "processors": lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}),
    "file size": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2**30, 2**30)),
}


@pytest.mark.parametrize("hold", HELD.values(), ids=HELD)
def test_nobody_forks_for_a_process_that_is_held_to_something_else(server, hold):
    if hold is HELD["processors"] and len(os.sched_getaffinity(0)) == 1:
        pytest.skip("one processor")
    process = asked("sys.exit(3)", preexec_fn=hold)
    assert process.communicate(timeout=60)[1] == "nobody did it\n"


def test_nobody_forks_for_another_python(server):
    process = begun("-X", "dev", "-c", CLIENT, "sys.exit(3)", stderr=subprocess.PIPE)
    assert "nobody did it" in process.communicate(timeout=60)[1]


@pytest.mark.parametrize("closed", [[0], [1], [2], [0, 1, 2]])
def test_nobody_forks_for_who_has_a_file_closed(server, closed):
    """The line to the server would take its number, and the child would write signals to it."""
    process = asked("print(200 * 'z')", preexec_fn=lambda: [*map(os.close, closed)])
    assert process.wait(60) == 1
    assert asked("sys.exit(3)").wait(60) == 3


def test_nobody_forks_where_a_package_is_broken(server):
    assert asked("sys.exit(3)", "broken").communicate(timeout=60)[1] == "nobody did it\n"
    assert asked("sys.exit(3)").wait(60) == 3


def test_what_is_no_request_does_not_end_the_server(server):
    for said in (b"", b"\0\0\0\5{", b"\0\0\0\1{", b"\0\0\0\2{}"):
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(os.environ[forks.PLACE])
            line.sendall(said)
    assert asked("sys.exit(3)").wait(60) == 3


def test_what_is_no_signal_is_not_passed_on(server, monkeypatch):
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    here = {"folder": os.getcwd(), "ignored": [], "held": forks.held_to()}
    with socket.socket(socket.AF_UNIX) as line, line.makefile("rb") as said:
        line.connect(os.environ[forks.PLACE])
        forks._ask(line, {"words": ["import time; time.sleep(1); sys.exit(4)"], **here})
        assert said.readline() == b"yes\n"
        line.sendall(b"\xff\x01\x09")
        assert said.readline() == b"4\n"
    assert asked("sys.exit(3)").wait(60) == 3


def test_no_server_where_its_path_would_be_too_long(tmp_path, monkeypatch):
    monkeypatch.delenv(forks.PLACE, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("x" * 100)))
    Path(tempfile.tempdir).mkdir()
    servers = [*forks.SERVERS]
    forks.start()
    assert servers == forks.SERVERS and forks.PLACE not in os.environ
    assert not any(Path(tempfile.tempdir).iterdir())


@pytest.fixture
def own_server(monkeypatch):
    """The server that a run of Snakemake starts, for jobs of one thread."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv(forks.PLACE, raising=False)
    monkeypatch.setattr(forks, "SERVERS", [])
    for name in forks.THREADS:
        monkeypatch.setenv(name, "1")
    # pytest gives it another value in the test than in its fixtures, for which a server declines.
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    forks.start()
    (process,) = forks.SERVERS
    until(Path(os.environ[forks.PLACE]).exists)
    yield process
    process.stdin.close()
    assert process.wait(60) == 0


def run(*words, **environment):
    """`python -m ect WORDS` in the environment of the server, but for what is given."""
    env = {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"} | environment
    return subprocess.run([sys.executable, "-m", "ect", *words], capture_output=True, env=env)


def test_the_command_line_is_that_of_a_process_of_its_own(own_server):
    for shell, code in (("bash", 0), ("cat", 2)):
        forked, alone = run("completion", shell), run("completion", shell, **{forks.PLACE: ""})
        assert forked.returncode == alone.returncode == code
        assert (forked.stdout, forked.stderr) == (alone.stdout, alone.stderr)
    forks.start()
    assert [own_server] == forks.SERVERS  # none below another, and none where the user wants none


def test_a_child_trains_to_the_bits_of_a_process_of_its_own(own_server, digits_file, tmp_path):
    words = ["--threads", "1", "train", json.dumps(PRETRAIN), "--data", str(digits_file)]
    done = run(*words, "--out", str(tmp_path / "forked"))
    assert done.returncode == 0, done.stderr
    assert "libtorch" in Path(f"/proc/{own_server.pid}/maps").read_text()  # it did not decline
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        train.run(PRETRAIN, digits_file, tmp_path / "own")
    finally:
        torch.set_num_threads(threads)
    for name in ARTEFACTS:
        assert (tmp_path / "forked" / name).read_bytes() == (tmp_path / "own" / name).read_bytes()
