"""Text of a user's files: as it may be printed, and what it holds as JSON."""

import json
from typing import Any

DEPTH = 100  # of JSON's lists and objects inside one another; settings need 10


def shown(text: object, limit: int = 200) -> str:
    """A name or message on one line, of at most `limit` characters.

    Control characters (newline, ESC, direction marks, ...) are written as escapes, so that no file
    name can move the cursor or fake a line of its own; what is cut is marked with '...'.
    """
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
    return safe if len(safe) <= limit else safe[: limit - 3] + "..."


def parsed(text: str, **options: Any) -> Any:
    """The value of a JSON text, by `json.loads`; raises `ValueError` also where it is nested too
    deep, or a number too long, for Python."""
    try:
        value = json.loads(text, **options)
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError) as error:
        deep = isinstance(error, RecursionError)
        found = "too many levels" if deep else "a number of thousands of digits"
        raise ValueError(f"found {found}; allowed: {DEPTH} levels, 64-bit numbers") from None
    if nested(value) > DEPTH:
        raise ValueError(f"found {nested(value)} levels; allowed: at most {DEPTH}")
    return value


def nested(value: Any) -> int:
    """How many lists and mappings of a JSON value are inside one another."""
    level, depth = [value], 0
    while level := [part for part in level if isinstance(part, (list, dict))]:
        depth += 1
        level = [
            p for outer in level for p in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return depth
