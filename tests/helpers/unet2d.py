"""A small UNet2D of diffusers."""

import pytest
import torch

diffusers = pytest.importorskip("diffusers", reason="the extra 'diffusers' is not installed")


def unet(depth=3, **options):
    """A small UNet2DModel whose weights are all perturbed."""
    torch.manual_seed(0)
    model = diffusers.UNet2DModel(
        sample_size=8, in_channels=depth, out_channels=options.pop("outputs", depth),
        block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, attention_head_dim=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=options.pop("up", ("AttnUpBlock2D", "UpBlock2D")), **options,
    )  # fmt: skip
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return model.eval()
