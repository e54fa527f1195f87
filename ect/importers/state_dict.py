"""Bare weights of the U-Net here, written elsewhere -> (weights, about).

The file says nothing of itself: the config tells the network, the process, the parameterization and
the time label, and the dataset the images: their shape, their range and, unless told, their sd.
"""

import torch
from safetensors.torch import load_file

from ect import experiment
from ect.data import Images
from ect.importers.fitting import Foreign, fitted, said

PREFIXES = ("module.", "model.", "_orig_mod.")  # of DDP, of a wrapper, of torch.compile


def read(path, settings, data):
    """(weights, about) of a `.safetensors` file, or of a `.pt` file read without running code.

    `settings` holds network, process, parameterization, c_noise and, where they are not `scaled`
    and the dataset's, c_in and sd; `data` is the dataset file. Raises ValueError.
    """
    about = experiment.describe(settings, Images(data))
    try:
        found = bare(tensors_in(path))
        return fitted(found, about["network"], about["shape"]), about
    except Foreign as error:
        raise ValueError(f"{path}: {error}") from None


def tensors_in(path):
    """{name: tensor} of the file."""
    try:
        if str(path).endswith(".safetensors"):
            found = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a damaged or malicious file can raise anything
        allowed = "a state dict as .safetensors, or of torch.save"
        raise Foreign("content", said(error), allowed) from None
    tensors = isinstance(found, dict) and all(isinstance(v, torch.Tensor) for v in found.values())
    if not (tensors and found):
        keys = f" with {', '.join(map(str, list(found)[:4]))}" if isinstance(found, dict) else ""
        raise Foreign("content", f"{type(found).__name__}{keys}", "a dict of tensors by name")
    return found


def bare(found):
    """The tensors, float32, without the prefixes that all of their names have."""
    weights = {str(name): value.float().contiguous() for name, value in found.items()}
    while prefix := next((p for p in PREFIXES if all(n.startswith(p) for n in weights)), None):
        weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights
