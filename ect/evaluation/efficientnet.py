"""The feature space of EfficientNet-Lite0, which was trained on ImageNet.

The network is EfficientNet-B0 (Tan & Le 2019, table 1) as its authors' lite variant has it: no
squeeze-and-excitation, ReLU6 in place of swish, padding as TensorFlow's `SAME`. The weights are in
a package of the index, of which only the tensors are read: none of its code is imported or run.
"""

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ect.config import evaluation
from ect.evaluation.pretrained import coloured
from ect.models.importers.state_dict import tensors_in
from ect.runtime import device, record

SPACE = "efficientnet-lite0"  # its name in files of features
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
SIDE = 224  # of the images that it was trained on
MEAN, SD = 127, 128  # of its input, in grey values
# Of each stage: its expansion, the kernel of its depthwise convolutions, the stride of the first of
# them, channels, blocks.
STAGES = [
    (1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3), (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4), (6, 3, 1, 320, 1),
]  # fmt: skip
STEM, WIDTH = 32, 1280  # channels of the first and of the last convolution
CACHED = 2  # images whose maps fit into a processor's cache: half the time of 8 at once


class Convolution(nn.Conv2d):
    """A convolution without bias, padded as TensorFlow's `SAME`: where the number of rows that are
    added is odd, one more below (and to the right). For sides that the stride divides."""

    def __init__(self, inside, outside, kernel=1, stride=1, groups=1):
        around, more = divmod(max(kernel - stride, 0), 2)
        super().__init__(inside, outside, kernel, stride, around, groups=groups, bias=False)
        self.more = more == 1

    def forward(self, x):
        return super().forward(functional.pad(x, [0, 1, 0, 1]) if self.more else x)


def norm(channels):
    return nn.BatchNorm2d(channels, eps=1e-3)


class Block(nn.Module):
    """1x1 to `expansion` times the channels, depthwise, 1x1 to `outside` channels; plus its input,
    where that has the same shape (Sandler et al. 2018)."""

    def __init__(self, inside, outside, expansion, kernel, stride):
        super().__init__()
        width = expansion * inside
        self.expanded, self.residual = expansion > 1, stride == 1 and inside == outside
        if self.expanded:
            self.expand_conv, self.bn0 = Convolution(inside, width), norm(width)
        self.depthwise_conv = Convolution(width, width, kernel, stride, groups=width)
        self.bn1 = norm(width)
        self.project_conv, self.bn2 = Convolution(width, outside), norm(outside)

    def forward(self, x):
        h = functional.relu6(self.bn0(self.expand_conv(x))) if self.expanded else x
        h = functional.relu6(self.bn1(self.depthwise_conv(h)))
        h = self.bn2(self.project_conv(h))
        return x + h if self.residual else h


class EfficientNet(nn.Module):
    """Images (B, 3, 224, 224), each grey value g as (g - 127) / 128 -> features (B, 1280): the mean
    over the 7x7 places of the last convolution's maps, which a linear layer would tell classes by.

    Modules are named as in the file of the weights, without the underscore before each name.
    """

    def __init__(self):
        super().__init__()
        self.conv_stem, self.bn0 = Convolution(3, STEM, 3, 2), norm(STEM)
        self.blocks, inside = nn.ModuleList(), STEM
        for expansion, kernel, stride, channels, blocks in STAGES:
            for index in range(blocks):
                steps = stride if index == 0 else 1
                self.blocks.append(Block(inside, channels, expansion, kernel, steps))
                inside = channels
        self.conv_head, self.bn1 = Convolution(inside, WIDTH), norm(WIDTH)

    def forward(self, x):
        x = functional.relu6(self.bn0(self.conv_stem(x)))
        for block in self.blocks:
            x = block(x)
        return functional.relu6(self.bn1(self.conv_head(x))).mean((2, 3))


# Each convolution and the normalization after it, in a block or in the network.
NORMALIZED = {
    "conv_stem": "bn0", "expand_conv": "bn0", "depthwise_conv": "bn1", "project_conv": "bn2",
    "conv_head": "bn1",
}  # fmt: skip


def folded(network):
    """The network with its normalizations in the weights of the convolutions before them, which
    saves a fifth of the time and changes features by rounding."""
    for module in list(network.modules()):
        for convolution, after in NORMALIZED.items():
            if hasattr(module, convolution):
                pair = getattr(module, convolution), getattr(module, after)
                setattr(module, convolution, fuse_conv_bn_eval(*pair))
                setattr(module, after, nn.Identity())
    return network


def weights_file():
    """The file of the weights in the installed package. Raises `ValueError`, which says what to
    install, if there is none, or one of other bytes: distances would have this space's name."""
    path = evaluation.efficientnet_file()
    if path is None:
        raise ValueError(
            "features.extractor: found 'efficientnet' without the package"
            f" {evaluation.EFFICIENTNET}; allowed: after `pip install {evaluation.EFFICIENTNET}`"
        )
    found = record.digest(path) if path.is_file() else None
    if found != SHA256:
        bytes_ = "no such file" if found is None else f"sha256 {found[:12]}..."
        allowed = f"{SHA256[:12]}..., as in version 0.1.0 of {evaluation.EFFICIENTNET}"
        raise ValueError(f"{path}: found {bytes_}; allowed: {allowed}")
    return path


def network(tensors):
    """The network of the tensors of a file of weights, {name: tensor}, in evaluation mode."""
    with torch.device("meta"):
        made = EfficientNet()
    named = {name.removeprefix("_").replace("._", "."): value for name, value in tensors.items()}
    kept = {name: value for name, value in named.items() if not name.startswith("fc.")}
    made.load_state_dict(kept, assign=True)
    return folded(made.eval())


def resized(pixels):
    """Grey values (N, 3, 224, 224), float32, of images (N, 3, H, W): Pillow's bicubic filter (with
    a = -1/2, widened where an image shrinks), not rounded to whole grey values."""
    size = (SIDE, SIDE)
    return functional.interpolate(pixels.float(), size, mode="bicubic", antialias=True)


def extractor():
    """The function that gives 1,280 features of each image (N, H, W, C), uint8, grey or coloured;
    raises `ValueError` without the weights."""
    where = device.current()
    made = network(tensors_in(weights_file())).to(where, memory_format=torch.channels_last)

    def extract(pixels):
        x = torch.from_numpy(coloured(pixels)).permute(0, 3, 1, 2).to(where)
        pieces = x.split(CACHED if where.type == "cpu" else len(x))
        return torch.cat([made(prepared(piece)) for piece in pieces])

    def prepared(x):
        return ((resized(x) - MEAN) / SD).contiguous(memory_format=torch.channels_last)

    return extract
