"""What a look at a source says of its images, before its job reads them all. Loads no torch."""

import importlib.util
from itertools import islice
from pathlib import Path

from ect.config.dataset import Facts
from ect.data import parquet, webdataset
from ect.data.classes import listed, of_imagenet

TRIES = 8  # images that are read at most, to see the size of one
LISTED = {
    "images": listed,
    "imagenet64": lambda settings: listed(of_imagenet(settings)),
    "parquet": parquet.listed,
    "webdataset": webdataset.listed,
}


def facts(dataset):
    """The `Facts` of the images of the block `dataset` of a config: their files are listed, and one
    is read where the config does not say its size. What is not there yet is known by the config
    alone. Raises `ValueError` where the job would."""
    if dataset.source not in LISTED or not Path(dataset.path).exists() or _elsewhere(dataset):
        return dataset.facts
    try:
        settings = dataset.resolved()
        found = LISTED[dataset.source](settings)
        shape = dataset.shape or _shape(found, settings)
    except (ValueError, OSError) as error:
        raise ValueError(f"dataset.path: {error}") from None
    images = len(found.names) - found.tests
    return Facts(shape, images, found.tests, len(found.classes or ()))


def _elsewhere(dataset):
    """Whether jobs read the images in another environment than this one, such as Snakemake's own:
    it has no Pillow."""
    return dataset.source == "parquet" and not importlib.util.find_spec("PIL")


def _shape(found, settings):
    """(channels, height, width) of the first image that can be read, if it is a square; the job
    names one that is not. None in an environment that reads no images, such as Snakemake's own."""
    try:
        from ect.data import decode
    except ModuleNotFoundError:
        return None
    for name in islice(found.names, TRIES):
        try:
            with decode.faults(), found.files.open(name) as file:
                pixels = decode.read(file, settings.get("channels") or 3, None)
        except decode.PictureError:
            continue
        height, width, channels = pixels.shape
        return (channels, height, width) if height == width else None
    return None
