"""A network of ect as a model of diffusers: part of the code beside its weights.

This file is not imported here; what it reaches is joined into one file (ect/models/export/joined),
and a line at its end says which network it is.
"""

import torch
from diffusers import UNet2DModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d import UNet2DOutput


class ECTNetwork(UNet2DModel):
    """F(c_in x_t, c_noise) with the interface of UNet2DModel and none of its layers: a pipeline
    warns of a network of another type. `options` holds the arguments of the network's class,
    `trained_classes` the classes that it was trained on, if not all."""

    build: type  # set by the last line of the joined file

    @register_to_config
    def __init__(
        self, sample_size, in_channels, options, num_class_embeds=None, trained_classes=None
    ):
        super(UNet2DModel, self).__init__()
        self.network = self.build(sample_size, in_channels, **options, dropout=0.0)
        self.to(memory_format=torch.channels_last)

    def forward(self, sample, timestep, class_labels=None, return_dict=True):
        """F (B, C, H, W) of scaled images (B, C, H, W), the label of their noise level, a number or
        (B,), and classes (B,). Raises `ValueError` for a class that was not trained."""
        trained = self.config.trained_classes
        if trained and class_labels is not None and not set(class_labels.tolist()) <= set(trained):
            found = sorted(set(class_labels.tolist()) - set(trained))
            raise ValueError(f"class_labels: found {found}; allowed: {trained}")
        c_noise = torch.as_tensor(timestep, dtype=torch.float32, device=sample.device)
        label = () if class_labels is None else (class_labels,)
        output = self.network(sample, c_noise.expand(len(sample)), *label)
        return UNet2DOutput(sample=output) if return_dict else (output,)
