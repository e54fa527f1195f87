"""The reference of a config's keys, docs/reference.md, and its JSON Schema, for editors: both are
written from the typed blocks. Loads no torch.

`python -m ect.config.reference` writes them.
"""

import inspect
import json
from pathlib import Path

from pydantic.json_schema import GenerateJsonSchema

from ect import registry, schedule
from ect.config import load
from ect.config.config import Config

HOME = Path(__file__).parents[2]
PAGE = HOME / "docs" / "reference.md"
SCHEMA = HOME / "workflow" / "schemas" / "config.schema.json"
HEAD = """# Every key of the config

Written from the blocks in `ect/`, as is [a JSON Schema](../workflow/schemas/config.schema.json),
with which an editor completes and checks a file that begins with `# yaml-language-server: $schema=`
and the schema's path. What the choices mean is in [the guide](config.md).

A key without a default is needed; one whose default is *none* may be left out. Names are small
letters, digits and `_`, at most 100. A block under one of these keys may be `like` another of its
kind, or null, which leaves it out: `{named}`.
"""
MAPS = """
## Options of the maps

| map | options | meaning |
| --- | --- | --- |
"""
COMPARISONS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
KINDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true, false"}


class Untitled(GenerateJsonSchema):
    """JSON Schema without a title for each key, which would say the key again."""

    def field_title_should_be_set(self, schema):
        return False


def whole():
    """The JSON Schema of a whole config."""
    return Config.model_json_schema(schema_generator=Untitled)


def schema():
    """The JSON Schema of a study's file, which is laid over another: no key is needed, and a named
    block may be null or like another."""
    result = whole()
    for block in (result, *result["$defs"].values()):
        block.pop("required", None)
    for name in load.NAMED:
        [(pattern, kind)] = result["properties"][name]["patternProperties"].items()
        result["$defs"][_title(kind)]["properties"]["like"] = {
            "description": "A block of its kind, whose keys it takes but for those given here.",
            "type": "string",
        }
        either = {"anyOf": [kind, {"type": "null"}]}
        result["properties"][name] |= {
            "patternProperties": {pattern: either},
            "additionalProperties": False,
        }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **result}


def page():
    """docs/reference.md: a table for each block, in the order of a config."""
    config = whole()
    places = _places(config, config["$defs"])
    named = "`, `".join(load.NAMED)
    parts = [HEAD.replace("{named}", named), _table("The whole", config, [])]
    parts += [_table(title, config["$defs"][title], where) for title, where in places.items()]
    return "".join(parts) + MAPS + "".join(map(_map_row, schedule.SCHEDULES.items()))


def _places(block, blocks, above=""):
    """{title: [where it stands]} of the blocks in a block, each before the blocks inside it."""
    found = {}
    for key, value in block["properties"].items():
        for title, path in _within(value, above + key):
            found.setdefault(title, []).append(path)
            for inner, paths in _places(blocks[title], blocks, f"{path}.").items():
                found.setdefault(inner, []).extend(paths)
    return found


def _within(value, path):
    """(title, path) of the blocks that a key holds: itself, by name, or in a list."""
    if "$ref" in value:
        yield _title(value), path
    for option in value.get("anyOf", ()):
        yield from _within(option, path)
    named, listed = value.get("patternProperties", {}), value.get("items")
    for inner in (*named.values(), *([listed] if listed else [])):
        yield from _within(inner, f"{path}.*")


def _title(value):
    return value["$ref"].rsplit("/", 1)[1]


def _table(title, block, places):
    """A heading, what the block is, and a row for each key."""
    where = "".join(f"`{place}`: " for place in [", ".join(places)] if place)
    needed = block.get("required", ())
    rows = [
        f"| `{key}` | {_allowed(value)} | {'' if key in needed else _default(value)}"
        f" | {_cell(value['description'])} |\n"
        for key, value in block["properties"].items()
    ]
    words = " ".join(block["description"].split()) if places else "The keys of a study."
    head = f"\n## {title}\n\n{where}{words}\n\n| key | allowed | default | meaning |\n"
    return head + "| --- | --- | --- | --- |\n" + "".join(rows)


def _allowed(value):
    """What a key may be, in words."""
    if "$ref" in value:
        return f"[{_title(value)}](#{_title(value).lower()})"
    if "anyOf" in value:
        return " or ".join(_allowed(v) for v in value["anyOf"] if v != {"type": "null"})
    if "enum" in value or "const" in value:
        return ", ".join(f"`{v}`" for v in value.get("enum", [value.get("const")]))
    if "examples" in value:
        return ", ".join(f"`{v}`" for v in value["examples"]) + ", or a plugin's"
    if value["type"] == "array":
        return f"list: {_allowed(value['items'])}"
    if value["type"] == "object":
        return f"by name: {_allowed(*value['patternProperties'].values())}"
    if "pattern" in value:
        return "name"
    bounds = [(sign, value[key]) for key, sign in COMPARISONS.items() if key in value]
    limits = [f"{sign} {at:,}" if type(at) is int else f"{sign} {at:g}" for sign, at in bounds]
    limits += [f"a multiple of {value['multipleOf']}"] if "multipleOf" in value else []
    return " ".join([KINDS[value["type"]], ", ".join(limits)]).strip()


def _default(value):
    """A default as YAML writes it; *none* if it is empty."""
    default = value.get("default")
    return "none" if default in (None, [], {}) else f"`{json.dumps(default)}`".replace('"', "")


def _cell(text):
    return " ".join(text.split()).replace("|", r"\|")


def _map_row(item):
    """A map of ect/schedule.py: its options with their defaults and limits, and what it does."""
    name, function = item
    options = ", ".join(
        f"`{option}: {default:g}`{_limit(option)}"
        for option, (_, default) in registry.schedule_options(name).items()
    )
    return f"| `{name}` | {options} | {_cell(inspect.getdoc(function))} |\n"


def _limit(option):
    return f" ({registry.OPTION_RANGES[option][1]})" if option in registry.OPTION_RANGES else ""


def texts():
    """{file: its text} of the files to write."""
    return {PAGE: page(), SCHEMA: json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"}


if __name__ == "__main__":
    for path, text in texts().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
