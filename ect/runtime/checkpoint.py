"""Weights and training state as safetensors: no file of ours can execute code.

Everything is written beside its destination and moved into place, so that nobody reads half a file.
torch and safetensors are loaded by the functions that need them: planning a study needs neither.
"""

import json
import os
from contextlib import contextmanager
from pathlib import Path


class CheckpointError(ValueError):
    """A file that is not a checkpoint of ours, or does not fit what it is loaded into."""


@contextmanager
def replacing(path):
    """Yield the path of a scratch file next to `path`. On success it is synced to disk and replaces
    `path` atomically; on failure (a full disk, for instance) the old `path` stays."""
    path = Path(path)
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
    from safetensors import SafetensorError
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
    from safetensors import SafetensorError, safe_open

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
