"""What runs, how far it is, and what waits: one line for each training run of a study, and one for
the whole run of Snakemake. Loads no torch."""

import json
import sys
import time
from contextlib import suppress
from pathlib import Path

from ect.config import load
from ect.config.cells import Milestone
from ect.config.config import Config
from ect.report import markup
from ect.runs import find, whole
from ect.runtime import progress
from ect.runtime.text import one_line
from ect.study import jobs
from ect.study import settings as study_settings

PAUSE = 2.0  # seconds between two refreshes
HEADERS = ("model", "state", "done", "images/s", "left", "loss", "attempt", "device", "process")
KEYS = ("done", "rate", "left", "loss", "attempt", "device", "process")  # of a row, beside state
CLEAR = "\x1b[H\x1b[2J"


def show(*places, live=False):
    """Print a line for each model of a study (config.yaml, and the files laid over it as Snakemake
    does) or each training run under a folder, and one for the whole run where Snakemake runs here.
    `live` refreshes them until all are done."""
    folder = next((place for place in places if Path(place).is_dir()), None)
    if folder and len(places) > 1:
        raise ValueError(f"found {folder} among {len(places)} paths; allowed: one folder, or files")
    if live and not sys.stdout.isatty():
        raise ValueError("--live: the output is not a terminal; allowed: the verb without --live")
    with suppress(*([KeyboardInterrupt] if live else [])):  # Ctrl-C ends it
        while True:
            study = None if folder else Config.read(load.planned(*places))
            rows = of_study(study) if study else of_folder(folder)
            last = summary(rows) + (f"; {measured(study)}" if study else "")
            run = whole.read(study.root if study else folder)
            lines = [*table(rows), last, *([whole.line(run)] if run else [])]
            print((CLEAR if live else "") + "\n".join(lines), flush=True)
            faults = [row["fault"] for row in rows if row.get("fault")]
            if faults and not live:
                more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
                raise ValueError(f"{faults[0]}{more}")
            if not live or (all(row["state"] == "done" for row in rows) and not run):
                return
            time.sleep(PAUSE)


def of_study(study):
    """A row for each model that a study asks for, or that one of them starts from."""
    milestones, tuned = jobs.models(study)
    rows = []
    for model in sorted([*milestones, *tuned], key=lambda m: find.order(m.folder)):
        imported = isinstance(model, Milestone) and model.pretrain in study.given
        settings = None if imported else study_settings.train(study, model)
        rows.append({"model": model.folder} | of_run(Path(study.root) / model.folder, settings))
    return rows


def of_folder(root):
    """A row for each training run under a folder."""
    folders = find.trainings(root)
    if not folders:
        raise ValueError(f"{root}: no training runs; allowed: a folder such as results/digits")
    return [{"model": str(folder.relative_to(root)), **of_run(folder)} for folder in folders]


def of_run(folder, settings=None):
    """As `_of_run`; 'unreadable', with the fault of its files, where these are not a run's."""
    try:
        return _of_run(folder, settings)
    except ValueError as error:
        return dict.fromkeys(KEYS) | {"state": "unreadable", "fault": str(error)}


def _of_run(folder, settings):
    """What the files of a run's folder say: state, done (0 to 1), images/s, seconds left, loss,
    attempt, device, process. A run that was made with other `settings` is 'outdated'."""
    row = dict.fromkeys(KEYS)
    told = progress.read(folder)
    left = told["total"] - told["images"] if told else 0
    state = progress.status(told) if left else None
    if told:
        row |= {key: told[key] for key in ("rate", "loss", "attempt", "device")}
    if state != "running" and (folder / "run.json").is_file():
        return row | _ended(folder, settings)
    if settings is None and not told:
        there = (folder / "model.safetensors").is_file()  # imported: it has no record
        return row | ({"state": "done", "done": 1.0} if there else {"state": "waiting"})
    if not state:
        return row | {"state": "waiting"}
    if state == "running":
        row["process"] = f"{told['pid']} on {told['host']}"
        row["left"] = left / told["rate"] if told["rate"] else None
    return row | {"state": state, "done": 1 - left / (told["total"] - told["first"])}


def _ended(folder, settings):
    record = find.read(folder / "run.json")
    same = settings is None or record.get("settings") == json.loads(json.dumps(settings))
    return {
        "state": "done" if same else "outdated",
        "done": 1.0 if same else None,
        "rate": record.get("images_per_second"),
        "loss": find.last_loss(folder),
        "device": record.get("device"),
    }


def table(rows):
    """Rows as lines of aligned text."""
    cells = [HEADERS, *([one_line(text) for text in _texts(row)] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]


def summary(rows):
    """How many models are in which state."""
    counts = {}
    for row in rows:
        counts[row["state"]] = counts.get(row["state"], 0) + 1
    return f"{len(rows)} model{'s' * (len(rows) > 1)}: " + ", ".join(
        f"{n} {state}" for state, n in counts.items()
    )


def measured(study):
    """How many of a study's distances have been measured."""
    files = [Path(study.root) / cell.folder / "metrics.json" for cell in study.all_cells()]
    return f"{sum(file.is_file() for file in files)} of {len(files)} distances measured"


def _texts(row):
    def text(key, form):
        return "" if row[key] is None else form(row[key])

    return (
        row["model"],
        row["state"],
        text("done", lambda share: f"{100 * share:.0f} %"),
        text("rate", lambda rate: f"{rate:.4g}"),
        text("left", markup.duration),
        text("loss", lambda loss: f"{loss:.4g}"),
        text("attempt", str),
        text("device", str),
        text("process", str),
    )
