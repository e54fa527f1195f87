"""Whether the files in a folder of results still fit together. Loads no torch.

Every record of a job holds the hashes of the files that the job read and wrote, and the stage
versions of its code. Every metrics.json names its model. A file that was replaced, edited or lost
since then does not match.
"""

from pathlib import Path

from ect.runs import find
from ect.runtime.record import digest as sha256

RECORDS = ("run.json", "features.json", "reference.json")
# The stage of a record, by a key of its settings.
STAGE_OF = {"recipe": "train", "kind": "sample", "epochs": "classifier", "features": "extract"}


def verify(root):
    """Print a line for each mismatch under `root`; raises `ValueError` with their number."""
    wrong, hashed, files = [], {}, 0
    records, metrics = _read(root, RECORDS, wrong), _read(root, ("metrics.json",), wrong)
    if not (records or metrics or wrong):
        raise ValueError(f"{root}: no run.json in it; allowed: a folder such as results/digits")
    for path, record in records.items():
        for file, digest in _named(path, record, Path(root)):
            files += 1
            wrong += [f"{file}: {why} {path}" for why in _mismatch(file, digest, hashed)]
    wrong += _mixed(records) + [w for p, m in metrics.items() for w in _odd(p, m, records)]
    print("\n".join([*wrong, _summary(records, metrics, files)]))
    if wrong:
        raise ValueError(
            f"{len(wrong)} in {root} do not match; delete them and run Snakemake again"
        )


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
    if not file.is_file():
        return ["not there, but named in"]
    if file not in hashed:
        hashed[file] = sha256(file)
    return [] if hashed[file] == digest else ["its bytes are not those named in"]


def _mixed(records):
    """Records of one stage that were made by different versions of its code."""
    first, wrong = {}, []
    for path, record in records.items():
        settings = record.get("settings") or {}
        stage = next((stage for key, stage in STAGE_OF.items() if key in settings), None)
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
