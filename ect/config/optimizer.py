"""The block of a config that names an optimizer and its learning rate. Loads no torch."""

from typing import Annotated, Literal

from pydantic import Field, model_serializer, model_validator

from ect import registry
from ect.config.base import Block, Rate, Share


class Optimizer(Block):
    """The optimizer. Its learning rate rises, stays, and may fall: linearly to the run's end, or as
    `decay` says."""

    name: Literal[registry.OPTIMIZERS]
    """Adam or RAdam."""
    lr: Rate
    """The learning rate."""
    betas: Annotated[list[Share], Field(min_length=2, max_length=2)] = [0.9, 0.999]
    """Of the running means of the gradient and its square."""
    warmup_kimg: Annotated[float, Field(ge=0, le=1e9)] = 0.0
    """Thousand images over which the learning rate rises."""
    decay_from: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of the run after which the learning rate falls linearly; 1.0: it never falls."""
    lr_final: Share = 0.0
    """The final learning rate, as a share of `lr`."""
    decay: Literal[registry.DECAYS] | None = None
    """`inverse_sqrt`: after n > `decay_kimg` thousand images the rate is that before, divided by
    sqrt(n / decay_kimg), wherever the run ends (EDM2)."""
    decay_kimg: Annotated[float, Field(gt=0, le=1e9)] | None = None
    """Thousand images after which `decay` begins."""

    @model_validator(mode="after")
    def _one_decay(self):
        if (self.decay is None) != (self.decay_kimg is None):
            found = f"decay is {self.decay}, decay_kimg {self.decay_kimg}"
            raise ValueError(f"{found}; allowed: both or neither")
        if self.decay is not None and self.decay_from < 1:
            found = f"decay is {self.decay} with decay_from {self.decay_from}"
            raise ValueError(f"{found}; allowed: one of them")
        if self.lr_final and self.decay_from == 1:
            found = (
                f"lr_final is {self.lr_final:g} with decay_from 1.0, by which the rate never falls"
            )
            raise ValueError(f"{found}; allowed: with decay_from < 1")
        return self

    @model_serializer(mode="wrap")
    def _without_unset(self, handler):
        """Without `decay` where it is not set: as before there was such a key."""
        unset = {("decay", None), ("decay_kimg", None)}
        return {
            k: v for k, v in handler(self).items() if isinstance(v, list) or (k, v) not in unset
        }
