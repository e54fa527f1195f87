"""Whether what lies in a folder of results still fits together. Loads no torch.

Every record of a job names the hashes of what the job read and wrote, and the stage versions of the
code that made it. Every metrics.json names its model. Whatever was replaced, edited or lost since
then does not match.
"""

from pathlib import Path

from ect import machine, runs

RECORDS = ("run.json", "features.json", "reference.json")
# By a key of settings.
STAGE_OF = {"recipe": "train", "kind": "sample", "epochs": "classifier", "features": "extract"}


def verify(root):
    """Print a line for each thing under `root` that does not match; raises `ValueError` that counts
    them."""
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
    """{path: mapping} of the files of these names; of one that cannot be read, `wrong` is told."""
    found = {}
    for path in (path for name in names for path in runs.files(root, name)):
        try:
            found[path] = runs.read_json(path)
        except ValueError as error:
            wrong.append(str(error))
    return found


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
    """Where an input lies: below `root`, should it have moved since, else as it was named."""
    parts, last = Path(name).parts, root.resolve().name
    if last in parts:
        moved = root.joinpath(*parts[len(parts) - parts[::-1].index(last) :])
        if moved.exists():
            return moved
    return Path(name)


def _mismatch(file, digest, hashed):
    """Nothing, or why a file is not the one with that sha256; `hashed` keeps what was read."""
    if not file.is_file():
        return ["not there, but named in"]
    if file not in hashed:
        hashed[file] = machine.digest(file)
    return [] if hashed[file] == digest else ["its bytes are not those named in"]


def _mixed(records):
    """Records of one stage that were made by different versions of its code."""
    first, wrong = {}, []
    for path, record in records.items():
        settings = record.get("settings") or {}
        stage = next((stage for key, stage in STAGE_OF.items() if key in settings), None)
        version = record.get("stages", {}).get(stage)
        if version is None:  # older than this key
            continue
        _, one = first.setdefault(stage, (path, version))
        if version != one:
            wrong.append(f"{path}: version {version} of {stage}, but {one} in {first[stage][0]}")
    return wrong


def _odd(path, metrics, records):
    """What metrics.json says of its cell and images against the records of model and samples."""
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
    """How many images were drawn to be measured, or None: streamed features have a record of their
    own, and samples.npz beside them is the grid's."""
    names = ("features.json", "run.json")
    own, grid = (records.get(folder / name, {}).get("settings", {}) for name in names)
    return own.get("sampling", grid).get("images")


def _summary(records, metrics, files):
    older = sum("outputs" not in record for record in records.values())
    told = f"{len(records)} records, {len(metrics)} metrics, {files} files compared"
    return told + (f"; {older} records are older and name no outputs" if older else "")
