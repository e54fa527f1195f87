"""The runs under a folder, from the files that they leave. Loads no torch."""

import json
import re
from pathlib import Path

from ect import running

PLACE = re.compile(
    r"(?:pretrain|tune)/(?P<pretrain>\w+)/s(?P<start_seed>\d+)/k(?P<kimg>\d+)"
    r"(?:/(?P<schedule>\w+)/(?P<recipe>\w+)/k(?P<tune_kimg>\d+)/s(?P<seed>\d+))?$"
)


def read_json(path):
    """The mapping in a JSON file; raises `ValueError` that names the file."""
    try:
        found = json.loads(Path(path).read_text())
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: found a {type(found).__name__}; allowed: a JSON object")
    return found


def files(root, name):
    """The files of a name under a folder, in order, without hidden folders; raises `ValueError`."""
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; allowed: one with runs, such as results/digits")
    found = (path for path in root.rglob(name) if path.is_file())
    return sorted(p for p in found if not any(x.startswith(".") for x in p.relative_to(root).parts))


def trainings(root):
    """The folders under `root`, or itself, in which a training ended or began."""
    ended = {
        path.parent
        for path in files(root, "run.json")
        if "recipe" in read_json(path).get("settings", {})
    }
    return sorted(ended | {path.parent for path in files(root, running.NAME)}, key=order)


def order(folder):
    """Names by their alphabet, numbers by their size: k12 before k108."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", str(folder))]


def facts(folder):
    """What a folder's place says of its model: pretrain, start_seed, kimg and, of a tuned one,
    schedule, recipe, tune_kimg, seed; nothing of a folder elsewhere."""
    place = PLACE.search(Path(folder).as_posix())
    found = {k: v for k, v in place.groupdict().items() if v is not None} if place else {}
    return {key: int(value) if value.isdigit() else value for key, value in found.items()}


def last_loss(folder):
    """The loss in the last line of a run's log; None without one."""
    path = Path(folder) / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    return json.loads(lines[-1])["loss"] if lines else None


def duration(seconds):
    """'42 s', '3 min 20 s', '2 h 05 min'."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{rest} s"
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def flat(value, name=""):
    """A nested mapping as {'a.b': value}; what is no mapping, list or number is text."""
    if isinstance(value, dict):
        return {
            key: leaf
            for inner, below in value.items()
            for key, leaf in flat(below, f"{name}.{inner}" if name else str(inner)).items()
        }
    return {name: json.dumps(value) if isinstance(value, list) else value}
