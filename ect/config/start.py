"""The block of a config that names a pretrained model from elsewhere. Loads no torch."""

import json
import re
from pathlib import Path
from typing import Literal

from pydantic import model_validator

from ect import registry
from ect.config.base import (
    Block,
    Deviation,
    InputPath,
    Name,
    Positive,
    input_path,
    names,
    require_defined,
    short,
)
from ect.runtime.text import waits
from ect.runtime.zips import is_locked

# What is read of a folder of diffusers, of its unet/ and of its scheduler/.
DIFFUSERS = (
    "model_index.json", "config.json", "diffusion_pytorch_model.safetensors",
    "scheduler_config.json",
)  # fmt: skip


def _of_no_model(path):
    """What a file is that holds no weights, by its first bytes: all formats begin with bytes that
    are no text. None for any other file, but for a zip that only a password opens."""
    if waits(path):
        return "a device, pipe or socket"
    try:
        with open(path, "rb") as file:
            start = file.read(512)
    except OSError as error:
        return f"a file that cannot be read ({error.strerror})"
    if not start:
        return "an empty file"
    pickled = start.startswith((b"(", b"c")) and b"\n" in start  # of protocol 0, which is text
    text = not pickled and all(byte >= 32 or byte in b"\t\n\r\f" for byte in start)
    if start.startswith(b"PK") and is_locked(path):
        return "an encrypted zip"
    return "a text file" if text else None


class Init(Block):
    """A pretrained model from elsewhere. A `state_dict` does not describe itself, so its meaning
    stands here."""

    format: Literal[registry.FORMATS]
    """Its format: which of the readers in ect/models/importers."""
    file: InputPath
    """For `diffusers` a folder, or a repository of the Hugging Face hub: owner/name, or
    owner/name@revision, a commit, branch or tag."""
    pretrain_mimg: Positive | None = None
    """Million images it was trained on; without the key they are unknown."""
    network: Name | None = None
    """Of a `state_dict`: a name in `networks`."""
    process: Literal[registry.PROCESSES] | None = None
    """Of a `state_dict`."""
    parameterization: Literal[registry.PARAMETERIZATIONS] | None = None
    """Of a `state_dict`: what its network's output means."""
    c_noise: Literal[registry.C_NOISE] | None = None
    """Of a `state_dict`: the time label its network receives."""
    c_in: Literal["scaled", "one"] | None = None
    """Of a `state_dict`: its input, scaled to unit variance (also without the key) or as it is."""
    sd: Deviation | None = None
    """Of a `state_dict`: the images' standard deviation; without the key the dataset's."""

    @model_validator(mode="after")
    def _there(self):
        if self.format == "diffusers":
            if not Path(self.file).is_dir() and not self.from_hub:
                raise ValueError(
                    f"file is '{self.file}', which is not there; allowed: a folder, or a"
                    " repository of the hub (owner/name, or owner/name@revision)"
                )
            try:
                paths = self.files()
            except OSError as error:
                found = f"found {error.strerror}, {short(error.filename)}"
                raise ValueError(f"file: {found}; allowed: a folder that can be read") from None
            if not self.from_hub and not any(path.endswith(".safetensors") for path in paths):
                raise ValueError(f"file: found no .safetensors in '{self.file}'; allowed: one")
            for path in paths:
                input_path(path)
        elif Path(self.file).exists() and not Path(self.file).is_file():
            raise ValueError(f"file is '{self.file}', which is no file; allowed: a file")
        elif Path(self.file).exists() and (what := _of_no_model(self.file)) is not None:
            raise ValueError(f"file: found {what}, {short(self.file)}; allowed: a file of weights")
        return self

    @model_validator(mode="after")
    def _meaning_is_told(self):
        needed, given = ("network", "process", "parameterization", "c_noise"), self.meaning()
        if self.format != "state_dict" and given:
            raise ValueError(
                f"{names(given)}: set for '{self.format}'; allowed: for a state_dict only"
            )
        if self.format == "state_dict" and (absent := [key for key in needed if key not in given]):
            raise ValueError(
                f"found no {names(absent)}; allowed: a state_dict with {names(needed)}"
            )
        require_defined(self.process, self.parameterization)
        return self

    @property
    def from_hub(self):
        """Whether `file` names a repository of the hub rather than a folder on this disk."""
        named = re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w-][\w./-]*)?", self.file)
        return self.format == "diffusers" and bool(named) and not Path(self.file).exists()

    def meaning(self):
        """What the config says of the weights."""
        return self.model_dump(exclude={"format", "file", "pretrain_mimg"}, exclude_none=True)

    def files(self):
        """The files that are read: of a folder its configs and weights, of the hub none."""
        if self.format != "diffusers":
            return [self.file]
        folders = (Path(self.file, part) for part in ("", "unet", "scheduler"))
        paths = sorted(path for folder in folders for path in folder.glob("*"))
        return [str(path) for path in paths if path.name in DIFFUSERS]


def said_by(start, path):
    """What a model.safetensors says of itself; None where it is not there yet, and in an
    environment that reads none, such as Snakemake's own."""
    if not Path(path).exists():
        return None
    try:
        from safetensors import SafetensorError, safe_open
    except ModuleNotFoundError:
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads(file.metadata()["about"])
        return {key: about[key] for key in ("shape", "shift", "scale")}
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        raise ValueError(
            f"init.{start}.file: found '{path}', which is no model; allowed: a model.safetensors"
        ) from None
