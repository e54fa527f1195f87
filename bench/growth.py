"""How cost grows: python bench/growth.py --out results/published/speed/growth.csv

A line for each size: the training step (ECT, small network of `bench/step.py`, 32x32) against batch
and width with either kind of kernels, and a dataset of so many 32x32 images, written and then read
in batches in a process of its own. Seconds are medians, of this process on processors, since others
may share the machine; memory is the process's peak. Linux only.
"""

import argparse
import csv
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import step
import torch

from ect import data, prepared

FIELDS = ("what", "kernels", "width", "batch", "images", "seconds", "memory_mib", "machine")


def trained(width, batch, kernels, repeats):
    """A line about the training step."""
    step.NETWORKS["small"][2]["channels"] = width
    args = argparse.Namespace(
        network="small", batch=batch, dropout=step.DROPOUT, precision="fp32", kernels=kernels
    )
    with tempfile.TemporaryDirectory() as folder:
        ours = step.Ours(args, step.images_of(args, folder), "tune")
        ours.step()
        taken = []
        for _ in range(repeats):
            before = time.process_time()
            ours.step()
            taken.append(time.process_time() - before)
    line = {"what": "step", "kernels": kernels, "width": width, "batch": batch}
    return line | {"seconds": round(statistics.median(taken), 4)}


def stored(count, folder):
    """Lines about a dataset of so many images: writing it, and 100 batches of 128."""
    path, random = Path(folder) / "images.safetensors", np.random.default_rng(0)
    pixels = random.integers(0, 256, (1000, 32, 32, 3), np.uint8)
    before = time.process_time()
    about = {"classes": None, "shift": 127.5, "scale": 1 / 127.5, "sd": 0.5}
    with prepared.writing(path, about) as writer:
        for _ in range(count // len(pixels)):
            writer.add("train", pixels, [0] * len(pixels))
        writer.add("test", pixels[:8], [0] * 8)
    written = time.process_time() - before
    images, before = data.Images(path), time.process_time()
    for number in range(100):
        images.batch(0, 128 * number, 128)
    taken = {"write": written, "100 batches of 128": time.process_time() - before}
    path.unlink()
    memory = peak_memory()
    lines = ({"what": what, "seconds": round(s, 3)} for what, s in taken.items())
    return [line | {"images": count, "memory_mib": memory} for line in lines]


def peak_memory():
    """MiB at most of this program; getrusage's number is also of the process that started it."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return round(int(status["VmHWM"].split()[0]) / 1024)


def apart(words):
    """What a call of this file in a process of its own prints."""
    done = subprocess.run([sys.executable, __file__, *words], check=True, capture_output=True)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--images", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--stored", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.stored:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(stored(args.stored, folder)))
        return
    torch.set_num_threads(1)
    sizes = [(16, 16), (32, 16), (64, 16), (32, 4), (32, 64)]
    lines = [trained(*size, kind, args.repeats) for kind in ("torch", "native") for size in sizes]
    for count in args.images:
        lines += apart(["--out", str(args.out), "--stored", str(count)])
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with args.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows({"machine": machine_name(), **line} for line in lines)


def machine_name():
    """What /proc says of the processor, or the platform's name."""
    path = Path("/proc/cpuinfo")
    names = path.read_text().splitlines() if path.exists() else []
    found = [line.partition(": ")[2] for line in names if line.startswith("model name")]
    return f"{len(found)} x {found[0]}" if found else platform.machine()


if __name__ == "__main__":
    main()
