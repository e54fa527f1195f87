"""The blocks of a config file, typed. Loads no torch.

Unknown keys and wrong types are errors; `ect/study.py` puts the blocks together and tells a mistake
in one line.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ect import registry

INCEPTION_FILE = "inception-2015-12-05.pt"

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$")]


def names(values):
    """Names as they stand in a message."""
    return ", ".join(values)


class Block(BaseModel):
    """A mapping in the config: unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Dataset(Block):
    """The images. `normalize: standard` gives them mean 0 and sd 0.5, `unit` the range [-1, 1]."""

    source: Literal[registry.SOURCES]
    normalize: Literal["standard", "unit"] = "unit"
    held_out: Count
    split_seed: int = 0


class Classifier(Block):
    """The study's own classifier, whose last hidden layer is a feature space."""

    channels: Count
    epochs: Count
    batch: Count
    lr: Positive


class Features(Block):
    """The feature space of every distance: the study's own classifier, or Inception (clean-fid)."""

    extractor: Literal[registry.EXTRACTORS] = "inception"
    classifier: Classifier | None = None
    inception_mode: Literal["legacy_tensorflow", "clean"] = "legacy_tensorflow"
    inception_path: str | None = None

    @model_validator(mode="after")
    def _complete(self):
        weights = Path(self.inception_path or ".") / INCEPTION_FILE
        if self.inception_path is not None and not weights.is_file():
            raise ValueError(
                f"inception_path is '{self.inception_path}' and there is no file {weights};"
                f" allowed: a folder that holds {INCEPTION_FILE}, or no such key (clean-fid then"
                " downloads it)"
            )
        if self.extractor == "classifier" and self.classifier is None:
            raise ValueError("extractor is 'classifier'; allowed: with a block classifier: {...}")
        return self


class Network(Block):
    """The U-Net: widths are channels times multipliers, one for each halving of the resolution.
    With `classes` it is told each image's label."""

    channels: Annotated[int, Field(ge=8, multiple_of=4)]
    multipliers: Annotated[list[Count], Field(min_length=1)]
    blocks: Count
    attention: list[int] = []
    architecture: Literal[registry.ARCHITECTURES] = "ddpmpp"
    embedding: Literal[registry.EMBEDDINGS] = "positional"
    classes: Annotated[int, Field(ge=0)] = 0


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
    weight: Literal[registry.WEIGHTS]
    optimizer: Optimizer
    ema_halflife_kimg: Positive
    ema_ramp: Annotated[float, Field(gt=0)] | None = None
    dropout: Share = 0.0


class Pretrain(Recipe):
    """A chain of milestones `every` thousand images, up to `kimg`, that starts from `seed`."""

    network: Name
    process: Literal[registry.PROCESSES]
    parameterization: Literal[registry.PARAMETERIZATIONS]
    c_noise: Literal[registry.C_NOISE] = "log_s"
    kimg: Count
    every: Count
    seed: int = 0

    @model_validator(mode="after")
    def _chain(self):
        if self.kimg % self.every:
            raise ValueError(f"kimg is {self.kimg}; allowed: multiples of every = {self.every}")
        if (self.process, self.parameterization) in registry.UNDEFINED:
            raise ValueError(
                f"parameterization is '{self.parameterization}' with process '{self.process}',"
                " whose alpha ends at 0; allowed: edm, velocity"
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
    are kept for the loss page."""

    target: Literal[registry.TARGETS] = "own"
    snapshots: Annotated[int, Field(ge=0)] = 0


class Schedule(Block):
    """A map t -> r and its options: the keyword arguments of its function in ect/schedule.py. It
    maps noise levels s, or with `clock: time` the process's own t."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)
    map: str
    clock: Literal[registry.CLOCKS] = "noise"

    @model_validator(mode="after")
    def _options(self):
        if self.map not in registry.SCHEDULES:
            raise ValueError(f"map is '{self.map}'; allowed: {names(registry.SCHEDULES)}")
        known = registry.schedule_options(self.map)
        for key, value in (self.model_extra or {}).items():
            if key not in known:
                raise ValueError(f"unknown option '{key}' of {self.map}; allowed: {names(known)}")
            kind = known[key][0]
            numeric = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not numeric or (kind is int and value != int(value)):
                raise ValueError(f"{key} is {value!r}; allowed: {kind.__name__}")
            fits, words = registry.LIMITS.get(key, (lambda _: True, ""))
            if not fits(value):
                raise ValueError(f"{key} is {value!r}; allowed: {words}")
        options = self.options()
        for low, high in (("low", "high"), ("s0", "s1")):
            if low in options and options[low] >= options[high]:
                raise ValueError(f"{low} is {options[low]}; allowed: < {high} = {options[high]}")
        return self

    def resolved(self):
        return {"map": self.map, "options": self.options(), "clock": self.clock}

    def options(self):
        """Every option, with its default where the config is silent."""
        known = registry.schedule_options(self.map)
        given = self.model_extra or {}
        return {key: kind(given.get(key, default)) for key, (kind, default) in known.items()}


class Sampler(Block):
    """`multistep` re-noises to each of `times`; `euler` and `heun` take `steps`. Times are noise
    levels s. A network with classes draws uniform labels, or cycles through `labels`."""

    kind: Literal[registry.SAMPLERS]
    label: str
    times: list[Positive] | None = None
    steps: Count | None = None
    labels: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _options_fit(self):
        if self.kind == "multistep" and self.steps is not None:
            raise ValueError("steps is set for 'multistep'; allowed: times")
        if self.kind != "multistep" and (self.times is not None or not self.steps):
            raise ValueError(f"'{self.kind}' takes steps >= 1 and no times")
        return self

    def options(self):
        if self.kind == "multistep":
            return {"times": self.times or []}
        return {"steps": self.steps}

    @property
    def nfe(self):
        """Evaluations of the network for one image."""
        if self.kind == "multistep":
            return 1 + len(self.times or [])
        return self.steps if self.kind == "euler" else 2 * self.steps - 1


class Evaluation(Block):
    """`images` of every sampler, from the seeds `seed`, `seed` + 1, ...; the kernel distance is a
    mean over `kd_subsets` subsets of at most 1,000 features."""

    images: Annotated[int, Field(ge=10)]
    batch: Count = 250
    seed: int = 0
    kd_subsets: Count = 100
