"""The shards of a dataset: its files of one kind, in order, and which of them are its test split.

A shard's name says its split, as a folder's does: `train-00000-of-00002.parquet`, `val-000.tar`,
`test/0000.parquet`. Training shards beside those of one other split give the dataset a test split
of its own; any other mixture is refused, and so is a folder that lacks some of the files that a
name counts. Loads no torch.
"""

import os
import re
import stat
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ect.data.classes import split_of
from ect.data.folder import Folder
from ect.runtime.text import shown

_NUMBER = re.compile(r"[-_.]*(\d+)-of-(\d+).*$")  # of datasets: train-00000-of-00002-a09b74b3


class Shards(NamedTuple):
    """The files of a dataset: {name below the path: file}, in order."""

    train: dict
    tests: dict
    ignored: dict  # {suffix: how many files of other kinds}


def shards(path, suffix):
    """The `Shards` of a file, or of a folder and its subfolders; raises `ValueError`."""
    if not os.path.lexists(path):
        raise ValueError(
            f"{shown(path)}: found nothing there; allowed: a folder of {suffix} files, or one"
        )
    if not Path(path).is_dir():
        _require_file(path)
        return Shards({Path(path).name: path}, {}, {})
    every = Folder(path).names
    names = [name for name in every if name.lower().endswith(suffix)]
    others = (PurePosixPath(name).suffix.lower() for name in every if name not in set(names))
    ignored = dict(Counter(other or "no suffix" for other in others))
    if not names:
        found = ", ".join(f"{n} x {other}" for other, n in sorted(ignored.items())) or "nothing"
        raise ValueError(f"{shown(path)}: found {shown(found)}; allowed: {suffix} files")
    files = {name: os.path.join(path, name) for name in names}
    for file in files.values():
        _require_file(file)
    _require_all(names, path)
    train, tests = _parted(files, path)
    return Shards(train, tests, ignored)


def _require_file(path):
    if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe or a device may never end
        raise ValueError(f"{shown(path)}: found a device, pipe or socket; allowed: a regular file")


def _require_all(names, path):
    """Raise `ValueError` unless all files are there of those that one name counts: 3 of -of-3."""
    counted: dict[tuple, set] = {}
    for name in names:
        if number := _NUMBER.search(os.path.splitext(name)[0]):
            key = name[: number.start()], int(number[2])
            counted.setdefault(key, set()).add(int(number[1]))
    for (start, total), numbers in counted.items():
        if len(numbers) != total:
            raise ValueError(
                f"{shown(path)}: found {len(numbers)} of the {total} files '{shown(start)}-...-of-"
                f"{total}'; allowed: all of them, one alone as the path, or names without a count"
            )


def set_of(name):
    """(`train`, `test`, `other` or None, the words beside it, all words) of a shard's name."""
    stem = _NUMBER.sub("", os.path.splitext(name)[0])
    parts = [split_of(part) for part in stem.split("/")]
    splits = {split for split, _ in parts if split}
    rest = " ".join(rest for _, rest in parts if rest)
    words = " ".join(re.findall(r"[^\W\d_]+", stem.casefold()))
    return (splits.pop() if len(splits) == 1 else None), rest, words


def _parted(files, path):
    """(training shards, test shards) by their names; raises `ValueError` where it is doubtful."""
    sets: dict[tuple, dict] = {}
    for name, file in files.items():
        sets.setdefault(set_of(name), {})[name] = file
    if len(sets) == 1 or not any(split == "test" for split, *_ in sets):
        return files, {}
    parts = {split: held for (split, _, _), held in sets.items()}
    if (
        len(sets) == 2
        and set(parts) == {"train", "test"}
        and len({rest for _, rest, _ in sets}) == 1
    ):
        return parts["train"], parts["test"]
    first = ", ".join(f"'{next(iter(held))}'" for held in sets.values())
    raise ValueError(
        f"{shown(path)}: its files are of several splits, by their names {shown(first, 300)};"
        " allowed: those of one split, or of train and one other (a folder of links to them will"
        " do)"
    )
