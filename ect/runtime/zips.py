"""Zips that only a password opens: no job has one. Loads no torch."""

import zipfile
from collections.abc import Callable
from contextlib import suppress


def locked(archive: zipfile.ZipFile, wanted: Callable[[str], bool] = bool) -> str | None:
    """The first entry, among those whose names are wanted, that only a password opens, or None."""
    entries = (one for one in archive.infolist() if wanted(one.filename))
    return next((entry.filename for entry in entries if entry.flag_bits & 1), None)


def is_locked(path: object) -> bool:
    """Whether a file is such a zip; of a torn one its reader says what it is."""
    with suppress(zipfile.BadZipFile, ValueError, OSError), zipfile.ZipFile(str(path)) as file:
        return locked(file) is not None
    return False
