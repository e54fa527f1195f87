"""Tables, figures and the page are made of files as their jobs left them, and of one study."""

import itertools
import os
from contextlib import suppress

from ect.cli import files
from ect.runtime import record

SMALL = (".json", ".jsonl", ".csv", ".md", ".png", ".npz")  # files that they read


def require(args):
    """Raise `ValueError` if a file that a table, a figure or the page is made of has other bytes
    than the record beside it names, or if metrics are in the features of two classifiers."""
    if args.function.__name__ not in (*files.ENDINGS, "write_page"):
        return
    with suppress(KeyError, TypeError, AttributeError):  # of settings, which the verb names
        made = {path: record.of(path) for path in files.read(args) if path.suffix in SMALL}
        if getattr(args, "figure", None) == "loss":
            _require_one_run(args.settings, {os.path.realpath(p): one for p, one in made.items()})
        measured = {path: one for path, one in made.items() if one and _of_classifier(one)}
        for (first, one), (path, other) in itertools.pairwise(measured.items()):
            if not set(one["inputs"].values()) & set(other["inputs"].values()):
                raise ValueError(
                    f"{path}: found distances in features of another classifier than those of"
                    f" {first}, by the records beside them; allowed: of one study"
                )


def _require_one_run(settings, made):
    """Raise `ValueError` if a trace is of other snapshots than those of the run that left the log,
    by the records beside both."""
    log, trace = settings["metrics"], settings["trace"]
    run, measured = (made.get(os.path.realpath(path)) or {} for path in (log, trace))
    kept = run.get("outputs", {}).get("snapshots.safetensors")
    if kept and measured and kept not in measured["inputs"].values():
        raise ValueError(
            f"{trace}: found the trace of another run than that of {log}, by the records beside"
            " them; allowed: of one run"
        )


def _of_classifier(made):
    """Whether a record is of distances in the features of a classifier."""
    settings = made["settings"]
    return "cell" in settings and settings.get("features", {}).get("extractor") == "classifier"
