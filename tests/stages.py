"""What code each stage executes, as a digest: python -m tests.stages --accept

The code of a stage is what its verb's function reaches by name: definitions, not files, so that
a line of a report that stands beside a line of training does not count. Its normal form is the
stream of tokens without comments, docstrings and line breaks, an f-string as one token, as Python
3.11 has it: the same on 3.11 to 3.13.
"""

import ast
import functools
import hashlib
import io
import json
import re
import sys
import tokenize
from bisect import bisect
from pathlib import Path

ROOT = Path(__file__).parent.parent / "ect"
FILE = Path(__file__).with_suffix(".json")
# (module, name) of the functions that the jobs of a stage call.
STARTS = {
    "prepare": [("data.prepare", "run")],
    "import": [("models.importers", "read"), ("runtime.checkpoint", "save")],
    "classifier": [("evaluation.classifier", "run")],
    "train": [("training.train", "run")],
    "perfect": [("training.perfect", "run")],
    "average": [("training.reconstruct", "run")],
    "trajectories": [("evaluation.solve", "run")],
    "sample": [("evaluation.sample", "run")],
    "extract": [("evaluation.evaluate", "extract"), ("evaluation.samples", "export")],
    "evaluate": [("evaluation.evaluate", "run"), ("evaluation.summary", "run")],
    "nearest": [("evaluation.nearest", "run")],
    "trace": [("evaluation.trace", "run")],
    "search": [("evaluation.search", "run")],
    "report": [
        ("report.tables", "tabulate"), ("report.steps", "tabulate"), ("report.paper", "tabulate"),
        ("report.nearest", "tabulate"), ("report.figures", "plot"), ("report.page", "write_page"),
    ],
}  # fmt: skip
# Progress, records and the versions themselves: no bits depend on them.
LEFT_OUT = {
    ("runtime.progress", None),
    ("runtime.record", "job_record"),
    ("runtime.versions", "STAGES"),
    ("runtime.versions", "NATIVE"),
    ("runtime.versions", "MASKS"),
    ("runtime.versions", "EDM_FILES"),
}
SPACE = ("COMMENT", "NL", "NEWLINE", "INDENT", "DEDENT", "ENDMARKER")


class Module:
    """A file's definitions by name, {name: its statements}, and what its imports mean, {name:
    (module, name or None for the whole of it)}."""

    def __init__(self, root, name):
        path = root.joinpath(*name.split("."))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        self.text, self.definitions, self.imports = path.read_text(encoding="utf-8"), {}, {}
        self.tree, self.others = ast.parse(self.text), set()  # names of other packages
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "ect":
                self._learn(root, node)
            elif isinstance(node, ast.ImportFrom):
                self.others.update(alias.asname or alias.name for alias in node.names)
        for node in self.tree.body:
            for bound in _bound(node):
                self.definitions.setdefault(bound, []).append(node)

    def _learn(self, root, node):
        package = node.module.split(".")[1:]
        for alias in node.names:
            whole = [*package, alias.name]
            path = root.joinpath(*whole)
            inner = path.is_dir() or path.with_suffix(".py").exists()
            meant = (".".join(whole), None) if inner else (".".join(package), alias.name)
            self.imports[alias.asname or alias.name] = meant


def _bound(node):
    """The names that a statement of a module binds."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return [node.name]
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return []
    stored = (n for n in ast.walk(node) if isinstance(n, ast.Name))
    return [n.id for n in stored if isinstance(n.ctx, ast.Store)]


def reader(root):
    """A function of a module's name: its `Module`, read once."""
    return functools.cache(lambda name: Module(root, name))


def closure(module, starts):
    """{(module, name)} of all definitions that `starts` reach; `module` is a `reader`."""
    found, todo = set(), list(starts)
    while todo:
        name, item = todo.pop()
        if (name, item) in found | LEFT_OUT or (name, None) in LEFT_OUT:
            continue
        if item is None:  # a module as a value: all of it
            todo += [(name, each) for each in module(name).definitions]
        elif item in module(name).definitions:
            found.add((name, item))
            todo += _used(module(name), name, item)
        elif item in module(name).imports:  # imported here from another module
            todo.append(module(name).imports[item])
        elif item not in module(name).others:
            raise ValueError(f"ect/{name} has no '{item}' that one of {starts} reaches")
    return found


def _used(module, name, item):
    """The (module, name) that a definition's statements name."""
    for statement in module.definitions[item]:
        parts = set()  # names of modules of which a part is used
        for node in ast.walk(statement):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                meant = module.imports.get(node.value.id)
                if meant and meant[1] is None:
                    parts.add(node.value)
                    yield meant[0], node.attr
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and node not in parts:
                if node.id in module.imports:
                    yield module.imports[node.id]
                elif node.id in module.definitions:
                    yield name, node.id


@functools.cache
def normal(module, statement):
    """The tokens of a statement in its normal form."""
    docs = [_range(node.body[0]) for node in ast.walk(statement) if _documented(node)]
    first, last = _range(statement)
    if getattr(statement, "decorator_list", ()):
        first = min(first, *(_range(node)[0] for node in statement.decorator_list))
    found, opened, depth = [], None, 0
    tokens = _tokens(module.text)
    dropped = [*docs, *_modules(module, statement)]
    for kind, string, start, end in tokens[bisect(tokens, first, key=lambda t: t[2]) - 1 :]:
        if start >= last:
            break
        if start < first or kind in SPACE:
            continue
        if any(one <= start and end <= two for one, two in dropped):
            continue
        if kind == "FSTRING_START":
            opened, depth = (opened if depth else start), depth + 1
        if not depth:
            found.append(string)
        if kind == "FSTRING_END":
            depth -= 1
            if not depth:
                found.append(_between(module.text, opened, end))
    return found


def _modules(module, statement):
    """The ranges of all `module.` that stand before a definition of ect, and of its imports."""
    for node in ast.walk(statement):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            meant = module.imports.get(node.value.id)
            if meant and meant[1] is None:
                end = node.end_lineno, node.end_col_offset - len(node.attr.encode("utf-8"))
                yield _range(node)[0], end
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "ect":
            yield _range(node)


@functools.cache
def _tokens(text):
    """[(kind, text, start, end)], positions as in a syntax tree: (line, column in bytes)."""
    lines = [*text.split("\n"), ""]

    def place(line, column):
        return line, len(lines[line - 1][:column].encode("utf-8"))

    found = tokenize.generate_tokens(io.StringIO(text).readline)
    return [(tokenize.tok_name[t[0]], t[1], place(*t[2]), place(*t[3])) for t in found]


def _between(text, start, end):
    """The text between two positions, (line, column in bytes)."""
    part = text.encode("utf-8").split(b"\n")[start[0] - 1 : end[0]]
    part[-1] = part[-1][: end[1]]
    part[0] = part[0][start[1] :]
    return b"\n".join(part).decode("utf-8")


def _range(node):
    return (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)


def _documented(node):
    kinds = (ast.FunctionDef, ast.ClassDef, ast.Module)
    return isinstance(node, kinds) and ast.get_docstring(node, clean=False) is not None


def digest(module, starts):
    """The sha256 of the normal form of all that `starts` reach; `module` is a `reader`."""
    forms = [
        [item, *normal(module(name), statement)]
        for name, item in closure(module, starts)
        for statement in module(name).definitions[item]
    ]
    return hashlib.sha256(json.dumps(sorted(forms)).encode()).hexdigest()


def kernels(root):
    """The sha256 of the C code below `root`, less comments and spaces."""
    texts = [path.read_text() for path in sorted(root.glob("*.[ch]"))]
    words = [re.sub(r"/\*.*?\*/", " ", text, flags=re.DOTALL).split() for text in texts]
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()


@functools.cache
def found():
    """{stage, or `native`: {version, digest}} of the code as it is."""
    from ect.runtime.versions import NATIVE, STAGES

    module = reader(ROOT)
    whole = {
        stage: {"digest": digest(module, starts), "version": STAGES[stage]}
        for stage, starts in STARTS.items()
    }
    return whole | {"native": {"digest": kernels(ROOT / "networks" / "kernels"), "version": NATIVE}}


def accepted():
    """{stage: {version, digest}} as last accepted."""
    return json.loads(FILE.read_text())


def accept():
    """Record the digests of the present code, with its versions, as accepted."""
    FILE.write_text(json.dumps(found(), indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    if sys.argv[1:] != ["--accept"]:
        sys.exit(f"found {sys.argv[1:]}; allowed: --accept")
    accept()
