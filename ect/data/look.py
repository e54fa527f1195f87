"""What a look at a source says of its images, before its job reads them all. Loads no torch."""

from itertools import islice

from ect.config.dataset import Facts
from ect.data.decode import PictureError
from ect.data.sources import SOURCES

TRIES = 8  # images that are read at most, to see the size of one


def facts(dataset):
    """The `Facts` of the images of the block `dataset` of a config: their files are listed, and one
    is read where the config does not say its size. Raises `ValueError` where the job would."""
    if dataset.source not in ("images", "imagenet64"):
        return dataset.facts
    try:
        found = SOURCES[dataset.source](dataset.resolved())
        shape = dataset.shape or _shape(found)
    except (ValueError, OSError) as error:
        raise ValueError(f"dataset.path: {error}") from None
    return Facts(shape, len(found.names), 0, len(found.classes or ()))


def _shape(found):
    """(channels, height, width) of the first image that can be read, if it is a square; the job
    names one that is not."""
    for row in islice(range(len(found.names)), TRIES):
        try:
            height, width, channels = found.read(row).shape
        except PictureError:
            continue
        return (channels, height, width) if height == width else None
    return None
