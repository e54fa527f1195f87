"""A process of ect and its multistep sampling as a scheduler of diffusers: part of the code beside
a model's weights.

This file is not imported here; what it reaches is joined into one file (ect/models/export/joined).
"""

import torch
from diffusers import CMStochasticIterativeScheduler
from diffusers.configuration_utils import register_to_config
from diffusers.schedulers.scheduling_consistency_models import (
    CMStochasticIterativeSchedulerOutput,
)
from diffusers.utils.torch_utils import randn_tensor

from ect.consistency import Consistency
from ect.data.batches import decode
from ect.models.build import PROCESSES
from ect.process import S_MAX, Tabulated, expand


class ECTScheduler(CMStochasticIterativeScheduler):
    """Multistep sampling of a consistency function under any process of ect, to the bit.

    A level is s = sigma / alpha. `times` says, by the number of steps, at which levels the model's
    study samples after s = 80; other numbers of steps are spread over the grid of the parent class:
    index k stands for s = (80^(1/rho) + k / (num_train_timesteps - 1) (sigma_min^(1/rho) -
    80^(1/rho)))^rho, and `timesteps=[k, 0]` for s = 80 and that of k. The last step ends at pixels:
    whole levels of 0 to 255, as numbers from -1 to 1. `boundary` is the level s at which f(x) = x;
    `last_label` bounds the labels of a network that knows so many.
    """

    @register_to_config
    def __init__(
        self, num_train_timesteps=1001, sigma_min=0.002, sigma_max=S_MAX, rho=7.0, process="ve",
        betas=None, parameterization="edm", sd=0.5, c_noise="log_s", c_in="scaled", boundary=0.0,
        times=None, shift=127.5, scale=1 / 127.5, last_label=None,
    ):  # fmt: skip
        if sigma_max != S_MAX:
            raise ValueError(f"sigma_max: found {sigma_max}; allowed: {S_MAX}")
        super().__init__(
            num_train_timesteps, sigma_min, sigma_max, sd, rho=rho, clip_denoised=False
        )
        self.process = Tabulated(**betas) if betas else PROCESSES[process]()
        f = Consistency(None, self.process, parameterization, sd, c_noise, c_in)
        self.f = f.shifted(boundary) if boundary else f
        start = self.process.time(torch.full((1,), S_MAX))
        self.init_noise_sigma = self.process.coefficients(start)[1].item()

    def set_timesteps(self, num_inference_steps=None, device=None, timesteps=None):
        """Choose the levels of the steps: `num_inference_steps`, or `timesteps`, falling indices of
        the grid, of which the last is 0. Raises `ValueError`."""
        if timesteps is not None and list(timesteps)[-1:] != [0]:
            raise ValueError(f"timesteps: found {timesteps}; allowed: falling indices down to 0")
        super().set_timesteps(num_inference_steps, timesteps=timesteps)
        levels = self.sigmas[:-1].tolist()
        known = (self.config.times or {}).get(str(num_inference_steps))
        if timesteps is None and known is not None:
            levels = [S_MAX, *known]
        self.sigmas = torch.tensor([*levels, self.config.sigma_min])
        where = "cuda" if torch.cuda.is_available() else "cpu"  # where ect would compute them
        labels = self.f.c_noise(self.process, self.process.time(torch.tensor(levels, device=where)))
        if self.config.last_label is not None:
            labels = labels.clamp(0, self.config.last_label)
        self.timesteps = labels.to(device or "cpu")
        self._step_index = 0

    def _at(self, index, x):
        """The time (B,) of a step of images x (B, ...)."""
        level = self.sigmas[index].item()
        return self.process.time(torch.full((len(x),), level, device=x.device))

    def scale_model_input(self, sample, timestep=None):
        """c_in x_t (B, C, H, W)."""
        self.is_scale_input_called = True
        scaled = self.f.scaled(sample.float(), self._at(self._step_index, sample))
        return scaled.to(sample.dtype, memory_format=torch.channels_last)

    def step(self, model_output, timestep, sample, generator=None, return_dict=True):
        """From x_t (B, C, H, W) and the network's output there to f(x_t, t), raised to the next
        level with fresh noise; after the last step, as pixels in [-1, 1]."""
        index, last = self._step_index, self._step_index == len(self.timesteps) - 1
        c_skip, c_out = self.f.coefficients(self._at(index, sample))
        x = expand(c_skip, sample) * sample.float() + expand(c_out, sample) * model_output
        if last:
            x = self._pixels(x)
        else:
            eps = randn_tensor(
                x.shape, generator=generator, device=x.device, dtype=model_output.dtype
            )
            x = self.process.noise(x, eps, self._at(index + 1, x))
        self._step_index += 1
        x = x.to(sample.dtype)
        return CMStochasticIterativeSchedulerOutput(prev_sample=x) if return_dict else (x,)

    def _pixels(self, x):
        about = {"shift": self.config.shift, "scale": self.config.scale}
        pixels = torch.from_numpy(decode(x, about)).permute(0, 3, 1, 2)
        return pixels.to(x.device).float() / 127.5 - 1
