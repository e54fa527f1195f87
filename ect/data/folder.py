"""The image files of a folder or a .zip: their names, their classes, their fingerprint.

Images are recognized by suffix and sorted by name. Hidden files and folders (`.DS_Store`,
`__MACOSX`) are ignored; links to folders are followed, but never in a circle. All other files,
archives included, are counted by suffix. Loads no torch.
"""

import hashlib
import io
import json
import os
import threading
import unicodedata
import zipfile
from collections import Counter
from pathlib import Path, PurePosixPath

from ect.config.dataset import LABELS, SUFFIXES

SPLITS = {"train", "test", "val", "valid", "validation"}


class Folder:
    """A folder's files: `names`, and `open` by name."""

    def __init__(self, path):
        self.path = path
        self.names = [name for name, _ in walk(path)]

    def open(self, name):
        return open(os.path.join(self.path, name), "rb")


class Zip:
    """A .zip's files: `names`, and `open` by name, from any thread."""

    def __init__(self, path):
        try:
            self.file, self.lock = zipfile.ZipFile(path), threading.Lock()
        except zipfile.BadZipFile as error:
            raise ValueError(f"{path}: not a readable .zip ({error})") from None
        files = [entry for entry in self.file.infolist() if not entry.is_dir()]
        self.entries = {entry.filename.replace("\\", "/"): entry for entry in files}
        if len(self.entries) < len(files):
            names = Counter(entry.filename.replace("\\", "/") for entry in files)
            raise ValueError(f"{path}: holds '{names.most_common(1)[0][0]}' twice; allowed: once")
        self.names = sorted(name for name in self.entries if not _hidden(name))

    def open(self, name):
        with self.lock:
            return io.BytesIO(self.file.read(self.entries[name]))


def opened(path):
    """A `Folder` or a `Zip`, whichever the path is."""
    return Folder(path) if Path(path).is_dir() else Zip(path)


def _hidden(name):
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def is_image(name):
    """Whether a file's suffix is an image's."""
    return name.lower().endswith(SUFFIXES)


def walk(folder):
    """(name relative to the folder, its `os.DirEntry`) of all files that are not hidden, sorted."""
    return sorted(_walk(os.fspath(folder), "", ()), key=lambda found: found[0])


def _walk(folder, prefix, above):
    status = os.stat(folder)
    here = (status.st_dev, status.st_ino)
    if here in above:  # a link back to a folder that we are in
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if _hidden(entry.name):
                continue
            if entry.is_dir():
                yield from _walk(entry.path, f"{prefix}{entry.name}/", (*above, here))
            else:
                yield prefix + entry.name, entry


def fingerprint(folder):
    """A digest of the names, sizes and modification times of a folder's images and labels."""
    digest = hashlib.sha256()
    for name, entry in walk(folder):
        if is_image(name) or name == LABELS:
            digest.update(repr((name, *_status(entry))).encode())
    return digest.hexdigest()


def _status(entry):
    try:
        status = entry.stat()
    except OSError:  # a broken link: an image that cannot be read
        return ()
    return status.st_size, status.st_mtime_ns


def images_of(files, path):
    """(names of the images, {suffix: number of other files}); raises `ValueError` if none."""
    images = [name for name in files.names if is_image(name)]
    others = [name for name in files.names if not is_image(name) and name != LABELS]
    ignored = dict(Counter(PurePosixPath(name).suffix.lower() or "no suffix" for name in others))
    if not images:
        found = ", ".join(f"{n} x {suffix}" for suffix, n in sorted(ignored.items())) or "nothing"
        raise ValueError(f"{path}: no images, found {found}; allowed: {', '.join(SUFFIXES)}")
    return images, ignored


def classes_by_folder(names, path):
    """(class names, class index of each image): its first folder below what all images share."""
    shared = os.path.commonpath([os.path.dirname(name) for name in names])
    depth = len(shared.split("/")) if shared else 0
    for name in names:
        if name.count("/") == depth:
            raise ValueError(
                f"{path}: '{name}' is not in a class folder; allowed with classes: folders: two"
                " or more folders, every image in one"
            )
    folders = [name.split("/")[depth] for name in names]
    classes = sorted(set(folders))
    _require_distinct(classes, path)
    if set(classes) <= SPLITS:
        raise ValueError(
            f"{path}: its folders {', '.join(classes)} are splits, not classes; allowed: a path to"
            " one of them"
        )
    indices = {name: index for index, name in enumerate(classes)}
    return classes, [indices[folder] for folder in folders]


def _require_distinct(classes, path):
    seen = {}
    for name in classes:
        key = unicodedata.normalize("NFC", name).casefold()
        if key in seen:
            raise ValueError(
                f"{path}: the classes '{seen[key]}' and '{name}' differ in case or encoding only,"
                " and would be one folder on other systems; allowed: names that differ"
            )
        seen[key] = name


def classes_by_file(files, names, path):
    """(class names, the class of each image) as dataset.json says; (None, zeros) if it has none."""
    if LABELS not in files.names:
        if lower := [name for name in files.names if name.endswith(f"/{LABELS}")]:
            raise ValueError(f"{path}: found '{lower[0]}'; allowed: {LABELS} at the top")
        return None, [0] * len(names)
    try:
        with files.open(LABELS) as file:
            labels = json.load(file)["labels"]
        class_of = {name.replace("\\", "/"): label for name, label in labels or ()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(
            f'{path}: {LABELS} is not {{"labels": [[name, class], ...]}} ({reason})'
        ) from None
    if not class_of:
        return None, [0] * len(names)
    for name in names:
        if type(class_of.get(name)) is not int or class_of[name] < 0:
            raise ValueError(
                f"{path}: the class of '{name}' in {LABELS} is {class_of.get(name)!r}; allowed: a"
                " whole number from 0 on for every image"
            )
    lost = class_of.keys() - set(names)
    if lost:
        raise ValueError(f"{path}: {LABELS} names '{min(lost)}', but there is no such image")
    return [str(k) for k in range(max(class_of.values()) + 1)], [class_of[name] for name in names]
