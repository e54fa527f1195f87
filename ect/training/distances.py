"""From the block `distance` of a recipe to its function."""

import functools

from safetensors import SafetensorError
from safetensors.torch import load_file

from ect.models.about import named
from ect.models.build import require_match
from ect.networks.lpips import Lpips, widths
from ect.objective import DISTANCES, huber, lpips
from ect.runtime import device


def make_distance(block, pixels=None):
    """d(a, b) -> (B,) of a recipe. `pixels` are the shift and scale that lead from pixels to the
    range of its images; without them there is no `lpips`, and a `ValueError`."""
    kind = block["kind"]
    if kind == "huber":
        return functools.partial(huber, c=block["c"])
    if kind != "lpips":
        return DISTANCES[kind]
    if pixels is None:
        raise ValueError("distance.kind: found 'lpips', which is of images; allowed: in training")
    return functools.partial(lpips, network=read_lpips(block["path"], **pixels))


def read_lpips(path, shift, scale):
    """The network of LPIPS, frozen, on the device; raises `ValueError` for a file of other
    tensors than ect/networks/lpips.py names."""
    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        found = f"not readable as safetensors ({error})"
        raise ValueError(f"{path}: {found}; allowed: what ect/networks/lpips.py names") from None
    network = Lpips([width or 1 for width in widths(weights)], shift, scale)
    with named(path):
        require_match(weights, network.state_dict(), of="LPIPS of VGG-16")
    network.load_state_dict(weights)
    return network.to(device.current())


def files(settings):
    """[The file of weights that the distance of a run reads], or []."""
    path = settings["recipe"]["distance"].get("path")
    return [path] if path else []
