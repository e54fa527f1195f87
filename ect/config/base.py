"""What the blocks of a config have in common. Loads no torch.

Unknown keys and wrong types are errors; `ect/config/config.py` puts all blocks together.
"""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticKnownError

from ect import plugins, registry

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$")]


def names(values):
    """Names, joined for a message."""
    return ", ".join(values)


def part(kind):
    """The type of a name that is built in or a plugin's. Any other name raises the error that
    pydantic raises for a Literal. The plugins are the context of the validation."""

    def check(name, info):
        allowed = [repr(n) for n in (*plugins.BUILT_IN[kind], *plugin_parts(kind, info))]
        if repr(name) not in allowed:
            expected = " or ".join([", ".join(allowed[:-1]), allowed[-1]])
            raise PydanticKnownError("literal_error", {"expected": expected})
        return name

    return Annotated[str, BeforeValidator(check), Field(examples=list(plugins.BUILT_IN[kind]))]


def plugin_parts(kind, info):
    """{name: Part} of the plugins' parts of one kind."""
    return (info.context or {}).get(kind, {})


def resolve_options(known, given, name):
    """Every option of `name`, as given or by default; raises `ValueError` on an unknown option and
    on a wrong type. `known` is {option: (type, default)}."""
    for key, value in given.items():
        if key not in known:
            raise ValueError(f"unknown option '{key}' of {name}; allowed: {names(known)}")
        kind = known[key][0]
        try:
            plugins.converted(value, kind)
        except ValueError:
            words = "list of float" if kind is list else kind.__name__
            raise ValueError(f"{key} is {value!r}; allowed: {words}") from None
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
