"""The image files of a folder or a .zip: their names, whether they can be read, their fingerprint.

Images are recognized by suffix and sorted by name. Hidden files and folders and the litter of
operating systems (`LITTER`) are ignored; links to folders are followed, but never in a circle. All
other files, archives included, are counted by suffix. Loads no torch.
"""

import hashlib
import io
import os
import re
import stat
import threading
import zipfile
from collections import Counter
from pathlib import Path, PurePosixPath

from ect.config.dataset import LABELS, MAX_BYTES, SUFFIXES
from ect.runtime.text import shown
from ect.runtime.zips import locked

PIECE = 2**14  # bytes that are unpacked at a time: a few bytes of bzip2 can hold a gigabyte
# What macOS, Synology, QNAP, Windows and Linux put among a user's files, in lower case. Thumbnails
# there would train as images.
LITTER = {
    "__macosx", "network trash folder", "temporary items", "@eadir", "#recycle", "#snapshot",
    "@__thumb", "@recycle", "@recently-snapshot", "$recycle.bin", "recycler", "desktop.ini",
    "system volume information", "thumbs.db", "ehthumbs.db", "lost+found",
}  # fmt: skip


class Folder:
    """A folder's files: `names`, and `open` by name. Raises `ValueError` for a subfolder that may
    not be read: like a file without permission it may be intact, so it is never skipped."""

    def __init__(self, path):
        self.path, self.names = path, []
        for name, entry in walk(path):
            if name.endswith("/"):
                raise ValueError(
                    f"{shown(path)}: its folder '{shown(name)}' cannot be read: {entry.strerror};"
                    " allowed: permission to read it, or another path"
                )
            self.names.append(name)

    def open(self, name):
        path = os.path.join(self.path, name)
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe or a device may never end
            raise ValueError("not a regular file")
        return open(path, "rb")


class Zip:
    """A .zip's files: `names`, and `open` by name, from any thread. Names are below the archive's
    top, as `below_top` has them."""

    def __init__(self, path):
        self.file, self.lock, self.entries = _archive(path), threading.Lock(), {}
        for entry in self.file.infolist():
            name = below_top(entry.filename)
            if entry.filename.endswith(("/", "\\")) or is_hidden(name):
                continue
            if name in self.entries:
                raise ValueError(f"{shown(path)}: holds '{shown(name)}' twice; allowed: once")
            self.entries[name] = entry
        if name := locked(self.file, lambda name: is_image(name) or name.endswith(LABELS)):
            raise ValueError(
                f"{shown(path)}: found an encrypted .zip ('{shown(name)}' needs a password);"
                " allowed: one that is not encrypted, or the folder that was in it"
            )
        images = [entry.filename for name, entry in self.entries.items() if is_image(name)]
        require_one_top(images, path)
        self.names = sorted(self.entries)

    def open(self, name):
        """The content of a file, unpacked; raises `ValueError` if it is larger than `MAX_BYTES`."""
        entry = self.entries[name]
        if entry.file_size > MAX_BYTES:
            raise ValueError(f"holds {entry.file_size:,} bytes; allowed: up to {MAX_BYTES:,}")
        with self.lock, self.file.open(entry) as file:
            return io.BytesIO(b"".join(iter(lambda: file.read(PIECE), b"")))


def _archive(path):
    try:
        return zipfile.ZipFile(path)
    except MemoryError:
        raise
    except Exception as error:  # zipfile raises almost any error for a damaged archive
        if isinstance(error, OSError) and error.filename:  # not the archive's fault
            raise
        found = f"not a readable .zip ({shown(error)})"
        raise ValueError(f"{shown(path)}: {found}; allowed: a whole one") from None


def below_top(name):
    """The name of a .zip's entry as a path below the archive's top: `./a//b`, `/a/b`, `C:\\a\\b`
    are `a/b`."""
    parts = _ANCHOR.sub("", name).replace("\\", "/").split("/")
    return "/".join(part for part in parts if part not in ("", "."))


_ANCHOR = re.compile(r"^([A-Za-z]:)?[/\\]+")


def require_one_top(names, path):
    """The images' names are all absolute or all relative, and none leads above the top."""
    absolute = {bool(_ANCHOR.match(name)): name for name in names}
    if len(absolute) > 1:
        raise ValueError(
            f"{shown(path)}: '{shown(absolute[True])}' is an absolute name,"
            f" '{shown(absolute[False])}' a relative one; allowed: names of one kind"
        )
    for name in names:
        if ".." in below_top(name).split("/"):
            raise ValueError(
                f"{shown(path)}: '{shown(name)}' is a name above the archive's top; allowed: names"
                " without '..'"
            )


def opened(path):
    """A `Folder` or a `Zip`, whichever the path is; raises `ValueError` where nothing is."""
    if not os.path.lexists(path):
        raise ValueError(
            f"{shown(path)}: found nothing there; allowed: a folder of images, or a .zip"
        )
    return Folder(path) if Path(path).is_dir() else Zip(path)


def is_hidden(name):
    """Whether a part of a name is hidden or litter; `..` is neither, but an error."""
    parts = [part for part in name.split("/") if part != ".."]
    return any(part.startswith(".") or part.lower() in LITTER for part in parts)


def is_image(name):
    """Whether a file's suffix is an image's."""
    return name.lower().endswith(SUFFIXES)


def walk(folder):
    """(name relative to the folder, its `os.DirEntry`) of all files that are not hidden, sorted. A
    folder that may not be read has a name that ends in `/`, and its `PermissionError`."""
    return sorted(_walk(os.fspath(folder), "", ()), key=lambda found: found[0])


def _walk(folder, prefix, above):
    try:
        status = os.stat(folder)
        with os.scandir(folder) as entries:
            inside = list(entries)
    except PermissionError as error:
        yield prefix or "./", error
        return
    here = (status.st_dev, status.st_ino)
    if here in above:  # a link back to a folder that we are in
        return
    for entry in inside:
        if is_hidden(entry.name):
            continue
        try:
            is_folder = entry.is_dir()
        except PermissionError as error:  # a link to where we may not look
            yield f"{prefix}{entry.name}/", error
            continue
        except OSError:  # a link to itself
            is_folder = False
        if is_folder:
            yield from _walk(entry.path, f"{prefix}{entry.name}/", (*above, here))
        else:
            yield prefix + entry.name, entry


def fingerprint(folder, suffix=None):
    """A digest of the names, sizes and modification times of a folder's images and labels, or of
    its files with a suffix."""
    digest = hashlib.sha256()
    for name, entry in walk(folder):
        if name.lower().endswith(suffix) if suffix else is_image(name) or name == LABELS:
            digest.update(repr((name, *_status(entry))).encode())
        elif name.endswith("/"):
            digest.update(repr((name, "unreadable")).encode())
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
        raise ValueError(
            f"{shown(path)}: no images, found {shown(found)}; allowed: {', '.join(SUFFIXES)}"
        )
    return images, ignored
