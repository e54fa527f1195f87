"""A model file of this pipeline, from another study -> (weights, about)."""

from ect.models import build
from ect.runtime.versions import setting


def read(path):
    """(weights, about) of a model.safetensors; raises ValueError if the file is no model."""
    weights, about = build.read(path)
    return weights, {key: setting(about, key) for key in ("c_noise", "c_in")} | about
