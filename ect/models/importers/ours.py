"""A model file of this pipeline, from another study -> (weights, about)."""

from ect.models.importers.fitting import Foreign, fitted
from ect.runtime import checkpoint
from ect.runtime.versions import setting

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
    return weights, {key: setting(about, key) for key in ("c_noise", "c_in")} | about
