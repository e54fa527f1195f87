"""What was computed where: the record of a job, and digests of files."""

import hashlib
import importlib.metadata
import platform
import subprocess
import sys
import time
from pathlib import Path

from ect.runtime.device import device_name
from ect.runtime.versions import STAGES

PACKAGE = Path(__file__).parent.parent  # ect/
PACKAGES = ("torch", "torchvision", "numpy", "pillow", "scipy", "clean-fid", "snakemake")


def digest(path):
    """The sha256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def code():
    """[digest of this package's sources, torch's version, device]: what the bits of a run depend on
    besides its settings and inputs."""
    import torch

    sha256 = hashlib.sha256()
    for path in sorted(p for end in ("py", "c", "h") for p in PACKAGE.rglob(f"*.{end}")):
        sha256.update(path.read_bytes())
    return [sha256.hexdigest(), str(torch.__version__), device_name()]


def _git(*words):
    done = subprocess.run(
        ["git", "-C", PACKAGE, *words], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else None


def source():
    """The commit of the code, and whether the working tree differs from it."""
    return {"commit": _git("rev-parse", "HEAD"), "dirty": bool(_git("status", "--porcelain"))}


def _versions():
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions | {"python": platform.python_version()}


def job_record(settings, inputs, started, outputs=(), **extra):
    """What run.json holds: settings, hashes of the inputs and of the outputs beside it, versions of
    the code, its stages and packages, the environment's folder, device, time.

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
        "environment": sys.prefix,
        "device": device_name(),
        "threads": torch.get_num_threads(),
        "seconds": round(time.monotonic() - started, 3),
        **extra,
    }
