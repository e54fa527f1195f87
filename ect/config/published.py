"""Published numbers, and what of ours may stand beside them. Loads no torch.

`published.csv` beside this file holds one number a line, with its source and a tag: `code` (read
in the released source), `paper` (printed there), `third` (measured by others). What a source does
not say is empty. A distance depends on its features, its images and their number, so ours is put
beside a published one only where all of these are the same.
"""

import csv
from pathlib import Path
from typing import NamedTuple

FILE = Path(__file__).with_name("published.csv")
TAGS = ("code", "paper", "third")
METRICS = {"inception:legacy_tensorflow": "fid", "dinov2": "fd_dinov2"}  # of each feature space
IMAGES = 50_000  # generated for every published distance
TRAINING = {"cifar10": 50_000, "imagenet64": 1_281_167}  # images of each reference set
RESIZED = ("imagenet64",)  # data sets whose images differ by how they are resized
LEAST = 0.99  # the share of these that we must have: held-out images may be missing


class Number(NamedTuple):
    """A line of the file: `value` at `nfe` evaluations, after `budget_mimg` million images of
    training on top of `pretrain_mimg`; None where the source does not say. `resize` is how the
    images were made: numbers of the same data set, resized otherwise, are of other images."""

    dataset: str
    method: str
    network: str
    budget_mimg: float | None
    pretrain_mimg: float | None
    nfe: int
    metric: str
    value: float
    sd: float | None
    n: int | None
    tag: str
    source: str
    resize: str | None = None  # how its images were resized, where they were

    @property
    def total_mimg(self):
        """All its training images, in millions; None if a part is unknown."""
        return total(self.budget_mimg, self.pretrain_mimg)

    @property
    def setting(self):
        """What all runs of one recipe share, whoever made them."""
        facts = (self.dataset, self.network, self.budget_mimg, self.pretrain_mimg)
        return *facts, self.nfe, self.metric, self.resize

    def answers(self, method, budget_mimg=None):
        """Whether this line is the one of a method and, if given, a budget."""
        return self.method == method and budget_mimg in (None, self.budget_mimg)


def total(*parts):
    """The sum; None if a part is None."""
    return None if None in parts else round(sum(parts), 6)


def read(path=FILE):
    """The lines of the file; raises `ValueError` at one without a source or a known tag."""
    with open(path, newline="", encoding="utf-8") as file:
        return [_number(path, i, line) for i, line in enumerate(csv.DictReader(file), 2)]


def of(dataset, metric, path=FILE):
    """The numbers of one dataset and metric, in the file's order."""
    return [n for n in read(path) if (n.dataset, n.metric) == (dataset, metric)]


def require_comparable(dataset, features, images, reference_images):
    """The published metric that our distances compare with; raises `ValueError` if none does."""
    found = {"features": features, "images": images, "reference_images": reference_images}
    if dataset not in TRAINING:
        raise ValueError(f"no published numbers of '{dataset}'; allowed: {', '.join(TRAINING)}")
    least = LEAST * TRAINING[dataset]
    whole = least <= reference_images <= TRAINING[dataset]
    if features not in METRICS or images != IMAGES or not whole:
        raise ValueError(
            f"found {found}; allowed beside published numbers of {dataset}: features"
            f" {' or '.join(METRICS)}, {IMAGES} images, reference_images {TRAINING[dataset]} or at"
            " most 1 % fewer"
        )
    return METRICS[features]


def require_same_images(numbers, resize):
    """Raise `ValueError` unless published numbers are of images that were resized as ours."""
    for number in numbers:
        if number.dataset in RESIZED and number.resize != resize:
            raise ValueError(
                f"'{number.method}' is of images resized by {number.resize or 'an unknown filter'},"
                f" ours by {resize}; allowed: the same (dataset.resize)"
            )


def _number(path, index, line):
    try:
        number = Number(**{key: _read(key, text) for key, text in line.items()})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}, line {index}: {error}") from None
    if number.tag not in TAGS or not number.source:
        raise ValueError(
            f"{path}, line {index}: tag is {number.tag!r}, source {number.source!r}; allowed: a"
            f" source, and one of {', '.join(TAGS)}"
        )
    return number


def _read(key, text):
    if key in ("dataset", "method", "network", "metric", "tag", "source"):
        return str(text)
    if key == "resize":
        return text or None
    kind = int if key in ("nfe", "n") else float
    return None if text == "" else kind(text)
