"""The blocks of a config that say how a network is trained: on which noise levels, with which loss.
Loads no torch.
"""

import math
from typing import Annotated, Literal

from pydantic import Field, model_serializer, model_validator

from ect import registry
from ect.config import base
from ect.config.augment import Augment
from ect.config.base import (
    Block,
    Count,
    Deviation,
    InputPath,
    Name,
    Seed,
    Share,
    part,
    require_defined,
    whole,
)
from ect.config.lengths import Lengths
from ect.config.optimizer import Optimizer
from ect.schedule import HIGH, LOW

# Bounds of numbers of a recipe: inside them no power of one leaves the range of fp32.
Level = Annotated[float, Field(ge=1e-5, le=1e5)]
MILESTONES = 10_000  # at most on one chain


class Prior(Block):
    """The distribution of the noise level s of a training image."""

    kind: Literal[registry.PRIORS] = "lognormal"
    """`lognormal`: ln s ~ N(mean, std^2); `karras`: uniform over the points of the grid of `ct`;
    `student`: (ln s - mean) / std has Student's t distribution, truncated to low < s < high."""
    df: Annotated[float, Field(ge=1e-3, le=1e3)] | None = None
    """Degrees of freedom of `student`."""
    mean: Annotated[float, Field(ge=-10, le=10)] | None = None
    """Mean of ln s."""
    std: Annotated[float, Field(ge=1e-3, le=5)] | None = None
    """Standard deviation of ln s; of `student` its scale."""
    low: Level | None = None
    """The lowest level of `student`; of `karras`, without the key 0.002, as in the map `ct`."""
    high: Level | None = None
    """The highest level of `karras` and `student`; without the key 80."""

    @model_validator(mode="after")
    def _options_fit(self):
        options = self.resolved()["options"]
        log, grid = {"mean", "std"}, {"low", "high"}
        given, whole = set(options), {"df", "mean", "std", "low"}
        fits = {
            "lognormal": given == log,
            "karras": given <= grid,
            "student": whole <= given <= whole | grid,
        }
        if not fits[self.kind]:
            raise ValueError(
                f"kind is '{self.kind}' with {', '.join(options) or 'nothing'}; allowed:"
                " {mean: ..., std: ...}, or {kind: karras}, with low, high, both or neither, or"
                " {kind: student} with df, mean, std, low"
            )
        if self.kind == "lognormal" and not math.log(LOW) <= self.mean <= math.log(HIGH):
            found = f"mean is {self.mean:g}, so that most levels are"
            beyond = f"above {HIGH:g}" if self.mean > 0 else f"below {LOW:g}"
            allowed = f"from {math.log(LOW):.2f} to {math.log(HIGH):.2f}"
            raise ValueError(f"{found} {beyond}, where no sampler is; allowed: {allowed}")
        low, high = options.get("low", LOW), options.get("high", HIGH)
        if low >= high:
            raise ValueError(f"low is {low}; allowed: < high = {high}")
        if low >= HIGH:
            raise ValueError(f"low is {low}, where no sampler is; allowed: below {HIGH:g}")
        return self

    def resolved(self):
        options = self.model_dump(exclude={"kind"}, exclude_none=True)
        return {"kind": self.kind, "options": options}


class Joint(Block):
    """The distribution of the end r of objectives with two times."""

    kind: Literal[registry.JOINTS]
    """`sorted`: s and r are two draws of the prior, in order (MeanFlow); `lower`: r is a lognormal
    draw of its own, or s where that is less (SoFlow, MeanFlow's later code)."""
    mean: Annotated[float, Field(ge=-10, le=10)] | None = None
    """Mean of ln r of `lower`."""
    std: Annotated[float, Field(ge=1e-3, le=5)] | None = None
    """Standard deviation of ln r of `lower`."""

    @model_validator(mode="after")
    def _options_fit(self):
        options = self.resolved()["options"]
        if set(options) != ({"mean", "std"} if self.kind == "lower" else set()):
            raise ValueError(
                f"kind is '{self.kind}' with {', '.join(options) or 'nothing'}; allowed:"
                " {kind: sorted}, or {kind: lower, mean: ..., std: ...}"
            )
        if self.kind == "lower" and self.mean > math.log(HIGH):
            found = f"mean is {self.mean:g}, so that most r are above {HIGH:g}, and no way is left"
            raise ValueError(f"{found}; allowed: at most {math.log(HIGH):.2f}")
        return self

    def resolved(self):
        options = self.model_dump(exclude={"kind"}, exclude_none=True)
        return {"kind": self.kind, "options": options}


class Distance(Block):
    """The distance of f(x_t) to its target."""

    kind: Literal[registry.DISTANCES]
    """`squared`: |a - b|^2 / D, the mean over the D numbers of an image; `sum_squared`: |a - b|^2,
    their sum, as in EDM's code; `huber`: sqrt(|a - b|^2 + c^2) - c, of the sum too. Which one
    matters for Adam's eps: docs/mathematics.md. `lpips`: of VGG-16's features, resized to 224 x 224
    (CT); in tuning."""
    c: Annotated[float, Field(ge=0, le=100)] = 0.0
    """The constant of `huber`, 0 or at least 1e-8; 0 gives the L2 norm."""
    path: InputPath | None = None
    """The weights of `lpips`, a safetensors file: ect/networks/lpips.py says how to make it."""

    @model_validator(mode="after")
    def _path_is_of_lpips(self):
        if (self.kind == "lpips") != (self.path is not None):
            allowed = "with a path" if self.kind == "lpips" else "kind 'lpips' only"
            raise ValueError(f"path is {self.path} with kind '{self.kind}'; allowed: {allowed}")
        if self.path is not None and not self.path.endswith(".safetensors"):
            raise ValueError(f"path is '{self.path}'; allowed: a .safetensors file")
        return self

    @model_serializer(mode="wrap")
    def _without_unset(self, handler):
        """Without `path` where it is not set: as before there was such a key."""
        return {k: v for k, v in handler(self).items() if (k, v) != ("path", None)}

    @property
    def files(self):
        """[The file that it reads], or []."""
        return [] if self.path is None else [self.path]

    @model_validator(mode="after")
    def _c_is_used(self):
        if self.kind != "huber" and self.c:
            raise ValueError(f"c is {self.c} with kind '{self.kind}'; allowed: kind 'huber' only")
        if 0 < self.c < 1e-8:  # its square would be 0 in fp32, and the gradient NaN
            raise ValueError(f"c is {self.c}; allowed: 0, the L2 norm, or 1e-8 to 100")
        return self


class Recipe(Block):
    """How a network is trained, whatever the schedule."""

    batch: whole(10**6)
    """Images in one step."""
    microbatch: Count | None = None
    """Images computed at a time: less memory, the same step up to rounding."""
    prior: Prior
    """The noise level of a training image."""
    distance: Distance
    """Between f(x_t) and its target."""
    weight: part("weight")
    """Weight of the loss, as a function of s and r."""
    optimizer: Optimizer
    """The optimizer and its learning rate."""
    ema_std: Lengths | None = None
    """Length of the averaged weights as a share of the images seen: the standard deviation of the
    power profile of EDM2. Of several lengths, as [0.05, 0.1], the first is published, and the
    training state keeps all, for `averages`. Either this or `ema_halflife_kimg`; null takes one
    back."""
    ema_halflife_kimg: Annotated[float, Field(gt=0, le=1e9)] | None = None
    """Half-life of the averaged weights in thousand images, whatever the length of the run."""
    ema_ramp: Annotated[float, Field(gt=0)] | None = None
    """The half-life is at most this share of the images seen."""
    ema_ramp_before: bool = False
    """`ema_ramp` counts the images before the step, as EDM's code does, not those after it."""
    augment: Augment | None = None
    """Change images at random and tell the network how; tuning needs a start that was told so."""
    dropout: Share = 0.0
    """Dropout probability."""
    dropout_at: Count | None = None
    """The largest side, in pixels, of levels that have dropout; without the key all have."""
    precision: Literal[registry.PRECISIONS] = "fp32"
    """Precision of the network's matrix products. In `fp16` the loss is scaled, and a step whose
    gradient overflows is skipped and counted. What each costs: docs/speed.md."""
    kernels: Literal[registry.KERNELS] = "torch"
    """What computes on a CPU: torch, or this project's kernels, not in `fp16` (docs/speed.md)."""
    compile: bool = False
    """Compile the network by torch.compile: minutes at a run's start (docs/speed.md)."""

    @property
    def weight_reads_sd(self):
        """Whether the weight depends on sd; a plugin's receives it too."""
        return self.weight in registry.WEIGHTS_OF_SD or self.weight not in registry.WEIGHTS

    @model_validator(mode="after")
    def _one_average(self):
        found = f"ema_std is {self.ema_std}, ema_halflife_kimg {self.ema_halflife_kimg}"
        if (self.ema_std is None) == (self.ema_halflife_kimg is None):
            raise ValueError(f"{found}; allowed: one of the two, the other null")
        if self.ema_ramp is not None and self.ema_std is not None:
            raise ValueError(
                f"ema_ramp is {self.ema_ramp} with ema_std; allowed: ema_halflife_kimg only"
            )
        if self.ema_ramp_before and self.ema_ramp is None:
            raise ValueError("ema_ramp_before is true without ema_ramp; allowed: with ema_ramp")
        return self

    def carried(self, kimg):
        """The share of the start's weights that is left in the average after a run of `kimg`."""
        if self.ema_halflife_kimg is None or self.ema_ramp is not None:
            return 0.0
        return 0.5 ** (kimg / self.ema_halflife_kimg)

    @model_validator(mode="after")
    def _parts_fit(self):
        if self.microbatch is not None and self.microbatch > self.batch:
            found = f"microbatch is {self.microbatch}"
            raise ValueError(f"{found}; allowed: at most batch = {self.batch}")
        if self.kernels != "torch" and self.precision == "fp16":
            raise ValueError("precision is fp16 with kernels 'native'; allowed: fp32, tf32, bf16")
        if self.compile and self.kernels != "torch":
            raise ValueError("compile is true with kernels 'native'; allowed: torch")
        if (at := self.dropout_at) is not None and not self.dropout:
            raise ValueError(f"dropout_at is {at} with dropout 0; allowed: dropout > 0")
        return self


class Pretrain(Recipe):
    """A pretraining run: a chain of milestones. `optimizer.decay_from` must be 1.0."""

    network: Name
    """A name in `networks`."""
    process: part("process")
    """x_t = alpha(t) x_0 + sigma(t) eps."""
    parameterization: Literal[registry.PARAMETERIZATIONS]
    """What the network's output means."""
    c_noise: Literal[registry.C_NOISE] = "log_s"
    """The time label the network receives: `log_s` (EDM), `log_half_s` (NCSN++), `time` (1000 t),
    `vp` (999 t), `ddpm` (steps 0 to 999)."""
    sd: Deviation | None = None
    """The images' standard deviation, in f and in the weight, here and in tuning from here; without
    the key it is measured. EDM states 0.5."""
    kimg: Count
    """Thousand images to the end of the chain."""
    every: Count | None = None
    """Thousand images from one milestone to the next. Either this or `milestones`; null takes one
    back."""
    milestones: base.distinct_list(Count, Field(min_length=1, max_length=MILESTONES)) | None = None
    """The milestones themselves, in thousand images, the last one at `kimg`."""
    seed: Seed = 0
    """Seed of weights, batches and noise."""

    @model_validator(mode="after")
    def _chain(self):
        self._check_milestones()
        if self.distance.kind == "lpips":
            raise ValueError("distance.kind is 'lpips'; allowed: in tune only")
        require_defined(self.process, self.parameterization)
        if self.optimizer.decay_from < 1:
            raise ValueError(
                f"optimizer.decay_from is {self.optimizer.decay_from}; allowed: 1.0 only, since"
                " milestones of one chain may not depend on where the chain ends"
            )
        return self

    def _check_milestones(self):
        if (self.every is None) == (self.milestones is None):
            found = f"every is {self.every}, milestones {base.short(self.milestones)}"
            raise ValueError(f"{found}; allowed: one of the two, the other null")
        if self.every is None:
            if self.milestones != sorted(self.milestones) or self.milestones[-1] != self.kimg:
                raise ValueError(
                    f"milestones is {base.short(self.milestones)}; allowed: growing numbers, the"
                    f" last one kimg = {self.kimg}"
                )
        elif self.kimg % self.every:
            raise ValueError(f"kimg is {self.kimg}; allowed: multiples of every = {self.every}")
        elif self.kimg > MILESTONES * self.every:
            most = f"at most {MILESTONES} milestones, every = {self.every} thousand images"
            raise ValueError(f"kimg is {self.kimg}; allowed: {most}")

    def milestones_to(self, kimg):
        """The milestones up to `kimg`, the random start, 0, among them."""
        if self.every is not None:
            return list(range(0, kimg + 1, self.every))
        return [0, *(milestone for milestone in self.milestones if milestone <= kimg)]

    def before(self, kimg):
        """The milestone from which the one at `kimg` goes on; 0 for the random start."""
        return max(self.milestones_to(max(kimg - 1, 0)))

    @model_serializer(mode="wrap")
    def _without_unset(self, handler):
        """Without the keys that are not set and that were not there before."""
        new = ("sd", "milestones")
        return {k: v for k, v in handler(self).items() if not (k in new and v is None)}
