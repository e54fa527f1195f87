"""The parts that a job's settings name, with their options apart. Loads no torch."""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from ect import registry
from ect.config import training
from ect.config.base import Block, part
from ect.config.errors import lines_of
from ect.config.schedule import Schedule

Plugins = Annotated[dict[str, str], Field(default={})]


class Whole(Block):
    """Settings that may name plugins by their sha256."""

    plugins: Plugins


def hold(block, whole, options, info):
    """Hold the options of a part to the config's block, where they lie beside its other keys;
    raises `ValueError`."""
    for key, value in options.items():
        if key in (*whole, "labels", "nfe"):
            raise ValueError(f"options: {key}: unknown key; allowed: beside options only")
        if value is None:
            raise ValueError(f"options: {key}: found None; allowed: a value, or no such key")
    try:
        block.model_validate(whole | options, context=info.context)
    except ValidationError as error:
        raise ValueError(f"options: {lines(block, error)[0]}") from None


def lines(block, error):
    """The errors that pydantic found in a block, a line each."""
    found = lines_of(block, error.errors(), lambda path: None, together=False)
    if all(one["loc"] for one in error.errors()):
        return found
    return [line.removeprefix("config: ") for line in found]  # of an error of the whole block


class Prior(Block):
    """A prior, as a config's, with its options apart."""

    kind: Literal[registry.PRIORS]
    options: dict[str, Any]

    @model_validator(mode="after")
    def _options_fit(self, info):
        hold(training.Prior, {"kind": self.kind}, self.options, info)
        return self


class Joint(Block):
    """A joint prior of two times, as a config's, with its options apart."""

    kind: Literal[registry.JOINTS]
    options: dict[str, Any]

    @model_validator(mode="after")
    def _options_fit(self, info):
        hold(training.Joint, {"kind": self.kind}, self.options, info)
        return self


class Map(Block):
    """A map t -> r, as a config's, with its options apart."""

    map: part("schedule", "objective")
    options: dict[str, Any]
    clock: Literal[registry.CLOCKS]

    @model_validator(mode="after")
    def _options_fit(self, info):
        hold(Schedule, {"map": self.map, "clock": self.clock}, self.options, info)
        return self
