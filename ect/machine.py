"""The machine a job runs on: its device, and the record of what was computed where."""

import hashlib
import importlib.metadata
import os
import platform
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ect.study import STAGES

PACKAGES = ("torch", "torchvision", "numpy", "pillow", "scipy", "clean-fid", "snakemake")


def device():
    """The device of this process: cuda where there is one, else mps, else the CPU."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


@contextmanager
def repeatable():
    """Have a GPU give the same bits each time; a decorator, too. An operation that cannot raises
    `RuntimeError`: if torch only warned of them, the gradients of attention would be among them."""
    import torch

    if device().type != "cuda":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    memory: Any = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    memory.fill_uninitialized_memory = False  # nothing reads it
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        memory.fill_uninitialized_memory = filled


def sent(tensor, place=None):
    """A tensor on the device `place`, by default this machine's. A GPU takes it while it works, and
    its host does not wait."""
    place = place or device()
    if place.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(place, non_blocking=True)
    return tensor.to(place)


def device_name():
    """What the device is called by its maker."""
    import torch

    kind = device()
    return torch.cuda.get_device_name() if kind.type == "cuda" else f"{kind} ({platform.machine()})"


@contextmanager
def precision(name):
    """What products of float32 matrices are computed in: `fp32`; `tf32`, 10 bits on the tensor
    cores of a GPU; `bf16` and `fp16`, bfloat16 and float16 by autocast. Weights and sums stay
    float32."""
    import torch

    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = name == "tf32"
    half = torch.float16 if name == "fp16" else torch.bfloat16
    try:
        with torch.autocast(device().type, half, enabled=name in ("bf16", "fp16")):
            yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def digest(path):
    """The sha256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def code():
    """What a run's course depends on beside its settings and inputs: a digest of this package's
    sources, torch's version, the device."""
    import torch

    whole = hashlib.sha256()
    here = Path(__file__).parent
    for path in sorted(p for kind in ("py", "c", "h") for p in here.rglob(f"*.{kind}")):
        whole.update(path.read_bytes())
    return [whole.hexdigest(), str(torch.__version__), device_name()]


def _git(*words):
    root = Path(__file__).parent
    done = subprocess.run(["git", "-C", root, *words], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def source():
    """The commit of the code, and whether something in it was changed since."""
    return {"commit": _git("rev-parse", "HEAD"), "dirty": bool(_git("status", "--porcelain"))}


def _versions():
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found | {"python": platform.python_version()}


def record(settings, inputs, started, outputs=(), **extra):
    """What run.json holds: settings, hashes of the inputs and of the outputs beside it, versions of
    the code, its stages and packages, device, time.

    `started` is the `time.monotonic()` at which the job began.
    """
    import torch

    return {
        "settings": settings,
        "inputs": {str(path): digest(path) for path in inputs},
        "outputs": {Path(path).name: digest(path) for path in outputs},
        "code": source(),
        "stages": STAGES,
        "packages": _versions(),
        "device": device_name(),
        "threads": torch.get_num_threads(),
        "seconds": round(time.monotonic() - started, 3),
        **extra,
    }
