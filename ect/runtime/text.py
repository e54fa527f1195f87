"""Text of a user's files and environment: as it may be printed, as JSON, as a number."""

import json
import os
import re
import stat
from collections.abc import Callable, Iterable
from typing import Any

DIGITS = 300  # of a whole number in JSON: more have no float
DEPTH = 100  # of JSON's lists and objects inside one another; settings need 10


def one_line(text: object) -> str:
    """All of a text on one line: its white space as single spaces, other control characters as
    escapes."""
    line = " ".join(str(text).split())
    return shown(line, max(200, 12 * len(line)))


def markdown(text: object) -> str:
    """A text on one line that Markdown shows as it is: no markup, link, HTML, formula or cell of a
    table begins in it. An underscore inside a word is none."""
    line = re.sub(r"([\\`*{}\[\]<>|$~])", r"\\\1", one_line(text))
    line = re.sub(r"&(?=#?\w+;)", r"\&", line)
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\_", line)


def plain(text: str) -> str:
    """The inverse of `markdown`."""
    return re.sub(r"\\([\\`*{}\[\]<>|$~&_])", r"\1", text)


def code_span(text: object) -> str:
    """A text on one line as code in Markdown."""
    return f"`{one_line(text).replace('`', chr(39))}`"


def csv_cell(value: object) -> object:
    """A cell of a csv: a text that a spreadsheet would compute, such as '=1+1', gets an apostrophe
    before it, which makes it text there; one with control characters is put on one line."""
    if not isinstance(value, str):
        return value
    text = value if value.isprintable() else one_line(value)
    computed = text.lstrip().startswith(("=", "+", "-", "@")) and not _is_number(text)
    return f"'{text}" if computed else text


def _is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def is_name(text: str) -> bool:
    """Whether a text names a class: not where it has lines or other control characters, or is a
    number with a sign, point or exponent."""
    number = re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", text, re.IGNORECASE)
    return bool(text) and text.isprintable() and (number is None or text.isdigit())


def whole_number(text: str) -> int:
    """The whole number >= 0 that ASCII digits are; -1 for any other text."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else -1


def whole(name: str, text: str, least: int, most: int) -> int:
    """The whole number in an environment variable; raises `ValueError` that names it."""
    value = whole_number(text)
    if not least <= value <= most:
        raise ValueError(
            f"{name}: found '{shown(text, 60)}'; allowed: a whole number from {least} to {most}"
        )
    return value


def waits(path: Any) -> bool:
    """Whether a path is that of a device, pipe or socket in a folder, which reading might wait for
    for ever; the pipe of a shell's <(...) lies in none."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    known = stat.S_ISREG(mode) or stat.S_ISDIR(mode)
    return not known and os.path.exists(os.path.realpath(path))


def shown(text: object, limit: int = 200) -> str:
    """A name or message on one line, of at most `limit` characters.

    Control characters (newline, ESC, direction marks, ...) are written as escapes, so that no file
    name can move the cursor or fake a line of its own; what is cut is marked with '...'.
    """
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
    return safe if len(safe) <= limit else safe[: limit - 3] + "..."


def shown_path(path: object) -> str:
    """A path on one line; one of over 300 characters lacks its middle."""
    line = shown(path, 100_000)
    return line if len(line) <= 300 else f"{line[:200]}...{line[-80:]}"


def cause(error: BaseException, path: object) -> str:
    """What an error says, on one line, without the path that it ends with."""
    said = str(error).replace(f": {path}", "")
    return shown(said.replace(f": '{path}'", ""))


def allowing(found: str, allowed: str) -> str:
    """What was found and what is allowed, unless the cause in `found` says that."""
    return found if "allowed: " in found else f"{found}; allowed: {allowed}"


def lacking(key: object, mapping: Iterable[object]) -> str:
    """That a key is missing, and those that are there."""
    return f"found no key '{key}' among {shown(', '.join(map(str, mapping)) or 'none', 100)}"


def brief_words(line: str) -> str:
    """A message whose words of over 300 characters, such as paths, lack their middle."""
    return re.sub(r"\S{301,}", lambda word: f"{word[0][:200]}...{word[0][-80:]}", line)


class Twice(ValueError):
    """A JSON object that holds a key twice."""


def parsed(text: str, mapping: Callable = dict, **options: Any) -> Any:
    """The value of a JSON text, by `json.loads`, its objects as `mapping`; raises `ValueError` also
    where it is nested too deep, or a number too long, for Python, or where a key is there twice."""

    def once(pairs):
        found = mapping(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            again = next(key for key in keys if keys.count(key) > 1)
            raise Twice(f"found the key '{shown(again, 60)}' twice; allowed: once")
        return found

    try:
        value = json.loads(text, object_pairs_hook=once, **{"parse_int": _whole} | options)
    except (json.JSONDecodeError, Twice):
        raise
    except (ValueError, RecursionError) as error:
        deep = isinstance(error, RecursionError)
        found = "too many levels" if deep else f"a whole number of more than {DIGITS} digits"
        raise ValueError(f"found {found}; allowed: {DEPTH} levels, 64-bit numbers") from None
    if nested(value) > DEPTH:
        raise ValueError(f"found {nested(value)} levels; allowed: at most {DEPTH}")
    return value


def _whole(text):
    """A whole number of JSON; raises `ValueError` for one that is beyond all floats."""
    if len(text) > DIGITS:
        raise ValueError("too long")
    return int(text)


def nested(value: Any) -> int:
    """How many lists and mappings of a JSON value are inside one another."""
    level, depth = [value], 0
    while level := [part for part in level if isinstance(part, (list, dict))]:
        depth += 1
        level = [
            p for outer in level for p in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return depth
