"""A trained model, for use in a program: `ect.load(path).sample(16)`."""

import copy
import operator
import os
import warnings
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from ect.consistency import Consistency
from ect.models import build
from ect.models import steps as of_study
from ect.models.about import named, require
from ect.models.draw import draw, most_images
from ect.models.trust import require_parts
from ect.process import Process
from ect.runtime import checkpoint, device, record
from ect.runtime.text import shown

BATCH = 250  # that of the default study: the batch size may change the last bit


@dataclass(frozen=True)
class Model:
    """A consistency model: `f`, its `process`, `about`, what its file says of it, and `samplers`,
    the multistep samplers of its study: {name: {times: [...]}}."""

    f: Consistency
    process: Process
    about: dict
    samplers: dict = field(default_factory=dict)

    def __reduce_ex__(self, protocol):
        """Raises `TypeError` for a plugin's process: who unpickled it would run that file."""
        if "plugins" in self.about:
            found = shown(f"found a process of {', '.join(self.about['plugins'])}")
            raise TypeError(f"model: {found}; allowed: one of ect's, to be pickled")
        return super().__reduce_ex__(protocol)

    def __copy__(self):
        return replace(self)

    def __deepcopy__(self, memo):
        parts = (self.f, self.process, self.about, self.samplers)
        return Model(*copy.deepcopy(parts, memo))

    @property
    def shape(self):
        """(H, W, C) of its images."""
        channels, height, width = self.about["shape"]
        return height, width, channels

    def module(self):
        """f as a module in evaluation mode, which `torch.export.export` takes: it maps x_t
        (B, C, H, W) and times t (B,) of the process, and for a model with classes labels (B,), to
        an estimate of x_0 (B, C, H, W)."""
        self._require_whole()
        where = next(self.f.network.parameters()).device
        self.process.coefficients(torch.ones(1, device=where))  # a table is copied there once
        return Function(self.f, self.about["shape"])

    def sampler(self, steps):
        """What `sample` does in so many steps: (options, words, of_study). The words say at which
        noise levels, and whether they are the study's. Raises `ValueError`."""
        number = _whole(steps, 1)
        return of_study.chosen(self.samplers, steps if number is None else number)

    def sample(self, n, steps=None, seed=0, times=None, labels=None):
        """n images as a numpy array, uint8 (n, H, W, C), computed on a GPU if there is one.

        Image i is a function of `seed` + i. `steps`, 2 by default, are those of the study's sampler
        with so many steps, its times and its sigma_min; if none is known, 1, or 2 at ECT's time for
        CIFAR-10, with a warning. `times` replaces it: falling noise levels s = sigma / alpha from
        below 80 to 1e-6, one less than there are steps. `labels` are the classes to cycle through,
        for a model with classes; by default they are drawn at random. Raises `ValueError`, and
        `FloatingPointError` where an image is not finite. The same as
        `python -m ect sample` in batches of 250, to the bit.
        """
        self._require_whole()
        most = most_images(self.about["shape"])
        settings = {
            "kind": "multistep",
            "options": self._options(steps, times),
            "images": _needed("n", _whole(n, 1, most), n, f"a number of images from 1 to {most:,}"),
            "batch": BATCH,
            "seed": _needed("seed", _whole(seed, 0), seed, "a whole number >= 0 and <= 10^18"),
            "labels": None,
        }
        if labels is not None:
            given = [_whole(label, 0) for label in _items(labels)]
            chosen = given if given and None not in given else None
            settings["labels"] = _needed("labels", chosen, labels, "a list of classes")
        with device.standard():
            return draw(self.f, self.process, self.about, settings)

    def _require_whole(self):
        """Raise `ValueError` unless the parts are such as `load` makes, whatever a program has done
        to them since."""
        with named("model"):
            require(self.about)
        for name, kind in (("f", Consistency), ("process", Process), ("samplers", dict)):
            if not isinstance(part := getattr(self, name), kind):
                found = f"found {shown(repr(part), 80)}"
                raise ValueError(f"model: {name}: {found}; allowed: that of `load`")
        of_study.require(self.samplers, "model: samplers")
        for name, weight in self.f.network.named_parameters():
            if weight.dtype != torch.float32 or weight.is_meta:
                found = f"found {name} of {weight.dtype}, on {weight.device}"
                raise ValueError(f"model: {found}; allowed: torch.float32, as `load` makes them")

    def _options(self, steps, times):
        if times is None:
            options, words, known = self.sampler(2 if steps is None else steps)
            if options["times"] and not known:
                warnings.warn(words, stacklevel=3)
            return options
        levels = [_number(level) for level in _items(times)]
        fits = None not in levels and of_study.falling(levels)
        allowed = f"falling noise levels below 80, down to {of_study.LEAST:g}"
        found = _needed("times", levels if fits else None, times, allowed)
        if steps is not None and _whole(steps, 1) != len(found) + 1:
            given = f"found {shown(repr(steps), 80)} with times {found}"
            raise ValueError(f"steps: {given}; allowed: {len(found) + 1}, or times alone")
        return {"times": found}


class Function(torch.nn.Module):
    """A consistency function as a module that holds its network."""

    def __init__(self, f, shape):
        super().__init__()
        self.f, self.network, self.image = f, f.network, list(shape)

    def forward(self, x_t, t, label=None):
        _require_tensor("x_t", x_t, 4, "(B, C, H, W)")
        _require_tensor("t", t, 1, "(B,)")
        if list(x_t.shape[1:]) != self.image:
            found = f"found images {tuple(x_t.shape[1:])}"
            raise ValueError(f"x_t: {found}; allowed: {tuple(self.image)}, as the model draws")
        if not torch.compiler.is_compiling() and len(t) != len(x_t):
            raise ValueError(f"t: found {len(t)} times; allowed: {len(x_t)}, as there are images")
        return self.f.conditioned_on(label)(x_t, t)


def _require_tensor(name, value, axes, shape):
    """Raise `ValueError` for anything but a tensor of float32 with so many axes."""
    if not torch.is_tensor(value):
        found = str(type(value))
    elif value.dtype != torch.float32 or value.ndim != axes:
        found = f"{value.dtype}, {value.ndim} axes"
    else:
        return
    raise ValueError(f"{name}: found {found}; allowed: a tensor {shape} of float32")


def _needed(name, value, given, allowed):
    """An argument's value; raises `ValueError` where it is None: what was given is not allowed."""
    if value is None:
        raise ValueError(f"{name} is {shown(repr(given), 80)}; allowed: {allowed}")
    return value


def _whole(value, least, most=10**18):
    """A whole number of any library as an int from `least` to `most`; None for anything else."""
    if _no_scalar(value):
        return None
    try:
        number = operator.index(value)
    except (TypeError, RuntimeError):  # the latter: a tensor without values
        return None
    return number if least <= number <= most else None


def _number(value):
    """A number of any library as a float; None for anything else."""
    if isinstance(value, (str, bytes)) or _no_scalar(value):
        return None
    if "complex" in str(getattr(value, "dtype", "")):  # numpy would drop its imaginary part
        return None
    try:
        return float(value.detach() if torch.is_tensor(value) else value)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # the last: as in `_whole`
        return None


def _no_scalar(value):
    """Whether a value is a truth value, or an array or tensor of any number of values."""
    truth = isinstance(value, bool) or str(getattr(value, "dtype", "")) in ("bool", "torch.bool")
    return truth or getattr(value, "ndim", 0) > 0


def _items(values):
    """The items of a list, tuple or array; [None] for anything else."""
    if isinstance(values, (str, bytes, bytearray, dict)) or not isinstance(values, Collection):
        return [None]  # also for an iterator, which may have no end
    try:
        return list(values)
    except (TypeError, RuntimeError):  # an array without dimensions, a tensor without a shape
        return [None]


def load(path, plugins=()):
    """The model in a model.safetensors, or in the folder of a run or an export that holds one;
    raises `ValueError` for what is neither, and for other bytes than its run.json names. `plugins`
    are the Python files that it may run: without them a model whose process is a plugin's is
    refused."""
    if not isinstance(plugins, (list, tuple)) or not all(_is_path(file) for file in plugins):
        found = shown(repr(str(plugins) if _is_path(plugins) else plugins), 80)
        raise ValueError(f"plugins: found {found}; allowed: a list of Python files")
    if not _is_path(path) or not os.fspath(path).strip():
        found = shown(repr(path), 80)
        raise ValueError(
            f"path: found {found}; allowed: that of a model.safetensors, or its folder"
        )
    require_parts([os.fspath(file) for file in plugins])
    path = Path(path)
    file = path / "model.safetensors" if os.path.isdir(path) else path
    with device.standard():
        f, process, about = build.load_model(file, plugins)
    record.of(file)  # raises where it has other bytes than its job wrote
    return Model(f, process, about, samplers_beside(file))


def _is_path(value):
    """Whether a value is a path: a text, or an object of pathlib."""
    try:
        return isinstance(os.fspath(value), str)
    except TypeError:  # also of a __fspath__ that returns neither
        return False


def samplers_beside(model):
    """The study's multistep samplers, {name: options}: those that an export carries, else those
    that drew images of this file, by the records of these jobs in the folders beside it."""
    carried = of_study.read(model.with_name(of_study.CARRIED))
    if carried:
        return carried
    paths = [path for name in ("run", "features") for path in model.parent.glob(f"*/{name}.json")]
    found = {path: _sampling(path) for path in sorted(paths)}
    found = {path: drawn for path, drawn in found.items() if drawn}
    digest = record.digest(model) if found else None
    of_this = {path: options for path, (options, of) in found.items() if digest in of}
    return {path.parent.name.partition("-")[0]: options for path, options in of_this.items()}


def _sampling(path):
    """(options, hashes of the inputs) of a job that drew images in several steps, from its record;
    None for any other file."""
    try:
        whole = checkpoint.read_json(path)
    except ValueError:
        return None
    settings, inputs = whole.get("settings"), whole.get("inputs")
    if not isinstance(settings, dict) or not isinstance(inputs, dict):
        return None
    drawing = settings.get("sampling", settings)
    fits = isinstance(drawing, dict) and drawing.get("kind") == "multistep"
    if not fits or not of_study.is_multistep(drawing.get("options")):
        return None
    return drawing["options"], list(inputs.values())
