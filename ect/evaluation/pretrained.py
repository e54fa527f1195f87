"""Feature spaces of published networks: Inception-v3 (of clean-fid) and DINOv2."""

import collections
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from ect.config.evaluation import FETCHED, INCEPTION_FILE
from ect.runtime import device

# Of the images that DINOv2 was trained on, per channel.
IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_SD = np.array([0.229, 0.224, 0.225], np.float32)


def inception(mode, folder=None):
    """clean-fid's Inception-v3: 2,048 features per image. `legacy_tensorflow` gives numbers that
    are comparable with published ones at 32x32; `clean` resizes as clean-fid proposes.

    The weights are read from `folder`, or downloaded if it is None.
    """
    from cleanfid.inception_torchscript import InceptionV3W
    from cleanfid.resize import build_resizer

    inside = mode == "legacy_tensorflow"
    path = weights_in(folder)
    script(path)  # an error in the file is one line
    model = InceptionV3W(str(path.parent), download=False, resize_inside=inside)
    model.to(device.current()).eval()
    resize = build_resizer(mode)

    def extract(pixels):
        x = torch.from_numpy(resized(resize, coloured(pixels))).to(device.current())
        return model(x.permute(0, 3, 1, 2).float())

    return extract


def class_probabilities(features, folder=None):
    """p(class | image), (N, 1008), of Inception's features (N, 2048), in float64.

    Inception's last layer is a linear map and a softmax. For the Inception score the map has no
    bias, as in the network of Salimans et al. 2016 (the weights' option `no_output_bias`). It is
    computed here, so that stored features are enough.
    """
    weight = script(weights_in(folder)).state_dict()["output.weight"]
    logits = torch.from_numpy(features) @ weight.double().T
    return torch.softmax(logits, dim=1).numpy()


def dinov2(path):
    """The class token of DINOv2 (ViT-L/14: 1,024 features per image), as in the FD of Stein et
    al. 2023: images resized to 224x224 by Pillow's bicubic filter.

    `path` is a TorchScript of the network, (N, 3, 224, 224) -> (N, D), which its authors' code
    makes in three lines:

        network = torch.hub.load("facebookresearch/dinov2", "dinov2_vitl14").eval()
        traced = torch.jit.trace(network, torch.zeros(1, 3, 224, 224))
        traced.save("models/dinov2_vitl14.pt")
    """
    from cleanfid.resize import make_resizer

    model = script(path).to(device.current())
    resize = make_resizer("PIL", True, "bicubic", (224, 224))

    def extract(pixels):
        sized = resized(resize, coloured(pixels)) / np.float32(255)
        x = torch.from_numpy((sized - IMAGENET_MEAN) / IMAGENET_SD).permute(0, 3, 1, 2)
        return model(x.contiguous().to(device.current()))

    return extract


def weights_in(folder):
    """The file of Inception's weights in `folder`, or, where it is None, the fetched one."""
    if folder is not None:
        return Path(folder) / INCEPTION_FILE
    fetch_inception(FETCHED)
    return Path(FETCHED)


def fetch_inception(path):
    """Download Inception's weights to `path` through clean-fid, unless the file is there; raises
    `ValueError` that says which file to put where by hand."""
    from cleanfid import downloads_helper

    path = Path(path)
    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        try:
            downloaded = downloads_helper.check_download_inception(scratch)
            script(downloaded)  # raises for half a file
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{path}: Inception's weights could not be downloaded ({error}); put"
                f" {downloads_helper.inception_url} there by hand, or name a folder that holds"
                f" {INCEPTION_FILE} as features.inception_path"
            ) from None
        os.replace(downloaded, path)


def script(path):
    """A TorchScript network on the CPU; raises `ValueError` if the file is not one."""
    try:
        return torch.jit.load(str(path), map_location="cpu").eval()
    except (RuntimeError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        found = f"not a readable TorchScript ({first})"
        raise ValueError(f"{path}: {found}; allowed: a file of torch.jit.save") from None


def resized(resize, pixels):
    """What clean-fid's `resize` makes of each image of `pixels`, in one array (N, H, W, C). As many
    threads as torch has fill it: an image's bits do not depend on their number."""
    first = resize(pixels[0])
    whole = np.empty((len(pixels), *first.shape), first.dtype)
    whole[0] = first

    def fill(index):
        whole[index] = resize(pixels[index])

    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        collections.deque(threads.map(fill, range(1, len(pixels))), maxlen=0)
    return whole


def coloured(pixels):
    """Images (N, H, W, C) with three channels: that of grey ones is repeated."""
    return np.repeat(pixels, 3, axis=3) if pixels.shape[3] == 1 else pixels
