"""Inputs are as their jobs left them, and tables, figures and the page are of one study."""

import itertools
import os
from contextlib import suppress
from pathlib import Path

from ect import registry
from ect.cli import files
from ect.runtime import checkpoint, record
from ect.runtime.text import shown

SMALL = (".json", ".jsonl", ".csv", ".md", ".png", ".npz")  # files that reports read
ORIGIN = ("samples", "reference", "snapshots")  # options whose files' records are compared


def require(args):
    """Raise `ValueError` if a file that a verb reads has other bytes than the record beside it
    names, or if metrics are in the features of two classifiers. Returns what is to be said of files
    without a record, once the verb has ended well: a line each."""
    if args.function.__name__ not in (*files.ENDINGS, "write_page"):
        return list(_untold(args))
    with suppress(KeyError, TypeError, AttributeError):  # of settings, which the verb names
        made = {path: record.of(path) for path in files.read(args) if path.suffix in SMALL}
        if getattr(args, "figure", None) == "loss":
            _require_one_run(args.settings, {os.path.realpath(p): one for p, one in made.items()})
        if getattr(args, "figure", None) == "nearest":
            _require_searched(args.settings)
        measured = {path: one for path, one in made.items() if one and _of_classifier(one)}
        for (first, one), (path, other) in itertools.pairwise(measured.items()):
            if not set(one["inputs"].values()) & set(other["inputs"].values()):
                raise ValueError(
                    f"{path}: found distances in features of another classifier than those of"
                    f" {first}, by the records beside them; allowed: of one study"
                )
        solvers = getattr(args, "solvers", None) or getattr(args, "settings", {}).get("solvers")
        _require_kinds(solvers or {}, made.values())
    return []


def _untold(args):
    """The lines about files that must come from one another and that no record is of; raises
    `ValueError` if a file has other bytes than its job wrote."""
    asked = {os.path.realpath(path) for path in files.given(args, ORIGIN) if path}
    for path in files.read(args):
        unknown = path.suffix == ".safetensors" and record.of(path) is None
        if unknown and os.path.realpath(path) in asked:
            yield f"no record beside {shown(path)} says what it was made from; taken as it is"


def _require_kinds(solvers, records):
    """Raise `ValueError` unless each sampler's kind, {sampler: kind}, is that by which the images
    of its metrics were drawn, or, where no record says it, one of ect's."""
    drawn = dict(filter(None, map(_drawn_by, filter(None, records))))
    for name, kind in solvers.items():
        found = drawn.get(name)
        if kind != found and (found or kind not in registry.SAMPLERS):
            allowed = f"'{found}', by the record of its images" if found else _SAMPLERS
            raise ValueError(
                f"solvers: found {shown(name, 60)}: {shown(repr(kind), 60)}; allowed: {allowed}"
            )


_SAMPLERS = f"{', '.join(registry.SAMPLERS)}; a plugin's where a record of its images says it"


def _drawn_by(made):
    """(sampler, its kind) of the record of metrics, by the record beside the images or features
    that they are of; None where there is none."""
    name = made["settings"].get("cell", {}).get("sampler")
    for path in map(Path, made["inputs"]):
        for place in (path.with_suffix(".json"), path.with_name("run.json")):
            facts = checkpoint.read_json(place) if place.is_file() else {}
            how = facts.get("settings", {})
            how = how.get("sampling", how)
            if path.name in facts.get("outputs", {}) and "kind" in how:
                return name, how["kind"]
    return None


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


def _require_searched(settings):
    """Raise `ValueError` unless the images of a figure are those that `find-nearest` has read, by
    the record beside what it wrote."""
    made = record.of(settings["nearest"])
    for key in ("samples", "data") if made else ():
        if record.digest(settings[key]) not in made["inputs"].values():
            raise ValueError(
                f"{settings[key]}: found other images than those of {settings['nearest']}, by the"
                " record beside it; allowed: those that `find-nearest` has read"
            )


def _of_classifier(made):
    """Whether a record is of distances in the features of a classifier."""
    settings = made["settings"]
    return "cell" in settings and settings.get("features", {}).get("extractor") == "classifier"
