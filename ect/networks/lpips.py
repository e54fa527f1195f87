"""LPIPS (Zhang et al. 2018): how unlike two images look to a network that was trained to name them.

The features of VGG-16 after the last ReLU of each block, of unit length at every place; their
squared differences, weighted by a number for each channel, summed over channels and averaged over
places; the sum over the five blocks. Consistency models (Song et al. 2023) resize images to 224x224
by bilinear interpolation first.

The weights are tensors in a safetensors file, made of torchvision's network and of those that the
authors of LPIPS publish (PerceptualSimilarity, lpips/weights/v0.1/vgg.pth):

    network = torchvision.models.vgg16(weights="IMAGENET1K_V1").features.state_dict()
    weights = {f"features.{name}": value for name, value in network.items()}
    weights |= torch.load("vgg.pth", weights_only=True)
    safetensors.torch.save_file(weights, "lpips.safetensors")
"""

import torch
from torch import nn
from torch.nn import functional

# The convolutions of each block, by their places in torchvision's list of layers.
BLOCKS = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
MEAN, SD = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of ImageNet's pixels in [-1, 1]
SIDE, LARGE = 224, 256  # images of a side below the second are resized to the first
LEAST = 1e-10  # a length, below which features are as good as none


class Lpips(nn.Module):
    """LPIPS of images (B, C, H, W) of one or three channels; `shift` and `scale` lead from pixels
    to their range: (pixels - shift) * scale. `widths` are those of the five blocks."""

    def __init__(self, widths, shift, scale):
        super().__init__()
        self.shift, self.scale, before, layers = shift, scale, 3, {}
        for index, (block, width) in enumerate(zip(BLOCKS, widths, strict=True)):
            for layer in block:
                layers[str(layer)] = nn.Conv2d(before, width, 3, padding=1)
                before = width
            # Their names in the published file: lin0.model.1.weight, ...
            weigh = nn.ModuleDict({"1": nn.Conv2d(width, 1, 1, bias=False)})
            self.add_module(f"lin{index}", nn.ModuleDict({"model": weigh}))
        self.features = nn.ModuleDict(layers)
        self.requires_grad_(False)

    def forward(self, a, b):
        """(B,), in the precision of the weights."""
        with torch.autocast(a.device.type, enabled=False):
            pairs = zip(self.blocks(a), self.blocks(b), strict=True)
            return sum(self._weighed(i, u - v) for i, (u, v) in enumerate(pairs))

    def blocks(self, x):
        """The features (B, D, H', W') of each block, of unit length at every place."""
        x = self.pixels(x)
        for index, block in enumerate(BLOCKS):
            x = functional.max_pool2d(x, 2) if index else x
            for layer in block:
                x = functional.relu(self.features[str(layer)](x))
            length = x.square().sum(1, keepdim=True).clamp(min=LEAST**2).sqrt()
            yield x / (length + LEAST)

    def pixels(self, x):
        """Images as the network reads them: of three channels, resized, standardized."""
        weight = next(self.parameters())
        x = ((x.to(weight.dtype) / self.scale + self.shift) / 127.5 - 1).expand(-1, 3, -1, -1)
        if x.shape[-1] < LARGE:
            x = functional.interpolate(x, (SIDE, SIDE), mode="bilinear")
        mean, sd = (weight.new_tensor(one).view(3, 1, 1) for one in (MEAN, SD))
        return (x - mean) / sd

    def _weighed(self, index, difference):
        layer = self.get_submodule(f"lin{index}.model.1")
        return layer(difference.square()).flatten(1).mean(1)


def widths(weights):
    """The widths of the five blocks of weights by name, 0 for one that is not there."""
    firsts = [weights.get(f"features.{block[0]}.weight") for block in BLOCKS]
    return [0 if first is None or not first.ndim else len(first) for first in firsts]
