"""Blocks of a config that are made of other blocks, before they are checked. Loads no torch.

`weight_gap: {like: ect, weight: gap}` is the block `ect` with one key changed, also where `ect` is
in another file. A block set to null is left out, so that a study laid over another can drop what
it does not use.
"""

from pathlib import Path

import yaml

NAMED = ("networks", "pretrain", "schedules", "tune", "samplers", "experiments")


def read(config, *studies):
    """The mapping of a config file with the files of studies laid over it, as Snakemake lays what
    follows --configfile; raises `ValueError` on a file that holds no mapping."""
    from snakemake.utils import update_config

    under, over = _mapping(config), {}
    for study in studies:
        update_config(over, _mapping(study))
    update_config(under, over)
    return under


def _mapping(path):
    try:
        found = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: no YAML ({' '.join(str(error).split())})") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: found {type(found).__name__}; allowed: keys and their values")
    return found


def resolve(mapping):
    """The config with every `like` followed and every null block left out; raises `ValueError`."""
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
    block = blocks[name]
    if not isinstance(block, dict) or "like" not in block:
        return block
    own = {k: v for k, v in block.items() if k != "like"}
    parent, others = block["like"], [n for n in blocks if n not in (name, *followed)]
    if parent not in others:
        raise ValueError(f"{key}.{name}.like: found {parent!r}; allowed: {', '.join(others)}")
    return _laid_over(_block(key, parent, blocks, (name, *followed)), own)


def _laid_over(under, over):
    """`over` on top of `under`, mapping by mapping."""
    if not (isinstance(under, dict) and isinstance(over, dict)):
        return over
    both = {k: _laid_over(v, over[k]) if k in over else v for k, v in under.items()}
    return both | {k: v for k, v in over.items() if k not in under}
