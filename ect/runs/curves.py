"""The logs of training runs as files of events that TensorBoard shows. Loads no torch.

Training writes none: they are made from what a run leaves anyway, its metrics.jsonl or, while it is
trained, the work that it saved last. So no bit, no kill and no resume depends on them.
"""

import hashlib
import json
import math
import os
import re
from itertools import pairwise
from pathlib import Path

from ect.runs import find
from ect.runtime import checkpoint
from ect.runtime.text import parsed, shown
from ect.runtime.work import work_folder
from ect.schedule import LN_S_EDGES

FOLDER = "tensorboard"  # in the folder of results
NAME = re.compile(r"events\.out\.tfevents\.\d{12}\.\w{8}")  # images seen, digest of the lines
VERSION = "brain.Event:2"  # of the format, in the first record of each file


def write(root):
    """Write what is new in the logs of the runs under a folder to `root`/tensorboard, under their
    own paths; returns {path: number of lines that are new}. Raises `ValueError`."""
    written = {}
    for folder in folders(root):
        lines = log_of(folder)
        place = Path(root) / FOLDER / folder.relative_to(root)
        written[str(folder.relative_to(root))] = append(lines, place)
    if not written:
        raise ValueError(f"{root}: found no log of a training run; allowed: a folder with runs")
    return written


def folders(root):
    """The folders of runs, finished or not, that have a log; sorted. Raises `ValueError`."""
    finished = {path.parent for path in find.files(root, "metrics.jsonl")}
    unfinished = {
        folder.parent / folder.name.removeprefix(".").removesuffix(".work")
        for folder in Path(root).rglob(".*.work")
        if (folder / "state.safetensors").is_file()
    }
    return sorted(finished | unfinished, key=find.order)


def log_of(folder):
    """The lines of a run's log: of its metrics.jsonl or, before there is one, of its saved work."""
    path = folder / "metrics.jsonl"
    if path.is_file():
        lines = checkpoint.read_jsonl(path, {"images": int})
        _require_rising(path, [line["images"] for line in lines])
        return lines
    lines = _saved(work_folder(folder) / "state.safetensors").get("lines")
    lines = lines if isinstance(lines, list) else []
    return [line for line in lines if isinstance(line, dict) and type(line.get("images")) is int]


def _require_rising(path, images):
    for number, (before, now) in enumerate(pairwise([0, *images]), 1):
        if not before < now < 2**53:
            found = f"{path}, line {number}: found {shown(now, 60)} images after {before}"
            raise ValueError(f"{found}; allowed: rising numbers")


def _saved(path):
    """What saved work says of itself; {} if it is gone, as the run has just ended, or unreadable:
    training says so."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            about = parsed((file.metadata() or {}).get("about", "{}"))
    except (SafetensorError, OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}


def append(lines, place):
    """Write the lines that a folder of events lacks as one more file; returns their number. Events
    of a log that is not the beginning of this one, as of a run trained anew, are deleted first."""
    held = sorted(path for path in place.glob("*") if NAME.fullmatch(path.name))
    seen, digest = held[-1].name.split(".")[-2:] if held else ("0", _digest([]))
    known = [line for line in lines if line["images"] <= int(seen)]
    if digest != _digest(known):
        known = []
        for path in held:
            path.unlink()
    new = lines[len(known) :]
    if new:
        place.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{new[-1]['images']:012}.{_digest(lines)}"
        with checkpoint.replacing(place / "new") as scratch:  # TensorBoard reads *tfevents*
            _write(new, scratch)
        os.replace(place / "new", place / name)
    return len(new)


def _digest(lines):
    return hashlib.sha256(json.dumps(lines, sort_keys=True).encode()).hexdigest()[:8]


def _write(lines, path):
    """Write scalars by images seen, one record a line."""
    event, summary, writer = library()
    with open(path, "wb") as file:
        out = writer(file)
        out.write(event(file_version=VERSION).SerializeToString())
        for line in lines:
            values = [summary.Value(tag=t, simple_value=v) for t, v in scalars(line).items()]
            record = event(step=line["images"], summary=summary(value=values))
            out.write(record.SerializeToString())


def scalars(line):
    """{tag: number} of a line of the log; the residual has one for each bin of ln s. What is not
    finite, or is no number, has none."""
    bins = [f"{low:g} to {high:g}" for low, high in pairwise(LN_S_EDGES)]
    tagged = {key: value for key, value in line.items() if key != "images"}
    for key, value in list(tagged.items()):
        if isinstance(value, list):
            names = bins if len(value) == len(bins) else range(len(value))
            tagged |= {f"{key}/{name}": each for name, each in zip(names, value)}
    return {
        tag: value
        for tag, value in tagged.items()
        if type(value) in find.NUMBER and math.isfinite(value)
    }


def library():
    """TensorBoard's event, summary and writer; raises `ValueError` where it is not installed."""
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter
    except ImportError:
        raise ValueError(
            "tensorboard: found no such package; allowed: the extra 'tensorboard' of pyproject.toml"
            " installed (pip install 'tensorboard>=2.18')"
        ) from None
    return Event, Summary, RecordWriter
