"""GPUs of one machine, each lent to one job at a time. Loads no torch.

Snakemake counts GPUs and names none. A job that asks for n of them locks a file for each, and is
shown these alone. The lock is that of the open file: it goes on through `exec` into the job's
command and ends with it, however that ends. Nothing is lent where another has chosen (SLURM, or
CUDA_VISIBLE_DEVICES), or where there is no GPU.
"""

import fcntl
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ect.given import count

PORT = 20000  # and up to 10,000 more, by the number of the job: where nodes meet
PAUSE = 0.2  # seconds between two looks at devices that are all lent
TAKEN = []  # the open lock files of this process


def devices():
    """The names of this machine's GPUs, as CUDA_VISIBLE_DEVICES takes them. ECT_FAKE_DEVICES=n
    makes up n, to try a lease where there are none."""
    made_up = os.environ.get("ECT_FAKE_DEVICES")
    if made_up:
        return [str(index) for index in range(int(made_up))]
    asked = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    if not shutil.which(asked[0]):
        return []
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    return done.stdout.split() if done.returncode == 0 else []


def folder():
    """Where the lock files lie: ECT_LEASE_DIR, else a folder of this user's among the temporary."""
    own = Path(tempfile.gettempdir()) / f"ect-lease-{os.getuid()}"
    return Path(os.environ.get("ECT_LEASE_DIR") or own)


def take(number):
    """Wait for `number` GPUs, and lend them to this process and what it turns into. Raises
    `ValueError` where the machine has fewer."""
    if {"CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID"} & set(os.environ):
        return
    names = devices()
    if not names:
        return
    if number > len(names):
        raise ValueError(f"--gpus: found {number}; allowed: 1 to {len(names)}, as there are here")
    place = folder()
    place.mkdir(parents=True, exist_ok=True)
    with open(place / "queue", "a") as queue:  # one at a time collects devices: no deadlock
        fcntl.flock(queue, fcntl.LOCK_EX)
        taken = _collected(place, names, number)
    for file in taken.values():
        os.set_inheritable(file.fileno(), True)
    TAKEN.extend(taken.values())
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(sorted(taken, key=names.index))


def _collected(place, names, number):
    """{name: its open file} of the first `number` devices that are free, now or later."""
    taken, said = {}, False
    while True:
        for name in names:
            if len(taken) < number and name not in taken:
                taken |= _locked(place / name)
        if len(taken) == number:
            return taken
        if not said:
            missing = f"{number - len(taken)} more of the {len(names)} GPUs"
            print(f"ect lease: waiting for {missing} (locks in {place})", file=sys.stderr)
            said = True
        time.sleep(PAUSE)


def _locked(path):
    """{name: the open file} if its device was free, else nothing."""
    file = open(path, "a")  # noqa: SIM115
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return {}
    return {path.name: file}


def become(command):
    """Turn this process into a command, with its leases. Raises `ValueError` if there is none."""
    if not shutil.which(command[0]):
        raise ValueError(f"found '{command[0]}'; allowed: a program on the PATH")
    sys.stdout.flush()
    os.execvp(command[0], command)


def start_over(number, nodes=None):
    """Lease GPUs for this verb. With several, or several nodes of a SLURM job, torchrun starts it
    again in as many processes, and there nothing is left to do."""
    if (number or nodes) is None or "TORCHELASTIC_RUN_ID" in os.environ:
        return
    nodes = nodes or 1
    number = number or nodes
    take(number)
    if number > 1:
        os.environ["ECT_STARTER"] = str(os.getppid())
        become([*torchrun(number, nodes), "-m", "ect", *sys.argv[1:]])


def torchrun(number, nodes):
    """The words that start a program in `number` processes on so many nodes, on each as many: on
    several, srun starts torchrun on each, and they meet on this one. Raises `ValueError` outside
    SLURM, and where the processes cannot be shared out."""
    if number % nodes:
        raise ValueError(f"--gpus: found {number}; allowed: multiples of --nodes, {nodes}")
    share = str(number // nodes)
    program = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", share]
    if nodes == 1:
        return [*program, "--standalone"]
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        raise ValueError(f"--nodes: found {nodes}; allowed: 1, or more in a job of SLURM")
    host = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    meeting = f"{host}:{PORT + int(job) % 10000}"
    srun = ["srun", "--overlap", "--nodes", str(nodes), "--ntasks-per-node", "1"]
    where = ["--rdzv-backend", "c10d", "--rdzv-endpoint", meeting, "--rdzv-id", job]
    return [*srun, *program, "--nnodes", str(nodes), *where]


def lease(args):
    take(args.gpus)
    become(args.command)


VERBS: dict[Callable, tuple[str, dict]] = {
    lease: (
        "run a command with GPUs of this machine that no other lease has, when they are free",
        {
            "--gpus": {"type": count, "required": True},
            "command": {"nargs": "+", "help": "after --, with its arguments"},
        },
    ),
}
