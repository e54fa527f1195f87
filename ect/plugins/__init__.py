"""Plugins: a user's own parts, in files that a config lists: `plugins: [my_schedule.py]`. Loads no
torch.

    from ect.plugins import schedule

    @schedule
    def root(t, progress, power: float = 4.0):
        return t * progress ** (1 / power)

A part's name is that of its function or class. The decorators do nothing: the parts of a file are
read from its syntax tree, so that a config is checked without running the file. A job runs the
file only if its sha256 is the one that the job was planned with; what the file imports is not
recorded. What a model file wants is run only if the user named it (ect/models/trust.py).

=========  ========================================================================
`results`  what the parts may return
`guard`    a plugin's code, run so that a mistake in it is one line that names it
`syntax`   the parts and options that a file declares, without running it
=========  ========================================================================
"""

import functools
import hashlib
import os
import stat
import types
from pathlib import Path
from typing import NamedTuple

from ect.plugins import guard
from ect.plugins.syntax import BUILT_IN, a, converted, declared, imported
from ect.runtime.text import shown_path

__all__ = ["BUILT_IN", "converted"]  # beside what is defined here
BYTES = 2**20  # of a plugin's file
MAPS = ("schedule", "objective")  # the kinds whose names stand at `map`


def schedule(function):
    """Marks a map (t, progress, **options) -> r, as those of ect/schedule.py: t and r are noise
    levels (B,), 0 <= r < t. Its options are int or float, each with a default."""
    return function


def objective(function):
    """Marks a loss (f, x, eps, s, r, progress, **options) -> (B,) of images x and noise eps, both
    (B, C, H, W), at noise levels s (B,): its gradient trains f. `r` (B,) is a second draw of the
    prior, independent of s, for a loss of two times. f is the consistency function, with its
    `process`, `sd` and `output` (ect/consistency.py); all its evaluations have the same dropout
    masks. The recipe's weight multiplies the loss, at (s, s, sd). A config names it where it names
    a map. Its options are int or float, each with a default."""
    return function


def process(kind):
    """Marks a subclass of `ect.process.Process`."""
    return kind


def weight(function):
    """Marks a weight (s, r, sd) -> (B,) of the loss, as those of ect/objective.py."""
    return function


def sampler(function):
    """Marks a sampler (f, process, eps, **options) -> images, as those of ect/sampler.py. `eps` has
    one slice, plus one for each of the option `times`, if the sampler has it. Its options are int,
    float or list[float], each with a default."""
    return function


def features(function):
    """Marks an extractor: uint8 images (N, H, W, C) -> features (N, D), image by image."""
    return function


class Part(NamedTuple):
    """One part of a plugin: its file, the file's sha256 and {option: (type, default)}."""

    path: str
    digest: str
    options: dict


def read(paths):
    """{kind: {name: Part}} of a list of plugins, without running them.

    Raises `ValueError` for a file that is missing, is not Python, has no part or is named like a
    module; a name in use; an argument or option that does not fit.
    """
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise ValueError(f"plugins: found {paths!r}; allowed: a list of Python files")
    found = {kind: {} for kind in BUILT_IN}
    for path in paths:
        text = _bytes(path)
        guard.require_name(path)
        digest = hashlib.sha256(text).hexdigest()
        for kind, name, options in declared(text, path):
            _require_free(kind, name, path, found)
            found[kind][name] = Part(path, digest, options)
    return found


def imports(path):
    """[(line, module)] of what a plugin surely imports when it is run."""
    return imported(_bytes(path))


def load(digests):
    """{kind: {name: object}} of plugins in {path: sha256}, each run once in a process.

    Raises `ValueError` where a file is missing, has other bytes, or cannot be run. So do the parts
    where their code fails, or returns what it may not (`ect/plugins/guard.py`).
    """
    found = {kind: {} for kind in BUILT_IN}
    for path, digest in digests.items():
        for kind, name, value in _run(path, digest):
            found[kind][name] = value
    return found


def with_plugins(table, kind, settings):
    """A table {name: part}, and the parts of the plugins that settings, or a model's description,
    list."""
    return table | load(settings.get("plugins", {}))[kind]


def providing(kind, name, settings):
    """{"plugins": {path: sha256}} of the plugin in the settings that declares the part; {} if none
    does. None is run."""
    listed = settings.get("plugins", {}).items()
    source = {p: d for p, d in listed if (kind, name) in [one[:2] for one in _parts(p, d)]}
    return {"plugins": source} if source else {}


@functools.cache
def _run(path, digest):
    declared, text = _parts(path, digest), _bytes(path)
    module = types.ModuleType(Path(path).stem)
    module.__file__ = path
    with guard.running(path):
        exec(compile(text, path, "exec"), module.__dict__)
    return [
        (kind, name, guard.guarded(kind, name, path, vars(module).get(name)))
        for kind, name, _ in declared
    ]


def _parts(path, digest):
    """What a file of this sha256 declares."""
    text = _bytes(path)
    found = hashlib.sha256(text).hexdigest()
    if found != digest:
        raise ValueError(
            f"plugins: {path}: edited since the run was planned, or the model made (sha256"
            f" {found[:12]}, was {digest[:12]}); allowed: the file as it was, or a new run of"
            " Snakemake, which runs again the jobs that use it"
        )
    return declared(text, path)


def _bytes(path):
    """The content of a regular file: a pipe may never come, and a device never end."""
    allowed = "allowed: a Python file, its path relative to the working directory"
    try:
        status = os.stat(path)
        regular, text = stat.S_ISREG(status.st_mode), None
        if regular and status.st_size <= BYTES:
            with open(path, "rb") as file:
                text = file.read(status.st_size)  # no more: files of /proc have size 0, and wait
    except (OSError, ValueError) as error:
        found = getattr(error, "strerror", None) or error
        raise ValueError(f"plugins: {shown_path(path)}: {found}; {allowed}") from None
    if text is None:
        found = "Is a directory" if stat.S_ISDIR(status.st_mode) else "no regular file"
        found = f"more than {BYTES} bytes" if regular else found
        raise ValueError(f"plugins: {shown_path(path)}: {found}; {allowed}")
    return text


def _require_free(kind, name, path, found):
    """Raises `ValueError` for a name in use, or like Inception's, whose distance is called FID. A
    schedule and an objective are named by one key."""
    for other in MAPS if kind in MAPS else (kind,):
        owner = found[other][name].path if name in found[other] else "ect"
        if name in BUILT_IN[other] or name in found[other]:
            said = f"{name} is {a(other)} of {owner}"
            raise ValueError(f"plugins: {path}: {said}; allowed: another name")
    if kind == "features" and name.startswith("inception"):
        raise ValueError(f"plugins: {path}: {name}; allowed: a name that is not Inception's")
