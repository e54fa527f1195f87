"""The runs under a folder, from the files that they leave. Loads no torch."""

import json
import math
import os
import re
from pathlib import Path

from ect.runtime import progress
from ect.runtime.checkpoint import read_json, read_jsonl, typed
from ect.runtime.text import shown
from ect.runtime.versions import STAGES

NUMBER, NONE = (int, float), type(None)
# The keys of a job's record, and of metrics.json, that are read here.
RECORD = {
    "settings": dict, "inputs": dict, "outputs": dict, "stages": dict, "code": dict,
    "packages": dict, "device": str, "stage": str, "seconds": NUMBER,
    "images_per_second": (*NUMBER, NONE),
}  # fmt: skip
# The stage of a record that does not say it, by a key of its settings.
STAGE_OF = {
    "recipe": "train", "kind": "sample", "epochs": "classifier", "features": "extract",
    "split_seed": "prepare",
}  # fmt: skip
METRICS = {"cell": dict, "images": int}
PLACE = re.compile(
    r"(?:pretrain|tune)/(?P<pretrain>\w+)/s(?P<start_seed>\d+)/k(?P<kimg>\d+)"
    r"(?:/(?P<schedule>\w+)/(?P<recipe>\w+)/k(?P<tune_kimg>\d+)/s(?P<seed>\d+))?$"
)


def files(root, name):
    """The files called `name` under a folder, sorted, not in hidden ones, nor hidden themselves
    unless `name` asks for them; raises `ValueError`."""
    if not str(root):  # a variable of a shell that is not set, and no word for where one is
        raise ValueError("found no text; allowed: a folder with runs, such as results/digits")
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; allowed: one with runs, such as results/digits")
    found = (path for path in root.rglob(name) if path.is_file())
    end = -1 if name.startswith(".") else None
    places = ((p, p.relative_to(root).parts[:end]) for p in found)
    return sorted(p for p, parts in places if not any(x.startswith(".") for x in parts))


def read(path):
    """The mapping in a metrics.json or, of any other name, in the record of a job; raises
    `ValueError` that names the file and what is wrong in it."""
    if Path(path).name == "metrics.json":
        return read_json(path, known=METRICS)
    record = read_json(path, known=RECORD)
    for key in ("seconds", "images_per_second"):
        value = record.get(key) or 0
        if not 0 <= value < math.inf:
            raise ValueError(f"{path}: '{key}' is {value}; allowed: a number >= 0")
    if (stage := record.get("stage", "train")) not in STAGES:
        found = f"{path}: 'stage' is {shown(repr(stage), 60)}"
        raise ValueError(f"{found}; allowed: {', '.join(STAGES)}")
    if not (device := record.get("device", "cpu")).strip():
        raise ValueError(f"{path}: 'device' is {device!r:.60}; allowed: a text that can be seen")
    settings, place = record.get("settings", {}), f"{path}: settings"
    for key, value in flat(settings).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{place}: {shown(key, 60)} is {value}; allowed: finite numbers")
    parts = {"features": dict, "sampling": dict, "plugins": dict}
    typed(settings, place, known=parts)
    for key, kind in (("inputs", str), ("outputs", str), ("stages", int)):
        named = record.get(key, {})
        typed(named, f"{path}: {key}", known=dict.fromkeys(named, kind))
        if impossible := [name for name in named if not _is_name(name)]:
            raise ValueError(f"{path}: {key}: found {shown(impossible[0], 60)}, which is no name")
    for name in ("features", "sampling"):
        typed(settings.get(name, {}), f"{place}: {name}", known={"plugins": dict})
    return record


def stage_of(record):
    """The stage of the job that left a record, or None."""
    settings = record.get("settings", {})
    known = (stage for key, stage in STAGE_OF.items() if key in settings)
    return record.get("stage") or next(known, None)


def _is_name(text):
    """Whether a file could have this name: no null byte, no letter that the system cannot write,
    not too long."""
    try:
        os.lstat(text)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return True
    except (OSError, ValueError):
        return False
    return True


def trainings(root):
    """The folders of training runs, finished or in progress, under `root` or `root` itself."""
    ended = {path.parent for path in files(root, "run.json") if _of_training(path)}
    return sorted(ended | {path.parent for path in files(root, progress.NAME)}, key=order)


def _of_training(path):
    """Whether a run.json is that of a training run, or may be: one that cannot be read is named by
    whoever reads it."""
    try:
        return "recipe" in read(path).get("settings", {})
    except ValueError:
        return True


def order(folder):
    """Names by their alphabet, numbers by their size: k12 before k108."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", str(folder))]


def facts(folder):
    """What a folder's path says of its model: pretrain, start_seed, kimg and, of a tuned one,
    schedule, recipe, tune_kimg, seed; nothing for any other path."""
    match = PLACE.search(Path(folder).as_posix())
    parts = {k: v for k, v in match.groupdict().items() if v is not None} if match else {}
    return {key: int(value) if value.isdigit() else value for key, value in parts.items()}


def last_loss(folder):
    """The loss in the last line of a run's log; None without one."""
    path = Path(folder) / "metrics.jsonl"
    lines = read_jsonl(path, {"loss": (*NUMBER, NONE)}, start=-1) if path.is_file() else []
    return lines[-1]["loss"] if lines else None


def flat(value, name=""):
    """A nested mapping as {'a.b': value}; lists become JSON text."""
    if isinstance(value, dict):
        return {
            key: leaf
            for inner, below in value.items()
            for key, leaf in flat(below, f"{name}.{inner}" if name else str(inner)).items()
        }
    return {name: json.dumps(value) if isinstance(value, list) else value}
