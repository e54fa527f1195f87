"""Every mistake in a config as one line: file, line, key, what was found, what is allowed, and the
nearest known word."""

import math
import re
from typing import get_args

from pydantic import BaseModel

from ect.config.base import LINE, NAMED, names, nearest, short
from ect.runtime.text import shown

# How messages of checks begin: the key, relative to the block that is checked, or in quotes.
KEY = re.compile(r"([a-z0-9_]+(?:\.[A-Za-z0-9_]+)*)(?=: | is )|unknown (?:option|key) '(\w+)'")
NAME = "a name of a-z, 0-9 and _, at most 100 of them, that does not begin with _"
MANY = 10  # keys that are missing: all of config.yaml is
UNITS = {"too_short": "at least", "too_long": "at most"}


def lines_of(root, errors, place_of, together=True):
    """The lines of pydantic's errors about the model `root`. `place_of` is the function path ->
    Place or None. A mistake in an anchored block is told once, as are a mistyped key in place of
    one that is needed, and, if `together`, all keys that a block lacks."""
    lacking, lines = _lacking(root, errors), {}
    for error in errors:
        path, message = _told(root, error)
        if error["type"] == "missing":
            keys = lacking[path[:-1]]
            if path[-1] not in keys or (together and path[-1] != keys[0]):
                continue
            if together and keys[1:]:
                message = f"{message.rpartition(';')[0]}, as are {names(keys[1:])}; they are needed"
        place = place_of(path)
        where = place and place.line and (*place[:3], path[-1], message.partition(": ")[2])
        lines.setdefault(where or (path, message), at(place, message))
    return list(lines.values())


def without_base(errors):
    """The line about a study without the config that it should be laid over, by pydantic's errors
    about it; [] where it is none."""
    lacking = [".".join(map(str, error["loc"])) for error in errors if error["type"] == "missing"]
    if len(lacking) < MANY:
        return []
    told = f"{names(lacking[:3])} and {len(lacking) - 3} more keys: missing"
    return [f"{told}; they are needed, here or in config.yaml of the working directory"]


def line_of(message, place_of):
    """The line of a check across blocks, whose message begins with the whole key."""
    key = KEY.match(message)
    return at(place_of(tuple((key[1] or key[2]).split("."))) if key else None, message)


def at(place, message):
    """A message on one line, behind its place."""
    return shown(f"{place}: {message}" if place else message, LINE)


def _told(root, error):
    """(path, message) of one of pydantic's errors."""
    path = tuple(part for part in error["loc"] if part != "[key]")
    key = shown(".".join(map(str, path)) or "config", 300)
    kind, context = error["type"], error.get("ctx", {})
    if kind != "value_error":
        return path, f"{key}: {_message(root, path, error)}"
    message = str(context["error"])
    inner = KEY.match(message)
    if not inner:
        return path, f"{key}: {message}"
    more = tuple((inner[1] or inner[2]).split("."))
    known = inner[2] or more[0] in _keys_at(root, path)
    said = message if known and not path else f"{key}: {message}"
    return (*path, *more) if known else path, said


def _message(root, path, error):
    """What an error of pydantic's own says: what was found, what is allowed."""
    kind, found, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "extra_forbidden":
        allowed = _keys_at(root, path[:-1])
        if path[-1] == "like":
            return (
                f"unknown key; allowed: {names(allowed)}; `like` stands in blocks of {names(NAMED)}"
            )
        return f"unknown key; allowed: {names(allowed)}{nearest(path[-1], allowed)}"
    if kind == "missing":
        return "missing; this key is needed"
    if kind == "literal_error":
        near = nearest(found, re.findall(r"'([^']*)'", context["expected"]))
        allowed = context["expected"] + near
    elif kind in ("model_type", "dict_type"):
        allowed = "a mapping, `key: value` on each line"
    elif kind == "string_pattern_mismatch":
        allowed = NAME
    elif kind in UNITS:
        allowed = f"{UNITS[kind]} {context.get('min_length', context.get('max_length'))} of them"
    else:
        message = error["msg"].removeprefix("Input should be ")
        allowed = message[0].lower() + message[1:]
    if kind == "float_type" and _is_number(found):
        allowed += f" (YAML reads {short(found)} as text: {_as_number(found)})"
    return f"found {short(found)}; allowed: {allowed}"


def _lacking(root, errors):
    """{path of a block: the needed keys that it lacks}, without those that another key of the block
    was meant to be. A block that `like` would fill in lacks none."""
    mistyped, found = _mistyped(root, errors), {}
    like = {error["loc"][:-1] for error in errors if error["loc"][-1:] == ("like",)}
    for error in errors:
        if error["type"] == "missing":
            keys = found.setdefault(error["loc"][:-1], ())
            if error["loc"] not in mistyped and error["loc"][:-1] not in like:
                found[error["loc"][:-1]] = (*keys, error["loc"][-1])
    return found


def _mistyped(root, errors):
    """The paths of needed keys that are missing since another key of the block is their mistyped
    name."""
    missing = {error["loc"] for error in errors if error["type"] == "missing"}
    extra = [error["loc"] for error in errors if error["type"] == "extra_forbidden"]
    return {
        loc
        for loc in missing
        for other in extra
        if other[:-1] == loc[:-1] and f"'{loc[-1]}'" in nearest(other[-1], _keys_at(root, loc[:-1]))
    }


def _keys_at(root, path):
    """The keys that the block at `path`, a list of keys, may have."""
    kind = root
    for part in path:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            kind = kind.model_fields[part].annotation
        else:  # dict[Name, Block], list[Block] or Block | None: the block is the last Block inside
            kind = (get_args(kind) or (object,))[-1]
        blocks = [k for k in get_args(kind) if isinstance(k, type) and issubclass(k, BaseModel)]
        if type(None) in get_args(kind) and blocks:
            kind = blocks[0]
    return list(kind.model_fields) if hasattr(kind, "model_fields") else []


def _as_number(text):
    """How a text that is a number is written in YAML: 1e-4 as 1.0e-4, "0.5" without quotes."""
    mantissa, mark, exponent = text.strip().lower().partition("e")
    if not mark:
        return "write it without quotes"
    point, sign = "" if "." in mantissa else ".0", "" if exponent[0] in "+-" else "+"
    return f"write {mantissa}{point}e{sign}{exponent}, not {text}"


def _is_number(text):
    try:
        return isinstance(text, str) and math.isfinite(float(text))
    except ValueError:
        return False
