"""The blocks of a config file, typed: the feature space, the samplers. Loads no torch.

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

    return Annotated[str, BeforeValidator(check), Field(examples=list(plugins.BUILT_IN[kind]))]


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
    """A mapping in the config: unknown keys and wrong types are errors. The words under a key are
    its description in docs/reference.md and in the schema."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True
    )


class Classifier(Block):
    """The study's own classifier, whose last layer but one is a feature space."""

    network: Literal["plain", "resnet"] = "plain"
    """`plain`: three convolutions; `resnet`: a ResNet-18 for small images."""
    channels: Count | None = None
    """Of the plain network; the width of the resnet is its own."""
    epochs: Count
    """Passes over the training images."""
    batch: Count
    """Images of a step."""
    lr: Positive
    """Adam's highest rate: it rises, then falls to zero."""
    augment: bool = False
    """Training images are mirrored and moved."""

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
    """The feature space of every distance."""

    extractor: part("features") = "inception"
    """`classifier`: the study's own; `inception`: clean-fid's; `dinov2`: a TorchScript file."""
    classifier: Classifier | None = None
    """The study's own classifier, where it is the extractor."""
    inception_mode: Literal["legacy_tensorflow", "clean"] = "legacy_tensorflow"
    """clean-fid's `legacy_tensorflow`, the FID of papers, or `clean`."""
    inception_path: str | None = None
    """The folder of Inception's weights; without it clean-fid downloads them."""
    dinov2_path: str | None = None
    """The TorchScript file; ect/pretrained.py says how to make it."""

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
    """How images are drawn. A plugin's sampler takes its own options as further keys."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)
    kind: part("sampler")
    """`multistep` consistency, or a solver: `euler` (DDIM), `heun`, `dpm_solver` (its ++, 2M)."""
    label: str
    """Its name in tables and figures."""
    times: list[Positive] | None = None
    """Noise levels s, falling, to which `multistep` re-noises; without them it is one step."""
    steps: Count | None = None
    """Steps of a solver."""
    sigma_min: Positive | None = None
    """The noise level s at which f(x) = x in `multistep`; without it, 0."""
    labels: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] | None = None
    """Class labels, drawn in turn; without it, uniform ones."""
    nfe: Count | None = None
    """Evaluations of the network for one image; of a plugin's sampler only."""
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
    """Which images are measured, and how."""

    images: Annotated[int, Field(ge=10)]
    """Images of every sampler."""
    batch: Count = 250
    """Images drawn at a time."""
    seed: int = 0
    """Of the first image; the next has `seed` + 1."""
    precision: Literal[registry.PRECISIONS] = "fp32"
    """Of the network that draws, as in a recipe. Its metrics' networks compute in fp32."""
    repeats: Count = 1
    """How often so many images are drawn, each time from the seeds that follow."""
    kd_subsets: Count = 100
    """Subsets of at most 1,000 features whose mean is the kernel distance."""
    metrics: list[Literal[registry.METRICS]] = ["fd", "kd"]
    """Columns of the csv; `fd` is one of them, and in every table."""
    export: list[Literal["npz", "png", "features"]] = ["npz"]
    """What is kept of the images. Without `npz` they go to the features and nowhere else."""

    @model_validator(mode="after")
    def _complete(self):
        if "fd" not in self.metrics:
            raise ValueError(f"metrics is {self.metrics}; allowed: fd among them, for the tables")
        if not {"npz", "features"} & set(self.export):
            raise ValueError(f"export is {self.export}; allowed: npz, features or both among them")
        if "png" in self.export and "npz" not in self.export:
            raise ValueError(f"export is {self.export}; allowed: png with npz, of which it is made")
        return self
