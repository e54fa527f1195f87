"""The settings of each verb that computes, as typed blocks: settings written by hand are held to
what a config's blocks allow. Loads no torch.

Nothing is changed or filled in: a job reads its settings as they were given.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from ect import plugins, registry
from ect.config import parts, reports, training, tune
from ect.config.base import (
    Block,
    Count,
    Deviation,
    Name,
    Seed,
    Share,
    distinct_list,
    part,
    plugin_parts,
    require_defined,
    whole,
)
from ect.config.dataset import Dataset
from ect.config.evaluation import Batch, Classifier, Features, Labels, Sampler, Subsets
from ect.config.experiments import Search
from ect.config.lengths import Length
from ect.config.network import Network
from ect.config.rates import require_rate
from ect.config.trajectories import Solution
from ect.schedule import CONTINUOUS_TIME, TWO_TIMES

Point = Annotated[int, Field(ge=0, le=10**9)]
Absent: Any = Field(default=None)  # a key that may be missing, but not null


def unversioned(kernels):
    """The name of kernels without their version: a run refuses another one than is there."""
    return re.sub(r"-\d+$", "", kernels) if isinstance(kernels, str) else kernels


class Recipe(training.Recipe):
    """A recipe without what is beside it in the settings of a run."""

    prior: parts.Prior  # type: ignore[assignment]
    kernels: Annotated[Literal[registry.KERNELS], BeforeValidator(unversioned)] = "torch"
    shared_dropout: bool = True
    truncate: tune.Truncate | None = None
    trajectories: Name | None = None
    adaptive: bool = False
    derivative: Literal[registry.DERIVATIVES] = "jvp"
    derivative_step: tune.DerivativeStep = 0.005
    mu0: Share | None = None
    joint: parts.Joint = Absent
    masks: Count = Absent  # the version of dropout's masks

    @model_validator(mode="after")
    def _stage_fits(self):
        if self.truncate is not None:
            tune.require_stage(self.truncate, self.prior.options.get("low"), self.batch)
        tune.require_exact(self)
        return self


class Run(parts.Whole):
    """Of a training run. Without a network it takes that of an imported start."""

    network: Network = Absent
    process: part("process") = Absent
    parameterization: Literal[registry.PARAMETERIZATIONS] = Absent
    c_noise: Literal[registry.C_NOISE] = Absent
    sd: Deviation = Absent
    recipe: Recipe
    schedule: parts.Map
    target: Literal[registry.TARGETS]
    seed: Seed
    first_kimg: Point
    last_kimg: Point
    snapshots: whole(1000, 0)
    start_sd: Literal[True] = Absent

    @model_validator(mode="after")
    def _fits(self, info):
        parts = ("network", "process", "parameterization", "c_noise")
        lacking = [key for key in parts if getattr(self, key) is None]
        if self.network is None and (given := {*parts, "sd"} & self.model_fields_set):
            raise ValueError(f"network: missing beside {', '.join(sorted(given))}; allowed: all")
        if self.network is not None and lacking:
            raise ValueError(f"{lacking[0]}: missing beside network; allowed: all or none")
        if self.first_kimg >= self.last_kimg > 0 or self.first_kimg > 0 == self.last_kimg:
            raise ValueError(
                f"first_kimg: found {self.first_kimg}; allowed: < last_kimg = {self.last_kimg}, or"
                " both 0 for the start itself"
            )
        tune.require_steps(self)
        name = self.schedule.map
        own = name in CONTINUOUS_TIME or name in plugin_parts("objective", info)
        tune.require_decay(self.recipe, self.target)
        tune.require_loss(name, own, self.recipe, self.target)
        if self.network is not None:
            require_defined(self.process, self.parameterization)
            self._require_told(name)
        self._require_rate()
        return self

    def _require_told(self, name):
        """A loss of two times needs a network that is told both, some the mean velocity of flow."""
        if name in TWO_TIMES and not self.network.span:
            raise ValueError(f"network.span: found false with {name}; allowed: true or end")
        form = self.process, self.parameterization
        if name in tune.OF_FLOW and form != ("flow", "velocity"):
            found = f"found {' and '.join(form)} with {name}"
            raise ValueError(f"process: {found}; allowed: flow, with the parameterization velocity")

    def _require_rate(self):
        """Of a milestone of pretraining, its config knows whether others go on from it."""
        if self.schedule.map != "zero":
            try:
                require_rate(self.recipe, self.first_kimg, self.last_kimg)
            except ValueError as error:
                raise ValueError(f"recipe.{error}") from None


class Averaging(Block):
    """Of an average that is reconstructed: the lengths that the states keep, and the wanted one."""

    ema_std: Length
    stored: Annotated[list[Length], Field(min_length=1)]


class Solving(Solution):
    """Of trajectories of a model, which is a file."""

    precision: Literal[registry.PRECISIONS] = "fp32"
    compile: bool = False


class Sampling(parts.Whole):
    """Of images that a sampler draws."""

    kind: part("sampler")
    options: dict[str, Any]
    labels: Labels | None = None
    images: whole(10**7)
    batch: Batch
    seed: Seed
    precision: Literal[registry.PRECISIONS] = "fp32"
    compile: bool = False

    @model_validator(mode="after")
    def _options_fit(self, info):
        own = {"nfe": 1} if self.kind in plugin_parts("sampler", info) else {}
        parts.hold(Sampler, {"kind": self.kind, "label": "-", **own}, self.options, info)
        return self


class FeatureSpace(Features):
    """The feature space. The job that needs its network's file looks for it."""

    classifier: None = None
    plugins: parts.Plugins
    kd_subsets: Subsets = Absent

    @model_validator(mode="after")
    def _complete(self):
        return self


class MeasuredSpace(FeatureSpace):
    """The feature space, with what the kernel distance depends on."""

    kd_subsets: Subsets


class Extraction(Block):
    """Of features: of a sampler's images, or of a file's."""

    features: FeatureSpace
    sampling: Sampling = Absent


class Cell(Block):
    """What metrics.json says of the images beside the metrics."""

    floor: Literal[True] = Absent
    pretrain: str | None = None
    process: str | None = None
    parameterization: str | None = None
    kimg: Point | None = None
    schedule: str | None = None
    recipe: str | None = None
    tune_kimg: Point | None = None
    seed: Seed | None = None
    sampler: str | None = None
    label: str | None = None
    nfe: Count | None = None
    replicate: Count = Absent
    pretraining: Point = Absent


class Measurement(Block):
    """Of the distances of images to the training images."""

    features: MeasuredSpace
    cell: Cell
    metrics: distinct_list(Literal[registry.METRICS], Field(min_length=1)) = Absent

    @model_validator(mode="after")
    def _inceptions(self):
        extractor = self.features.extractor
        if "inception_score" in (self.metrics or ()) and extractor != "inception":
            found = f"found 'inception_score' with features.extractor '{extractor}'"
            raise ValueError(f"metrics: {found}; allowed: with 'inception' only")
        return self


class Summary(Block):
    """Of what metrics need of the training images: precision and recall need their radii."""

    radii: bool


class Trace(Block):
    """Of snapshots, with each sampler by its label."""

    features: FeatureSpace
    samplers: Annotated[dict[str, Sampling], Field(min_length=1)]


class Nearness(Block):
    """Of the distances of drawn images to training images."""

    features: FeatureSpace


class StepSearch(Search):
    """Of intermediate times, and of the images that test them. Its model is a file."""

    models: None = None
    features: MeasuredSpace
    test_seed: Seed
    test_images: whole(10**7, 10)
    batch: Batch
    precision: Literal[registry.PRECISIONS] = "fp32"
    compile: bool = False

    @model_validator(mode="after")
    def _tested_apart(self):
        first, last = self.test_seed, self.test_seed + self.test_images - 1
        if self.seed <= last and first < self.seed + self.images:
            raise ValueError(
                f"test_seed: found {first}, whose {self.test_images} images meet the seeds of the"
                f" search, {self.seed} to {self.seed + self.images - 1}; allowed: seeds apart"
            )
        return self


BLOCKS: dict[str, type[Block]] = {
    "prepare": Dataset,
    "train_classifier": Classifier,
    "train": Run,
    "perfect_loss": Run,
    "reconstruct_average": Averaging,
    "solve_trajectories": Solving,
    "sample": Sampling,
    "extract": Extraction,
    "summarize": Summary,
    "evaluate": Measurement,
    "trace": Trace,
    "find_nearest": Nearness,
    "search_steps": StepSearch,
    **reports.BLOCKS,
}


def require(verb, settings):
    """Raise `ValueError`, which names the first mistake, unless the settings of a verb
    are such as a config gives it."""
    validate(BLOCKS[verb], settings)


def validate(block, settings):
    """As `require`, for a block."""
    try:
        block.model_validate(settings, context=plugins.read(list(_plugins(settings))))
    except ValidationError as error:
        first, *more = parts.lines(block, error)
        also = f" (and {len(more)} more)" * bool(more)
        raise ValueError(f"settings: {first}{also}") from None


def _plugins(settings):
    """The files of all plugins that settings name, each once."""
    found = {}
    for key, value in settings.items() if isinstance(settings, dict) else ():
        found |= value if key == "plugins" and isinstance(value, dict) else _plugins(value)
    return found
