"""The blocks of a config that say how a network is trained: what it is, on which noise levels, with
which loss, from which start, along which schedule. Loads no torch.
"""

import re
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
    """How a network is trained, whatever the schedule. With `microbatch` the gradient of a batch is
    summed over parts of so many images: less memory, the same step, other masks of dropout.
    `precision` is that of the network's products."""

    batch: Count
    microbatch: Count | None = None
    prior: Prior
    distance: Distance
    weight: part("weight")
    optimizer: Optimizer
    ema_halflife_kimg: Positive
    ema_ramp: Annotated[float, Field(gt=0)] | None = None
    dropout: Share = 0.0
    precision: Literal[registry.PRECISIONS] = "fp32"

    @model_validator(mode="after")
    def _parts_fit(self):
        if self.microbatch is not None and self.microbatch > self.batch:
            found = f"microbatch is {self.microbatch}"
            raise ValueError(f"{found}; allowed: at most batch = {self.batch}")
        return self


def _require_defined(process, parameterization):
    if registry.undefined(process, parameterization):
        ends = "ends" if process in registry.PROCESSES else "may end"
        raise ValueError(
            f"parameterization is '{parameterization}' with process '{process}', whose alpha {ends}"
            " at 0; allowed: edm, velocity"
        )


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
        _require_defined(self.process, self.parameterization)
        if self.optimizer.decay_from < 1:
            raise ValueError(
                f"optimizer.decay_from is {self.optimizer.decay_from}; allowed: 1.0 only, since"
                " milestones of one chain may not depend on where the chain ends"
            )
        return self


class Init(Block):
    """A pretrained model from elsewhere: `file` in a `format` that ect/importers reads; for
    diffusers a folder, or a repository of the hub by its name. A `state_dict` says nothing of
    itself, so its meaning stands here; `c_in` and `sd` are `scaled` and the dataset's if absent.
    `pretrain_mimg` million images of training lie behind it; without it they are unknown."""

    format: Literal[registry.FORMATS]
    file: str
    pretrain_mimg: Positive | None = None
    network: Name | None = None
    process: Literal[registry.PROCESSES] | None = None
    parameterization: Literal[registry.PARAMETERIZATIONS] | None = None
    c_noise: Literal[registry.C_NOISE] | None = None
    c_in: Literal["scaled", "one"] | None = None
    sd: Positive | None = None

    @model_validator(mode="after")
    def _there(self):
        if self.format == "diffusers":
            if not Path(self.file).is_dir() and not self.from_hub:
                raise ValueError(
                    f"file is '{self.file}', which is not there; allowed: a folder, or a"
                    " repository of the hub (owner/name)"
                )
        elif not Path(self.file).is_file():
            raise ValueError(f"file is '{self.file}', which is not there; allowed: a file")
        return self

    @model_validator(mode="after")
    def _meaning_is_told(self):
        needed, given = ("network", "process", "parameterization", "c_noise"), self.meaning()
        if self.format != "state_dict" and given:
            raise ValueError(
                f"{names(given)}: of a state_dict only; a file of '{self.format}' tells"
            )
        if self.format == "state_dict" and (absent := [key for key in needed if key not in given]):
            raise ValueError(f"found no {names(absent)}; a state_dict needs {names(needed)}")
        _require_defined(self.process, self.parameterization)
        return self

    @property
    def from_hub(self):
        """Whether `file` names a repository of the hub rather than something on this disk."""
        named = re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", self.file)
        return self.format == "diffusers" and bool(named) and not Path(self.file).exists()

    def meaning(self):
        """What the config says of the weights."""
        return self.model_dump(exclude={"format", "file", "pretrain_mimg"}, exclude_none=True)

    def files(self):
        """The files that are read: of a folder its configs and weights, of the hub none."""
        if self.format != "diffusers":
            return [self.file]
        found = sorted(Path(self.file).rglob("*"))
        return [str(path) for path in found if path.suffix in (".json", ".safetensors")]


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
