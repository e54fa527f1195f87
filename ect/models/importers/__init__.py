"""Models from elsewhere -> (weights, about) of a model file: one file for each format.

==============  ==================================================================================
`scan`          bounds of a pickle, checked before it is read
`pickles`       a pickle of EDM or ECT, read without running any code in it
`foreign`       what a file is, and which format reads it
`edm2`          the network of EDM2's checkpoints and of ECT's for ImageNet
`edm`           checkpoints of EDM, EDM2 and ECT
`diffusers`     a UNet2DModel of diffusers with its scheduler
`ours`          model.safetensors of another study
`state_dict`    bare weights of this package's U-Net; the config says what they mean
==============  ==================================================================================
"""

import os
from collections.abc import Callable

from ect.models.importers import diffusers, edm, foreign, ours, state_dict
from ect.runtime.text import shown

FORMATS: dict[str, Callable] = {
    "edm": edm.read,
    "diffusers": diffusers.read,
    "ect": ours.read,
    "state_dict": state_dict.read,
}


def read(format, source, about=None, data=None):
    """(weights, about) of a file, folder or name. Only `state_dict` takes, and needs, `about`, the
    meaning of its weights, and `data`, the dataset file of its images. Raises `ValueError`."""
    extra = [value for value in (about, data) if value is not None]
    if len(extra) != (2 if format == "state_dict" else 0):
        found = f"{len(extra)} of --about and --data"
        raise ValueError(
            f"{format}: found {found}; allowed: both for state_dict, none for other formats"
        )
    if format != "diffusers" and not os.path.lexists(source):
        raise ValueError(f"{shown(source)}: found nothing there; allowed: a file of weights")
    foreign.require(format, source)
    return FORMATS[format](source, *extra)
