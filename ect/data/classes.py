"""The class of each image: by its folder, or by EDM's dataset.json. Which folders are splits.

Whatever is doubtful is refused: test images among the training images, and classes that are none,
are never seen in a loss. Loads no torch.
"""

import json
import os
import re
import unicodedata
from collections import Counter
from typing import Any, NamedTuple

from ect.config.dataset import LABELS
from ect.data.folder import below_top, images_of, opened
from ect.runtime.text import is_name, shown

_WORDS = {
    "train": "train training trn",
    "test": "test testing tst dev devel development val valid validate validation eval evaluation"
    " holdout",
    "other": "unlabeled unlabelled labeled labelled extra fold",
}
_SPLIT_OF = {
    word + end: split
    for split, words in _WORDS.items()
    for word in words.split()
    for end in ("", "set", "data", "images")
}
_FILLERS = {
    "set", "sets", "split", "data", "dataset", "image", "images", "img", "imgs", "photos", "files",
    "samples", "cross", "public", "private",
}  # fmt: skip
_EDM_NAME = re.compile(r"(?:^|/)(\d{5})/img\1\d{3}\.\w+$")


def split_of(folder):
    """(`train`, `test`, `other` or None, the rest of the name) of a folder: ('train', 'seg') of
    `seg_train`, `Seg-Training` and `SegTrain2017`."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", unicodedata.normalize("NFC", folder)).casefold()
    name = re.sub(r"h[eo]ld[\W_]*out", "holdout", name)
    words = [word for word in re.findall(r"[^\W\d_]+", name) if word not in _FILLERS]
    splits = [_SPLIT_OF[word] for word in words if word in _SPLIT_OF]
    rest = " ".join(word for word in words if word not in _SPLIT_OF)
    return (splits[0] if len(splits) == 1 else None), rest


def splits_among(folders, classes=False):
    """The folders that are splits, sorted: the training and test images of one thing. With
    `classes` also folders that all are named like splits; otherwise, say, `train_1` beside
    `train_2` is one set."""
    groups = {}
    for folder in sorted(folders):
        split, rest = split_of(folder)
        if split:
            groups.setdefault(rest, {})[folder] = split
    for group in groups.values():
        every = len(group) == len(folders) > 1
        if {"train", "test"} <= set(group.values()) or (classes and every):
            return list(group)
    return []


def require_one_split(names, path):
    """Raise `ValueError` where a folder of images holds `train` beside `test`, or the like."""
    for parent, folders in sorted(_subfolders(names).items()):
        _refuse_splits(splits_among(folders), parent, path)


def _refuse_splits(splits, parent, path):
    if splits:
        where = f" in '{shown(parent)}'" if parent else ""
        raise ValueError(
            f"{shown(path)}: its folders {_listed(splits)}{where} are splits, not classes; allowed:"
            " a path to one of them (held_out takes test images from it), or other names"
        )


def _subfolders(names):
    """{folder: the names of its subfolders} of all folders that hold images."""
    inside, todo = {}, {os.path.dirname(name) for name in names}
    while todo:
        folder = todo.pop()
        parent, _, name = folder.rpartition("/")
        if name and name not in inside.setdefault(parent, set()):
            inside[parent].add(name)
            todo.add(parent)
    return inside


def classes_by_folder(files, names, path):
    """(class names, class index of each image): its first folder below what all images share."""
    _refuse_labels(files, path)
    if all(_EDM_NAME.search(name) for name in names):
        raise ValueError(
            f"{shown(path)}: found '{shown(names[0])}', where EDM's dataset_tool.py numbers images,"
            f" not classes; allowed: classes: null, with its {LABELS} at the top if there are any"
        )
    shared = os.path.commonpath([os.path.dirname(name) for name in names])
    depth = len(shared.split("/")) if shared else 0
    for name in names:
        if name.count("/") == depth:
            if shared and all(other.count("/") == depth for other in names):
                found = f"{shown(path)}: found one class folder, '{shown(shared)}'"
                raise ValueError(f"{found}; allowed with classes: folders: two or more")
            raise ValueError(
                f"{shown(path)}: '{shown(name)}' is not in a class folder; allowed with classes:"
                " folders: two or more folders, every image in one"
            )
    folders = [name.split("/")[depth] for name in names]
    classes = sorted(set(folders))
    _require_distinct(classes, path)
    _refuse_splits(splits_among(classes, classes=True), shared, path)
    indices = {name: index for index, name in enumerate(classes)}
    return classes, [indices[folder] for folder in folders]


def _refuse_labels(files, path):
    """Classes come from the folders or from EDM's dataset.json, not from both."""
    if LABELS not in files.names:
        return
    try:
        with files.open(LABELS) as file:
            content = json.load(file)
    except (OSError, MemoryError):
        raise
    except Exception:  # not EDM's, whatever it is
        return
    if isinstance(content, dict) and "labels" in content:
        raise ValueError(
            f"{shown(path)}: found EDM's {LABELS} with dataset.classes: folders; allowed: classes:"
            f" null, for its labels, or no {LABELS}"
        )


def _require_distinct(classes, path):
    seen = {}
    for name in classes:
        key = unicodedata.normalize("NFC", name).casefold().rstrip(" .")
        if key in seen:
            raise ValueError(
                f"{shown(path)}: the classes '{shown(seen[key])}' and '{shown(name)}' differ in"
                " case, encoding or a last space; allowed: names that would be different folders"
            )
        seen[key] = name


def classes_by_file(files, names, path):
    """(class names, the class of each image) as dataset.json says; (None, zeros) if it has none."""
    pairs = _pairs(files, path)
    if pairs is None:
        return None, [0] * len(names)
    class_of = _class_of(pairs, set(names), path)
    for name in names:
        if type(class_of.get(name)) is not int or class_of[name] < 0:
            raise ValueError(
                f"{shown(path)}: the class of '{shown(name)}' in {LABELS} is"
                f" {shown(repr(class_of.get(name)))}; allowed: a whole number from 0 on for every"
                " image"
            )
    lost = class_of.keys() - set(names)
    if lost:
        raise ValueError(
            f"{shown(path)}: {LABELS} names '{shown(min(lost))}', but there is no such image;"
            " allowed: the names of its images"
        )
    labels = [class_of[name] for name in names]
    _require_all_classes(set(labels), f"{shown(path)}: {LABELS}")
    return [str(k) for k in range(max(labels) + 1)], labels


def _pairs(files, path):
    """The pairs [name, class] of dataset.json; None if there are none."""
    if os.path.isdir(os.path.join(path, LABELS)):
        raise ValueError(f"{shown(path)}: {LABELS} is a folder; allowed: a file, or no such name")
    if LABELS not in files.names:
        lower = [name for name in files.names if os.path.basename(name).lower() == LABELS]
        if lower:
            raise ValueError(
                f"{shown(path)}: found '{shown(lower[0])}'; allowed: {LABELS} at the top"
            )
        return None
    try:
        with files.open(LABELS) as file:
            pairs = json.load(file, object_pairs_hook=_once)["labels"]
        if not isinstance(pairs, (list, type(None))):
            raise TypeError(f"labels is {pairs!r}")
        return [(name + "", label) for name, label in pairs or ()] or None
    except (OSError, MemoryError):
        raise
    except Exception as error:  # zipfile and json raise almost any error for damaged content
        found = f"{LABELS} is not EDM's ({type(error).__name__}: {error})"
        wanted = '{"labels": [[name, class], ...]}, or no such file'
        raise ValueError(f"{shown(path)}: {shown(found)}; allowed: {wanted}") from None


def _once(pairs):
    """A JSON object whose keys are all different."""
    key, count = Counter(key for key, _ in pairs).most_common(1)[0] if pairs else ("", 0)
    if count > 1:
        raise ValueError(f"'{key}' is there twice")
    return dict(pairs)


def _class_of(pairs, images, path):
    """{name: class}, with the names as the images have them."""
    class_of = {}
    for written, label in pairs:
        name = written if written in images else below_top(written)
        if name in class_of and repr(class_of[name]) != repr(label):
            raise ValueError(
                f"{shown(path)}: {LABELS} names '{shown(name)}' twice, with the classes"
                f" {shown(repr(class_of[name]))} and {shown(repr(label))}; allowed: one class"
            )
        class_of[name] = label
    return class_of


def classes_of(labels, names, path, label=None):
    """(class names, class index of each image) of labels that are whole numbers or texts; (None,
    zeros) where all are None, unless a `label` was asked for. Raises `ValueError`."""
    if set(map(type, labels)) <= {type(None)}:
        if label is not None:
            raise ValueError(
                f"{shown(path)}: no image has a class by '{shown(label)}'; allowed: a class for"
                " every image, or no dataset.label"
            )
        return None, [0] * len(names)
    kind = next(type(label) for label in labels if label is not None)
    for name, label in zip(names, labels):
        fits = label >= 0 if type(label) is int else isinstance(label, str) and is_name(label)
        if type(label) is not kind or not fits:
            found = "none" if label is None else shown(repr(label), 80)
            raise ValueError(
                f"{shown(path)}: the class of '{shown(name)}' is {found}; allowed: for every image"
                " a whole number from 0 on, or for every image a name on one line, no number"
            )
    every = set(labels)
    if kind is int:
        _require_all_classes(every, shown(path))
        return [str(k) for k in range(len(every))], labels
    classes = sorted(every)
    _require_distinct(classes, path)
    indices = {name: index for index, name in enumerate(classes)}
    return classes, [indices[label] for label in labels]


def _require_all_classes(found, where):
    """Every number up to the largest is the class of an image: the rest would be sampled, though
    they were never trained."""
    empty = next(k for k in range(len(found) + 1) if k not in found)
    if empty < len(found):
        raise ValueError(
            f"{where} has classes up to {shown(max(found))}, but no image of class {empty};"
            f" allowed: numbers from 0 on without a gap, here 0 to {len(found) - 1}"
        )


def _listed(names):
    return shown(", ".join(names))


def without_images(classes, labels):
    """The names of the classes that none of the labels is of."""
    used = set(labels)
    return [name for index, name in enumerate(classes or ()) if index not in used]


class Listing(NamedTuple):
    """The images of a folder, .zip or shards, before any of them is read."""

    files: Any  # a Folder, a Zip or the like, which opens them by name
    names: list
    labels: list  # the class of each, 0 without classes
    classes: list | None  # their names
    ignored: dict  # {suffix: how many files that are no images}
    tests: int = 0  # so many of the last images are a test split
    inputs: list = []  # the files that hold them, for the record


def listed(settings):
    """The `Listing` of the dataset that settings describe; raises `ValueError`."""
    path = settings["path"]
    files = opened(path)
    names, ignored = images_of(files, path)
    require_one_split(names, path)
    by = classes_by_folder if settings.get("classes") == "folders" else classes_by_file
    classes, labels = by(files, names, path)
    return Listing(files, names, labels, classes, ignored)


def of_imagenet(settings):
    """The settings of ImageNet's training images, of a local copy: the folder `train` of `path`."""
    train = os.path.join(settings["path"], "train")
    if not os.path.isdir(train):
        raise ValueError(
            f"{shown(settings['path'])}: no folder 'train'; allowed: one, with class folders"
        )
    return {**settings, "path": train, "classes": "folders", "resolution": 64}
