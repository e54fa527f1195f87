"""How cost grows: python bench/growth.py --out results/published/speed/growth.csv

A line for each size: the training step (ECT, small network of `bench/step.py`, 32x32) against batch
and width, with torch's kernels and the native ones; a dataset of 32x32 images, written and then
read in batches, against their number; the plan of a study against the number of added tuned models;
and one step against the number of processes, with one thread each. Seconds are processor time,
since others may share the machine, but wall-clock time where several processes wait for one
another; those of steps are medians. Memory is the peak of the largest process. Linux only.
"""

import argparse
import csv
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import runners
import torch

from ect.data import batches
from ect.data.file import writing
from ect.runtime import distributed
from ect.runtime.options import Parser, errors_as_lines, new_file, whole

SIZES = ("width", "batch", "images", "models", "processes")
FIELDS = ("what", "kernels", *SIZES, "seconds", "memory_mib", "machine")


def trained(width, batch, kernels, repeats, clock=time.process_time):
    """A line about the training step."""
    runners.NETWORKS["small"][2]["channels"] = width
    args = argparse.Namespace(
        network="small", batch=batch, dropout=runners.DROPOUT, precision="fp32", kernels=kernels
    )
    with tempfile.TemporaryDirectory() as folder:
        ours = runners.Ours(args, runners.images_of(args, folder), "tune")
        ours.step()
        taken = []
        for _ in range(repeats):
            before = clock()
            ours.step()
            taken.append(clock() - before)
    line = {"what": "step", "kernels": kernels, "width": width, "batch": batch}
    return line | {"seconds": round(statistics.median(taken), 4)}


def shared(processes, kernels, repeats):
    """A line about the step that this process takes with others, which torchrun started."""
    with distributed.together():
        line = trained(32, 32, kernels, repeats, time.perf_counter)
        return line | {"processes": processes, "memory_mib": peak_memory()}


def planned(models):
    """A line about planning a study with so many added tuned models. A small process starts it,
    as a command's peak memory includes that of the process that starts it."""
    line = f"import json, overhead; print(json.dumps(overhead.planning({models})))"
    words, folder = [sys.executable, "-c", line], Path(__file__).parent
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, cwd=folder)
    cost = json.loads(done.stdout)
    line = {"what": "plan", "models": models, "seconds": cost["processor_seconds"]}
    return line | {"memory_mib": cost["memory_mib"]}


def stored(count):
    """Lines about a dataset of so many images: writing it, and 100 batches of 128."""
    with tempfile.TemporaryDirectory() as folder:
        return _stored(count, Path(folder) / "images.safetensors")


def _stored(count, path):
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (1000, 32, 32, 3), np.uint8)
    before = time.process_time()
    about = {"classes": None, "shift": 127.5, "scale": 1 / 127.5, "sd": 0.5}
    with writing(path, about) as writer:
        for _ in range(count // len(pixels)):
            writer.add("train", pixels, [0] * len(pixels))
        writer.add("test", pixels[:8], [0] * 8)
    written = time.process_time() - before
    images, before = batches.Images(path), time.process_time()
    for number in range(100):
        images.batch(0, 128 * number, 128)
    taken = {"write": written, "100 batches of 128": time.process_time() - before}
    memory = peak_memory()
    lines = ({"what": what, "seconds": round(s, 3)} for what, s in taken.items())
    return [line | {"images": count, "memory_mib": memory} for line in lines]


def peak_memory():
    """Peak MiB of this program; getrusage's number includes the process that started it."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return round(int(status["VmHWM"].split()[0]) / 1024)


def apart(what, size, *more, processes=0):
    """The lines that `alone` prints when it runs in its own process, or in several."""
    several = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    words = [sys.executable, *several] if processes else [sys.executable]
    words += [__file__, "--alone", what, size, *more]
    done = subprocess.run(list(map(str, words)), check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout.splitlines()[-1])


def alone(what, size, *more):
    """Run what `apart` asks for in this process, and print its lines as JSON."""
    torch.set_num_threads(1)
    makers = {"stored": stored, "shared": shared}
    numbers = (int(word) if word.isdigit() else word for word in (size, *more))
    lines = makers[what](*numbers)
    if int(os.environ.get("RANK", 0)) == 0:
        print(json.dumps(lines))


def parser():
    found, thousands = Parser(description=__doc__.partition("\n")[0]), whole(1000, 10**9)
    found.add_argument("--out", type=new_file)
    found.add_argument("--repeats", type=whole(1, 10**6), default=3)
    found.add_argument("--images", type=thousands, nargs="*", default=[10_000, 100_000, 1_000_000])
    found.add_argument("--models", type=whole(10, 10**6), nargs="*", default=[100, 300, 1000, 3000])
    found.add_argument("--processes", type=whole(1, 1024), nargs="*", default=[1, 2, 4])
    found.add_argument("--alone", nargs="+", help=argparse.SUPPRESS)
    return found


def main():
    args = parser().parse_args()
    if args.alone:
        return alone(*args.alone)
    if args.out is None:
        parser().error("--out: found nothing; allowed: a csv file")
    torch.set_num_threads(1)
    sizes = [(16, 16), (32, 16), (64, 16), (32, 4), (32, 64)]
    kinds = ("torch", "native")
    lines = [trained(*size, kind, args.repeats) for kind in kinds for size in sizes]
    for count in args.images:
        lines += apart("stored", count)
    lines += map(planned, args.models)
    for kind, count in itertools.product(kinds, args.processes):
        lines.append(apart("shared", count, kind, args.repeats, processes=count))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with args.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows({"machine": machine_name(), **line} for line in lines)


def machine_name():
    """The number and name of the processors in /proc, or the platform's name."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.machine()


if __name__ == "__main__":
    with errors_as_lines(__file__):
        main()
