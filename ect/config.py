"""The blocks of a config file, typed: the images, the feature space, the samplers. Loads no torch.

Unknown keys and wrong types are errors; `ect/study.py` puts all blocks together and tells a mistake
in one line.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, model_validator
from pydantic_core import PydanticKnownError

from ect import plugins, registry

INCEPTION_FILE = "inception-2015-12-05.pt"
FETCHED = f"models/{INCEPTION_FILE}"  # where it is put for all studies, unless a config has its own

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$")]


def names(values):
    """Names as they stand in a message."""
    return ", ".join(values)


def part(kind):
    """The type of a name that is built in or a plugin's; what is no such name is told as pydantic
    tells it of a Literal. The plugins are the context of the validation."""

    def check(name, info):
        allowed = [repr(n) for n in (*plugins.BUILT_IN[kind], *brought(kind, info))]
        if repr(name) not in allowed:
            expected = " or ".join([", ".join(allowed[:-1]), allowed[-1]])
            raise PydanticKnownError("literal_error", {"expected": expected})
        return name

    return Annotated[str, BeforeValidator(check)]


def brought(kind, info):
    """{name: Part} of what the plugins bring of a kind."""
    return (info.context or {}).get(kind, {})


def chosen(known, given, name):
    """The options that `name` runs with, as given or by default; raises `ValueError`. `known` is
    {option: (type, default)}."""
    for key, value in given.items():
        if key not in known:
            raise ValueError(f"unknown option '{key}' of {name}; allowed: {names(known)}")
        kind = known[key][0]
        try:
            plugins.converted(value, kind)
        except ValueError:
            words = "list of float" if kind is list else kind.__name__
            raise ValueError(f"{key} is {value!r}; allowed: {words}") from None
    return {
        key: plugins.converted(given.get(key, default), kind)
        for key, (kind, default) in known.items()
    }


class Block(BaseModel):
    """A mapping in the config: unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


# The keys of each source beside normalize, held_out, split_seed and max_images.
SOURCE_KEYS = {
    "digits": (),
    "images": ("path", "classes", "resolution", "channels", "on_error"),
    "cifar10": ("path", "resolution", "channels"),
    "mnist": ("path", "resolution", "channels"),
    "fashion_mnist": ("path", "resolution", "channels"),
    "imagenet64": ("path", "resolution", "channels", "on_error"),
}
OWN_TEST = (
    "cifar10",
    "mnist",
    "fashion_mnist",
)  # sources with a test split: held_out may be left out


class Dataset(Block):
    """The images. `normalize: standard` gives them mean 0 and sd 0.5, `unit` the range [-1, 1].

    `resolution` crops a square from the centre of each and resizes it with Lanczos; `held_out` is
    the number of test images, `max_images` that of all others and them (of a source with a test
    split of its own: of its training images) at most.
    """

    source: Literal[registry.SOURCES]
    normalize: Literal["standard", "unit"] = "unit"
    held_out: Count | None = None
    split_seed: int = 0
    path: str | None = None
    classes: Literal["folders"] | None = None
    resolution: Count | None = None
    channels: Literal[1, 3] | None = None
    max_images: Count | None = None
    on_error: Literal["stop", "skip"] | None = None

    @model_validator(mode="after")
    def _fits_its_source(self):
        keys = SOURCE_KEYS[self.source]
        for key in ("path", "classes", "resolution", "channels", "on_error"):
            if key not in keys and getattr(self, key) is not None:
                allowed = names(("normalize", "held_out", "split_seed", "max_images", *keys))
                raise ValueError(f"{key} is set for '{self.source}'; allowed: {allowed}")
        if self.held_out is None and self.source not in OWN_TEST:
            raise ValueError(f"held_out: missing; '{self.source}' has no test split of its own")
        if self.source == "imagenet64" and self.resolution not in (None, 64):
            raise ValueError(f"resolution is {self.resolution}; allowed for imagenet64: 64")
        if "path" in keys:
            self._check_path()
        return self

    def _check_path(self):
        if self.path is None:
            raise ValueError(f"path: missing; '{self.source}' needs one")
        path = Path(self.path)
        if self.source == "imagenet64" and not (path / "train").is_dir():
            raise ValueError(f"path: found '{path}' without a folder train; allowed: with one")
        if self.source == "images" and not path.is_dir() and not path.is_file():
            raise ValueError(
                f"path: found '{path}', where nothing is; allowed: a folder of images, or a .zip"
            )

    def resolved(self):
        """The settings of the job that prepares the file: the keys that are set."""
        return self.model_dump(exclude_none=True)

    @property
    def folder(self):
        """The folder whose images are read, where there is one."""
        if self.source not in ("images", "imagenet64") or Path(self.path).is_file():
            return None
        return self.path if self.source == "images" else str(Path(self.path) / "train")

    @property
    def archive(self):
        """The .zip whose images are read, where there is one."""
        return self.path if self.source == "images" and self.folder is None else None


class Classifier(Block):
    """The study's own classifier, whose last layer but one is a feature space: `plain`, three
    convolutions of `channels`, or `resnet`, a ResNet-18 for small images. `augment` mirrors and
    moves its training images."""

    network: Literal["plain", "resnet"] = "plain"
    channels: Count | None = None
    epochs: Count
    batch: Count
    lr: Positive
    augment: bool = False

    @model_validator(mode="after")
    def _sized(self):
        if (self.channels is None) != (self.network == "resnet"):
            raise ValueError(
                f"network is '{self.network}' and channels is {self.channels}; allowed: a number of"
                " channels of the plain network, none of the resnet, whose width is its own"
            )
        return self

    def resolved(self):
        """The settings of its training; those of a plain network without augmentation say no more
        than that."""
        silent = {"network": "plain", "augment": False, "channels": None}
        return {k: v for k, v in self.model_dump().items() if k not in silent or v != silent[k]}


class Features(Block):
    """The feature space of every distance: the study's own classifier, Inception (clean-fid),
    DINOv2 as a TorchScript file, or a plugin's."""

    extractor: part("features") = "inception"
    classifier: Classifier | None = None
    inception_mode: Literal["legacy_tensorflow", "clean"] = "legacy_tensorflow"
    inception_path: str | None = None
    dinov2_path: str | None = None

    @model_validator(mode="after")
    def _complete(self):
        weights = Path(self.inception_path or ".") / INCEPTION_FILE
        if self.inception_path is not None and not weights.is_file():
            raise ValueError(
                f"inception_path is '{self.inception_path}' and there is no file {weights};"
                f" allowed: a folder that holds {INCEPTION_FILE}, or no such key (clean-fid then"
                f" downloads it to {FETCHED})"
            )
        if self.extractor == "dinov2" and not Path(self.dinov2_path or "").is_file():
            raise ValueError(
                f"dinov2_path is {self.dinov2_path!r}; allowed: the TorchScript file of DINOv2 that"
                " ect/pretrained.py says how to make"
            )
        if self.extractor == "classifier" and self.classifier is None:
            raise ValueError("extractor is 'classifier'; allowed: with a block classifier: {...}")
        return self


class Sampler(Block):
    """`multistep` re-noises to each of `times`, with the boundary of f at `sigma_min` if given;
    `euler`, `heun` and `dpm_solver` take `steps`. Times are noise levels s. A network with classes
    draws uniform labels, or cycles through `labels`. A plugin's sampler takes its own options, and
    `nfe`, the evaluations of the network for one image."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)
    kind: part("sampler")
    label: str
    times: list[Positive] | None = None
    steps: Count | None = None
    sigma_min: Positive | None = None
    labels: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] | None = None
    nfe: Count | None = None
    _own: dict | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _options_fit(self, info):
        own, extra = brought("sampler", info), self.model_extra or {}
        if self.kind in own:
            self._own = chosen(own[self.kind].options, self._set() | extra, self.kind)
            if self.nfe is None:
                raise ValueError(f"nfe is missing; '{self.kind}' is a plugin's, which needs it")
            return self
        if extra:
            raise ValueError(
                f"unknown key '{next(iter(extra))}'; allowed: {names(type(self).model_fields)}"
            )
        if self.nfe is not None:
            raise ValueError(f"nfe is set for '{self.kind}'; allowed: samplers of plugins only")
        if self.kind == "multistep" and self.steps is not None:
            raise ValueError("steps is set for 'multistep'; allowed: times")
        if self.kind != "multistep" and (self.times is not None or not self.steps):
            raise ValueError(f"'{self.kind}' takes steps >= 1 and no times")
        if self.kind != "multistep" and self.sigma_min:
            raise ValueError(f"sigma_min is set for '{self.kind}'; allowed: multistep only")
        return self

    def _set(self):
        both = {"times": self.times, "steps": self.steps, "sigma_min": self.sigma_min}
        return {key: value for key, value in both.items() if value is not None}

    def options(self):
        if self._own is not None:
            return self._own
        if self.kind == "multistep":
            shift = {"sigma_min": self.sigma_min} if self.sigma_min else {}
            return {"times": self.times or [], **shift}
        return {"steps": self.steps}

    @property
    def evaluations(self):
        """Evaluations of the network for one image."""
        if self.nfe is not None:
            return self.nfe
        if self.kind == "multistep":
            return 1 + len(self.times or [])
        return 2 * self.steps - 1 if self.kind == "heun" else self.steps


class Evaluation(Block):
    """`images` of every sampler, from the seeds `seed`, `seed` + 1, ..., and as often as `repeats`
    says, each time from the seeds that follow. The kernel distance is a mean over `kd_subsets`
    subsets of at most 1,000 features. Every table shows `fd`; the csv has columns for the other
    `metrics`. `export` says what is kept of the images: samples.npz, PNG files made of it, their
    features. Without npz they go from the sampler to the features and nowhere else."""

    images: Annotated[int, Field(ge=10)]
    batch: Count = 250
    seed: int = 0
    repeats: Count = 1
    kd_subsets: Count = 100
    metrics: list[Literal[registry.METRICS]] = ["fd", "kd"]
    export: list[Literal["npz", "png", "features"]] = ["npz"]

    @model_validator(mode="after")
    def _complete(self):
        if "fd" not in self.metrics:
            raise ValueError(f"metrics is {self.metrics}; allowed: fd among them, for the tables")
        if not {"npz", "features"} & set(self.export):
            raise ValueError(f"export is {self.export}; allowed: npz, features or both among them")
        if "png" in self.export and "npz" not in self.export:
            raise ValueError(f"export is {self.export}; allowed: png with npz, of which it is made")
        return self
