"""Feature spaces: uint8 images (N, H, W, C) -> float64 features (N, D).

`extract(pixels)` is a network's: the study's own classifier (`ect/evaluation/classifier.py`), a
pretrained one (`ect/evaluation/pretrained.py`), or a plugin's.
"""

import torch

from ect.data.file import RESIZES
from ect.evaluation import samples
from ect.models.about import brief, is_shape
from ect.runtime import checkpoint, device
from ect.runtime.versions import DEFAULTS, setting

BATCH = 500  # images in one pass through a network


def plugin_extractor(function):
    """The extractor of a plugin, which checks that its features are (N, D); raises `ValueError` if
    D changes."""
    width: list[int] = []

    def extract(pixels):
        result = torch.as_tensor(function(pixels))
        width.append(result.shape[1])
        if width[-1] != width[0]:
            raise ValueError(
                f"{function.described}: {width[-1]} features of an image, {width[0]} of those"
                " before; allowed: equally many"
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


def save(path, found, name, shape=None, resize=DEFAULTS["resize"]):
    """Write features (N, D), the name of their space, the shape (C, H, W) of their images, and how
    these were resized, unless by Lanczos or not."""
    about = {} if shape is None else {"shape": list(shape)}
    about |= {} if resize == DEFAULTS["resize"] else {"resize": resize}
    checkpoint.save(path, {"features": found}, features=name, **about)


def load(path):
    """(name of the space, features (N, D) in float64, (C, H, W) of their images) of a file that
    `save` wrote; the shape is None in a file from before it was stored. Raises `CheckpointError`.
    """
    tensors, about = checkpoint.load(path)
    found = tensors.get("features")
    if found is None or found.ndim != 2 or not found.is_floating_point() or not found.numel():
        what = "no features" if found is None else f"{tuple(found.shape)} of {found.dtype}"
        raise checkpoint.CheckpointError(
            f"{path}: holds {what}; allowed: (images, numbers) floats, at least one of each"
        )
    _require_named(path, about)
    shape = about.get("shape")
    if shape is not None and not is_shape(shape):
        what = f"images of {brief(shape)}; allowed: [channels, height, width]"
        raise checkpoint.CheckpointError(f"{path}: holds features of {what}")
    found = found.double()
    require_finite(found, f"{path}: features")
    return about["features"], found.numpy(), shape and tuple(shape)


def _require_named(path, about):
    """Raise `CheckpointError` unless a file says whose features it holds, and of which images."""
    name, made = about.get("features"), setting(about, "resize")
    if not (isinstance(name, str) and name.strip() and name.isprintable()):
        found = "no name" if name is None else brief(name)
        raise checkpoint.CheckpointError(
            f"{path}: found {found} for the space of its features; allowed: a name on one line"
        )
    if made not in RESIZES:
        allowed = ", ".join(RESIZES)
        raise checkpoint.CheckpointError(
            f"{path}: found images resized by {brief(made)}; allowed: {allowed}"
        )


def resize_of(path):
    """How the images were resized that a file of features is of."""
    return setting(checkpoint.load(path)[1], "resize")


def require_shape(path, shape, wanted, where):
    """Raise `ValueError` if images have another shape (C, H, W) than those of `where`, where both
    are known. A network that resizes its images would measure them all the same."""
    if None not in (shape, wanted) and tuple(shape) != tuple(wanted):
        (found, allowed) = ("x".join(map(str, (h, w, c))) for c, h, w in (shape, wanted))
        raise ValueError(f"{path}: images of {found}; allowed: of {allowed}, as those of {where}")


def require_width(path, found, wanted, where):
    """Raise `ValueError` if features (N, D) have another D than those (M, D) of `where`."""
    if found.shape[1] != wanted.shape[1]:
        raise ValueError(
            f"{path}: {found.shape[1]} numbers for each image; allowed: {wanted.shape[1]}, as of"
            f" those of {where}"
        )
