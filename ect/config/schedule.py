"""The block of a config that names a map t -> r. Loads no torch."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, PrivateAttr, model_validator

from ect import registry, schedule
from ect.config.base import Block, names, nearest, plugin_parts, resolve_options, short
from ect.schedule import CONTINUOUS_TIME


class Schedule(Block):
    """A map t -> r, with its options as further keys."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)
    map: Annotated[str, Field(examples=list(schedule.SCHEDULES))]
    """A function of ect/schedule.py, or a schedule or an objective of a plugin."""
    clock: Literal[registry.CLOCKS] = "noise"
    """`noise`: it maps noise levels s; `time`: the process's own t."""
    _chosen: dict = PrivateAttr({})

    @model_validator(mode="after")
    def _options(self, info):
        losses = plugin_parts("objective", info)
        added = plugin_parts("schedule", info) | losses
        if self.map not in schedule.SCHEDULES and self.map not in added:
            allowed = (*schedule.SCHEDULES, *added)
            near = f"or one of a file in `plugins`{nearest(self.map, allowed)}"
            raise ValueError(f"map is {short(self.map)}; allowed: {names(allowed)} {near}")
        if self.map in added:
            options = added[self.map].options
            self._chosen = resolve_options(options, self.model_extra or {}, self.map)
            self._require_noise_clock(self.map in losses)
            return self
        known = registry.schedule_options(self.map)
        options = self._chosen = resolve_options(known, self.model_extra or {}, self.map)
        for key, value in (self.model_extra or {}).items():
            fits, words = registry.OPTION_RANGES.get(key, (lambda _: True, ""))
            if not fits(value):
                raise ValueError(f"{key} is {short(value)}; allowed: {words}")
        self._require_noise_clock(self.map in CONTINUOUS_TIME)
        for low, high in (("low", "high"), ("s0", "s1"), ("last", "first"), ("start", "end")):
            if low in options and high in options and options[low] >= options[high]:
                raise ValueError(f"{low} is {options[low]}; allowed: < {high} = {options[high]}")
        return self

    def _require_noise_clock(self, has_no_map):
        if has_no_map and self.clock != "noise":
            raise ValueError(f"clock is '{self.clock}' with {self.map}; allowed: noise")

    def resolved(self):
        return {"map": self.map, "options": self.options(), "clock": self.clock}

    def options(self):
        """Every option, as in the config or by default."""
        return dict(self._chosen)
