"""Whether the files that a job puts together come from one another, by the records beside them.

Features of two networks, or of two datasets, may have the same width: their distance is a number
that means nothing. A file without a record beside it is taken as it is.
"""

import itertools
from contextlib import suppress
from pathlib import Path

from ect.config.evaluation import Sampler
from ect.runtime import record
from ect.runtime.checkpoint import typed
from ect.runtime.text import shown


def require_space(path, space, weights=(), where=None):
    """Raise `ValueError` unless the features in a file are of the feature space of the settings
    `space`, and its network one of the files `weights`, where there are any. `where` names what
    they are to be compared with."""
    made = record.of(path)
    if made is None:
        return
    found, wanted = made["settings"].get("features", {}), _apart(space)
    for key, value in _apart(found).items():
        if value != wanted.get(key):
            allowed = f"{shown(wanted.get(key), 80)}, as in {where or 'settings'}"
            raise ValueError(f"{path}: its {key} is {shown(value, 80)}; allowed: {allowed}")
    for file in weights:
        if record.digest(file) not in made["inputs"].values():
            raise ValueError(
                f"{path}: found features of another network than {file}, by the record beside it;"
                f" allowed: those of {file}"
            )


def _apart(space):
    """What tells feature spaces apart, but for their files: plugins by what is in them."""
    mode = ["inception_mode"] * (space.get("extractor") == "inception")
    found = {key: space[key] for key in ("extractor", *mode) if key in space}
    plugins = space.get("plugins")
    return found | ({"plugins": sorted(plugins.values())} if plugins else {})


def require_made_from(path, source, what):
    """Raise `ValueError` unless the file `source` is among what the job of the file `path` read."""
    made = record.of(path)
    if made is not None and record.digest(source) not in made["inputs"].values():
        raise ValueError(
            f"{path}: made from {what} other than {source}, by the record beside it; allowed: files"
            " of one origin"
        )


def require_training(path):
    """Raise `ValueError` if features in a file are of drawn images, by the record beside it, where
    those of the training images belong."""
    made = record.of(path)
    if made is not None and _of_drawn(made):
        raise ValueError(
            f"{path}: found features of drawn images, by the record beside it; allowed: those of"
            " the training images, by `extract --data`"
        )


def require_drawn(path):
    """Raise `ValueError` if features in a file are of the training images, by the record beside it,
    where those of drawn images belong."""
    made = record.of(path)
    if made is not None and "features" in made["settings"] and not _of_drawn(made):
        raise ValueError(
            f"{path}: found features of the training images, by the record beside it; allowed:"
            " those of drawn images, by `extract --samples` or `--model`"
        )


def _of_drawn(made):
    """Whether the job of a record drew images, or read a samples.npz."""
    return "sampling" in made["settings"] or any(name.endswith(".npz") for name in made["inputs"])


def require_cell(path, cell):
    """Raise `ValueError` if the record of the job that drew images, or of the run that trained
    their model, contradicts what `cell` says of them: metrics.json would name another cell."""
    made, how = _drawing(path)
    nfe = evaluations(how)
    if None not in (nfe, cell.get("nfe")) and nfe != cell["nfe"]:
        found = f"drawn with {nfe} evaluations of the network an image, by the record beside it"
        raise ValueError(f"{path}: {found}; allowed: {cell['nfe']}, the cell's nfe")
    wanted = {key: cell.get(key) for key in ("process", "parameterization", "seed")}
    wanted["last_kimg"] = cell.get("tune_kimg") or cell.get("kimg")
    for model, run in _trained(made):
        for key, value in wanted.items():
            if None not in (value, run.get(key)) and run[key] != value:
                found = f"drawn from {model}, whose {key} is {shown(run[key], 60)}"
                raise ValueError(f"{path}: {found}; allowed: {shown(value, 60)}, the cell's")


def _drawing(path):
    """(record, settings) of the job that drew the images of a file, or those behind its features;
    ({}, {}) where no record says it."""
    made = record.of(path) or {}
    how = made.get("settings", {}).get("sampling", made.get("settings", {}))
    if {"kind", "options"} <= set(how):
        return made, how
    stored = [file for file in made.get("inputs", {}) if file.endswith(".npz")]
    return _drawing(stored[0]) if stored else ({}, {})


def _trained(made):
    """(path, settings) of each training run whose model, still as it was, a job has read."""
    for path, digest in made.get("inputs", {}).items():
        there = path.endswith("model.safetensors") and Path(path).is_file()
        if there and record.digest(path) == digest:
            yield path, (record.of(path) or {}).get("settings", {})


def evaluations(how):
    """Evaluations of the network for one image of these settings of sampling; None where they do
    not tell it, as those of a plugin's sampler do not."""
    options = how.get("options")
    if not isinstance(options, dict) or {"kind", "label"} & set(options):
        return None
    with suppress(ValueError):
        return Sampler.model_validate({"kind": how.get("kind"), "label": "-"} | options).evaluations
    return None


def require_one_network(path, reference):
    """Raise `ValueError` unless the features in two files are of one network."""
    one, other = record.of(path), record.of(reference)
    if one is None or other is None or "plugins" in one["settings"].get("features", {}):
        return
    if not set(one["inputs"].values()) & set(other["inputs"].values()):
        raise ValueError(
            f"{path}: found features of another network than those in {reference}, by the records"
            " beside them; allowed: features of one network"
        )


def require_repeats(paths):
    """Raise `ValueError` unless the files are images of one model, or their features, by one
    sampler, from seeds apart."""
    sets = [(path, *found) for path in paths if (found := _drawn(path))]
    if len({len(seeds) for *_, seeds in sets}) > 1:
        return  # which `mean` says of all sets
    for (one, made, how, _), (other, also_made, also, _) in itertools.pairwise(sets):
        if not (made <= also_made or also_made <= made):
            allowed = "repeats of one model"
            raise ValueError(f"{other}: drawn from another model than {one}; allowed: {allowed}")
        if how != also:
            raise ValueError(
                f"{other}: drawn otherwise than {one}; allowed: from other seeds alone"
            )
    taken = sorted((seeds.start, seeds.stop, str(path)) for path, _, _, seeds in sets)
    for (_, end, one), (start, _, other) in itertools.pairwise(taken):
        if start < end:
            found = f"found images of the seeds from {start} on, which {one} has too"
            raise ValueError(f"{other}: {found}; allowed: seeds apart")


def _drawn(path):
    """(sha256 of what images were made from, how they were drawn, their seeds), of a file of images
    or of features; None where no record says it."""
    made = record.of(path)
    if made is None:
        return None
    how = made["settings"].get("sampling", made["settings"])
    if not {"kind", "seed", "images"} <= set(how):
        stored = [file for file in made["inputs"] if file.endswith(".npz")]
        return _drawn(stored[0]) if stored else None
    typed(how, f"{path}: the record beside it", {"seed": int, "images": int})
    apart = {key: value for key, value in how.items() if key not in ("seed", "images")}
    seeds = range(how["seed"], how["seed"] + how["images"])
    return set(made["inputs"].values()), apart, seeds
