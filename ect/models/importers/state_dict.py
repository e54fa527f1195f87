"""Bare weights of this package's U-Net, written elsewhere -> (weights, about).

The file holds no description. The config names the network, the process, the parameterization and
the time label; the dataset gives the images' shape, their range and, unless the config does, their
sd.
"""

import re
import warnings

import torch
from safetensors.torch import load_file

from ect.data.batches import Images
from ect.models.about import Foreign, fits, named, require, said
from ect.models.build import description, fitted, single
from ect.models.importers.scan import scan_torch

# What `settings` hold, in words; `require` says more of each.
NEEDED = {
    "network": (lambda x: isinstance(x, dict), "a mapping"),
    **{
        key: (lambda x: isinstance(x, str), "a name")
        for key in ("process", "parameterization", "c_noise")
    },
}
OPTIONAL = dict.fromkeys(("c_in", "sd"), (lambda x: x is not None, "no null"))
# Where torch, after what else could be done, says what it refuses in a file.
REFUSED = r"WeightsUnpickler error: (Unsupported global: GLOBAL (\S+)|[^\n]+)"
PREFIXES = ("module.", "model.", "_orig_mod.")  # of DDP, of a wrapper, of torch.compile


def read(path, settings, data):
    """(weights, about) of a `.safetensors` file, or of a `.pt` file read without running code.

    `settings` holds network, process, parameterization, c_noise and, if they differ from
    `scaled` and the dataset's, c_in and sd; `data` is the dataset file. Raises ValueError.
    """
    with named("--about"):
        fits("", settings, NEEDED, OPTIONAL)
        about = description(settings, Images(data))
        require(about)
    with named(path):
        return fitted(bare(tensors_in(path)), about), about


def tensors_in(path):
    """{name: tensor} of the file."""
    try:
        if str(path).endswith(".safetensors"):
            content = load_file(path)
        else:
            with open(path, "rb") as file:
                scan_torch(file)
            with warnings.catch_warnings(action="ignore"):  # of sparse tensors, refused below
                content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, Foreign):
        raise
    except Exception as error:  # a damaged or malicious file can raise anything
        allowed = "a state dict as .safetensors, or of torch.save: tensors alone, by name"
        found = said(error)
        if reason := re.search(REFUSED, str(error)):
            found = f"an object of {reason[2]}" if reason[2] else reason[1]
        raise Foreign("content", found, allowed) from None
    tensors = isinstance(content, dict) and all(
        isinstance(value, torch.Tensor) for value in content.values()
    )
    if not (tensors and content):
        keys = ""
        if isinstance(content, dict):
            keys = f" with {', '.join(map(str, list(content)[:4]))}"
        raise Foreign("content", f"{type(content).__name__}{keys}", "a dict of tensors by name")
    for name, value in content.items():
        if value.layout != torch.strided or value.is_nested or value.device.type != "cpu":
            form = "nested" if value.is_nested else value.layout
            found = f"a tensor that is {form}, on {value.device}"
            raise Foreign(str(name), found, "a dense one with its numbers")
        if value.nbytes > value.untyped_storage().nbytes():
            raise Foreign(str(name), "a tensor larger than what is stored of it", "one as large")
    return content


def bare(tensors):
    """The tensors, float32, without the prefixes that all of their names have."""
    weights = {str(name): single(name, value) for name, value in tensors.items()}
    while prefix := next((p for p in PREFIXES if all(n.startswith(p) for n in weights)), None):
        weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights
