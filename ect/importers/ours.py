"""A model file of this pipeline, from another study -> (weights, about)."""

from ect import checkpoint
from ect.importers.fitting import Foreign, fitted

KEYS = ("network", "process", "parameterization", "shape", "sd", "shift", "scale")


def read(path):
    """(weights, about) of a model.safetensors; raises ValueError if the file is no model."""
    weights, about = checkpoint.load(path)
    try:
        if lacking := [key for key in KEYS if key not in about]:
            found = f"no {', '.join(lacking)} in its metadata"
            raise Foreign("content", found, "a model.safetensors that `train` or an import wrote")
        fitted(weights, about["network"], about["shape"])
    except Foreign as error:
        raise ValueError(f"{path}: {error}") from None
    return weights, {"c_noise": "log_s", "c_in": "scaled"} | about  # older files are EDM's
