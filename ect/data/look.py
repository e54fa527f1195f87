"""What a look at a source says of its images, before its job reads them all. Loads no torch."""

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

from ect.config.dataset import Facts
from ect.data import parquet, webdataset
from ect.data.classes import listed, of_imagenet
from ect.data.folder import content_of
from ect.runtime.checkpoint import read_json

LOOKS = 64  # images whose headers are read at most, spread over all of a folder
FIRST = 8  # of shards, which are read from their beginning
LISTED: dict[str, tuple[Callable, Callable]] = {  # {source: whose settings, how it is listed}
    "images": (dict, listed),
    "imagenet64": (of_imagenet, listed),
    "parquet": (dict, parquet.listed),
    "webdataset": (dict, webdataset.listed),
}


def facts(dataset):
    """The `Facts` of the images of the block `dataset` of a config: their files are listed, and the
    headers of some are read. What is not there yet is known by the config alone. Raises
    `ValueError` where the job would."""
    if dataset.source not in LISTED or not Path(dataset.path).exists() or _elsewhere(dataset):
        return dataset.facts
    settings_of, listing = LISTED[dataset.source]
    try:
        settings = settings_of(dataset.resolved())
        found = listing(settings)
        count = len(found.names)
        looked_at = found.names[:: -(-count // LOOKS)] if listing is listed else found.names[:FIRST]
        seen = _shape(found, looked_at, settings)
    except (ValueError, OSError) as error:
        raise ValueError(f"dataset.path: {error}") from None
    return Facts(dataset.shape or seen, count - found.tests, found.tests, len(found.classes or ()))


def changed(dataset, record):
    """Whether the files of the images of a block `dataset` are others than those of which a job
    left a record, or newer ones; False where that is not known."""
    try:
        made = read_json(record, known={"content": str}).get("content")
        if dataset.archive:
            return os.stat(dataset.archive).st_mtime > os.stat(record).st_mtime
    except (ValueError, OSError):
        return False
    return made is not None and made != content_of(dataset.source, dataset.path)


def _elsewhere(dataset):
    """Whether jobs read the images in another environment than this one, such as Snakemake's own:
    it has no Pillow."""
    return dataset.source == "parquet" and not importlib.util.find_spec("PIL")


def _shape(found, names, settings):
    """(channels, height, width) by the headers of these images, None where none can be read. Raises
    `ValueError` for one that the job will not take. None in an environment that reads no images,
    such as Snakemake's own."""
    try:
        from ect.data import decode, sources
    except ModuleNotFoundError:
        return None
    count, first = len(found.names), None
    all_are_used = settings.get("max_images", count) >= count
    skipped = [] if settings.get("on_error") == "skip" or not all_are_used else None
    for name in names:
        try:
            with decode.faults(), found.files.open(name) as file:
                width, height = decode.size(file)
        except decode.PictureError as error:
            sources.skip(name, error, skipped)
            continue
        first = first or (name, (height, width))
        if settings.get("resolution") is None and all_are_used:
            sources.require_size(name, (height, width), *first)
    return first and (settings.get("channels") or 3, *first[1])
