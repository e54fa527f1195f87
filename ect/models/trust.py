"""Which plugins a model file may run: those alone that the user's config, command or call names.

A model file of a plugin's process lists that plugin. It comes from elsewhere, so it runs no file of
this machine by itself. Loads no torch.
"""

import hashlib
import os
from contextlib import contextmanager
from pathlib import Path

from ect import plugins

VARIABLE = "ECT_PLUGINS"  # the files that the user named, one a line


def allow(files):
    """From here on, also in processes that this one starts, model files may run these plugins."""
    os.environ[VARIABLE] = "\n".join(dict.fromkeys([*_allowed(), *map(str, files)]))


def require_parts(files):
    """Raise `ValueError` unless each file is there and declares a part; none is run."""
    plugins.read(list(dict.fromkeys(files)))


@contextmanager
def allowed(files):
    """As `allow`, to the end of the block."""
    before = _allowed()
    allow(files)
    try:
        yield
    finally:
        os.environ[VARIABLE] = "\n".join(before)


def _allowed():
    return os.environ.get(VARIABLE, "").splitlines()


def granted(about, files=()):
    """{path: sha256} of the plugins that a model's description lists: each the file that the user
    named, in `files` or by `allow`. Raises `ValueError` for one that the user did not name."""
    files = [*map(str, files), *_allowed()]
    return {_granted(p, digest, files): digest for p, digest in about.get("plugins", {}).items()}


def _granted(path, digest, files):
    """The path as it is, if it was named; else a named file of these bytes."""
    if os.path.realpath(path) in map(os.path.realpath, files):
        return path
    for file in files:
        if _digest(file) == digest:
            return file
    raise ValueError(
        f"plugins: the model's process is in {path!r} (sha256 {digest[:12]}), a file that was not"
        " named and so is not run; allowed: that file in the config's `plugins`, after --plugins,"
        " or in ect.load(..., plugins=[...])"
    )


def _digest(path):
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        found = f"{error.strerror or error}"
        raise ValueError(f"plugins: {path!r}: {found}; allowed: a Python file") from None
