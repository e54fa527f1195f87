"""An error in a config as one line that a person can act on."""

from typing import get_args

from pydantic import BaseModel

from ect.config.base import names


def line_of(root, error):
    """One of pydantic's errors about the model `root`: key, what was found, what is allowed."""
    key = ".".join(str(part) for part in error["loc"]) or "config"
    kind, found, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "value_error":
        message = str(context["error"])
        return message if key == "config" else f"{key}: {message}"  # which names its key
    if kind == "extra_forbidden":
        return f"{key}: unknown key; allowed: {names(_keys_at(root, error['loc'][:-1]))}"
    if kind == "missing":
        return f"{key}: missing; this key is needed"
    if kind == "literal_error":
        return f"{key}: found {found!r}; allowed: {context['expected']}"
    if kind in ("model_type", "dict_type"):
        return f"{key}: found {found!r}; allowed: a mapping, `key: value` on each line"
    hint = ""
    if kind == "float_type" and _is_number(found):
        hint = f" (YAML reads {found} as text: write 1.0e-4, not 1e-4)"
    return f"{key}: found {found!r}; {error['msg'][0].lower()}{error['msg'][1:]}{hint}"


def _keys_at(root, path):
    """The keys that the block at `path`, a list of keys, may have."""
    kind = root
    for part in path:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            kind = kind.model_fields[part].annotation
        else:  # dict[Name, Block], list[Block] or Block | None: the block is the last Block inside
            kind = get_args(kind)[-1]
        blocks = [k for k in get_args(kind) if isinstance(k, type) and issubclass(k, BaseModel)]
        if type(None) in get_args(kind) and blocks:
            kind = blocks[0]
    return list(kind.model_fields)


def _is_number(text):
    try:
        float(text)
    except (TypeError, ValueError):
        return False
    return isinstance(text, str)
