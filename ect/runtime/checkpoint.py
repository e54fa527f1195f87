"""Weights and training state as safetensors: no file of ours can execute code.

Everything is written beside its destination and moved into place, so that nobody reads half a file.
torch is loaded by the functions that need it.
"""

import json
import os
import stat
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ect.runtime.text import shown

LONGEST = 200  # bytes of a file's name: scratch files and records add to it, file systems take 255


class CheckpointError(ValueError):
    """A file that is not a checkpoint of ours, or does not fit what it is loaded into."""


def require_regular(path):
    """Raise `CheckpointError` unless a file may be written at `path`: a regular one is there, or
    nothing in a folder that can be written or made. Links, devices and pipes would be replaced."""
    path, allowed = Path(path), "the path of a regular file, or a new one"
    found = _kind(path)
    if found not in (None, "a file"):
        raise CheckpointError(f"{shown(path)}: found {found}; allowed: {allowed}")
    if len(os.fsencode(path.name)) > LONGEST:
        raise CheckpointError(f"{shown(path)}: allowed: a name of at most {LONGEST} bytes")
    require_folder(path.parent)


def require_folder(path):
    """Raise `CheckpointError` unless `path` is a folder that can be written, or can become one."""
    path = Path(path)
    while _kind(path) is None and path != path.parent:
        path = path.parent
    found = None if path.is_dir() else _kind(path)
    if found is None and not os.access(path, os.W_OK | os.X_OK):
        found = "a folder without permission to write"
    if found is not None:
        raise CheckpointError(f"{shown(path)}: found {found}; allowed: a folder, or a new one")


def _kind(path):
    """What lies at a path, links not followed; None if nothing does."""
    try:
        mode = os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    kinds = {stat.S_IFREG: "a file", stat.S_IFDIR: "a folder", stat.S_IFLNK: "a link"}
    return kinds.get(stat.S_IFMT(mode), "a device, pipe or socket")


@contextmanager
def replacing(path):
    """Yield the path of a scratch file next to `path`. On success it is synced to disk and replaces
    `path` atomically; on failure (a full disk, for instance) the old `path` stays. Raises
    `CheckpointError` where something else than a regular file is."""
    path = Path(path)
    require_regular(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield scratch
        with open(scratch, "rb") as file:
            os.fsync(file.fileno())
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def sweep(folder):
    """Remove the scratch files of killed processes from a folder that only this process uses."""
    for scratch in Path(folder).glob(".*.partial"):
        scratch.unlink(missing_ok=True)


def write_json(path, value):
    """Write JSON with sorted keys, atomically."""
    with replacing(path) as scratch:
        scratch.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")


def save(path, tensors, **about):
    """Write tensors by name, with JSON-able `about` in the file's metadata, atomically; raises
    `CheckpointError` if the file cannot be written."""
    from safetensors.torch import save_file

    plain = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    metadata = {"about": json.dumps(about, sort_keys=True)}  # more keys: in random order
    try:
        with replacing(path) as scratch:
            save_file(plain, scratch, metadata)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: cannot be written ({error})") from None


def load(path):
    """(tensors by name, about) of a file that `save` wrote; raises `CheckpointError`."""
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("about", "{}"))
            return {key: file.get_tensor(key) for key in file.keys()}, about  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable checkpoint ({error})") from None


def prefixed(prefix, tensors):
    """{'a': x} -> {'prefix.a': x}."""
    return {f"{prefix}.{key}": value for key, value in tensors.items()}


def within(prefix, tensors):
    """The inverse of `prefixed`: the tensors under a prefix, without it."""
    head = f"{prefix}."
    return {k.removeprefix(head): v for k, v in tensors.items() if k.startswith(head)}


def read_json(path):
    """The mapping in a JSON file; raises `ValueError` that names the file."""
    try:
        value = json.loads(Path(path).read_text())
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: found a {type(value).__name__}; allowed: a JSON object")
    return value
