"""What metrics derive from the training images' features alone, stored beside them: the Gaussian of
the Frechet distance, and the radii of precision and recall.

No evaluation of a study then computes it again; the numbers are those of one that does.
"""

import numpy as np
import torch

from ect.evaluation import features, metrics, origin
from ect.models.about import Foreign, named
from ect.models.build import require_match
from ect.runtime import checkpoint, record
from ect.runtime.record import digest
from ect.runtime.seeds import generator_of


def run(settings, reference, out):
    """Write the summary of the features in the file `reference`: the Gaussian and, where `settings`
    says so, the radii. The sha256 of that file says whose summary it is."""
    real = metrics.Reference(features.load(reference)[1])
    origin.require_training(reference)
    require_several(reference, real.features)
    with np.errstate(over="ignore", invalid="ignore"):
        found = real.gaussian._asdict()
        if settings["radii"]:
            found["radii"] = real.radii
    if bad := [key for key, value in found.items() if not np.isfinite(value).all()]:
        raise FloatingPointError(
            f"{reference}: the {bad[0]} of its features is not finite; allowed: features whose"
            " moments are finite numbers"
        )
    tensors = {key: torch.from_numpy(np.asarray(value)) for key, value in found.items()}
    checkpoint.save(out, tensors, reference=digest(reference))


def require_several(path, found):
    """Raise `ValueError` unless a file has features (N, D) of two images or more, of which there is
    a covariance."""
    if len(found) < 2:
        raise ValueError(f"{path}: holds features of {len(found)} image; allowed: of 2 or more")


def require(tensors, real):
    """Raise `Foreign` unless a summary's tensors can be those of features `real` (M, D): their
    names, shapes and types, the mean, the variance, and the covariance along one way."""
    count, width = real.shape
    shapes = {"mean": (width,), "variance": (), "root": (width, min(count - 1, width))}
    shapes |= {"radii": (count,)} if "radii" in tensors else {}
    expected = {key: torch.empty(shape, dtype=torch.float64) for key, shape in shapes.items()}
    require_match(tensors, expected, "summary", "features", exact=True)
    mean, squares = real.mean(axis=0), np.einsum("nd,nd->", real, real) / max(count - 1, 1)
    variance = squares - mean @ mean * count / max(count - 1, 1)
    about = {"mean": (tensors["mean"], mean), "variance": (tensors["variance"], variance)}
    root, probe = tensors["root"].numpy(), generator_of("summary")
    way = torch.randn(width, generator=probe, dtype=torch.float64).numpy()
    along = real.T @ (real @ way) / max(count - 1, 1)
    along -= mean * (mean @ way) * count / max(count - 1, 1)
    about |= {"root": (root @ (root.T @ way), along)}  # the covariance along a random way
    for key, (found, wanted) in about.items():
        least = 1e-6 * (squares**0.5 if key == "mean" else squares)
        if not np.allclose(found, wanted, rtol=1e-6, atol=least):
            raise Foreign("summary", f"another {key}", "that of the features")
    if "radii" in tensors and (tensors["radii"] < 0).any():
        raise Foreign("summary", "negative radii", "distances")


def laid_over(real, summary, reference):
    """The `metrics.Reference` of features `real` (M, D), which lie in the file `reference`, with
    what the file `summary` holds of them; raises `ValueError` if that is of other features."""
    tensors, about = checkpoint.load(summary)
    record.of(summary)  # as its job wrote it
    if about.get("reference") != digest(reference):
        allowed = "what `summarize` writes of them"
        raise ValueError(f"{summary}: not of the features in {reference}; allowed: {allowed}")
    with named(summary):
        require(tensors, real)
    found = {key: value.numpy() for key, value in tensors.items()}
    known = metrics.Reference(real)
    known.gaussian = metrics.Gaussian(found["mean"], float(found["variance"]), found["root"])
    if "radii" in found:
        known.radii = found["radii"]
    return known
