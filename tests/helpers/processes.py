"""A run in several processes."""

import multiprocessing
import os
import socket

import torch

from ect.runtime import device
from ect.training import train


def worker(rank, world, port, task, given):
    """One of the processes that torchrun would start, in double precision on the CPU."""
    os.environ |= {
        "RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "test",
    }  # fmt: skip
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    device.current = lambda: torch.device("cpu")
    task(*given)


def context():
    """Processes that are forked from one which has loaded what they all need."""
    processes = multiprocessing.get_context("forkserver")
    loaded = ["torch._dynamo", "scipy.linalg", "pytest", "hypothesis", "ect.training.train"]
    processes.set_forkserver_preload(loaded)
    return processes


def trained(world, settings, data, out, task=train.run):
    """The exit codes of `world` processes that train together, or do another task."""
    processes = context()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = (world, port, task, (settings, data, out))
    crew = [processes.Process(target=worker, args=(rank, *given)) for rank in range(world)]
    for process in crew:
        process.start()
    for process in crew:
        process.join()
    return [process.exitcode for process in crew]
