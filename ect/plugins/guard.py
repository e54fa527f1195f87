"""A plugin's code, run so that a mistake in it is one line that names the file and the part.

An exit, an exception, an endless recursion, and a result that is not what the part must return
raise `ValueError`; an interrupt and a lack of memory pass as they are. Results are handed on
untouched. Loads no torch until a part is called.
"""

import functools
import importlib.machinery
import os
import sys
import traceback
import types
from contextlib import contextmanager, suppress
from pathlib import Path

from ect.plugins.results import CHECKS, KEEP, anything
from ect.runtime.text import shown

# Torch's defaults in a new process, of those that `running` looks at.
NEW = {"set_default_dtype": "torch.float32", "set_default_device": "cpu", "set_grad_enabled": True}
OURS = ("ect", "sitecustomize", "usercustomize")  # never a plugin's, beside what is installed


class Changed(ValueError):
    """A plugin's code changed torch for all that a process computes."""


def require_name(path):
    """Raise `ValueError` for a file that is named like a module: whoever imports that module where
    the file's folder leads the search would get the file instead."""
    name = Path(path).stem
    if name in OURS or name in sys.stdlib_module_names or _installed(name):
        raise ValueError(
            f"plugins: {shown(path)}: named like the module {shown(name)}, which it would hide;"
            " allowed: another name of the file"
        )


def _installed(name):
    """Whether a package outside the working directory and this repository has that name."""
    home = Path(__file__).parents[2]
    near = {Path.cwd(), home} if (home / "Snakefile").exists() else {Path.cwd()}
    places = [place for place in sys.path if place and Path(place).resolve() not in near]
    with suppress(ValueError, ImportError):
        found = importlib.machinery.PathFinder.find_spec(name, places)
        return found is not None and found.loader is not None
    return False


@contextmanager
def running(path, part=None):
    """Run a plugin's code, which may import what is beside the config, with its errors as one line;
    `part` says of which part."""
    beside = os.getcwd()
    added, before = beside not in sys.path, _defaults()
    if added:
        sys.path.append(beside)  # the last place: it hides no other module
    try:
        yield
        _require_defaults(before)
    except BaseException as error:
        if not _of_plugin(error):
            raise
        raise ValueError(f"{_where(path, part)}: {_told(error, path)}") from error
    finally:
        if added and beside in sys.path:
            sys.path.remove(beside)
        _restore(before)


def _defaults():
    """Torch's defaults that hold for a whole process, {name: value}; those of a new process where
    torch is not loaded."""
    torch = sys.modules.get("torch")
    if torch is None:
        return {}
    return {
        "set_default_dtype": torch.get_default_dtype(),
        "set_default_device": torch.get_default_device(),
        "set_grad_enabled": torch.is_grad_enabled(),
        "set_num_threads": torch.get_num_threads(),
        "use_deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "set_float32_matmul_precision": torch.get_float32_matmul_precision(),
    }


def _require_defaults(before):
    """Raise `ValueError` where torch's defaults are not those of before."""
    now = _defaults()
    for name, value in (before or NEW).items():
        if name in now and str(now[name]) != str(value):
            raise Changed(
                f"calls torch.{name}, which is now {now[name]}; allowed: {value}, as it was, for"
                " all else that the job computes"
            )


def _restore(before):
    """Give torch the defaults of before again."""
    now = _defaults()
    for name, value in (before or NEW).items():
        if name in now and str(now[name]) != str(value):
            getattr(sys.modules["torch"], name)(_of_torch(value))


def _of_torch(value):
    """torch.float32 of "torch.float32"; any other value as it is."""
    words = str(value)
    return getattr(sys.modules["torch"], words[6:]) if words.startswith("torch.") else value


def _where(path, part=None):
    return f"plugins: {shown(path)}" + (f": {part}" if part else "")


def _of_plugin(error):
    """Whether an error is told as a plugin's, and not told already."""
    from ect.runtime.crash import short_of_memory

    passes = isinstance(error, (KeyboardInterrupt, GeneratorExit)) or short_of_memory(error)
    return not passes and not str(error).startswith("plugins: ")


def _told(error, path):
    """An error's last line in the file, its type and its words."""
    if isinstance(error, Changed):
        return str(error)
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == path]
    words = " ".join(str(error).split())
    if isinstance(error, SystemExit):
        words = f"exit {words}; allowed: an exception, or a result"
    if isinstance(error, NotImplementedError) and "forward AD" in words:
        words = "no derivative in forward mode; allowed: `along` of ect.limit, which finds one"
    return f"line {lines[-1] if lines else 1}: {type(error).__name__}: {shown(words)}"


def guarded(kind, name, path, part):
    """A part of a plugin, a function or a class, whose calls are `running`, and whose results are
    checked. Its attribute `described` says which part it is, for a message, and the `source` of a
    class is what `running` takes."""
    described = f"{kind} {name!r}"
    if not (isinstance(part, type) if kind == "process" else callable(part)):
        what = "class" if kind == "process" else "function"
        raise ValueError(
            f"{_where(path, described)}: is a {type(part).__name__} once the file has run; allowed:"
            f" the {what} that it marks"
        )
    if kind != "process":
        call = _checked(part, path, described, CHECKS[kind])
        call.described = _where(path, described)
        return call
    for owner in part.__mro__:
        for method, function in list(vars(owner).items()):
            if owner.__module__ == part.__module__ and isinstance(function, types.FunctionType):
                check = CHECKS.get(method, anything)
                setattr(owner, method, _checked(function, path, described, check))
    part.described, part.source = _where(path, described), (path, described)
    return part


def _checked(function, path, described, check):
    if hasattr(function, "guards"):  # a method of a base that two classes share
        return function

    @functools.wraps(function)
    def call(*arguments, **options):
        with running(path, described):
            before = _versions(arguments) if check in KEEP else None
            result = function(*arguments, **options)
            wrong = check(result, arguments)
            if before is not None and before != _versions(arguments):
                wrong = "changes its arguments in place; allowed: a new tensor"
        if wrong:
            raise ValueError(f"{_where(path, described)}: {wrong}")
        return result

    vars(call)["guards"] = True
    return call


def _versions(arguments):
    """How often each tensor has been written to; of those of inference mode nobody counts."""
    return [t._version for t in arguments if hasattr(t, "is_inference") and not t.is_inference()]
