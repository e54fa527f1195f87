"""diffusers' UNet2DModel as F(x, c_noise, label): a network that is built by its own library.

diffusers is an optional package; it is imported only when such a network is built or read.
"""

import torch
from torch import nn

from ect.networks.dropout import Dropout, deal, layers


def library():
    """The package diffusers; raises `ValueError` where it is not installed."""
    try:
        import diffusers
    except ImportError:
        raise ValueError(
            "diffusers: found no such package, which a UNet2DModel needs; allowed: the extra"
            " 'diffusers' of pyproject.toml installed (pip install 'diffusers>=0.30')"
        ) from None
    return diffusers


class UNet2D(nn.Module):
    """F(x, c_noise): images (B, C, H, W) and steps (B,), whole or between -> (B, C, H, W).

    `config` holds arguments of UNet2DModel, which knows the steps 0 to `steps` - 1: c_noise is
    clamped to them. `dropout` is active in train mode, by the `Masks` applied.
    `classes` > 0 takes labels (B,), int64; the embedding has one more row, zeros as imported, for
    no label (None, or -1).
    """

    def __init__(self, config, steps, classes, dropout):
        super().__init__()
        self.steps, self.classes = steps, classes
        rows, package = classes + 1 if classes else None, library()
        try:
            self.model = package.UNet2DModel(**config, num_class_embeds=rows, dropout=dropout)
        except (TypeError, ValueError) as error:
            known = f"the arguments of diffusers {package.__version__}"
            reason = " ".join(str(error).split())
            raise ValueError(f"UNet2DModel: found {reason:.300}; allowed: {known}") from None
        for parent in list(self.model.modules()):
            for name, module in parent.named_children():
                if isinstance(module, nn.Dropout):
                    parent.register_module(name, Dropout(module.p))
        self.dropouts = layers(self)

    def forward(self, x, c_noise, label=None):
        deal(self.dropouts, x)
        return self.computed(x, c_noise, label)

    def computed(self, x, c_noise, label=None):
        """`forward` under the masks that were dealt."""
        if label is not None and not self.classes:
            raise ValueError("found labels; allowed: none, as this network has no classes")
        if self.classes:
            label = torch.full_like(c_noise, -1).long() if label is None else label
            label = torch.where(label < 0, self.classes, label)
        return self.model(x, c_noise.clamp(0, self.steps - 1), label, return_dict=False)[0]
