"""Runs side by side: what differs between runs, what they reached, what they cost."""

import os
import shutil
import sys
from pathlib import Path

import pandas as pd

from ect.config.base import nearest
from ect.report import markup
from ect.runs import find
from ect.runtime.text import csv_cell, one_line, shown

BUDGET = ("kimg", "tune_kimg")
COST = ("seconds", "images_per_second")
FOLDERS = (
    "process",
    "parameterization",
    "pretrain",
    "schedule",
    "recipe",
    "seed",
    "nfe",
)  # of a run
APART = ("run", "label", "first_kimg", "last_kimg")  # said by sampler, kimg, tune_kimg already


def show(places, sort=None, filters=(), form="table"):
    """Print a row for each run and sampler under the folders `places`: the parameters that differ,
    budget, metrics, cost. `sort` is a column; `filters` are texts 'column=value'."""
    frame = read(places)
    for text in filters:
        frame = chosen(frame, text)
    if sort is not None:
        key = column(frame, sort)
        try:
            frame = frame.sort_values(key, kind="stable", na_position="last")
        except TypeError:
            allowed = "a column of numbers, or of texts"
            raise ValueError(
                f"--sort: {key} has values of several kinds; allowed: {allowed}"
            ) from None
    frame = differing(frame)
    if form == "table" and sys.stdout.isatty():
        frame = narrowed(frame, shutil.get_terminal_size().columns)
    print(written(frame, form), end="")
    if left_out := frame.attrs.get("left_out"):
        print(f"left out: {', '.join(left_out)}; a wider terminal or --format csv has all")


def read(places):
    """One row for each run and sampler under folders: `run` and `sampler`, the facts of the cell,
    all settings of training by their dotted names, metrics, cost. Raises `ValueError`."""
    rows = [row for place in places for row in _rows_under(place)]
    if not rows:
        where = ", ".join(map(str, places))
        raise ValueError(f"{where}: no runs there; allowed: a folder such as results/digits")
    ways = [(os.path.realpath(row["run"]), row.get("sampler")) for row in rows]
    if twice := [row["run"] for row, way in zip(rows, ways) if ways.count(way) > 1]:
        raise ValueError(f"{twice[0]}: found twice under the folders; allowed: each run once")
    frame = pd.DataFrame(rows)
    frame.attrs["metrics"] = list(dict.fromkeys(key for row in rows for key in row["metrics"]))
    names = frame.pop("metrics")
    return frame.assign(**{m: [row.get(m) for row in names] for m in frame.attrs["metrics"]})


def _rows_under(place):
    measured = {}
    for path in find.files(place, "metrics.json"):
        measured.setdefault(path.parent.parent, []).append(path)
    for folder in sorted({*measured, *find.trainings(place)}, key=find.order):
        for path in measured.get(folder, [None]):
            yield _row(folder, path)


def _row(folder, path):
    """A row. Its metrics, the floats of metrics.json, are a mapping in it."""
    record = find.read(folder / "run.json") if (folder / "run.json").is_file() else {}
    measured = find.flat(find.read(path)) if path else {}
    cell = {k.removeprefix("cell."): v for k, v in measured.items() if k.startswith("cell.")}
    facts = {"sampler": path.parent.name} if path else {}
    facts |= find.facts(folder) | {k: v for k, v in cell.items() if v is not None}
    rest = {k: v for k, v in measured.items() if not k.startswith("cell.")}
    metrics = {k: v for k, v in rest.items() if isinstance(v, float)}
    return {
        "run": str(folder),
        **facts,
        **{k: v for k, v in find.flat(record.get("settings", {})).items() if k not in facts},
        **{k: v for k, v in rest.items() if k not in metrics},
        **{key: record.get(key) for key in (*COST, "device")},
        "metrics": metrics,
    }


def column(frame, name):
    """The column called `name`, or the only one that ends in .name; raises `ValueError`."""
    if name in frame:
        return name
    ending = [key for key in frame if key.endswith(f".{name}")]
    if len(ending) == 1:
        return ending[0]
    words = f"is one of {', '.join(ending)}" if ending else "is not a column"
    found = shown(name, 80) if name.strip() else repr(name)
    near = "" if ending else nearest(name.lower(), frame)
    raise ValueError(f"{found} {words}; allowed: {', '.join(frame)}{near}")


def chosen(frame, text):
    """The rows in which a column has a value: 'schedule=sigmoid'. Numbers are compared as such."""
    name, equals, wanted = text.partition("=")
    if not (equals and name.strip()):
        raise ValueError(f"--filter: found '{shown(text)}'; allowed: column=value")
    values = frame[column(frame, name)]
    rows = frame[[_same(value, wanted) for value in values]]
    if rows.empty:
        found = ", ".join(map(str, values.dropna().unique()))
        raise ValueError(f"--filter {shown(text)}: no such run; allowed: {shown(found, 1000)}")
    return rows


def _same(value, text):
    try:
        return float(value) == float(text)
    except (TypeError, ValueError):
        return str(value) == text


def differing(frame):
    """The columns in which rows differ, then budget, metrics and cost."""
    last = [key for key in (*BUDGET, *frame.attrs["metrics"], *COST) if key in frame]
    apart = APART if "kimg" in frame else APART[:1]
    others = [key for key in frame if key not in (*apart, *last)]
    varying = [key for key in others if frame[key].nunique(dropna=False) > 1]
    return frame[["run", *varying, *last]]


def narrowed(frame, width):
    """A frame whose table has lines of at most `width` characters, as far as columns can be left
    out: first what a run's folder says too, then settings from the last, cost, metrics but one.
    Runs lose the folder that all are in. `attrs["left_out"]` names the columns."""
    metrics = frame.attrs["metrics"]
    kept = ("run", "sampler", *metrics[:1])
    settings = [key for key in frame if key not in (*kept, *FOLDERS, *BUDGET, *metrics, *COST)]
    order = [*FOLDERS, *settings[::-1], *COST, *metrics[:0:-1], *BUDGET, "sampler"]
    above = os.path.commonpath([*map(os.path.dirname, frame["run"])])
    inside = [os.path.relpath(run, above) if above else run for run in frame["run"]]
    frame, left_out = frame.assign(run=inside), []
    for key in order:
        if max(map(len, written(frame, "table").splitlines())) <= width:
            break
        if key in frame:
            frame, left_out = frame.drop(columns=key), [*left_out, key]
    frame.attrs |= {"left_out": left_out, "metrics": metrics}
    return frame


def written(frame, form):
    """A frame as text: 'csv', 'json', 'md', or a 'table' to read. In the last two, names are
    shortened as far as they stay distinct."""
    if form == "csv":
        return frame.map(csv_cell).rename(columns=csv_cell).to_csv(index=False, lineterminator="\n")
    if form == "json":
        return frame.to_json(orient="records", indent=1) + "\n"
    names = {key: one_line(name) for key, name in _shortest(list(frame)).items()}
    texts = frame.map(_text).rename(columns=names)
    if form == "md":
        aligns = ["r" if pd.api.types.is_numeric_dtype(frame[key]) else "l" for key in frame]
        return markup.markdown(list(texts), texts.values.tolist(), aligns, f"{len(frame)} rows.")
    return texts.to_string(index=False) + "\n"


def _shortest(names):
    """{name: its shortest ending at a dot that no other name shares}."""

    def endings(name):
        parts = name.split(".")
        return [".".join(parts[i:]) for i in range(len(parts))]

    shared = [ending for name in names for ending in endings(name)]
    return {n: next((e for e in reversed(endings(n)) if shared.count(e) == 1), n) for n in names}


def _text(value):
    if pd.isna(value):
        return ""
    return f"{value:.5g}" if isinstance(value, float) else one_line(value)


def diff(first, second):
    """Print what differs between two runs: settings, inputs, code, packages, device, metrics."""
    one, other = (_all_of(folder) for folder in (first, second))
    keys = [key for key in {**one, **other} if one.get(key) != other.get(key)]
    table = pd.DataFrame({
        "": [one_line(key) for key in keys],
        one_line(first): [_short(one.get(key)) for key in keys],
        one_line(second): [_short(other.get(key)) for key in keys],
    })  # fmt: skip
    print(table.to_string(index=False) if keys else "no difference")


def _all_of(folder):
    """All that a run's files say of it, by dotted names; inputs by file name, no outputs."""
    path = Path(folder)
    path = path.parent if path.name == "run.json" else path
    record = find.read(path / "run.json")
    inputs = record.get("inputs", {})
    record["inputs"] = {Path(name).name: digest[:12] for name, digest in inputs.items()}
    found = find.flat({k: v for k, v in record.items() if k != "outputs"})
    for metrics in sorted([*path.glob("*/metrics.json"), *path.glob("metrics.json")]):
        name = "metrics" if metrics.parent == path else f"metrics.{metrics.parent.name}"
        measured = {k: v for k, v in find.read(metrics).items() if k != "cell"}
        found |= find.flat(measured, name)
    return found | {"last loss": find.last_loss(path)}


def _short(value):
    return "" if value is None else _text(value) if isinstance(value, float) else one_line(value)
