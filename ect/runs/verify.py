"""Whether the files in a folder of results still fit together. Loads no torch.

Every record of a job holds the hashes of the files that the job read and wrote, and the stage
versions of its code. Every metrics.json names its model. A file that was replaced, edited or lost
since then does not match; a result that no record names is not checked.
"""

import os
import re
from pathlib import Path

from ect.runs import find, form
from ect.runtime.record import digest as sha256
from ect.runtime.text import one_line, shown

RECORDS = ("run.json", "features.json", "reference.json")
HIDDEN = ".*.record.json"  # of jobs that make tables, figures, metrics, ...
# What jobs make, by its path: in the first group, what they make with a run.json or the like.
RESULT = re.compile(
    r"(?:.*/)?(?:((?:state|snapshots|trajectories|features|reference|classifier|dataset)"
    r"\.safetensors|metrics\.jsonl|samples\.npz)|(?:model|summary)\.safetensors|metrics\.json"
    r"|floor\.json"
    r"|(?:trace|perfect)\.csv|steps\.json|index\.html|tables/[^/]+\.(?:csv|md|tex)"
    r"|figures/[^/]+\.(?:pdf|png)|png/[^/]+\.png)"
)
# The rule whose record names a result, by its path; each makes it or reads it, in seconds. (Forced,
# a rule runs even where the study does not ask for it, so none is named that has made nothing.)
RULES = {
    r"tables/(steps|paper)\..*": r"tabulate_\1",
    r"tables/.*|metrics\.json|floor\.json": "tabulate",
    r"figures/(maps|curves|samples|loss)\..*": r"draw_\1",
    r"figures/.*": "draw_experiment",
    r"metrics\.jsonl": "draw_curves",
    r"samples\.npz": "draw_samples",
    r"(?:trace|perfect)\.csv": "draw_loss",
    r"steps\.json": "tabulate_steps",
    r"png/.*": "export_images",
    r"summary\.safetensors": "summarize_reference",
    r"index\.html": "write_page",
}


def verify(root):
    """Print a line for each mismatch under `root`, and one if some results are not checked; raises
    `ValueError` with their numbers."""
    wrong, hashed = [], {}
    records, metrics = _read(root, RECORDS, wrong), _read(root, ("metrics.json",), wrong)
    records |= _read(root, (HIDDEN,), wrong)
    if not (records or metrics or wrong or _results(root)):
        raise ValueError(f"{root}: no run.json in it; allowed: a folder such as results/digits")
    files = [(p, *named) for p, r in records.items() for named in _named(p, r, Path(root))]
    for path, file, digest in files:
        wrong += [f"{shown(file)}: {why} {path}" for why in _mismatch(file, digest, hashed)]
    wrong += _mixed(records) + [w for p, m in metrics.items() for w in _odd(p, m, records)]
    faults = {path: _fault(path, *why) for path, why in _unnamed(root, records, files).items()}
    wrong += [f"{shown(path)}: {why}" for path, why in faults.items() if why]
    unchecked = [path for path, why in faults.items() if not why]
    lines = [*wrong, *_told(unchecked), _summary(records, metrics, len(files))]
    print("\n".join(map(one_line, lines)))
    _require_none(root, wrong, unchecked)


def _require_none(root, wrong, unchecked):
    if wrong:
        more = f", {len(unchecked)} more are not checked" if unchecked else ""
        raise ValueError(
            f"{len(wrong)} in {root} do not match{more}; delete them and run Snakemake again"
        )
    if unchecked:
        raise ValueError(f"{len(unchecked)} in {root} are not checked")


def _results(root):
    """{file: whether a run.json or the like must name it} of what jobs made, not in hidden folders
    nor in results/published, which git keeps."""
    found = {}
    for path in find.files(root, "*"):
        place = path.relative_to(root)
        match = RESULT.fullmatch(place.as_posix())
        if match and place.parts[0] != "published":
            trained = path.name == "model.safetensors" and path.with_name("metrics.jsonl").exists()
            found[path] = bool(match[1]) or trained
    return found


def _unnamed(root, records, files):
    """{result: (whether its declared record is gone, whether no record names it)} of those with
    one of the two. A record older than the names of outputs stands for the files beside it."""
    made = {
        os.path.realpath(p.parent / n) for p, r in records.items() for n in r.get("outputs", ())
    }
    named = {os.path.realpath(file) for _, file, _ in files}
    older = {path.parent for path, record in records.items() if "outputs" not in record}
    found = {}
    for path, declared in _results(root).items():
        place = os.path.realpath(path)
        lost = declared and place not in made and path.parent not in older
        if lost or place not in named:
            found[path] = lost, place not in named
    return found


def _fault(path, lost, unnamed):
    """What is wrong with a result that is not recorded as it should be, or None."""
    if unnamed and (why := form.fault(path)):
        return f"{why}, and no record names it"
    return "no record of the job that made it" if lost else None


def _told(unchecked):
    """The line on results without a record, with the way to have them; nothing without such."""
    if unchecked:
        rules = sorted({rule for path in unchecked for rule in _rule(path)})
        way = f"snakemake --cores all --forcerun {' '.join(rules)}" if rules else "train again"
        yield (
            f"not checked: {len(unchecked)} results that no record names, such as"
            f" {shown(unchecked[0])}, made before records were, or theirs is gone; to have them:"
            f" {way} (with the --configfile of the study; what is of no study can be deleted)"
        )


def _rule(path):
    """[the rule whose record would name a result], or []."""
    for pattern, rule in RULES.items():
        if found := re.search(rf"(?:^|/)(?:{pattern})$", path.as_posix()):
            return [found.expand(rule)]
    return []


def _read(root, names, wrong):
    """{path: mapping} of the files of these names; errors of unreadable ones go into `wrong`."""
    mappings = {}
    for path in (path for name in names for path in find.files(root, name)):
        try:
            mappings[path] = find.read(path)
        except ValueError as error:
            wrong.append(str(error))
    return mappings


def _named(path, record, root):
    """(file, sha256) of all that a record names: outputs beside it, inputs, plugins."""
    for name, digest in record.get("outputs", {}).items():
        yield path.parent / name, digest
    for name, digest in record.get("inputs", {}).items():
        yield _place(name, root), digest
    settings = record.get("settings", {})
    for part in (settings, settings.get("features", {}), settings.get("sampling", {})):
        for name, digest in part.get("plugins", {}).items():
            yield Path(name), digest


def _place(name, root):
    """The path of an input: below `root`, in case that has moved, else as recorded."""
    parts, last = Path(name).parts, root.resolve().name
    if last in parts:
        moved = root.joinpath(*parts[len(parts) - parts[::-1].index(last) :])
        if moved.exists():
            return moved
    return Path(name)


def _mismatch(file, digest, hashed):
    """[why a file does not have that sha256], or []; `hashed` keeps the hashes computed."""
    try:
        if not file.is_file():
            return ["not there, but named in"]
        if file not in hashed:
            hashed[file] = sha256(file)
    except (OSError, ValueError) as error:
        return [f"cannot be read ({error}), but named in"]
    return [] if hashed[file] == digest else ["its bytes are not those named in"]


def _mixed(records):
    """Records of one stage that were made by different versions of its code."""
    first, wrong = {}, []
    for path, record in records.items():
        stage = find.stage_of(record)
        version = record.get("stages", {}).get(stage)
        if version is None:  # a record older than this key
            continue
        _, one = first.setdefault(stage, (path, version))
        if version != one:
            wrong.append(f"{path}: version {version} of {stage}, but {one} in {first[stage][0]}")
    return wrong


def _odd(path, metrics, records):
    """Where a metrics.json contradicts the records of its model and samples."""
    cell, run = metrics.get("cell", {}), path.parent.parent / "run.json"
    model = records.get(run, {}).get("settings", {})
    said = {key: cell.get(key) for key in ("process", "parameterization", "seed")}
    said["last_kimg"] = cell.get("tune_kimg") or cell.get("kimg")
    for key, value in said.items():
        if key in model and value is not None and value != model[key]:
            yield f"{path}: {key} is {value}, but {model[key]} in {run}"
    drawn, images = _drawn(path.parent, records), metrics.get("images")
    if drawn not in (None, images):
        yield f"{path}: measured on {images} images, but {drawn} were drawn"


def _drawn(folder, records):
    """How many images were drawn to be measured, or None. Features of images that were not stored
    have their own record; a samples.npz beside them is for the grid figure."""
    names = ("features.json", "run.json")
    streamed, stored = (records.get(folder / name, {}).get("settings", {}) for name in names)
    return streamed.get("sampling", stored).get("images")


def _summary(records, metrics, files):
    older = sum("outputs" not in record for record in records.values())
    text = f"{len(records)} records, {len(metrics)} metrics, {files} files compared"
    return text + (f"; {older} records are older and name no outputs" if older else "")
