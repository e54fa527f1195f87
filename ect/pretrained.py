"""Feature spaces of networks that were trained elsewhere, as libraries build them."""

from pathlib import Path

import numpy as np
import torch

from ect import machine
from ect.config import INCEPTION_FILE


def inception(mode, folder=None):
    """clean-fid's Inception-v3: 2,048 values an image. `legacy_tensorflow` gives the numbers that
    are comparable with published ones at 32x32; `clean` resizes as clean-fid proposes.

    The weights are read from `folder`, or downloaded by clean-fid where none is given.
    """
    from cleanfid.inception_torchscript import InceptionV3W
    from cleanfid.resize import build_resizer

    inside = mode == "legacy_tensorflow"
    cache = folder or torch.hub.get_dir()
    Path(cache).mkdir(parents=True, exist_ok=True)
    model = InceptionV3W(str(cache), download=folder is None, resize_inside=inside)
    model.to(machine.device()).eval()
    resize = build_resizer(mode)

    def extract(pixels):
        colour = np.repeat(pixels, 3, axis=3) if pixels.shape[3] == 1 else pixels
        sized = np.stack([resize(image) for image in colour])
        x = torch.from_numpy(sized.astype(np.float32)).permute(0, 3, 1, 2)
        return model(x.to(machine.device()))

    return extract


def class_probabilities(features, folder=None):
    """p(class | image), (N, 1008), of Inception's features (N, 2048), in float64.

    Inception's last layer is a linear map and a softmax. For the Inception score the map goes
    without its bias, as in the network that Salimans et al. 2016 used (the weights' own
    `no_output_bias`); so that the features on disk are enough, it is done here.
    """
    path = Path(folder or torch.hub.get_dir()) / INCEPTION_FILE
    weight = torch.jit.load(str(path), map_location="cpu").state_dict()["output.weight"]
    logits = torch.from_numpy(features) @ weight.double().T
    return torch.softmax(logits, dim=1).numpy()
