"""Definitions of ect/ joined into one file, each word for word, for a reader that takes only single
files: diffusers, of the code beside a model's weights.

A definition is a statement at the top of a module that binds a name. What the first ones reach by
name goes along, each after what it reaches; comments between definitions stay behind.
"""

import ast
from pathlib import Path

import ect

ROOT = Path(ect.__file__).parent


class Module:
    """A file's definitions, {name: statement}, and what its imports bind: `ours`, {name: (module of
    ect, name there or None for all of it)}, and `others`, {name: import statement}."""

    def __init__(self, name):
        self.text = ROOT.joinpath(*name.split(".")).with_suffix(".py").read_text(encoding="utf-8")
        self.definitions, self.ours, self.others = {}, {}, {}
        for node in ast.parse(self.text).body:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                self._learn(node)
            for bound in _bound(node):
                self.definitions[bound] = node

    def _learn(self, node):
        for alias in node.names:
            name = alias.asname or alias.name
            if isinstance(node, ast.Import) or node.module.split(".")[0] != "ect":
                origin = f"from {node.module} " if isinstance(node, ast.ImportFrom) else ""
                self.others[name] = f"{origin}{ast.unparse(ast.Import([alias]))}"
                continue
            package = node.module.split(".")[1:]
            whole = ROOT.joinpath(*package, alias.name)
            inner = whole.with_suffix(".py").exists()
            module = ".".join([*package, alias.name] if inner else package)
            self.ours[name] = (module, None if inner else alias.name)

    def uses(self, name):
        """(names, {module's name here: its attributes}) that a definition mentions."""
        walked = list(ast.walk(self.definitions[name]))
        names = {node.id for node in walked if isinstance(node, ast.Name)}
        attributes = {}
        for node in walked:
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                attributes.setdefault(node.value.id, set()).add(node.attr)
        return names - {name}, attributes

    def source(self, name):
        """A definition's text, with its decorators."""
        node = self.definitions[name]
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
        return "\n".join(self.text.splitlines()[first - 1 : node.end_lineno])


def _bound(node):
    """The names that a statement binds, other than by an import."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else []
    targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
    return [target.id for target in targets if isinstance(target, ast.Name)]


class Joined:
    """The definitions that were asked for, and those that they reach."""

    def __init__(self):
        self.modules, self.seen = {}, set()
        self.taken = []  # (module, name), what is reached before what reaches it
        self.spaces, self.imports = {}, set()

    def take(self, module, name):
        """Add a definition of a module of ect, and all that it reaches."""
        if (module, name) in self.seen:
            return
        self.seen.add((module, name))
        source = self.modules[module] = self.modules.get(module) or Module(module)
        names, attributes = source.uses(name)
        for used in sorted(names):
            if used in source.definitions:
                self.take(module, used)
            elif used in source.others:
                self.imports.add(source.others[used])
            elif used in source.ours:
                self._take_imported(used, source.ours[used], attributes.get(used, ()))
        self.taken.append((module, name))

    def _take_imported(self, here, meant, attributes):
        module, name = meant
        if name is not None and name != here:
            raise ValueError(f"{module}: found {name} as {here}; allowed: under its own name")
        if name is None:
            self.spaces.setdefault(here, set()).update(attributes)
        for wanted in sorted(attributes) if name is None else [name]:
            self.take(module, wanted)

    def text(self):
        """The file. Raises `ValueError` where one name means two things in it."""
        names = [name for _, name in self.taken] + list(self.spaces)
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"joined: found {', '.join(sorted(twice))} twice; allowed: once")
        return "\n".join([*sorted(self.imports), *self._spaces(), "", *self._definitions()])

    def _spaces(self):
        """A module that is used by its name, as in `device.to_device(x)`, becomes a class whose
        attributes are set once they are defined."""
        return [f"\n\nclass {name}:\n    pass" for name in sorted(self.spaces)]

    def _definitions(self):
        owners = {key: [s for s, wanted in self.spaces.items() if key[1] in wanted]
                  for key in self.taken}  # fmt: skip
        for module, name in self.taken:
            yield f"\n{self.modules[module].source(name)}\n"
            yield from (f"{space}.{name} = {name}\n" for space in owners[module, name])
