"""What a look at a source says of its images, before its job reads them all. Loads no torch."""

from pathlib import Path

from ect.config.dataset import Facts
from ect.data.classes import listed, of_imagenet

LOOKS = 64  # images whose headers are read at most, spread over all
SETTINGS = {"images": dict, "imagenet64": of_imagenet}  # those of the folder that is listed


def facts(dataset):
    """The `Facts` of the images of the block `dataset` of a config: their files are listed, and the
    headers of some are read. What is not there yet is known by the config alone. Raises
    `ValueError` where the job would."""
    if dataset.source not in SETTINGS or not Path(dataset.path).exists():
        return dataset.facts
    try:
        settings = SETTINGS[dataset.source](dataset.resolved())
        found = listed(settings)
        seen = _shape(found, settings)
    except (ValueError, OSError) as error:
        raise ValueError(f"dataset.path: {error}") from None
    return Facts(dataset.shape or seen, len(found.names), 0, len(found.classes or ()))


def _shape(found, settings):
    """(channels, height, width) by the headers of images, None where none can be read. Raises
    `ValueError` for one that the job will not take. None in an environment that reads no images,
    such as Snakemake's own."""
    try:
        from ect.data import decode, sources
    except ModuleNotFoundError:
        return None
    count, first = len(found.names), None
    all_are_used = settings.get("max_images", count) >= count
    skipped = [] if settings.get("on_error") == "skip" or not all_are_used else None
    for name in found.names[:: -(-count // LOOKS)]:
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
