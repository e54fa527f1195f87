"""GPUs are lent to one job at a time, many jobs all end, and only its command holds a lock."""

import argparse
import fcntl
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from ect.cli.main import VERBS, main
from ect.runtime import lease

# Notes each of its devices as begun and ended, in a file for each.
JOB = """
for device in $(echo $CUDA_VISIBLE_DEVICES | tr , ' '); do echo begin $$ >> $0.$device; done
sleep $1
for device in $(echo $CUDA_VISIBLE_DEVICES | tr , ' '); do echo end $$ >> $0.$device; done
"""


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """Four devices that do not exist, lent in a folder of this test."""
    for name in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ECT_FAKE_DEVICES", "4")
    monkeypatch.setenv("ECT_LEASE_DIR", str(tmp_path / "leases"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setattr(lease, "TAKEN", [])
    return tmp_path


def until(happened):
    """Wait until `happened()`, for a minute at most."""
    end = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


def leased(number, *command, **options):
    words = [sys.executable, "-m", "ect", "lease", "--gpus", str(number), "--", *command]
    return subprocess.Popen(words, **options)


def free(folder):
    """The devices that nobody holds."""
    found = []
    for name in lease.gpus():
        with open(folder / name, "a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                found.append(name)
            except BlockingIOError:
                continue
    return found


def test_of_many_jobs_no_two_have_a_device_and_all_end(environment, monkeypatch):
    monkeypatch.setenv("ECT_FAKE_DEVICES", "3")
    source, log = random.Random(0), environment / "log"
    numbers = [1, 2, 3] * 2 + [1, 2] * 4
    source.shuffle(numbers)
    pauses = [str(round(source.uniform(0, 0.2), 2)) for _ in numbers]
    jobs = [leased(n, "sh", "-c", JOB, str(log), pause) for n, pause in zip(numbers, pauses)]
    assert [job.wait(60) for job in jobs] == [0] * len(jobs)
    lines = [(environment / f"log.{name}").read_text().split("\n")[:-1] for name in "012"]
    for device in lines:
        begins, ends = device[::2], device[1::2]
        assert [begin.replace("begin", "end") for begin in begins] == ends
    assert sum(len(device) for device in lines) == 2 * sum(numbers)


def test_the_command_itself_holds_the_lock(environment):
    """`lease` becomes the command: the devices are free when it ends, not when its parent does. A
    child of the command that inherits its open files holds them too, also after its end."""
    starter = [sys.executable, "-c", "import os, subprocess, sys\n"
        "p = subprocess.Popen(sys.argv[1:]); print(p.pid, flush=True); p.wait()"]  # fmt: skip
    words = [sys.executable, "-m", "ect", "lease", "--gpus", "3", "--", "sh", "-c"]
    words.append("echo $$; exec sleep 60")
    parent = subprocess.Popen([*starter, *words], stdout=subprocess.PIPE, text=True)
    pids = [int(parent.stdout.readline()) for _ in range(2)]
    assert pids[0] == pids[1]
    parent.kill()
    parent.wait()
    assert free(environment / "leases") == ["3"]
    os.kill(pids[0], signal.SIGKILL)
    until(lambda: len(free(environment / "leases")) == 4)


def test_a_waiting_job_says_so_and_gets_what_is_given_back(environment):
    holder = leased(3, "sleep", "60")
    until(lambda: (environment / "leases").exists() and len(free(environment / "leases")) <= 1)
    waiting = leased(2, "sh", "-c", "echo $CUDA_VISIBLE_DEVICES",
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
    assert "waiting for 1 more of the 4 GPUs" in waiting.stderr.readline()
    holder.kill()
    assert waiting.communicate()[0] == "0,3\n" and waiting.returncode == 0
    holder.wait()


def test_more_than_there_are_is_refused_at_once(environment, capsys):
    assert main(["lease", "--gpus", "5", "--", "true"]) == 1
    said = capsys.readouterr().err
    assert said == "ect lease: --gpus: found 5; allowed: 1 to 4, this machine's GPUs\n"
    assert main(["lease", "--gpus", "1", "--", "no such program"]) == 1
    assert "found 'no such program'; allowed" in capsys.readouterr().err


@pytest.mark.parametrize(
    "names", [{"CUDA_VISIBLE_DEVICES": text} for text in ("", "-1", "NoDevFiles", "-1,0")]
    + [{"SLURM_JOB_ID": "7"}, None], ids=str,
)  # fmt: skip
def test_nothing_is_lent_where_none_may_be_seen_or_there_is_none(names, environment, monkeypatch):
    for name, value in (names or {}).items():
        monkeypatch.setenv(name, value)
    if names is None:
        monkeypatch.delenv("ECT_FAKE_DEVICES")
        monkeypatch.setattr(lease.shutil, "which", lambda program: None)
        monkeypatch.setattr(lease, "FILES", environment)
    before = dict(os.environ)
    lease.take(5)
    assert os.environ == before and lease.TAKEN == []
    assert not (environment / "leases").exists()


def test_without_nvidia_smi_device_files_are_counted(tmp_path, monkeypatch):
    """As in a container that was given two of a machine's devices: CUDA counts them from 0."""
    monkeypatch.delenv("ECT_FAKE_DEVICES", raising=False)
    monkeypatch.setattr(lease.shutil, "which", lambda program: None)
    monkeypatch.setattr(lease, "FILES", tmp_path)
    assert lease.gpus() == []
    for name in ("nvidia3", "nvidia10", "nvidiactl", "nvidia-uvm", "nvme0"):
        (tmp_path / name).touch()
    assert lease.gpus() == ["0", "1"]


LEASING = {
    "train", "sample", "extract", "train_classifier", "evaluate", "trace", "find_nearest",
    "search_steps", "solve_trajectories",
}  # fmt: skip


def test_every_verb_that_computes_on_a_gpu_leases_before_all_else(monkeypatch):
    """None has another file or key before it."""

    class Leased(Exception):
        pass

    def lend(number, nodes=None):
        raise Leased(number)

    monkeypatch.setattr(lease, "start_over", lend)
    offering = {verb for verb, (_, words) in VERBS.items() if "--gpus" in words}
    assert {verb.__name__ for verb in offering} == LEASING | {"lease"}
    for verb in offering:
        if verb.__name__ in LEASING:
            with pytest.raises(Leased, match="1"):
                verb(argparse.Namespace(gpus=1, nodes=None))


def test_a_job_of_one_process_has_one_gpu(capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "{}", "--out", "m.json", "--gpus", "2"])
    assert "argument --gpus: found '2'; allowed: 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    "listed, found",
    [
        ("2,0", {"2": "2", "0": "0"}),
        ("1,-1,0", {"1": "1"}),
        (" 3, 2", {"3": "3", "2": "2"}),
        ("GPU-a,MIG-b", {"GPU-a": "GPU-a", "MIG-b": "MIG-b"}),
        ("9", {"9": "9"}),
    ],
)
def test_a_list_is_the_pool(listed, found, environment, monkeypatch):
    """In its order; a number locks the device that it means."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert lease.devices() == found and list(lease.devices()) == list(found)
    monkeypatch.setattr(lease, "gpus", lambda: ["GPU-a", "GPU-b"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert lease.devices() == {"1": "GPU-b"}


@pytest.mark.parametrize("job", [None, "7"])
def test_two_jobs_of_one_list_have_a_device_each(job, environment, monkeypatch):
    """With a list by hand, and in a SLURM job that has a whole node."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    if job:
        monkeypatch.setenv("SLURM_JOB_ID", job)
    words = ("sh", "-c", "echo $CUDA_VISIBLE_DEVICES; read end")
    pipes = dict.fromkeys(("stdin", "stdout"), subprocess.PIPE)
    jobs = [leased(1, *words, **pipes, text=True) for _ in range(2)]
    assert sorted(job.stdout.readline() for job in jobs) == ["0\n", "1\n"]
    for process in jobs:
        process.communicate("\n")
    names = {path.name for path in (environment / "leases").iterdir()}
    assert names == ({f"slurm-{job}"} if job else {"queue", "0", "1"})


def test_jobs_of_two_slurm_jobs_do_not_wait_for_each_other(environment, monkeypatch):
    """The device that one job of SLURM calls 0 is not the other's."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    for job in ("7", "8"):
        monkeypatch.setenv("SLURM_JOB_ID", job)
        monkeypatch.setenv("ECT_LEASE_DIR", str(environment / "leases"))
        lease.take(1)
    assert len(lease.TAKEN) == 2


def test_a_lease_lends_on_what_it_has(environment):
    """A workflow in a lease of two: each of its jobs has one of them, and none waits for ever."""
    both = "touch $CUDA_VISIBLE_DEVICES; until [ -e 0 ] && [ -e 1 ]; do sleep 0.1; done"
    one = f"{sys.executable} -m ect lease --gpus 1 -- sh -c '{both}'"
    done = leased(2, "sh", "-c", f"{one} & {one}; wait", cwd=environment)
    assert done.wait(60) == 0
    again = [sys.executable, "-m", "ect", "lease", "--gpus", "3", "--", "true"]
    asked = leased(2, *again, stderr=subprocess.PIPE, text=True)
    assert "found 3; allowed: 1 to 2, those in CUDA_VISIBLE_DEVICES" in asked.communicate()[1]


def test_a_training_leases_for_itself_once(environment, monkeypatch):
    """One device in this process; several through torchrun, whose processes lease nothing more."""
    started = []
    monkeypatch.setattr(lease, "become", started.append)
    monkeypatch.setattr(sys, "argv", ["ect", "train", "x", "--gpus", "2"])
    with monkeypatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
        patch.setenv("ECT_LEASE_DIR", str(environment / "leases"))
        lease.start_over(1)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "0" and started == []
        assert free(environment / "leases") == ["1", "2", "3"]
        lease.TAKEN.pop().close()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("ECT_STARTER", "0")
    lease.start_over(2)
    torchrun = [sys.executable, "-P", "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    wanted = [*torchrun, "--standalone", "-m", "ect", *sys.argv[1:]]
    assert started == [wanted]
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    lease.start_over(2)
    lease.start_over(None)
    assert started == [wanted]


def test_several_nodes_are_srun_and_one_meeting_place(environment, monkeypatch):
    """The words of two processes on each of three nodes; outside SLURM there are none."""
    with pytest.raises(ValueError, match="--nodes: found 3; allowed: 1, or more in a job of SLURM"):
        lease.torchrun(6, 3)
    with pytest.raises(ValueError, match="--gpus: found 7; allowed: multiples of --nodes, 3"):
        lease.torchrun(7, 3)
    monkeypatch.setenv("SLURM_JOB_ID", "120034")
    monkeypatch.setenv("SLURMD_NODENAME", "n7")
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setenv("ECT_STARTER", "0")
    monkeypatch.setattr(sys, "argv", ["ect", "train", "x", "--gpus", "6", "--nodes", "3"])
    started = []
    monkeypatch.setattr(lease, "become", started.append)
    lease.start_over(6, 3)
    words = " ".join(started[0]).replace(sys.executable, "python")
    assert words == (
        "srun --overlap --nodes 3 --ntasks-per-node 1 python -P -m torch.distributed.run"
        " --nproc-per-node 2 --nnodes 3 --rdzv-backend c10d --rdzv-endpoint n7:20034"
        " --rdzv-id 120034 -m ect train x --gpus 6 --nodes 3"
    )


def test_without_a_gpu_processes_share_the_processors(monkeypatch):
    monkeypatch.setattr(lease, "devices", dict)
    monkeypatch.setattr(lease.os, "cpu_count", lambda: 2)
    lease.take(2 * lease.SHARING)
    with pytest.raises(ValueError, match="--gpus: found 17, and no GPU; allowed: 1 to 16, the"):
        lease.take(2 * lease.SHARING + 1)
