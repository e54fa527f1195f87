"""What the blocks of a config have in common. Loads no torch.

Unknown keys and wrong types are errors; `ect/config/config.py` puts all blocks together.
"""

import errno
import os
import re
import unicodedata
from difflib import get_close_matches
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticKnownError

from ect import plugins, registry
from ect.runtime.text import shown, waits

Positive = Annotated[float, Field(gt=0)]
Level = Annotated[float, Field(ge=1e-6, le=80)]  # a noise level, where samplers can be
LEAST_RATE = 1e-9  # of learning; a lower one moves no weight of fp32
Share = Annotated[float, Field(ge=0, lt=1)]
LAST_SEED = 10**18  # later seeds of a run still have 64 bits
Seed = Annotated[int, Field(ge=0, le=LAST_SEED)]
Deviation = Annotated[float, Field(ge=1e-3, le=1e3)]  # of images; its square is far from 0 in fp32
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]{0,99}$")]  # it is part of a file's name
ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)  # a path of nothing: each block says what is
# Keys of blocks by name, which may be `like` another or null.
NAMED = (
    "networks", "pretrain", "init", "averages", "tuned", "trajectories", "schedules", "tune",
    "samplers", "experiments",
)  # fmt: skip
FOUND = 100  # characters of a found value in a message
LINE = 2000  # characters of a message


def whole(most, least=1):
    """The type of a whole number from `least` to `most`, beyond which no job could end well."""
    return Annotated[int, Field(ge=least, le=most)]


Count = whole(10**9)


def names(values):
    """Names, joined for a message."""
    return ", ".join(values)


def short(value):
    """A value that was found, for a message: on one line, its middle left out where it is long."""
    try:
        text = shown(repr(value), 10 * LINE)
    except ValueError:  # Python prints no whole number of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= FOUND else f"{text[: FOUND - 20]}...{text[-10:]}"


def nearest(found, allowed):
    """The end of a message: the allowed word that `found` may have been meant to be, if any."""
    near = get_close_matches(str(found)[:FOUND], [str(word) for word in allowed], 1)
    return f"; did you mean '{near[0]}'?" if near else ""


def distinct(values):
    """The values of a list; raises `ValueError` where one is there twice."""
    seen = set()
    for value in values:
        if value in seen:
            raise ValueError(f"found {short(value)} more than once; allowed: once")
        seen.add(value)
    return values


def distinct_list(kind, *more):
    """The type of a list in which nothing is there twice."""
    return Annotated[list[kind], AfterValidator(distinct), *more]


def path(text):
    """The path of a file or folder; raises `ValueError`."""
    if not text.strip() or re.search(r"[\x00-\x1f\x7f]", text):
        raise ValueError(f"found {short(text)}; allowed: a path, without control characters")
    if re.match(r"~|\$\w|\$\{", text) and not os.path.lexists(text):
        found = f"found {short(text)}, whose {text[0]} is for a shell to fill in"
        raise ValueError(f"{found}; allowed: the path written out")
    try:
        os.stat(os.path.join(text, ""))  # in a folder too
    except OSError as error:
        if error.errno not in ABSENT:
            found = f"found {short(text)}: {error.strerror}"
            raise ValueError(f"{found}; allowed: a path that can be looked at") from None
    return text


def study_name(name):
    """A study's name, whose folder in results/ is its own; raises `ValueError`."""
    if name == "published":
        raise ValueError(
            "found 'published', the folder of published results; allowed: another name"
        )
    return name


def input_path(text):
    """The path of a file that is an input of a rule, where Snakemake takes {...} for a wildcard;
    raises `ValueError`."""
    if "{" in text or "}" in text:
        raise ValueError(f"found {short(text)}; allowed: a path without braces")
    if re.match(r"\w+://", text):
        raise ValueError(f"found {short(text)}; allowed: a path on this machine, not an address")
    return path(text)


def file_path(text):
    """The path of a file that is read; raises `ValueError` for a device or pipe, whose bytes may
    never end."""
    if waits(path(text)):
        raise ValueError(f"found {short(text)}, a device, pipe or socket; allowed: a regular file")
    return text


def visible(text):
    """A text that is shown to a reader; raises `ValueError` where there is nothing to see."""
    if not any(unicodedata.category(character)[0] in "LNPS" for character in text):
        raise ValueError(f"found {short(text)}; allowed: a text that can be seen")
    return text


Text = Annotated[str, AfterValidator(visible)]


def learning_rate(rate):
    """A learning rate that moves weights; raises `ValueError`."""
    if rate < LEAST_RATE:
        raise ValueError(f"found {rate:g}, which moves no weight; allowed: at least {LEAST_RATE:g}")
    return rate


Rate = Annotated[float, Field(gt=0, le=10), AfterValidator(learning_rate)]
PathText = Annotated[str, AfterValidator(path)]
FilePath = Annotated[str, AfterValidator(file_path)]
InputPath = Annotated[str, AfterValidator(input_path)]


def part(*kinds):
    """The type of a name that is built in or a plugin's, of one of these kinds. Any other name
    raises the error that pydantic raises for a Literal. The plugins are the context of the
    validation."""
    built_in = list(dict.fromkeys(name for kind in kinds for name in plugins.BUILT_IN[kind]))

    def check(name, info):
        added = [name for kind in kinds for name in plugin_parts(kind, info)]
        allowed = [repr(n) for n in (*built_in, *added)]
        if repr(name) not in allowed:
            expected = f"{', '.join(allowed)} or one of a file in `plugins`"
            raise PydanticKnownError("literal_error", {"expected": expected})
        return name

    return Annotated[str, BeforeValidator(check), Field(examples=built_in)]


def plugin_parts(kind, info):
    """{name: Part} of the plugins' parts of one kind."""
    return (info.context or {}).get(kind, {})


def resolve_options(known, given, name):
    """Every option of `name`, as given or by default; raises `ValueError` on an unknown option and
    on a wrong type. `known` is {option: (type, default)}."""
    for key, value in given.items():
        if key not in known:
            allowed = f"{names(known) or 'none'}{nearest(key, known)}"
            raise ValueError(f"unknown option {short(key)} of {name}; allowed: {allowed}")
        kind = known[key][0]
        try:
            plugins.converted(value, kind)
        except ValueError:
            words = "list of float" if kind is list else kind.__name__
            raise ValueError(f"{key} is {short(value)}; allowed: {words}") from None
    return {
        key: plugins.converted(given.get(key, default), kind)
        for key, (kind, default) in known.items()
    }


class Block(BaseModel):
    """A mapping in the config: unknown keys and wrong types are errors. The words under a key are
    its description in docs/reference.md and in the schema."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True
    )


def require_defined(process, parameterization):
    if registry.undefined(process, parameterization):
        ends = "ends" if process in registry.PROCESSES else "may end"
        raise ValueError(
            f"parameterization is '{parameterization}' with process '{process}', whose alpha {ends}"
            " at 0; allowed: edm, velocity"
        )
