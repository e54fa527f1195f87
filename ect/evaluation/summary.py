"""What metrics derive from the training images' features alone, stored beside them: the Gaussian of
the Frechet distance, and the radii of precision and recall.

No evaluation of a study then computes it again; the numbers are those of one that does.
"""

import numpy as np
import torch

from ect.evaluation import features, metrics
from ect.runtime import checkpoint
from ect.runtime.record import digest


def run(settings, reference, out):
    """Write the summary of the features in the file `reference`: the Gaussian and, where `settings`
    says so, the radii. The sha256 of that file says whose summary it is."""
    real = metrics.Reference(features.load(reference)[1])
    found = real.gaussian._asdict()
    if settings["radii"]:
        found["radii"] = real.radii
    tensors = {key: torch.from_numpy(np.asarray(value)) for key, value in found.items()}
    checkpoint.save(out, tensors, reference=digest(reference))


def laid_over(real, summary, reference):
    """The `metrics.Reference` of features `real` (M, D), which lie in the file `reference`, with
    what the file `summary` holds of them; raises `ValueError` if that is of other features."""
    tensors, about = checkpoint.load(summary)
    found = {key: value.numpy() for key, value in tensors.items()}
    if about.get("reference") != digest(reference):
        allowed = "what `summarize` writes of them"
        raise ValueError(f"{summary}: not of the features in {reference}; allowed: {allowed}")
    known = metrics.Reference(real)
    known.gaussian = metrics.Gaussian(found["mean"], float(found["variance"]), found["root"])
    if "radii" in found:
        known.radii = found["radii"]
    return known
