"""The blocks of a config that say how a network is trained: what it is, on which noise levels, with
which loss, from which start, along which schedule. Loads no torch.
"""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, PrivateAttr, model_validator

from ect import registry
from ect.config import Block, Count, Name, Positive, Share, brought, chosen, names, part
from ect.schedule import HIGH, LIMITS, LOW


class Network(Block):
    """A U-Net."""

    channels: Annotated[int, Field(ge=8, multiple_of=4)]
    """The width that the multipliers multiply; multiples of 32 always fit the norms."""
    multipliers: Annotated[list[Count], Field(min_length=1)]
    """Of the width, one for each resolution; each halves the one before."""
    blocks: Count
    """Residual blocks at each resolution."""
    attention: list[int] = []
    """Resolutions (pixels of a side) with self-attention."""
    architecture: Literal[registry.ARCHITECTURES] = "ddpmpp"
    """DDPM++, NCSN++ or ADM."""
    embedding: Literal[registry.EMBEDDINGS] = "positional"
    """How the noise level comes in: sinusoids, or random Fourier features."""
    classes: Annotated[int, Field(ge=0)] = 0
    """Number of classes whose labels it is told; 0: none."""
    span: bool = False
    """It is told t - r too (MeanFlow)."""

    def resolved(self):
        return self.model_dump(exclude=set() if self.span else {"span"})


class Prior(Block):
    """The distribution of the noise level s of a training image."""

    kind: Literal[registry.PRIORS] = "lognormal"
    """`lognormal`: ln s ~ N(mean, std^2); `karras`: each point of the grid of `ct` as likely."""
    mean: float | None = None
    """Of ln s."""
    std: Positive | None = None
    """Of ln s."""
    low: Positive | None = None
    """The lowest level of `karras`; 0.002 where there is none, as of the schedule `ct`."""
    high: Positive | None = None
    """The highest level of `karras`; 80 where there is none."""

    @model_validator(mode="after")
    def _options_fit(self):
        options = self.resolved()["options"]
        log, grid = {"mean", "std"}, {"low", "high"}
        if log != set(options) if self.kind == "lognormal" else not grid >= set(options):
            raise ValueError(
                f"kind is '{self.kind}' with {', '.join(options) or 'nothing'}; allowed:"
                " {mean: ..., std: ...}, or {kind: karras}, with low, high, both or neither"
            )
        low, high = options.get("low", LOW), options.get("high", HIGH)
        if low >= high:
            raise ValueError(f"low is {low}; allowed: < high = {high}")
        return self

    def resolved(self):
        options = self.model_dump(exclude={"kind"}, exclude_none=True)
        return {"kind": self.kind, "options": options}


class Distance(Block):
    """The distance of f(x_t) to its target."""

    kind: Literal[registry.DISTANCES]
    """`squared`: mean squared error; `huber`: sqrt(|a - b|^2 + c^2) - c."""
    c: Annotated[float, Field(ge=0)] = 0.0
    """Of `huber`; 0 is the L2 norm."""

    @model_validator(mode="after")
    def _c_is_used(self):
        if self.kind != "huber" and self.c:
            raise ValueError(f"c is {self.c} with kind '{self.kind}'; allowed: kind 'huber' only")
        return self


class Optimizer(Block):
    """The optimizer. Its rate rises, stays, and may fall."""

    name: Literal[registry.OPTIMIZERS]
    """Adam or RAdam."""
    lr: Positive
    """The rate."""
    betas: Annotated[list[Share], Field(min_length=2, max_length=2)] = [0.9, 0.999]
    """Of the running means of the gradient and its square."""
    warmup_kimg: Annotated[float, Field(ge=0)] = 0.0
    """Thousand images over which the rate rises."""
    decay_from: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of the run after which the rate falls linearly; 1.0: it never falls."""
    lr_final: Share = 0.0
    """What it falls to, as a share of `lr`."""


class Recipe(Block):
    """How a network is trained, whatever the schedule."""

    batch: Count
    """Images of a step."""
    microbatch: Count | None = None
    """Images of a part of it: less memory, the same step, other masks of dropout."""
    prior: Prior
    """The noise level of a training image."""
    distance: Distance
    """Between f(x_t) and its target."""
    weight: part("weight")
    """Of the loss, as a function of s and r."""
    optimizer: Optimizer
    """Its rate and how it moves."""
    ema_halflife_kimg: Positive
    """Half-life of the averaged weights, in thousand images."""
    ema_ramp: Annotated[float, Field(gt=0)] | None = None
    """The half-life is at most this share of the images seen."""
    dropout: Share = 0.0
    """Share of features that are dropped."""
    precision: Literal[registry.PRECISIONS] = "fp32"
    """Of the network's products. In `fp16` the loss is scaled, and a step whose gradient overflows
    is skipped and counted. What each costs: docs/speed.md."""
    kernels: Literal[registry.KERNELS] = "torch"
    """Who computes on a CPU: torch, or the project's own kernels, not in `fp16` (docs/speed.md)."""

    @model_validator(mode="after")
    def _parts_fit(self):
        if self.microbatch is not None and self.microbatch > self.batch:
            found = f"microbatch is {self.microbatch}"
            raise ValueError(f"{found}; allowed: at most batch = {self.batch}")
        if self.kernels == "native" and self.precision == "fp16":
            raise ValueError("precision is fp16 with kernels 'native'; allowed: fp32, tf32, bf16")
        return self


def _require_defined(process, parameterization):
    if registry.undefined(process, parameterization):
        ends = "ends" if process in registry.PROCESSES else "may end"
        raise ValueError(
            f"parameterization is '{parameterization}' with process '{process}', whose alpha {ends}"
            " at 0; allowed: edm, velocity"
        )


class Pretrain(Recipe):
    """A pretraining: a chain of milestones. `optimizer.decay_from` is 1.0."""

    network: Name
    """A name in `networks`."""
    process: part("process")
    """x_t = alpha(t) x_0 + sigma(t) eps."""
    parameterization: Literal[registry.PARAMETERIZATIONS]
    """What the network's output means."""
    c_noise: Literal[registry.C_NOISE] = "log_s"
    """What the network is told of t: `log_s` (EDM), `log_half_s` (NCSN++), `time` (1000 t), `vp`
    (999 t), `ddpm` (steps 0 to 999)."""
    kimg: Count
    """Thousand images to the end of the chain."""
    every: Count
    """Thousand images from one milestone to the next."""
    seed: int = 0
    """Of weights, batches and noise."""

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
    """A pretrained model from elsewhere. A `state_dict` says nothing of itself, so its meaning
    stands here."""

    format: Literal[registry.FORMATS]
    """Which of the readers in ect/importers."""
    file: str
    """For `diffusers` a folder, or a repository of the hub: owner/name, or at a commit, branch or
    tag owner/name@revision."""
    pretrain_mimg: Positive | None = None
    """Million images of training behind it; without it they are unknown."""
    network: Name | None = None
    """Of a `state_dict`: a name in `networks`."""
    process: Literal[registry.PROCESSES] | None = None
    """Of a `state_dict`."""
    parameterization: Literal[registry.PARAMETERIZATIONS] | None = None
    """Of a `state_dict`."""
    c_noise: Literal[registry.C_NOISE] | None = None
    """Of a `state_dict`: what its network is told of t."""
    c_in: Literal["scaled", "one"] | None = None
    """Of a `state_dict`: its input, scaled to unit variance (as without the key) or as it is."""
    sd: Positive | None = None
    """Of a `state_dict`: the images' standard deviation; without it the dataset's."""

    @model_validator(mode="after")
    def _there(self):
        if self.format == "diffusers":
            if not Path(self.file).is_dir() and not self.from_hub:
                raise ValueError(
                    f"file is '{self.file}', which is not there; allowed: a folder, or a"
                    " repository of the hub (owner/name, or owner/name@revision)"
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
        named = re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w-][\w./-]*)?", self.file)
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
    """A recipe of consistency tuning."""

    target: Literal[registry.TARGETS] = "own"
    """f at the network's `own` x_r (ECT), or where a step of the frozen start leads (ECD)."""
    shared_dropout: bool = True
    """Both sides of the loss share a mask; without it the target draws its own."""
    snapshots: Annotated[int, Field(ge=0)] = 0
    """Weights kept along the run, for the loss page."""


class Schedule(Block):
    """A map t -> r, with its options as further keys."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)
    map: Annotated[str, Field(examples=list(registry.SCHEDULES))]
    """A function of ect/schedule.py, or of a plugin."""
    clock: Literal[registry.CLOCKS] = "noise"
    """`noise`: it maps noise levels s; `time`: the process's own t."""
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
