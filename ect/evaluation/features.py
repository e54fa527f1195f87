"""Feature spaces: uint8 images (N, H, W, C) -> float64 features (N, D).

`extract(pixels)` is a network's: the study's own classifier (`ect/evaluation/classifier.py`), a
pretrained one (`ect/evaluation/pretrained.py`), or a plugin's.
"""

import torch

from ect.evaluation import samples
from ect.runtime import checkpoint, device

BATCH = 500  # images in one pass through a network


def plugin_extractor(function):
    """The extractor of a plugin; raises `ValueError` if its features are not (N, D)."""

    def extract(pixels):
        result = torch.as_tensor(function(pixels))
        if result.ndim != 2 or len(result) != len(pixels):
            shape = tuple(result.shape)
            raise ValueError(
                f"features of {len(pixels)} images have the shape {shape}; allowed:"
                f" ({len(pixels)}, D)"
            )
        return result

    return extract


def of_images(extract, pixels):
    """Features (N, D) of uint8 images (N, H, W, C), in float64."""
    return of_batches(extract, samples.pieces(pixels, BATCH)).double().numpy()


@torch.no_grad()
def of_batches(extract, batches):
    """Features (N, D), a tensor in the network's precision, of uint8 images (n, H, W, C) that come
    in batches of any size. The network sees batches of `BATCH`, so its rounding is always the
    same."""
    found, seen = None, 0  # one tensor that doubles in size: a list would fragment memory
    for pixels in samples.regrouped(batches, BATCH):
        with device.precision("fp32"):
            part = extract(pixels).cpu()
        require_finite(part)
        if found is None or seen + len(part) > len(found):
            room = part.new_empty(seen + 2 * len(part), part.shape[1])
            found = room if found is None else torch.cat([found[:seen], room])
        found[seen : seen + len(part)] = part
        seen += len(part)
    if found is None:
        raise ValueError("found no images; allowed: at least one")
    return found[:seen].clone()


def require_finite(found, name="features"):
    """Raise `FloatingPointError` unless all features (N, D) are finite."""
    if bad := int((~found.isfinite()).any(1).sum()):
        what = f"those of {bad} of {len(found)} images hold NaN or infinity"
        raise FloatingPointError(f"{name}: {what}; allowed: finite features")


def save(path, found, name):
    """Write features (N, D), and the name of their space."""
    checkpoint.save(path, {"features": found}, features=name)


def load(path):
    """(name of the space, features (N, D) in float64) of a file that `save` wrote; raises
    `CheckpointError`."""
    tensors, about = checkpoint.load(path)
    if "features" not in tensors:
        raise checkpoint.CheckpointError(f"{path}: holds no features")
    require_finite(tensors["features"], f"{path}: features")
    return about["features"], tensors["features"].double().numpy()
