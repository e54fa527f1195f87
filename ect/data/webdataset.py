"""The images of webdataset's shards: in a .tar, `key.jpg`, `key.cls` and `key.json` are one sample.

The key of a member is its path up to the first dot of its file's name; what follows is its field.
The package webdataset is not used: it streams shards in an order of its own, while a dataset file
is made of images by number. A .tar is not compressed, so a member is a place in its file, and
Python's `tarfile` finds it. Nothing is unpacked to disk. Loads no torch.
"""

import io
import json
import os
import tarfile
from collections import Counter

from ect.config.dataset import MAX_BYTES, SUFFIXES
from ect.data.classes import Listing, classes_of
from ect.data.folder import below_top, is_hidden, require_one_top
from ect.data.shards import shards
from ect.runtime.text import shown

MAX_LABEL = 2**20  # bytes of a .cls or .json
PIECE = 2**14  # bytes that are read at a time after the end
BLOCK = 512  # bytes of a header; a block of zeros ends a .tar


class Members:
    """Images in .tar files: `open` by name reads one of them."""

    def __init__(self):
        self.places = {}  # {name: (file, offset, bytes); None for what is no file}

    def open(self, name):
        """The content of an image; raises `ValueError` if it is none or too large."""
        if self.places[name] is None:
            raise ValueError("a link or a device in the .tar; allowed: files")
        path, offset, size = self.places[name]
        if size > MAX_BYTES:
            raise ValueError(f"holds {size:,} bytes; allowed: up to {MAX_BYTES:,}")
        with open(path, "rb") as file:
            file.seek(offset)
            return io.BytesIO(file.read(size))


def listed(settings):
    """The `Listing` of shards; with `label` the classes are those of that key of each .json, else
    the .cls, where there are any. Raises `ValueError`."""
    path, members = settings["path"], Members()
    found, labels, ignored, trained = shards(path, ".tar"), [], Counter(), 0
    for name, file in (found.train | found.tests).items():
        images, told, others = _samples(file, settings.get("label"))
        labels += _labels_of(images, told, file)
        members.places |= {f"{name}/{image}": place for image, place in images.values()}
        ignored.update(others)
        trained = len(labels) if name in found.train else trained
    names, ignored = list(members.places), ignored + Counter(found.ignored)
    if not names:
        fields = ", ".join(f"{n} x {field}" for field, n in sorted(ignored.items())) or "nothing"
        raise ValueError(
            f"{shown(path)}: no images, found {shown(fields)}; allowed after the first dot of a"
            f" name: {', '.join(SUFFIXES)}"
        )
    classes, labels = classes_of(labels, names, path, settings.get("label"))
    files = [*(found.train | found.tests).values()]
    return Listing(members, names, labels, classes, dict(ignored), len(names) - trained, files)


def _samples(path, label):
    """({key: (name, place)} of the images of a .tar, {key: class}, {field: how many others})."""
    images, labels, others, raw = {}, {}, Counter(), []
    source = ".cls" if label is None else ".json"
    for entry, file in _entries(path):
        name = below_top(entry.name)
        folder, base = os.path.split(name)
        stem, dot, field = base.partition(".")
        key, field = os.path.join(folder, stem), f"{dot}{field.lower()}"
        held = images if field in SUFFIXES else labels if field == source else None
        if held is None:
            others[field or "no suffix"] += 1
        elif key in held:
            raise ValueError(
                f"{shown(path)}: holds '{shown(name)}' beside another {field} or image of"
                f" '{shown(key)}'; allowed: one"
            )
        elif held is images:
            regular = entry.isreg() and not entry.issparse()
            raw.append(entry.name)
            images[key] = name, ((path, entry.offset_data, entry.size) if regular else None)
        else:
            labels[key] = _label(file, entry, label, f"{shown(path)}: '{shown(name)}'")
    if lost := labels.keys() - images.keys():
        raise ValueError(
            f"{shown(path)}: holds '{shown(min(lost))}{source}', but no image of that key; allowed:"
            f" one of {', '.join(SUFFIXES)}"
        )
    require_one_top(raw, path)
    return images, labels, others


def _entries(path):
    """(its `TarInfo`, the open `TarFile`) of each member of a .tar, without folders and litter;
    raises `ValueError` for a damaged one."""
    try:
        with tarfile.open(path, "r:") as file:
            while (entry := file.next()) is not None:
                file.members.clear()  # type: ignore[attr-defined]  # 1 kB each, else kept
                if not entry.isdir() and not is_hidden(below_top(entry.name)):
                    yield entry, file
            file.fileobj.seek(file.offset)
            if file.fileobj.read(BLOCK) != bytes(BLOCK):  # tarfile ends there without a word
                raise tarfile.ReadError(f"no member and no end at byte {file.offset:,}")
            while more := file.fileobj.read(PIECE):
                if any(more):  # as of `cat a.tar b.tar`
                    raise tarfile.ReadError(f"ends at byte {file.offset:,}, and more comes after")
    except (tarfile.TarError, EOFError, OverflowError) as error:
        hint = "; shards are not compressed" if _is_compressed(path) else ""
        found = f"not a whole .tar ({shown(error)})"
        raise ValueError(f"{shown(path)}: {found}; allowed: a whole one{hint}") from None


def _is_compressed(path):
    with open(path, "rb") as file:
        return file.read(4).startswith((b"\x1f\x8b", b"BZh", b"\xfd7zX", b"\x28\xb5\x2f\xfd"))


def _label(file, entry, key, where):
    """The class of a sample, a whole number or a text, in its .cls or at a key of its .json."""
    if not entry.isreg() or entry.size > MAX_LABEL:
        found = f"has {entry.size:,} bytes" if entry.isreg() else "is a link or a device"
        raise ValueError(f"{where} {found}; allowed: a file of up to {MAX_LABEL:,} bytes")
    try:
        text = file.extractfile(entry).read().decode().strip()
        if key is None:
            return int(text) if text.removeprefix("-").isdecimal() else text
        return json.loads(text)[key]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = shown(f"{type(error).__name__}: {error}")
        what = "a class" if key is None else f"an object with the key '{shown(key)}'"
        raise ValueError(f"{where} cannot be read ({reason}); allowed: {what}") from None


def _labels_of(images, labels, path):
    """The class of each image in order, all None where none has one; raises `ValueError`."""
    for key, (name, _) in images.items():
        if labels and key not in labels:
            raise ValueError(
                f"{shown(path)}: '{shown(name)}' has no class, others have one; allowed: a class"
                " for every image, or none"
            )
    return [labels.get(key) for key in images]
