"""The arguments of a verb, checked before torch is loaded, and an error in them as one line."""

import argparse
import json
import math
import os
import traceback
import zipfile
from pathlib import Path

from ect.runtime import crash
from ect.runtime.options import whole
from ect.runtime.text import lacking, parsed, shown, shown_path, waits

# Arguments that are files: what writes them, and a name that such a file must hold (a|b: either).
FILES = {
    "data": ("the dataset file that `prepare` writes", "train"),
    "samples": ("a samples.npz that `sample` writes, or its features", "arr_0|features"),
    "reference": ("the features that `extract` writes", "features"),
    "summary": ("what `summarize` writes of the reference", "root"),
    "model": ("a model.safetensors", "network"),
    "init": ("a model.safetensors", "network"),
    "snapshots": ("a snapshots.safetensors", "network"),
    "trajectories": ("a trajectories.safetensors", "points"),
    "resume": ("a state.safetensors", "seen"),
    "states": ("state.safetensors files", "seen"),
    "classifier": ("a classifier.safetensors", "classes"),
    "metrics": ("metrics.json files", None),
    "floor": ("a metrics.json of real images", None),
}
# Other errors that settings raise, or files that do not fit together.
UNFIT = (
    KeyError, IndexError, TypeError, AttributeError, RuntimeError, EOFError, ArithmeticError,
    MemoryError,
)  # fmt: skip


class Settings(dict):
    """Settings; a key that is missing raises a `ValueError` that names it. `path` is the file that
    they were read from, if any."""

    path: str | None = None

    def __missing__(self, key):
        place = "settings" if self.path is None else shown_path(self.path)
        raise ValueError(f"{place}: {lacking(key, self)}; allowed: an object with that key")


def settings_of(text):
    """The settings of a job: a JSON object, or the path of a run.json that holds them."""
    if text.lstrip().startswith(("{", "[")):
        return _object(text, "settings")
    if waits(text):
        raise argparse.ArgumentTypeError(
            f"{text}: found a device, pipe or socket; allowed: JSON, or a run.json"
        )
    if not text.strip():
        raise argparse.ArgumentTypeError("found no text; allowed: JSON, or a run.json")
    try:
        record = _object(Path(text).read_text(encoding="utf-8"), text)
    except (OSError, ValueError) as error:
        found = f"found {shown(text, 300)}, which cannot be read ({shown(error)})"
        raise argparse.ArgumentTypeError(f"{found}; allowed: JSON, or a run.json") from None
    found = record.get("settings")
    if not isinstance(found, Settings):
        held = f"settings: found {shown(json.dumps(found), 60)}"
        held = held if "settings" in record else lacking("settings", record)
        allowed = "a run.json, whose settings are an object, or the settings themselves as JSON"
        raise argparse.ArgumentTypeError(f"{shown_path(text)}: {held}; allowed: {allowed}")
    found.path = text
    return found


def _finite(text):
    value = float(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"found {shown(text, 60)}; allowed: finite numbers")
    return value


def _object(text, name):
    try:
        value = parsed(text, mapping=Settings, parse_constant=_finite, parse_float=_finite)
    except ValueError as error:
        found = f"{shown(name, 300)}: no JSON ({error}): {shown(text, 60)}"
        raise argparse.ArgumentTypeError(f"{found}; allowed: a JSON object") from None
    if not isinstance(value, Settings):
        raise argparse.ArgumentTypeError(
            f'{name}: found {shown(text, 60)}; allowed: {{"key": value}}'
        )
    return value


count = whole(1, 1_000_000)
threads = whole(1, 1024)


def one(text):
    """1, the number of GPUs that a job of one process can use."""
    if text != "1":
        raise argparse.ArgumentTypeError(f"found '{shown(text, 60)}'; allowed: 1")
    return 1


def require(args):
    """Raise `ValueError` unless every file among the arguments exists and is of its kind, and
    each record is given once."""
    runs = [os.path.realpath(path) for path in getattr(args, "runs", None) or []]
    if twice := [path for path in runs if runs.count(path) > 1]:
        raise ValueError(f"--runs: found {shown_path(twice[0])} twice; allowed: each file once")
    for name, (allowed, key) in FILES.items():
        paths = getattr(args, name, None)
        for path in [paths] if isinstance(paths, str) else paths or []:
            wrong = _wrong(path, key) if path.strip() else "is an empty path"
            if wrong:
                raise ValueError(f"--{name}: {path or repr(path)} {wrong}; allowed: {allowed}")


def _wrong(path, key):
    """What is wrong with a file that should hold `key`; None if nothing is."""
    from safetensors import SafetensorError

    if Path(path).is_dir():
        return "is a folder"
    if not Path(path).exists():
        return "does not exist"
    if not Path(path).is_file():
        return "is a device, pipe or socket"
    try:
        if key is None:
            parsed(Path(path).read_text(encoding="utf-8"))
            return None
        held = _held(path)
    except (SafetensorError, zipfile.BadZipFile, OSError, ValueError) as error:
        kind = "a readable checkpoint or archive" if key else "JSON"
        return f"is not {kind} ({error})"
    return None if set(key.split("|")) & set(held) else f"holds no '{key}'"


def _held(path):
    """The names in an npz file, or in a safetensors file and its metadata."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            return [name.removesuffix(".npy") for name in file.namelist()]
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        about = parsed((file.metadata() or {}).get("about", "{}"))
        if not isinstance(about, dict):
            raise ValueError("its metadata is no JSON object")
        return [*file.keys(), *about]


def is_ours(error):
    """Whether an error was raised in this package, where a message of several lines is meant so."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_globals["__name__"].partition(".")[0] == "ect"


def line_of(error):
    """An unexpected error as one line: what it is, and where it arose."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/ect/" in f.filename]
    last = frames[-1]
    where = f" at ect/{last.filename.rpartition('/ect/')[2]}:{last.lineno}, `{last.line}`"
    what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    what = ", ".join([what.rstrip(":"), *getattr(error, "__notes__", [])])
    if crash.short_of_memory(error):
        return (
            f"out of memory: {what}{where}; allowed: a smaller `microbatch` in the"
            " recipe for a training run, a smaller `evaluation.batch` for images"
        )
    return (
        f"settings or files that do not fit together: {what}{where}; allowed: settings as in a"
        " run.json, with the files of that run; in a study's own job this is a fault of ect"
        " (`python -X dev -m ect` shows the whole error)"
    )


# Options that several verbs have.
NEEDED = {"required": True}
SETTINGS = {"type": settings_of, "help": "JSON, or a run.json to repeat"}
GPUS = {
    "--gpus": {
        "type": count,
        "help": "lease this many GPUs, and train or sample on all of them",
    },
    "--nodes": {"type": count, "help": "the number of nodes of this SLURM job that have them"},
}
ONE_GPU = {"--gpus": {"type": one, "help": "lease one GPU"}}
PLUGINS = {
    "--plugins": {
        "nargs": "+",
        "default": [],
        "metavar": "FILE",
        "help": "Python files that a model of a plugin's process may run; the config's are allowed",
    },
}
