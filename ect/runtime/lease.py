"""GPUs of one machine, each lent to one job at a time. Loads no torch.

Snakemake counts GPUs but does not say which. A job that asks for n of them locks a file for each
and sees only these. The lock belongs to the open file: the job's command inherits it through
`exec`, and it ends with the command, however that ends. Where CUDA_VISIBLE_DEVICES is set, by hand,
by SLURM or by a lease around this one, its devices are lent and no others. Nothing is lent where
there is no GPU.
"""

import fcntl
import itertools
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ect.runtime.text import whole

SHARING = 8  # processes of one processor, where there is no GPU
PORT = 20000  # of torchrun's rendezvous; SLURM's job id adds up to 10,000
PAUSE = 0.2  # seconds between two checks while too few devices are free
TAKEN = []  # the open lock files of this process
VISIBLE = "CUDA_VISIBLE_DEVICES"
FILES = Path("/dev")  # the folder of device files; CUDA counts those that are there from 0
DEVICE = re.compile(r"\d+|(GPU|MIG)-.+")


def devices():
    """{name in CUDA_VISIBLE_DEVICES: name of its lock} of the GPUs that may be lent: those listed
    there; without a list all of the machine, but in a job of SLURM none. CUDA reads such a list up
    to the first word that is no device."""
    machine, listed = gpus(), os.environ.get(VISIBLE)
    if listed is None:
        return {} if "SLURM_JOB_ID" in os.environ else dict(zip(machine, machine))
    words = itertools.takewhile(DEVICE.fullmatch, listed.replace(" ", "").split(","))
    known = dict(enumerate(machine))
    return {word: known.get(int(word), word) if word.isdigit() else word for word in words}


def gpus():
    """The names of this machine's GPUs, in order: what nvidia-smi says or, where a container has no
    such program, the numbers of its device files. ECT_FAKE_DEVICES=n makes up n, to try a lease
    where there are none."""
    made_up = os.environ.get("ECT_FAKE_DEVICES")
    if made_up:
        return [str(index) for index in range(whole("ECT_FAKE_DEVICES", made_up, 0, 1024))]
    asked = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    if not shutil.which(asked[0]):
        return [str(index) for index, _ in enumerate(FILES.glob("nvidia[0-9]*"))]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    return done.stdout.split() if done.returncode == 0 else []


def folder():
    """The folder of the lock files: ECT_LEASE_DIR, else this user's own in the temporary folder.
    Each job of SLURM has one below it, since another job's device 0 may be another device."""
    default = Path(tempfile.gettempdir()) / f"ect-lease-{os.getuid()}"
    shared, job = Path(os.environ.get("ECT_LEASE_DIR") or default), os.environ.get("SLURM_JOB_ID")
    return shared / f"slurm-{job}" if job else shared


def take(number):
    """Wait for `number` GPUs, and lend them to this process and the command that it becomes, which
    may lend them on with locks in a folder of its own. Raises `ValueError` if there are fewer.
    Without any GPU the processes share the processors, at most `SHARING` each."""
    names = devices()
    if not names:
        most = SHARING * (os.cpu_count() or 1)
        if number > most:
            allowed = f"1 to {most}, the processes that share this machine's processors"
            raise ValueError(f"--gpus: found {number}, and no GPU; allowed: {allowed}")
        return
    if number > len(names):
        whose = "those in CUDA_VISIBLE_DEVICES" if VISIBLE in os.environ else "this machine's GPUs"
        raise ValueError(f"--gpus: found {number}; allowed: 1 to {len(names)}, {whose}")
    locks = folder()
    locks.mkdir(parents=True, exist_ok=True)
    with open(locks / "queue", "a") as queue:  # one process at a time collects: no deadlock
        fcntl.flock(queue, fcntl.LOCK_EX)
        taken = _collected(locks, names, number)
    for file in taken.values():
        os.set_inheritable(file.fileno(), True)
    TAKEN.extend(taken.values())
    os.environ[VISIBLE] = ",".join(name for name in names if name in taken)
    os.environ["ECT_LEASE_DIR"] = str(locks / f"within-{os.getpid()}")


def _collected(locks, names, number):
    """{name: its open lock file} of the first `number` devices that are or become free."""
    taken, said = {}, False
    while True:
        for name, lock in names.items():
            if len(taken) < number and name not in taken:
                taken |= _locked(name, locks / lock)
        if len(taken) == number:
            return taken
        if not said:
            missing = f"{number - len(taken)} more of the {len(names)} GPUs"
            print(f"ect lease: waiting for {missing} (locks in {locks})", file=sys.stderr)
            said = True
        time.sleep(PAUSE)


def _locked(name, path):
    """{name: its open lock file} if the device was free, else {}."""
    file = open(path, "a")  # noqa: SIM115
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return {}
    return {name: file}


def become(command):
    """Replace this process by a command, which keeps the leases. Raises `ValueError` if there is no
    such program."""
    if not shutil.which(command[0]):
        raise ValueError(f"found '{command[0]}'; allowed: a program on the PATH")
    sys.stdout.flush()
    os.execvp(command[0], command)


def start_over(number, nodes=None):
    """Lease GPUs for this verb. For several GPUs, or several nodes of a SLURM job, torchrun starts
    the verb again, in one process for each GPU; there this function does nothing."""
    if (number or nodes) is None or "TORCHELASTIC_RUN_ID" in os.environ:
        return
    nodes = nodes or 1
    number = number or nodes
    if nodes == 1:  # several nodes: each has its own, which SLURM chose
        take(number)
    if number > 1:
        os.environ["ECT_STARTER"] = str(os.getppid())
        become([*torchrun(number, nodes), "-m", "ect", *sys.argv[1:]])


def torchrun(number, nodes):
    """The command that starts a program in `number` processes, equally many on each node. For
    several nodes, srun starts torchrun on each, with the rendezvous on this one. Raises
    `ValueError` for several nodes outside SLURM, and if `nodes` does not divide `number`."""
    if number % nodes:
        raise ValueError(f"--gpus: found {number}; allowed: multiples of --nodes, {nodes}")
    share = str(number // nodes)
    program = [sys.executable, "-P", "-m", "torch.distributed.run", "--nproc-per-node", share]
    if nodes == 1:
        return [*program, "--standalone"]
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        raise ValueError(f"--nodes: found {nodes}; allowed: 1, or more in a job of SLURM")
    host = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    port = PORT + whole("SLURM_JOB_ID", job, 0, 10**18) % 10000
    rendezvous = f"{host}:{port}"
    srun = ["srun", "--overlap", "--nodes", str(nodes), "--ntasks-per-node", "1"]
    where = ["--rdzv-backend", "c10d", "--rdzv-endpoint", rendezvous, "--rdzv-id", job]
    return [*srun, *program, "--nnodes", str(nodes), *where]
