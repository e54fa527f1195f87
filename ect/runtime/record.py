"""What was computed where: the record of a job, and digests of files."""

import glob
import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile

from ect.runtime import checkpoint
from ect.runtime.device import device_name
from ect.runtime.text import shown
from ect.runtime.versions import STAGES

PACKAGE = Path(__file__).resolve().parent.parent  # ect/
# What counts as code, as git names it, from the repository's root.
CODE = (
    "ect/*.py", "ect/*.c", "ect/*.h", "ect/*.rst", "ect/*.html", "Snakefile", "workflow/Snakefile",
    "workflow/rules/*.smk",
)  # fmt: skip
OF_A_PART = {"plugins": dict, "seed": int, "images": int}  # of a record's settings
NAMED = {"settings": dict, "inputs": dict, "outputs": dict}  # of a record
PATIENCE = 10  # seconds for an answer of git
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
    """What git says of this package's repository; None if it says nothing: there is no git, no
    repository or another one's owner, or no answer within `PATIENCE`."""
    command = ["git", "--no-optional-locks", "-c", "core.fileMode=false", "-C", str(PACKAGE.parent)]
    ours = ("GIT_CONFIG", "GIT_EXEC_PATH")  # GIT_DIR and the like are of the caller's repository
    env = {k: v for k, v in os.environ.items() if not k.startswith("GIT_") or k.startswith(ours)}
    with suppress(OSError, ValueError, subprocess.SubprocessError), TemporaryFile() as told:
        subprocess.run(
            [*command, *words], env=env, stdin=subprocess.DEVNULL, stdout=told,
            stderr=subprocess.DEVNULL, timeout=PATIENCE, check=True,
        )  # fmt: skip  # a file: a pipe would be waited for as long as any process holds it
        told.seek(0)
        return told.read().decode().strip()
    return None


def source():
    """The commit of the code, and whether the code in the working tree differs from it: both None
    where git does not say. A user's configs, images and results are no code."""
    if not _git("ls-files", "--", "ect/runtime/record.py"):  # no repository, or one around it
        return {"commit": None, "dirty": None}
    commit = _git("rev-parse", "--verify", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=all", "--", *CODE)
    known = commit is not None and changed is not None
    return {"commit": commit if known else None, "dirty": bool(changed) if known else None}


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
        **_facts(settings, inputs, started),
        "outputs": {Path(path).name: digest(path) for path in outputs},
        "device": device_name(),
        "threads": torch.get_num_threads(),
        **extra,
    }


def _facts(settings, inputs, started):
    return {
        "settings": settings,
        "inputs": {str(path): digest(path) for path in inputs},
        "code": source(),
        "stages": STAGES,
        "packages": _versions(),
        "environment": sys.prefix,
        "seconds": round(time.monotonic() - started, 3),
    }


def of(path):
    """The record of the job that made a file; None where none beside it names it. Raises
    `ValueError` if that is of other bytes. A run.json older than names of outputs stands for the
    files beside it."""
    path = Path(path)
    hidden = path.parent.glob(f".{glob.escape(path.stem)}.*.record.json")  # beside its first output
    for place in (path.with_suffix(".json"), path.with_name("run.json"), beside(path), *hidden):
        made = _typed(place) if place.is_file() else {}
        wanted = made.get("outputs", {}).get(path.name) if path.is_file() else None
        if wanted is not None and wanted != digest(path):
            raise ValueError(
                f"{path}: found other bytes than its job wrote, by {place}; allowed: the file as it"
                " was, or none"
            )
        older = "inputs" in made and "outputs" not in made and place.name == "run.json"
        if wanted is not None or older:
            return {key: {} for key in NAMED} | made
    return None


def _typed(place):
    """A record whose parts have their types; raises `ValueError` that names it."""
    made = checkpoint.read_json(place, known=NAMED)
    for key in ("inputs", "outputs"):
        named = made.get(key, {})
        checkpoint.typed(named, f"{place}: {key}", known=dict.fromkeys(named, str))
    settings = made.get("settings", {})
    checkpoint.typed(settings, f"{place}: settings", known={"features": dict, "sampling": dict})
    for part in ("features", "sampling"):
        inner = settings.get(part, {})
        checkpoint.typed(inner, f"{place}: settings: {part}", known=OF_A_PART)
    return made


def beside(path):
    """The record of a job that no rule declares, `.NAME.record.json` beside its first output."""
    return Path(path).with_name(f".{Path(path).name}.record.json")


@contextmanager
def recorded(first, describe):
    """Write the record of a job beside `first`, its first output, once the block has ended.
    `describe()`, called then, returns (stage, settings, inputs, outputs).

    Snakemake deletes the outputs of a job that failed or runs again, but not this record: one whose
    outputs are gone is deleted at the start. That no record can be written does not fail the job.
    """
    started, path = time.monotonic(), beside(first)
    _drop_if_outputs_are_gone(path)
    yield
    try:
        stage, settings, inputs, outputs = describe()
        facts = _facts(settings, inputs, started) | {"stage": stage}
        facts["outputs"] = {os.path.relpath(out, path.parent): digest(out) for out in outputs}
        checkpoint.write_json(path, facts)
    except (OSError, ValueError) as error:
        print(f"ect: no record of {shown(first)} could be written ({error})", file=sys.stderr)
        with suppress(OSError):
            path.unlink()


def _drop_if_outputs_are_gone(path):
    with suppress(OSError, ValueError):
        names = checkpoint.read_json(path).get("outputs", {})
        if not (names and all((path.parent / name).is_file() for name in names)):
            path.unlink()
