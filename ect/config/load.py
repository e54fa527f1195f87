"""Blocks of a config that are made of other blocks, before they are checked. Loads no torch.

`weight_gap: {like: ect, weight: gap}` is the block `ect` with one key changed, also where `ect` is
in another file. A block set to null is left out, so that a study laid over another can drop what
it does not use.
"""

import os
from pathlib import Path

from ect.config import places
from ect.config.base import NAMED, names, nearest, short

CONFIG = "config.yaml"
LIKE = 50  # blocks that are each like the next, at most


class Read(dict):
    """A mapping that was read from files; `places` are those of its keys."""

    places: dict = {}


def planned(*studies):
    """The mapping that `snakemake --configfile` makes of these files, laid over config.yaml. That
    may be missing if other files are named."""
    base = [CONFIG] if os.path.lexists(CONFIG) or not studies else []
    return read(*base, *studies)


def read(config, *studies):
    """The mapping of a config file with the files of studies laid over it, as Snakemake does for
    --configfile; raises `ValueError` on a file that holds no mapping."""
    result, over, laid = Read(), {}, {}
    under, result.places = places.read(config)
    for study in studies:
        mapping, found = places.read(study)
        over = _updated(over, mapping, found)
        places.lay(laid, found)
    result.update(_updated(under, over, laid))
    places.lay(result.places, laid)
    return result


def _updated(under, over, found, path=()):
    """`under` with the keys of `over`, mapping by mapping; an empty mapping changes nothing, and
    raises `ValueError`, by its place in `found`, over what is no mapping."""
    if not isinstance(over, dict):
        return over
    if not over:
        if isinstance(under, dict | None):
            return under
        key, value = ".".join(map(str, path)), short(under)
        raise ValueError(
            f"{places.find(found, path)}: {key}: found {{}}, which leaves {value}; allowed: a value"
        )
    under = under if isinstance(under, dict) else {}
    return under | {
        key: _updated(under.get(key, {}), value, found, (*path, key)) for key, value in over.items()
    }


def places_of(files, words):
    """{key: Place} of the config that Snakemake made of files, laid over one another, and of the
    words of --config; {} if a file's lines are not to be had. Raises `ValueError` on a file that is
    no config."""
    result, merged = {}, {}
    if any(not Path(file).is_file() or _is_template(file) for file in files):
        return result  # such as a pipe, which has been read by now
    for file in files:
        mapping, found = places.read(file, _shown(file))
        merged = _updated(merged, mapping, found)
        places.lay(result, found)
    return places.lay(result, places.of_words(words))


def require_config(wanted):
    """Raises `ValueError` where config.yaml is there, and `wanted`, but is no config."""
    if wanted and Path(CONFIG).exists() and not _is_template(CONFIG):
        places.read(CONFIG)


def _shown(file):
    """A file's path, relative if it is below the working directory."""
    file = Path(file).absolute()
    return str(file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file)


def _is_template(file):
    """Whether Snakemake fills a file by YTE, so that its lines are not those of the config."""
    return Path(file).is_file() and b"__use_yte__" in Path(file).read_bytes()


def origin(mapping, path):
    """The path of a key before `like` is resolved: in its own block, or in the one that has it."""
    if len(path) < 3 or path[0] not in NAMED:
        return path
    key, name, *rest = path
    blocks, followed = mapping.get(key), []
    while isinstance(blocks, dict) and isinstance(blocks.get(name), dict) and name not in followed:
        if _has(blocks[name], rest):
            return (key, name, *rest)
        followed.append(name)
        name = blocks[name].get("like")
    return path


def _has(block, rest):
    for part in rest:
        if isinstance(block, list) and str(part).isdigit() and int(part) < len(block):
            block = block[int(part)]
        elif isinstance(block, dict) and part in block:
            block = block[part]
        else:
            return False
    return True


def resolve(mapping):
    """The config with every `like` resolved and every null block left out; raises `ValueError`."""
    if not isinstance(mapping, dict):
        return mapping
    return {
        key: _blocks(key, value) if key in NAMED and isinstance(value, dict) else value
        for key, value in mapping.items()
    }


def _blocks(key, blocks):
    present = {name: block for name, block in blocks.items() if block is not None}
    return {name: _block(key, name, present, ()) for name in present}


def _block(key, name, blocks, followed):
    """The block `name` with its `like` resolved; `followed` are the names that led to it."""
    if len(followed) >= LIKE:
        found = f"found more than {LIKE} blocks, each like the next"
        raise ValueError(f"{key}.{followed[0]}.like: {found}; allowed: at most {LIKE}")
    block = blocks[name]
    if not isinstance(block, dict) or "like" not in block:
        return block
    changes = {k: v for k, v in block.items() if k != "like"}
    parent, others = block["like"], [n for n in blocks if n not in (name, *followed)]
    if parent not in others:
        allowed = f"{names(others) or 'none'}{nearest(parent, others)}"
        raise ValueError(f"{key}.{name}.like: found {short(parent)}; allowed: {allowed}")
    return _laid_over(_block(key, parent, blocks, (name, *followed)), changes)


def _laid_over(under, over):
    """`over` on top of `under`, mapping by mapping."""
    if not (isinstance(under, dict) and isinstance(over, dict)):
        return over
    return under | {k: _laid_over(under[k], v) if k in under else v for k, v in over.items()}
