"""The block of a config that says which images. Loads no torch."""

import re
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, ValidationError, WrapValidator, model_validator

from ect import registry
from ect.config.base import Block, Count, PathText, Seed, names, short, whole

# The keys of each source beside normalize, held_out, split_seed and max_images.
SOURCE_KEYS = {
    "digits": (),
    "images": ("path", "classes", "resolution", "resize", "channels", "on_error"),
    "parquet": ("path", "label", "resolution", "resize", "channels", "on_error"),
    "webdataset": ("path", "label", "resolution", "resize", "channels", "on_error"),
    "cifar10": ("path", "resolution", "channels"),
    "mnist": ("path", "resolution", "channels"),
    "fashion_mnist": ("path", "resolution", "channels"),
    "imagenet64": ("path", "resolution", "resize", "channels", "on_error"),
}
# Sources with a test split: held_out may be left out.
OWN_TEST = ("cifar10", "mnist", "fashion_mnist")
SHARDS = {"parquet": ".parquet", "webdataset": ".tar"}  # files of sources that may have one
MISSING = "missing; its files hold no test split, by their names (docs/datasets.md)"
KEYS = tuple(dict.fromkeys(key for keys in SOURCE_KEYS.values() for key in keys))
# What is read as an image: by its name, and, in Pillow's words, by its content.
SUFFIXES = (
    ".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff",
    ".webp",
)  # fmt: skip
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MAX_PIXELS = 2**30 // 12  # of an image, Pillow's own bound: 0.25 GiB of RGB
MAX_BYTES = 2**28  # of a file, or of a member of a .zip
LABELS = "dataset.json"  # EDM's: {"labels": [["00000/img00000000.png", 6], ...]}
# (channels, height, width) of the images of a source, where they are known before they are read.
SHAPES = {
    "digits": (1, 8, 8), "mnist": (1, 28, 28), "fashion_mnist": (1, 28, 28),
    "cifar10": (3, 32, 32), "imagenet64": (3, 64, 64),
}  # fmt: skip
# (images, those of a test split of its own, classes) of a source, where they are known so.
COUNTS = {
    "digits": (1797, 0, 10), "mnist": (60_000, 10_000, 10), "fashion_mnist": (60_000, 10_000, 10),
    "cifar10": (50_000, 10_000, 10),
}  # fmt: skip


def _count_or_share(value, check):
    """A number of images, or a share of them; raises `ValueError`."""
    try:
        return check(value)
    except ValidationError:
        raise ValueError(
            f"found {short(value)}; allowed: a whole number greater than or equal to 0, or a share"
            " above 0 and below 1"
        ) from None


Part = Annotated[
    whole(10**9, 0) | Annotated[float, Field(gt=0, lt=1)], WrapValidator(_count_or_share)
]


def counted(part, images):
    """The number of images that a part of `images` is: itself, or the nearest to a share, at
    least 1."""
    return part if isinstance(part, int) else max(1, round(part * images))


class Facts(NamedTuple):
    """What is known of a source's images before its job runs; None where nothing is."""

    shape: tuple | None = None  # (channels, height, width)
    images: int | None = None  # at most so many, without those of a test split of its own
    tests: int = 0  # images of that split
    classes: int | None = None  # 0: the images have none


class Dataset(Block):
    """The images. Which keys a source takes is in docs/datasets.md."""

    source: Literal[registry.SOURCES]
    """Where the images come from."""
    normalize: Literal["standard", "unit"] = "unit"
    """`standard`: mean 0 and sd 0.5; `unit`: the range [-1, 1]."""
    held_out: Part | None = None
    """Number of images to test with, or their share of all, such as 0.2; 0: none, all are trained
    with. Needed where a source has no test split of its own."""
    split_seed: Seed = 0
    """The seed by which those images are chosen."""
    path: PathText | None = None
    """For `images` a folder or .zip; for `parquet` and `webdataset` a folder of their files, or
    one; for the other sources the folder of a local copy."""
    classes: Literal["folders"] | None = None
    """`folders`: each folder of images is a class."""
    label: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    """For `parquet` the column that holds the classes, where it is not the only ClassLabel; for
    `webdataset` the key in each .json that does, instead of the .cls."""
    resolution: whole(4096) | None = None
    """Side in pixels: the central square of each image is resized to it."""
    resize: Literal[registry.RESIZES] | None = None
    """How: `lanczos`, EDM's, the default of `images`; or `dhariwal`, the default of `imagenet64`,
    as in EDM2 and ECT: halved by 2x2 means while the shorter side is at least twice the resolution,
    then bicubic, then cropped. A network has learned the images of its own."""
    channels: Literal[1, 3] | None = None
    """1: grey, 3: RGB. Without the key RGB for `images`, else as the source has them."""
    max_images: Count | None = None
    """Maximum number of images. Held-out images count, unless the source has its own test split."""
    on_error: Literal["stop", "skip"] | None = None
    """If an image cannot be read: `stop` (also without the key), or `skip` it and list it."""

    @model_validator(mode="after")
    def _fits_its_source(self):
        keys = SOURCE_KEYS[self.source]
        for key in KEYS:
            if key not in keys and getattr(self, key) is not None:
                allowed = names(("normalize", "held_out", "split_seed", "max_images", *keys))
                raise ValueError(
                    f"{key} is set for '{self.source}'; allowed: {allowed}; `{key}: null` takes"
                    " back what a file below sets"
                )
        if self.held_out is None and self.source not in (*OWN_TEST, *SHARDS):
            raise ValueError(f"held_out: missing; '{self.source}' has no test split of its own")
        if self.source == "imagenet64" and self.resolution not in (None, 64):
            raise ValueError(f"resolution is {self.resolution}; allowed for imagenet64: 64")
        if self.resize is not None and self.source != "imagenet64" and self.resolution is None:
            raise ValueError(f"resize is '{self.resize}' without resolution; allowed: with one")
        if "path" in keys:
            self._check_path()
        return self

    def _check_path(self):
        if self.path is None:
            raise ValueError(f"path: missing; '{self.source}' needs one")
        path, said = Path(self.path), short(self.path)
        if self.source == "imagenet64" and path.exists() and not (path / "train").is_dir():
            raise ValueError(f"path: found {said} without a folder train; allowed: with one")
        if self.source not in ("images", *SHARDS):
            return
        ending = SHARDS.get(self.source)
        allowed = (
            f"a folder of {ending} files, or one" if ending else "a folder of images, or a .zip"
        )
        if self.archive and re.search("[{}]", self.path):
            raise ValueError(f"path: found {said}; allowed: an archive's path without braces")
        if "://" in self.path:
            raise ValueError(
                f"path: found {said}; allowed: {allowed} of this machine, not an address"
            )
        if path.exists() and not path.is_dir() and not path.is_file():
            raise ValueError(f"path: found {said}; allowed: {allowed}")
        other = {end: source for source, end in SHARDS.items()}.get(path.suffix.lower())
        if other not in (None, self.source) and not path.is_dir():
            raise ValueError(f"path: found {said}; allowed: {allowed}; or source: {other}")

    def resolved(self):
        """The settings of the job that prepares the file: the keys that are set, and a `resize`
        other than Lanczos."""
        settings = self.model_dump(exclude_none=True, exclude={"resize"})
        return settings | ({"resize": self.resizing} if self.resizing == "dhariwal" else {})

    @property
    def resizing(self):
        """How the images are resized; None if they are as their source has them."""
        if self.source == "imagenet64":
            return self.resize or "dhariwal"
        own = self.resolution and self.source in ("images", *SHARDS)
        return (self.resize or "lanczos") if own else None

    @property
    def tests(self):
        """Whether there are images to test with."""
        return self.held_out != 0

    @property
    def shape(self):
        """(channels, height, width) of the images; None if it is known only when they are read."""
        known, side = SHAPES.get(self.source), self.resolution
        if known is None and side is None:
            return None
        channels, height, _ = known or (3, side, side)
        return self.channels or channels, side or height, side or height

    @property
    def facts(self):
        """What the config alone says of the images, as `Facts`."""
        counts = COUNTS.get(self.source, (None, 0, None))
        return Facts(self.shape, *counts)

    @property
    def folder(self):
        """The folder whose files are read, or None. What is not there is a file by its name."""
        if self.source not in ("images", "imagenet64", *SHARDS) or Path(self.path).is_file():
            return None
        ending = SHARDS.get(self.source, ".zip")
        if not Path(self.path).exists() and self.path.lower().endswith(ending):
            return None
        return str(Path(self.path) / "train") if self.source == "imagenet64" else self.path

    @property
    def archive(self):
        """The one file in which the images are, or None."""
        return self.path if self.source in ("images", *SHARDS) and self.folder is None else None
