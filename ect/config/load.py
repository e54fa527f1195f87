"""Blocks of a config that are made of other blocks, before they are checked. Loads no torch.

`weight_gap: {like: ect, weight: gap}` is the block `ect` with one key changed, also where `ect` is
in another file. A block set to null is left out, so that a study laid over another can drop what
it does not use.
"""

from functools import reduce
from pathlib import Path

import yaml

NAMED = ("networks", "pretrain", "schedules", "tune", "samplers", "experiments")
CONFIG = "config.yaml"


def planned(*studies):
    """The mapping that `snakemake --configfile` makes of these files, laid over config.yaml. That
    may be missing if other files are named."""
    base = [CONFIG] if Path(CONFIG).is_file() or not studies else []
    return read(*base, *studies)


def read(config, *studies):
    """The mapping of a config file with the files of studies laid over it, as Snakemake does for
    --configfile; raises `ValueError` on a file that holds no mapping."""
    return _updated(read_yaml(config), reduce(_updated, map(read_yaml, studies), {}))


def _updated(under, over):
    """`under` with the keys of `over`, mapping by mapping; an empty mapping changes nothing."""
    if not isinstance(over, dict):
        return over
    if not over:
        return under
    under = under if isinstance(under, dict) else {}
    return under | {key: _updated(under.get(key, {}), value) for key, value in over.items()}


def read_yaml(path):
    """The mapping in a YAML file; raises `ValueError`."""
    try:
        value = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror
        raise ValueError(f"{path}: {reason}; allowed: a study's YAML file, or a folder") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        reason = getattr(error, "problem", None) or "no text"
        raise ValueError(f"{path}: {line}not YAML ({reason})") from None
    if not isinstance(value, dict):
        found = "nothing" if value is None else f"a {type(value).__name__}"
        raise ValueError(f"{path}: found {found}; allowed: a study, `key: value` on each line")
    return value


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
    block = blocks[name]
    if not isinstance(block, dict) or "like" not in block:
        return block
    changes = {k: v for k, v in block.items() if k != "like"}
    parent, others = block["like"], [n for n in blocks if n not in (name, *followed)]
    if parent not in others:
        raise ValueError(f"{key}.{name}.like: found {parent!r}; allowed: {', '.join(others)}")
    return _laid_over(_block(key, parent, blocks, (name, *followed)), changes)


def _laid_over(under, over):
    """`over` on top of `under`, mapping by mapping."""
    if not (isinstance(under, dict) and isinstance(over, dict)):
        return over
    return under | {k: _laid_over(under[k], v) if k in under else v for k, v in over.items()}
