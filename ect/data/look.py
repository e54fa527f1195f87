"""What a look at a source says of its images, before its job reads them all. Loads no torch."""

from itertools import islice
from pathlib import Path

from ect.config.dataset import Facts
from ect.data.classes import listed, of_imagenet

TRIES = 8  # images that are read at most, to see the size of one
SETTINGS = {"images": dict, "imagenet64": of_imagenet}  # those of the folder that is listed


def facts(dataset):
    """The `Facts` of the images of the block `dataset` of a config: their files are listed, and one
    is read where the config does not say its size. What is not there yet is known by the config
    alone. Raises `ValueError` where the job would."""
    if dataset.source not in SETTINGS or not Path(dataset.path).exists():
        return dataset.facts
    try:
        settings = SETTINGS[dataset.source](dataset.resolved())
        found = listed(settings)
        shape = dataset.shape or _shape(found, settings)
    except (ValueError, OSError) as error:
        raise ValueError(f"dataset.path: {error}") from None
    return Facts(shape, len(found.names), 0, len(found.classes or ()))


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
