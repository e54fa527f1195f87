"""YAML files read with the place of every key: its file, line and column. Loads no torch.

A file is read as Snakemake reads it: JSON, or else YAML of the safe loader. Beyond that it must be
UTF-8 and of bounded size, depth and number of values, and no mapping may have a key twice.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import yaml
from yaml.nodes import MappingNode, ScalarNode, SequenceNode

from ect.config.base import LINE, short
from ect.runtime.text import shown, shown_path, waits

BYTES = 2**20  # of a config file
DEPTH = 50  # of mappings and lists inside one another
VALUES = 100_000  # in a config, where an alias counts as all that it stands for
DIGITS = 100  # of a number
TINY = 2.0**-126  # the smallest number of fp32 whose digits are all there
TEXT = 10_000  # characters of a text
MERGE = "tag:yaml.org,2002:merge"
OTHER = re.compile(r"[-+]?0[0-7_]*[1-7][0-7_]*|.*:.*")  # numbers that are others to YAML 1.2
BREAKS = re.compile("[\x85\u2028\u2029]")
NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


class Place(NamedTuple):
    """Where a key stands, and {key: Place} of what is under it."""

    file: str
    line: int | None
    column: int
    inner: dict
    mapping: bool

    def __str__(self):
        return f"{self.file}: line {self.line}" if self.line else self.file


class Refused(yaml.MarkedYAMLError):
    """What YAML allows and a config does not."""


class Loader(yaml.SafeLoader):
    """The safe loader without duplicate keys, deep nesting, endless merges, and numbers and dates
    that Python cannot make."""

    def __init__(self, text):
        super().__init__(text)
        self.depth, self.merged, self.merging = 0, 0, []

    def compose_node(self, parent, index):
        mark = self.peek_event().start_mark
        if self.depth > DEPTH:
            raise Refused(
                problem=f"nested more than {DEPTH} deep; allowed: less", problem_mark=mark
            )
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def compose_mapping_node(self, anchor):
        node, lines = super().compose_mapping_node(anchor), {}
        for key, _ in node.value:
            mark = key.start_mark
            first = lines.setdefault((key.tag, str(key.value)), mark)
            if first is not mark and key.tag != MERGE:
                problem = f"{key.value}: found again, after line {first.line + 1}; allowed: once"
                raise Refused(problem=problem, problem_mark=mark)
        return node

    def flatten_mapping(self, node):
        """Merge each block that `<<` names once, and no more keys than a config may have."""
        if node in self.merging:
            raise Refused(
                problem="<<: a block merged into itself; allowed: others",
                problem_mark=node.start_mark,
            )
        for key, value in node.value:
            if key.tag == MERGE and isinstance(value, SequenceNode):
                value.value = list({id(part): part for part in value.value}.values())
        self.merging.append(node)
        super().flatten_mapping(node)
        self.merging.pop()
        self.merged += len(node.value)
        if self.merged > VALUES:
            raise Refused(
                problem=f"<<: more than {VALUES} keys; allowed: fewer", problem_mark=node.start_mark
            )

    def construct_object(self, node, deep=False):
        number = node.tag in NUMBERS and isinstance(node, ScalarNode)
        long = number and len(node.value) > DIGITS
        other = number and not long and OTHER.fullmatch(node.value)
        try:
            if not long and not other:
                return super().construct_object(node, deep)
        except (ValueError, OverflowError, LookupError, AttributeError):  # PyYAML's own, of no form
            pass
        found = short(node.value)
        if other:
            found += ", which YAML 1.1 reads in base 8 or 60"
        allowed = f"a number of at most {DIGITS} digits without leading zeros, or a date"
        problem = f"found {found}; allowed: {allowed}, or text in quotes"
        raise Refused(problem=problem, problem_mark=node.start_mark)


KINDS = {list: "a list", str: "a text", int: "a number", float: "a number", bool: "true or false"}


def read(path, name=None):
    """(the mapping in a file, {key: Place}); `name` is what messages call it. Raises `ValueError`:
    one line with the file and, where there is one, the line."""
    name = shown_path(name or path)
    text = _text(path, name)
    plain = _json(text)
    try:
        loader = Loader(text if plain is None else text.replace("\t", " "))
        node = loader.get_single_node()
        value = plain if plain is not None or node is None else loader.construct_document(node)
    except yaml.YAMLError as error:
        raise ValueError(f"{name}: {_reason(error, text)}") from None
    if not isinstance(value, dict):
        found = "nothing" if value is None else KINDS.get(type(value), "a single value")
        raise ValueError(f"{name}: found {found}; allowed: a study, `key: value` on each line")
    if {"settings", "inputs", "code"} <= value.keys():
        found = "found the record of a run, a run.json"
        allowed = "allowed: a study's config; `python -m ect show` reads the folder of a record"
        raise ValueError(f"{name}: {found}; {allowed}")
    try:
        require_bounded(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    return value, _inner(loader, node, name)


def _text(path, name):
    """The text of a file in UTF-8."""
    allowed = "allowed: a study's YAML file, or a folder"
    if "\0" in str(path):
        raise ValueError(f"{name}: found a NUL character; {allowed}")
    if not str(path):
        raise ValueError(f"found an empty path; {allowed}")
    if waits(path):
        raise ValueError(f"{name}: found a device, pipe or socket; {allowed}")
    try:
        with Path(path).open("rb") as file:
            raw = file.read(BYTES + 1)
        if len(raw) > BYTES:
            raise ValueError(f"{name}: found more than {BYTES} bytes; {allowed}")
        text = raw.decode("utf-8").replace("\r\n", "\n")
    except OSError as error:
        raise ValueError(f"{name}: {error.strerror}; {allowed}") from None
    except UnicodeDecodeError as error:
        line, wide = raw.count(b"\n", 0, error.start) + 1, raw[:2] in (b"\xff\xfe", b"\xfe\xff")
        kind = "UTF-16" if wide else f"byte 0x{raw[error.start]:02x}"
        found = f"not YAML (found {kind}; allowed: text in UTF-8)"
        raise ValueError(f"{name}: line {line}: {found}") from None
    if separator := BREAKS.search(text):  # a line's end to YAML, and to no editor
        line, code = text.count("\n", 0, separator.start()) + 1, ord(separator[0])
        found = f"found U+{code:04X}, a separator of lines; allowed: newline, or a space"
        raise ValueError(f"{name}: line {line}: {found}")
    return text


def _json(text):
    """The value of a text that is JSON, or None; keys that are there twice YAML's loader finds."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _reason(error, text):
    """A YAML error on one line: its line and what is wrong."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    position = getattr(error, "position", None)
    line = mark.line + 1 if mark else 1 if position is None else text.count("\n", 0, position) + 1
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "no YAML"
    allowed = "one study in YAML, of mappings, lists, texts and numbers"
    wrong = problem if isinstance(error, Refused) else f"not YAML ({problem}); allowed: {allowed}"
    return shown(f"line {line}: {wrong}", LINE)


def _inner(loader, node, name):
    """{key: Place} of what is under a node of a document that has been constructed."""
    if isinstance(node, MappingNode):
        pairs = [(loader.construct_object(key), key.start_mark, part) for key, part in node.value]
    elif isinstance(node, SequenceNode):
        pairs = [(index, part.start_mark, part) for index, part in enumerate(node.value)]
    else:
        return {}
    last = {key: (mark, part) for key, mark, part in pairs}  # of keys merged from elsewhere too
    inner = {key: _inner(loader, part, name) for key, (_, part) in last.items()}
    kinds = {key: isinstance(part, MappingNode) for key, (_, part) in last.items()}
    return {
        key: Place(name, mark.line + 1, mark.column, inner[key], kinds[key])
        for key, (mark, _) in last.items()
    }


def of_words(mapping, name="command line"):
    """{key: Place} of a mapping that is in no file, such as that of `snakemake --config`."""
    mappings = {key: isinstance(value, Mapping) for key, value in mapping.items()}
    return {
        key: Place(name, None, 0, of_words(value, name) if mappings[key] else {}, mappings[key])
        for key, value in mapping.items()
    }


def lay(under, over):
    """Lay {key: Place} over another, in place: mapping by mapping, as Snakemake lays configs."""
    for key, place in over.items():
        old = under.get(key)
        inner = dict(old.inner) if old and old.mapping and place.mapping else {}
        under[key] = place._replace(inner=lay(inner, place.inner) if place.mapping else place.inner)
    return under


def find(places, path):
    """The place of the last key of a path that is there; None if its first is not."""
    found = None
    for part in path:
        if part not in places and str(part).isdigit():
            part = int(part)
        if part not in places:
            break
        found = places[part]
        places = found.inner
    return found


def require_bounded(value):
    """Raises `ValueError` for a value nested too deep, or of too many parts."""
    stack, count = [(value, 0)], 0
    while stack:
        outer, depth = stack.pop()
        parts = list(outer.values()) if isinstance(outer, Mapping) else outer
        parts = parts if isinstance(parts, (list, tuple)) else ()
        count += len(parts)
        if depth > DEPTH:
            raise ValueError(f"found more than {DEPTH} levels; allowed: at most {DEPTH}")
        if count > VALUES:
            found = f"found more than {VALUES} values, aliases written out"
            raise ValueError(f"{found}; allowed: at most {VALUES}")
        stack += [(part, depth + 1) for part in parts]


def unfit(value, path=()):
    """(path, message) of each key or value that is in no config: a key that is no text, a number
    that is not finite, beyond 64 bits or below those of fp32, a text with characters that no file
    can hold."""
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                kind = type(key).__name__
                yield (
                    (*path, key),
                    f"found a key of type {kind}; allowed: text (keys should be strings: quote it)",
                )
        for key, part in value.items():
            yield from unfit(part, (*path, key))
    elif isinstance(value, (list, tuple)):
        for index, part in enumerate(value):
            yield from unfit(part, (*path, index))
    if isinstance(value, float) and not math.isfinite(value):
        yield path, f"found {value}; allowed: a finite number"
    elif isinstance(value, float) and 0 < abs(value) < TINY:
        yield path, f"found {value}, which fp32 rounds to 0; allowed: 0, or {TINY:.2g} and more"
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        yield path, f"found a number of {value.bit_length()} bits; allowed: at most 64"
    elif isinstance(value, str) and ("\0" in value or _surrogate(value)):
        yield path, f"found {short(value)}; allowed: text of Unicode characters, no NUL"
    elif isinstance(value, str) and len(value) > TEXT:
        yield path, f"found {len(value)} characters; allowed: at most {TEXT}"


def _surrogate(text):
    return any("\ud800" <= character <= "\udfff" for character in text)
