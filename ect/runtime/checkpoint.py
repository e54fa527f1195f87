"""Weights and training state as safetensors: no file of ours can execute code.

Everything is written beside its destination and moved into place, so that nobody reads half a file.
torch and safetensors are loaded by the functions that need them: planning a study needs neither.
"""

import json
import math
import os
import stat
from contextlib import contextmanager, suppress
from pathlib import Path

from ect.runtime.text import allowing, cause, lacking, parsed, shown, shown_path

LONGEST = 200  # bytes of a file's name: scratch files and records add to it, file systems take 255


class CheckpointError(ValueError):
    """A file that is not a checkpoint of ours, or does not fit what it is loaded into."""


class Unreadable(CheckpointError):
    """A file that the machine could not read (memory, disk, open files); it may be intact."""


def require_regular(path):
    """Raise `CheckpointError` unless a file may be written at `path`: a regular one is there, or
    nothing in a folder that can be written or made. Links, devices and pipes would be replaced."""
    path, allowed = Path(path), "the path of a regular file, or a new one"
    found = _lies_at(path)
    if found not in (None, "a file"):
        raise CheckpointError(f"{shown(path)}: found {found}; allowed: {allowed}")
    if len(os.fsencode(path.name)) > LONGEST:
        raise CheckpointError(f"{shown(path)}: allowed: a name of at most {LONGEST} bytes")
    require_folder(path.parent)


def require_folder(path):
    """Raise `CheckpointError` unless `path` is a folder that can be written, or can become one."""
    path = Path(path)
    while _lies_at(path) is None and path != path.parent:
        path = path.parent
    found = None if path.is_dir() else _lies_at(path)
    if found is None and not os.access(path, os.W_OK | os.X_OK):
        found = "a folder without permission to write"
    if found is not None:
        raise CheckpointError(f"{shown(path)}: found {found}; allowed: a folder, or a new one")


def _lies_at(path):
    """What lies at a path, links not followed; None if nothing does. Raises `CheckpointError` for
    a path that cannot be looked up: too long, in a folder of others."""
    try:
        mode = os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:  # the latter of a NUL character
        found = f"{shown_path(path)}: {getattr(error, 'strerror', error)}"
        raise CheckpointError(f"{found}; allowed: a path that can be written") from None
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
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror or str(error), str(path)) from None
    finally:
        scratch.unlink(missing_ok=True)


@contextmanager
def no_folder_left(*paths):
    """Where the block fails, remove the folders that it made on the way to these paths, unless
    something is in them."""
    several = (Path(path).absolute() for path in paths)
    missing = {one for path in several for one in (path, *path.parents) if not os.path.lexists(one)}
    try:
        yield
    except BaseException:
        for folder in sorted(missing, reverse=True):  # what is in a folder comes before it
            with suppress(OSError, ValueError):
                folder.rmdir()
        raise


def sweep(folder):
    """Remove the scratch files of killed processes, ours and those that safetensors writes before
    it renames them, from a folder that only this process uses."""
    for pattern in (".*.partial", ".tmp??????"):
        for scratch in Path(folder).glob(pattern):
            scratch.unlink(missing_ok=True)


def write_json(path, value):
    """Write JSON with sorted keys, atomically; raises `FloatingPointError` for NaN or infinity."""
    if bad := next(_not_finite(value), None):
        raise FloatingPointError(f"{path}: {bad}; allowed: a finite number; nothing was written")
    with replacing(path) as scratch:
        text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False)
        scratch.write_text(text + "\n", encoding="utf-8")


def _not_finite(value, name=""):
    """'key is nan' for each number in JSON that is not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{name} is {value}"
    keyed = dict(enumerate(value)) if isinstance(value, (list, tuple)) else value
    for key, one in keyed.items() if isinstance(keyed, dict) else ():
        yield from _not_finite(one, f"{name}.{key}".strip("."))


def save(path, tensors, **about):
    """Write tensors by name, with JSON-able `about` in the file's metadata, atomically; raises
    `CheckpointError` if the file cannot be written."""
    plain = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    save_with(path, plain, {"about": json.dumps(about, sort_keys=True)})


def save_with(path, tensors, metadata):
    """Write contiguous tensors of the CPU and `metadata`, {text: text}, atomically; of several keys
    the order is random. Raises `CheckpointError` if the file cannot be written."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        with replacing(path) as scratch:
            scratch.touch()
            mode = scratch.stat().st_mode  # that of any new file; safetensors' is the owner's alone
            save_file(tensors, scratch, metadata)
            scratch.chmod(mode)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: cannot be written ({error})") from None


def load(path):
    """(tensors by name, about) of a file that `save` wrote; raises `CheckpointError`, and of it
    `Unreadable` if that says nothing about the file."""
    from safetensors import SafetensorError, safe_open

    require_no_pipe(path)
    try:
        with safe_open(path, framework="pt") as file:
            about = parsed((file.metadata() or {}).get("about", "{}"))
            if not isinstance(about, dict):
                raise ValueError(f"its metadata is {_kind(type(about))}; allowed: an object")
            return {key: file.get_tensor(key) for key in file.keys()}, about  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        of_machine = isinstance(error, OSError) or "(os error" in str(error)
        kind = Unreadable if of_machine else CheckpointError
        said = f"not a readable checkpoint ({cause(error, path)})"
        said = allowing(said, "a whole safetensors file")
        raise kind(f"{shown_path(path)}: {said}") from None


def require_no_pipe(path):
    """Raise `CheckpointError` for a pipe, socket or device, which reading would wait for."""
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        found = "found a device, pipe or socket; allowed: a regular file"
        raise CheckpointError(f"{shown_path(path)}: {found}")


def prefixed(prefix, tensors):
    """{'a': x} -> {'prefix.a': x}."""
    return {f"{prefix}.{key}": value for key, value in tensors.items()}


def within(prefix, tensors):
    """The inverse of `prefixed`: the tensors under a prefix, without it."""
    head = f"{prefix}."
    return {k.removeprefix(head): v for k, v in tensors.items() if k.startswith(head)}


def read_json(path, needed=None, known=None):
    """The mapping in a JSON file. `needed` and `known` are {key: type or types}: of keys that must
    be there, and of keys that may be missing. Raises `ValueError` that names the file."""
    return _mapping(_text(path), path, needed, known)


def read_jsonl(path, needed=None, known=None, start=0):
    """The mappings in the lines of a JSON Lines file, from line `start` on; what `read_json` says
    of a file holds for each line."""
    lines = list(enumerate(_text(path).splitlines(), 1))[start:]
    return [_mapping(text, f"{path}, line {number}", needed, known) for number, text in lines]


def _text(path):
    require_no_pipe(path)
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        found = f"cannot be read ({error.strerror})"
    except UnicodeDecodeError as error:
        found = f"not JSON ({error})"
    except ValueError as error:  # of a NUL character in the path
        found = f"cannot be read ({error})"
    raise ValueError(f"{shown_path(path)}: {found}; allowed: a file of JSON in UTF-8")


def _mapping(text, place, needed, known):
    try:
        value = parsed(text)
    except ValueError as error:
        raise ValueError(allowing(f"{place}: not JSON ({error})", "a JSON object")) from None
    return typed(value, place, needed, known)


def typed(value, place, needed=None, known=None):
    """A mapping whose keys have the types that `read_json` takes; raises `ValueError` that begins
    with `place`."""
    if not isinstance(value, dict):
        raise ValueError(f"{place}: found {_kind(type(value))}; allowed: a JSON object")
    if lost := [key for key in needed or {} if key not in value]:
        allowed = f"{_kinds((needed or {})[lost[0]])} there"
        raise ValueError(f"{place}: {lacking(lost[0], value)}; allowed: {allowed}")
    for key, kind in {**(known or {}), **(needed or {})}.items():
        if key in value and (not isinstance(value[key], kind) or isinstance(value[key], bool)):
            allowed = _kinds(kind)
            found = shown(json.dumps(value[key]), 60)
            raise ValueError(f"{place}: '{key}' is {found}; allowed: {allowed}")
    return value


def _kinds(of):
    """A type, or each of several, in the words of JSON."""
    several = of if isinstance(of, tuple) else (of,)
    return " or ".join(_kind(one) for one in several if one is not int or float not in several)


def _kind(of):
    """A type in the words of JSON."""
    words = {dict: "an object", list: "a list", str: "a text", int: "a whole number",
             float: "a number", bool: "true or false", type(None): "null"}  # fmt: skip
    return words[of]
