"""The blocks of a config that say how a network is trained: what it is, on which noise levels, with
which loss, from which start, along which schedule. Loads no torch.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, PrivateAttr, model_validator

from ect import registry
from ect.config import Block, Count, Name, Positive, Share, brought, chosen, names, part
from ect.schedule import LIMITS


class Network(Block):
    """The U-Net: widths are channels times multipliers, one for each halving of the resolution.
    With `classes` it is told each image's label, with `span` the time t - r (MeanFlow)."""

    channels: Annotated[int, Field(ge=8, multiple_of=4)]
    multipliers: Annotated[list[Count], Field(min_length=1)]
    blocks: Count
    attention: list[int] = []
    architecture: Literal[registry.ARCHITECTURES] = "ddpmpp"
    embedding: Literal[registry.EMBEDDINGS] = "positional"
    classes: Annotated[int, Field(ge=0)] = 0
    span: bool = False

    def resolved(self):
        return self.model_dump(exclude=set() if self.span else {"span"})


class Prior(Block):
    """The noise level s of a training image: `lognormal`, ln s ~ N(mean, std^2), or `karras`, every
    point of a Karras grid as likely."""

    kind: Literal[registry.PRIORS] = "lognormal"
    mean: float | None = None
    std: Positive | None = None

    @model_validator(mode="after")
    def _options_fit(self):
        given = [value is not None for value in (self.mean, self.std)]
        if given != [self.kind == "lognormal"] * 2:
            raise ValueError("allowed: {mean: ..., std: ...}, or {kind: karras} with neither")
        return self

    def resolved(self):
        options = {"mean": self.mean, "std": self.std} if self.kind == "lognormal" else {}
        return {"kind": self.kind, "options": options}


class Distance(Block):
    """`squared` is the mean squared error, `huber` is sqrt(|a - b|^2 + c^2) - c."""

    kind: Literal[registry.DISTANCES]
    c: Annotated[float, Field(ge=0)] = 0.0

    @model_validator(mode="after")
    def _c_is_used(self):
        if self.kind != "huber" and self.c:
            raise ValueError(f"c is {self.c} with kind '{self.kind}'; allowed: kind 'huber' only")
        return self


class Optimizer(Block):
    """Adam or RAdam. The rate rises over `warmup_kimg`, stays, and falls linearly to
    `lr_final` times its value from the share `decay_from` of the run on (1.0: it never falls)."""

    name: Literal[registry.OPTIMIZERS]
    lr: Positive
    betas: Annotated[list[Share], Field(min_length=2, max_length=2)] = [0.9, 0.999]
    warmup_kimg: Annotated[float, Field(ge=0)] = 0.0
    decay_from: Annotated[float, Field(ge=0, le=1)] = 1.0
    lr_final: Share = 0.0


class Recipe(Block):
    """How a network is trained, whatever the schedule."""

    batch: Count
    prior: Prior
    distance: Distance
    weight: part("weight")
    optimizer: Optimizer
    ema_halflife_kimg: Positive
    ema_ramp: Annotated[float, Field(gt=0)] | None = None
    dropout: Share = 0.0


class Pretrain(Recipe):
    """A chain of milestones `every` thousand images, up to `kimg`, that starts from `seed`."""

    network: Name
    process: part("process")
    parameterization: Literal[registry.PARAMETERIZATIONS]
    c_noise: Literal[registry.C_NOISE] = "log_s"
    kimg: Count
    every: Count
    seed: int = 0

    @model_validator(mode="after")
    def _chain(self):
        if self.kimg % self.every:
            raise ValueError(f"kimg is {self.kimg}; allowed: multiples of every = {self.every}")
        ends = "ends" if self.process in registry.PROCESSES else "may end"
        if registry.undefined(self.process, self.parameterization):
            raise ValueError(
                f"parameterization is '{self.parameterization}' with process '{self.process}',"
                f" whose alpha {ends} at 0; allowed: edm, velocity"
            )
        if self.optimizer.decay_from < 1:
            raise ValueError(
                f"optimizer.decay_from is {self.optimizer.decay_from}; allowed: 1.0 only, since"
                " milestones of one chain may not depend on where the chain ends"
            )
        return self


class Init(Block):
    """A pretrained model from elsewhere: `file` in a `format` that ect/importers.py reads."""

    format: Literal[registry.FORMATS]
    file: str

    @model_validator(mode="after")
    def _there(self):
        if not Path(self.file).is_file():
            raise ValueError(f"file is '{self.file}', which is not there; allowed: a file")
        return self


class Tune(Recipe):
    """Consistency tuning. The target is f at x_r: the network's `own` x_r (ECT), or the one that a
    step of the frozen start leads to, `euler` or `heun` (ECD). `snapshots` weights along the run
    are kept for the loss page. Without `shared_dropout` the target draws masks of its own."""

    target: Literal[registry.TARGETS] = "own"
    shared_dropout: bool = True
    snapshots: Annotated[int, Field(ge=0)] = 0


class Schedule(Block):
    """A map t -> r and its options: the keyword arguments of its function in ect/schedule.py, or in
    a plugin. It maps noise levels s, or with `clock: time` the process's own t."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)
    map: str
    clock: Literal[registry.CLOCKS] = "noise"
    _chosen: dict = PrivateAttr({})

    @model_validator(mode="after")
    def _options(self, info):
        own = brought("schedule", info)
        if self.map not in registry.SCHEDULES and self.map not in own:
            raise ValueError(f"map is '{self.map}'; allowed: {names((*registry.SCHEDULES, *own))}")
        if self.map in own:
            self._chosen = chosen(own[self.map].options, self.model_extra or {}, self.map)
            return self
        known = registry.schedule_options(self.map)
        options = self._chosen = chosen(known, self.model_extra or {}, self.map)
        for key, value in (self.model_extra or {}).items():
            fits, words = registry.LIMITS.get(key, (lambda _: True, ""))
            if not fits(value):
                raise ValueError(f"{key} is {value!r}; allowed: {words}")
        if self.map in LIMITS and self.clock != "noise":
            raise ValueError(f"clock is '{self.clock}' with {self.map}; allowed: noise")
        for low, high in (("low", "high"), ("s0", "s1")):
            if low in options and options[low] >= options[high]:
                raise ValueError(f"{low} is {options[low]}; allowed: < {high} = {options[high]}")
        return self

    def resolved(self):
        return {"map": self.map, "options": self.options(), "clock": self.clock}

    def options(self):
        """Every option, with its default where the config is silent."""
        return dict(self._chosen)
