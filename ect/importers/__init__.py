"""Models from elsewhere -> (weights, about) of a model file: one file for each format.

==============  ==================================================================================
`fitting`       what a foreign file must be: allowed values, weights that fit their network
`pickles`       a pickle of EDM or ECT, read without running what it asks for
`edm`           checkpoints of EDM and ECT
`diffusers`     a UNet2DModel of diffusers with its scheduler
`ours`          model.safetensors of another study
`state_dict`    bare weights of the U-Net here, whose meaning the config tells
==============  ==================================================================================
"""

from collections.abc import Callable

from ect.importers import diffusers, edm, ours, state_dict

FORMATS: dict[str, Callable] = {
    "edm": edm.read,
    "diffusers": diffusers.read,
    "ect": ours.read,
    "state_dict": state_dict.read,
}


def read(format, source, about=None, data=None):
    """(weights, about) of a file, folder or name. A state dict alone needs to be told its meaning,
    `about`, and the dataset file whose images it reads; raises `ValueError`."""
    told = [value for value in (about, data) if value is not None]
    if len(told) != (2 if format == "state_dict" else 0):
        found = f"{len(told)} of --about and --data"
        raise ValueError(f"{format}: found {found}; allowed: both, for state_dict alone")
    return FORMATS[format](source, *told)
