"""The job: the images of a source as one dataset file."""

import sys
import time
from pathlib import Path

import numpy as np

from ect.config.dataset import MISSING, counted
from ect.data import file
from ect.data.classes import without_images
from ect.data.sources import LONG, SOURCES, decoded
from ect.runtime import checkpoint
from ect.runtime.record import job_record
from ect.runtime.text import shown, shown_path

LEAST = 2  # images of a split, of which a covariance can be computed
DIM = 128  # values below may be of 13 to 15 bits in files of 16
DARK = 16  # values below are of masks, or of 12 bits in files of 16


def run(settings, out, threads=None):
    """Write a dataset file (see `ect/data/file.py`) of the splits `train` and, unless `held_out`
    is 0, `test`, with the names of the classes and the `shift` and `scale` that map pixels to the
    network's range; beside it run.json, which is returned, and, where images were skipped,
    skipped.txt.

    `held_out`, a number or a share, and `max_images` choose images at random, fixed by
    `split_seed`. `threads`, by default one for each processor, changes only the time.
    """
    started, out = time.monotonic(), Path(out)
    found = SOURCES[settings["source"]](settings)
    skipped = [] if settings.get("on_error") == "skip" else None
    about = {"classes": found.classes}
    about |= {key: settings[key] for key in ("resize",) if key in settings}
    rows = {split: [] for split in file.SPLITS}
    with file.writing(out, about) as writer:
        splits = _splits(settings, found)
        for split, kept, pixels in decoded(found, splits, threads, skipped, out.parent):
            rows[split] += kept
            writer.add(split, pixels, [found.labels[row] for row in kept])
        about |= _range(settings, writer, {split: len(rows) for split, rows in splits.items()})
    counts = {split: len(writer.labels.get(split, ())) for split in file.SPLITS}
    record = job_record(
        settings, found.files, started, [out], images=counts, shape=writer.shape,
        classes=found.classes, skipped=skipped or [], **found.about,
        **_note(without_images(found.classes, writer.labels["train"])),
        **_told_twice([found.names[rows["test"][row]] for row in writer.in_both()]),
    )  # fmt: skip
    checkpoint.write_json(out.with_name("run.json"), record)
    _list_skipped(out.with_name("skipped.txt"), skipped)
    return record


def _splits(settings, found):
    """{split: the indices of its images, in random order}."""
    random, held_out = np.random.default_rng(settings["split_seed"]), settings.get("held_out")
    count = len(found.names) - found.tests
    order = random.permutation(count)[: settings.get("max_images")]
    if found.tests:
        tests = None if held_out is None else counted(held_out, found.tests)
        if (tests or 0) > found.tests:
            raise ValueError(f"dataset.held_out is {held_out}; allowed: <= {found.tests}")
        test = count + random.permutation(found.tests)[:tests]
        return {"train": order} | ({"test": test} if len(test) else {})
    if held_out is None:
        raise ValueError(f"dataset.held_out: {MISSING}")
    tests = counted(held_out, len(order))
    if tests >= len(order):
        raise ValueError(f"dataset.held_out is {held_out}; allowed: < {len(order)}")
    test, train = np.split(order, [tests])
    return {"train": train} | ({"test": test} if tests else {})


def _range(settings, writer, asked):
    """{shift, scale} from pixels to the network's range; `sd`, their standard deviation there."""
    name = shown_path(settings.get("path") or settings["source"])
    for split, wanted in asked.items():
        left = len(writer.labels.get(split, ()))
        least = LEAST if split == "train" else min(LEAST, wanted)  # who asks for one test image
        if left < least:
            found = f"{left} of {wanted} {split} images could be read"
            if left == wanted:
                found = f"held_out and max_images leave {left} of them to train with"
            raise ValueError(f"{name}: {found}; allowed: {LEAST} at least, to measure a distance")
    mean, deviation = writer.moments("train")
    if deviation == 0:
        found = "all pixels of the training images have the same value"
        raise ValueError(f"{name}: {found}; allowed: images that differ, or that show something")
    if writer.brightest < DARK:
        raise ValueError(
            f"{name}: the brightest pixel of all images is {writer.brightest}; allowed: {DARK} to"
            " 255, as images have (of 16 bits the upper 8 are kept, so 12 bits in a file of 16 are"
            " black)"
        )
    if writer.brightest < DIM:
        print(
            f"ect prepare: {name}: the brightest pixel of all images is {writer.brightest} of 255;"
            " of 16 bits the upper 8 are kept, so 13 to 15 bits in files of 16 are dim: shift them"
            " up",
            file=sys.stderr,
        )
    if settings["normalize"] == "standard":
        return {"shift": mean, "scale": 0.5 / deviation, "sd": 0.5}
    return {"shift": 127.5, "scale": 1 / 127.5, "sd": deviation / 127.5}


def _note(empty):
    """The classes without a training image, for the record and on stderr; nothing if all have one.
    They keep their numbers, and no image is sampled from them."""
    if not empty:
        return {}
    print(f"ect prepare: no training image of {shown(', '.join(empty))}", file=sys.stderr)
    return {"classes_without_training_images": empty}


def _told_twice(names):
    """The test images that are training images too, pixel by pixel, for the record and on stderr:
    what is measured of them says nothing of new images."""
    if not names:
        return {}
    print(
        f"ect prepare: {len(names)} of the test images are among the training images too, the first"
        f" is {shown(names[0])}; a model that copies them is not told apart by these",
        file=sys.stderr,
    )
    return {"test_images_in_training": [shown(name, LONG) for name in names]}


def _list_skipped(path, skipped):
    """Write a line for each skipped image, its name and the reason; no file if there is none."""
    path.unlink(missing_ok=True)
    if skipped:
        lines = (f"{shown(name, LONG)}: {shown(reason, LONG)}\n" for name, reason in skipped)
        path.write_text("".join(lines), encoding="utf-8")
