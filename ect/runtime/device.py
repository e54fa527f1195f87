"""The device a job runs on."""

import functools
import os
import platform
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def current():
    """The device of this process: cuda where there is one, else mps, else the CPU."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda")
    warn_of_an_idle_gpu()
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


@functools.cache
def warn_of_an_idle_gpu():
    """Say once on stderr that this machine has a GPU of NVIDIA which torch cannot use; nothing
    where CUDA_VISIBLE_DEVICES hides it."""
    import torch

    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1", "NoDevFiles")
    if hidden or not (Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi")):
        return
    why = f"wants a newer driver or another GPU: its CUDA is {torch.version.cuda}"
    why = why if torch.version.cuda else "is a build for CPUs"
    print(
        f"ect: found a GPU, but torch {torch.__version__} {why}; computing on the CPU"
        " (docs/install.md)",
        file=sys.stderr,
    )


@contextmanager
def standard():
    """Torch's defaults of a new process, float32 on the CPU, whatever a caller has set; the numbers
    that torch draws for it afterwards are those that it would have drawn."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        with torch.device("cpu"), torch.random.fork_rng(devices):
            yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def deterministic():
    """Use only deterministic operations on a GPU; also a decorator. An operation that has no
    deterministic form raises `RuntimeError`: with torch's `warn_only`, attention would use
    gradients that are not deterministic."""
    import torch

    if current().type != "cuda":
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
    memory.fill_uninitialized_memory = False  # no operation here reads it
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        memory.fill_uninitialized_memory = filled


def to_device(tensor, device=None):
    """Copy a tensor to `device` (by default this process's). From CPU to GPU the copy is
    asynchronous: pinned, non-blocking."""
    device = device or current()
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def device_name():
    """The name of a GPU's model, or the device's type and the machine's architecture."""
    import torch

    device = current()
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    return f"{device} ({platform.machine()})"


@contextmanager
def precision(name):
    """Compute products of float32 matrices in `fp32`; in `tf32`, with a mantissa of 10 bits on the
    tensor cores of a GPU; or in `bf16` or `fp16`, bfloat16 or float16 by autocast. Weights and sums
    stay float32."""
    import torch

    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = name == "tf32"
    half = torch.float16 if name == "fp16" else torch.bfloat16
    try:
        with torch.autocast(current().type, half, enabled=name in ("bf16", "fp16")):
            yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
