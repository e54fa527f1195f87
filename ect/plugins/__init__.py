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

=======  ==========================================================================
`guard`  a plugin's code, run so that a mistake in it is one line that names it
=======  ==========================================================================
"""

import ast
import functools
import hashlib
import types
from pathlib import Path
from typing import NamedTuple

from ect import registry
from ect.plugins import guard
from ect.schedule import SCHEDULES


def schedule(function):
    """Marks a map (t, progress, **options) -> r, as those of ect/schedule.py: t and r are noise
    levels (B,), 0 <= r < t. Its options are int or float, each with a default."""
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


BUILT_IN = {
    "schedule": tuple(SCHEDULES),
    "process": registry.PROCESSES,
    "weight": registry.WEIGHTS,
    "sampler": registry.SAMPLERS,
    "features": registry.EXTRACTORS,
}
ARGUMENTS = {
    "schedule": ("t", "progress"),
    "weight": ("s", "r", "sd"),
    "sampler": ("f", "process", "eps"),
    "features": ("pixels",),
}
OPTIONS = {
    "schedule": {"int": int, "float": float},
    "sampler": {"int": int, "float": float, "list[float]": list},
}
KEYS = {  # of the config's block: no option may have such a name
    "schedule": ("map", "clock", "like"),
    "sampler": ("kind", "label", "labels", "nfe", "like"),
}


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
        guard.require_name(path)
        text = _bytes(path)
        digest = hashlib.sha256(text).hexdigest()
        for kind, name, options in _declared(text, path):
            _require_free(kind, name, path, found)
            found[kind][name] = Part(path, digest, options)
    return found


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
    return _declared(text, path)


def _bytes(path):
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ValueError(
            f"plugins: {path}: {error.strerror or error}; allowed: a Python file, its path relative"
            " to the working directory"
        ) from None


def _declared(text, path):
    """[(kind, name, options)] in the order of the file."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # the last: too deep
        line = f"line {error.lineno}: {error.msg}" if isinstance(error, SyntaxError) else error
        line = str(line) or "nested too deep"
        raise ValueError(f"plugins: {path}: {line}; allowed: a Python file") from None
    marks = {
        alias.asname or alias.name: alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module == "ect.plugins"
        for alias in node.names
        if alias.name in BUILT_IN
    }
    found = [
        (marks[_name(mark)], node.name, _options(marks[_name(mark)], node, mark, tree, path))
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        for mark in node.decorator_list
        if _name(mark) in marks
    ]
    if not found:
        raise ValueError(
            f"plugins: {path}: found no part; allowed: a file with `from ect.plugins import"
            f" {' or '.join(BUILT_IN)}` and a part under @schedule, ..."
        )
    return found


def _name(mark):
    """The name in a decorator, with or without brackets."""
    return ast.unparse(mark.func if isinstance(mark, ast.Call) else mark)


def _options(kind, node, mark, tree, path):
    """{option: (type, default)} of a decorated function or class; raises `ValueError`."""
    where = f"plugins: {path}: line {node.lineno}: {node.name}"
    if isinstance(mark, ast.Call) or node not in tree.body:
        raise ValueError(f"{where}; allowed: a decorator without (), at the top level of the file")
    wanted = ast.ClassDef if kind == "process" else ast.FunctionDef
    if not isinstance(node, wanted):
        what = "a subclass of Process" if kind == "process" else "a function"
        raise ValueError(f"{where} is marked a {kind}; allowed: {what}")
    if isinstance(node, ast.ClassDef):  # a process has no options
        return {}
    arguments, plain = node.args, [*node.args.posonlyargs, *node.args.args]
    first = ARGUMENTS[kind]
    options = [*plain[len(first) :], *arguments.kwonlyargs]
    if (
        len(plain) < len(first)
        or len(arguments.posonlyargs) > len(first)
        or arguments.vararg
        or arguments.kwarg
        or (options and kind not in OPTIONS)
    ):
        more = "; then options by name" if kind in OPTIONS else ""
        raise ValueError(f"{where}({ast.unparse(arguments)}); allowed: ({', '.join(first)}{more})")
    missing = [None] * (len(plain) - len(arguments.defaults))
    defaults = [*missing, *arguments.defaults][len(first) :] + arguments.kw_defaults
    return {
        argument.arg: _option(kind, argument, default, f"{where}: option {argument.arg}")
        for argument, default in zip(options, defaults)
    }


def _option(kind, argument, default, where):
    """(type, default) of one option, from its annotation and its literal."""
    if argument.arg in KEYS[kind]:
        raise ValueError(f"{where}: a key of the config's block; allowed: another name")
    allowed = OPTIONS[kind]
    written = "nothing" if argument.annotation is None else ast.unparse(argument.annotation)
    if written not in allowed:
        raise ValueError(f"{where}: annotated {written}; allowed: {', '.join(allowed)}")
    try:
        return allowed[written], converted(ast.literal_eval(default), allowed[written])
    except (TypeError, ValueError):
        found = "nothing" if default is None else ast.unparse(default)
        raise ValueError(f"{where}: its default is {found}; allowed: a literal {written}") from None


def converted(value, kind):
    """An option's value as int, float or list of float; raises `ValueError` if it is not one."""
    if kind is list and isinstance(value, (list, tuple)):
        return [converted(part, float) for part in value]
    numeric = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is list or not numeric or (kind is int and value % 1):
        raise ValueError(f"{value!r} is not a {kind.__name__}")
    return kind(value)


def _require_free(kind, name, path, found):
    """Raises `ValueError` for a name in use, or like Inception's, whose distance is called FID."""
    owner = found[kind][name].path if name in found[kind] else "ect"
    if name in BUILT_IN[kind] or name in found[kind]:
        raise ValueError(f"plugins: {path}: {name} is a {kind} of {owner}; allowed: another name")
    if kind == "features" and name.startswith("inception"):
        raise ValueError(f"plugins: {path}: {name}; allowed: a name that is not Inception's")
