"""The parts that a plugin's file declares, read from its syntax tree. Nothing of it is run, and no
torch loaded: what can be known of a part without its job is told here.
"""

import ast
import builtins
import math
import symtable
import sys
import warnings
from difflib import get_close_matches

from ect import registry
from ect.schedule import CONTINUOUS_TIME, SCHEDULES

BUILT_IN = {
    "schedule": tuple(SCHEDULES),
    "objective": CONTINUOUS_TIME,
    "process": registry.PROCESSES,
    "weight": registry.WEIGHTS,
    "sampler": registry.SAMPLERS,
    "features": registry.EXTRACTORS,
}
ARGUMENTS = {
    "schedule": ("t", "progress"),
    "objective": ("f", "x", "eps", "s", "r", "progress"),
    "weight": ("s", "r", "sd"),
    "sampler": ("f", "process", "eps"),
    "features": ("pixels",),
}
OPTIONS = {
    "schedule": {"int": int, "float": float},
    "objective": {"int": int, "float": float},
    "sampler": {"int": int, "float": float, "list[float]": list},
}
KEYS = {  # of the config's block: no option may have such a name
    "schedule": ("map", "clock", "like"),
    "objective": ("map", "clock", "like"),
    "sampler": ("kind", "label", "labels", "nfe", "like"),
}
# What a module has before its first line.
MODULE = ("__name__", "__file__", "__doc__", "__builtins__", "__annotations__")
# What may define other names as a file runs, or expects one to be missing.
LATE = {"globals", "vars", "locals", "exec", "eval", "setattr", "NameError"}


def declared(text, path):
    """[(kind, name, options)] in the order of the file, which must compile but is not run."""
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(text)
            compile(text, path, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # the last: too deep
        line = f"line {error.lineno or 1}: {error.msg}" if isinstance(error, SyntaxError) else error
        line = str(line) or "nested too deep"
        raise ValueError(f"plugins: {path}: {line}; allowed: a Python file") from None
    for node in _sure(tree):
        _require_import(node, path)
    marks = {
        alias.asname or alias.name: alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.level, node.module) == (0, "ect.plugins")
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
    _require_defined(text, tree, path)
    for _, name, _ in found:
        _require_kept(name, tree, path)
    return found


def imported(text):
    """[(line, module)] of what a file imports whenever it is run, or a part of it."""
    found = []
    for node in _sure(ast.parse(text)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found += [(node.lineno, name) for name in names]
    return found


def _sure(tree):
    """The imports at the top level of a file and of its decorated functions: none in a `try`, an
    `if`, or a function that may not be called."""
    inside = [node.body for node in tree.body
              if isinstance(node, ast.FunctionDef) and node.decorator_list]  # fmt: skip
    every = (node for body in (tree.body, *inside) for node in body)
    return [node for node in every if isinstance(node, (ast.Import, ast.ImportFrom))]


def _require_import(node, path):
    """Raises `ValueError` for an import that fails in every environment."""
    where = f"plugins: {path}: line {node.lineno}"
    if isinstance(node, ast.ImportFrom) and node.level:
        raise ValueError(f"{where}: {_written(node)}; allowed: imports by whole names, no dots")
    if isinstance(node, ast.ImportFrom) and node.module == "ect.plugins":
        names = [alias.name for alias in node.names]
        if odd := [name for name in names if not hasattr(sys.modules["ect.plugins"], name)]:
            raise ValueError(f"{where}: imports {odd[0]}; allowed: {', '.join(BUILT_IN)}")


def _require_defined(text, tree, path):
    """Raises `ValueError` for a name that the file reads and that nothing in it defines, unless it
    may define names as it runs."""
    read, known, tables = set(), {*dir(builtins), *MODULE}, [symtable.symtable(text, path, "exec")]
    for table in tables:
        tables += table.get_children()
        for one in table.get_symbols():
            outer = table is tables[0] or one.is_global()
            if outer and (one.is_assigned() or one.is_imported()):
                known.add(one.get_name())
            elif outer and one.is_referenced():
                read.add(one.get_name())
    nodes = list(ast.walk(tree))
    stars = [n for n in nodes if isinstance(n, ast.ImportFrom) and n.names[0].name == "*"]
    if stars or read & LATE:
        return
    places = [(line, name) for line, name, kept in _names(tree) if kept in read - known]
    arguments = {node.arg for node in nodes if isinstance(node, ast.arg)}
    for line, name in sorted(places)[:1]:
        near = get_close_matches(name, known | arguments, 1)
        meant = f"; did you mean '{near[0]}'?" if near else ""
        raise ValueError(
            f"plugins: {path}: line {line}: {name} is not defined; allowed: names of the file, its"
            f" imports and Python's own{meant}"
        )


def _names(node, place=""):
    """(line, name, the name as Python keeps it) of each name that is read or set; in a class one
    that begins with __ is kept as _Class__name."""
    place = node.name.lstrip("_") if isinstance(node, ast.ClassDef) else place
    if isinstance(node, ast.Name):
        private = place and node.id.startswith("__") and not node.id.endswith("__")
        yield node.lineno, node.id, f"_{place}{node.id}" if private else node.id
    for inner in ast.iter_child_nodes(node):
        yield from _names(inner, place)


def _require_kept(name, tree, path):
    """Raises `ValueError` where a name of a part is deleted, or another value's, after it."""
    last = tree.body[0]
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names = [node.name]
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.asname or alias.name.partition(".")[0] for alias in node.names]
        else:
            names = [
                n.id for n in ast.walk(node)
                if isinstance(n, ast.Name) and isinstance(n.ctx, (ast.Store, ast.Del))
            ]  # fmt: skip
        last = node if name in names else last
    marked = getattr(last, "decorator_list", None)
    if not marked:
        what = "deleted" if isinstance(last, ast.Delete) else "given another value"
        raise ValueError(
            f"plugins: {path}: line {last.lineno}: {name} is {what} after it was marked; allowed: a"
            " part that is there at the end of the file"
        )


def a(kind):
    """A kind of part with its article, for a message."""
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def _written(node):
    """What a node of the tree looks like, for a message."""
    try:
        return ast.unparse(node)
    except (RecursionError, ValueError):  # Python prints no more than 4,300 digits
        return "..."


def _name(mark):
    """The name in a decorator, with or without brackets."""
    return _written(mark.func if isinstance(mark, ast.Call) else mark)


def _options(kind, node, mark, tree, path):
    """{option: (type, default)} of a decorated function or class; raises `ValueError`."""
    where = f"plugins: {path}: line {node.lineno}: {node.name}"
    if isinstance(mark, ast.Call) or node not in tree.body:
        raise ValueError(f"{where}; allowed: a decorator without (), at the top level of the file")
    wanted = ast.ClassDef if kind == "process" else ast.FunctionDef
    if not isinstance(node, wanted):
        what = "a subclass of Process" if kind == "process" else "a function"
        raise ValueError(f"{where} is marked {a(kind)}; allowed: {what}")
    if isinstance(node, ast.ClassDef):  # a process has no options
        if not node.bases:
            raise ValueError(f"{where} has no base; allowed: a subclass of Process")
        return {}
    arguments, plain = node.args, [*node.args.posonlyargs, *node.args.args]
    first, required = ARGUMENTS[kind], plain[: len(plain) - len(arguments.defaults)]
    options = [*plain[len(first) :], *arguments.kwonlyargs]
    if (
        len(required) < len(first)  # also where an option stands in place of an argument
        or len(arguments.posonlyargs) > len(first)
        or arguments.vararg
        or arguments.kwarg
        or any(argument.annotation is None for argument in required[len(first) :])  # one too many
        or (options and kind not in OPTIONS)
    ):
        more = "; then options by name" if kind in OPTIONS else ""
        raise ValueError(f"{where}({_written(arguments)}); allowed: ({', '.join(first)}{more})")
    if swapped := [a.arg for a, name in zip(plain, first) if a.arg != name and a.arg in first]:
        found = f"{_written(arguments)}), where {' and '.join(swapped)} changed places"
        raise ValueError(f"{where}({found}; allowed: ({', '.join(first)})")
    _require_result(kind, node, where)
    defaults = [*[None] * len(required), *arguments.defaults][len(first) :] + arguments.kw_defaults
    return {
        argument.arg: _option(kind, argument, default, f"{where}: option {argument.arg}")
        for argument, default in zip(options, defaults)
    }


def _require_result(kind, function, where):
    """Raises `ValueError` for a function that never returns a value, or is a generator."""
    inside, todo = [], [*function.body]
    while todo:
        node = todo.pop()
        inside.append(node)
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            todo += ast.iter_child_nodes(node)
    if any(isinstance(node, (ast.Yield, ast.YieldFrom)) for node in inside):
        raise ValueError(f"{where}: yields its result; allowed: {a(kind)} that returns it")
    returned = [node.value for node in inside if isinstance(node, ast.Return)]
    if all(value is None or getattr(value, "value", value) is None for value in returned):
        raise ValueError(f"{where}: returns nothing; allowed: {a(kind)} that returns its result")


def _option(kind, argument, default, where):
    """(type, default) of one option, from its annotation and its literal."""
    if argument.arg in KEYS[kind]:
        raise ValueError(f"{where}: a key of the config's block; allowed: another name")
    allowed = OPTIONS[kind]
    written = "nothing" if argument.annotation is None else _written(argument.annotation)
    if written not in allowed:
        raise ValueError(f"{where}: annotated {written}; allowed: {', '.join(allowed)}")
    try:
        return allowed[written], converted(ast.literal_eval(default), allowed[written])
    except (TypeError, ValueError):
        found = "nothing" if default is None else _written(default)
        raise ValueError(f"{where}: its default is {found}; allowed: a literal {written}") from None


def converted(value, kind):
    """An option's value as int of 64 bits, finite float or list of them; raises `ValueError` if it
    is not one."""
    if kind is list and isinstance(value, (list, tuple)):
        return [converted(part, float) for part in value]
    numeric = isinstance(value, (int, float)) and not isinstance(value, bool)
    fits = numeric and -(2**63) <= value < 2**63 if kind is int else numeric and _finite(value)
    if kind is list or not fits or (kind is int and value % 1):
        raise ValueError(f"{value!r} is not a {kind.__name__}")
    return kind(value)


def _finite(number):
    try:
        return math.isfinite(number)
    except OverflowError:  # a whole number beyond all floats
        return False
