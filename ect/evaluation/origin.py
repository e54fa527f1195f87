"""Whether the files that a job puts together come from one another, by the records beside them.

Features of two networks, or of two datasets, may have the same width: their distance is a number
that means nothing. A file without a record beside it is taken as it is.
"""

import itertools

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
