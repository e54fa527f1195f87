"""A mixture of two Gaussians on the line, whose flow map is known: the ODE of `flow` keeps each
point's quantile."""

import functools

import torch
from torch import nn

from ect.flowmap import FlowMap
from ect.objective import lognormal, uniform
from ect.process import Flow, expand

MEANS, STD = torch.tensor([-0.5, 0.5], dtype=torch.float64), 0.1
SD = (0.25 + STD**2) ** 0.5
NOISE = {"mean": 0.0, "std": 1.6}  # the prior
LAST = 80 / 81  # the t of s = 80


class Line(nn.Module):
    """A network of images of one pixel, told t and r by the label `time`."""

    def __init__(self, width=64):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(),
            nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1),
        )  # fmt: skip

    def forward(self, x, c_noise, span):
        t, r = c_noise / 1000, span / 1000
        inputs = torch.stack([x.flatten(), 2 * t - 1, 2 * r - 1, t - r], dim=1)
        return self.layers(inputs).reshape(x.shape)


def trained(kind, updates=200, batch=256, rate=5e-3, **options):
    """The flow map of such a network after Adam's steps along an objective's class."""
    objective = kind(Flow(), uniform, SD, **options)
    return fitted(objective, functools.partial(drawn, objective), updates, batch, rate)


def fitted(objective, draw, updates=200, batch=256, rate=5e-3):
    """The flow map of such a network after Adam's steps along an objective, on batches x, eps and
    noise levels of `draw(generator, size)`."""
    torch.manual_seed(0)
    network, generator = Line(), torch.Generator().manual_seed(1)
    f = FlowMap(network, Flow(), "velocity", SD, c_noise="time", span="end")
    optimizer = torch.optim.Adam(network.parameters(), rate)
    for step in range(updates):
        optimizer.param_groups[0]["lr"] = rate * min(1.0, 2 * (1 - step / updates))
        loss = objective(f, *draw(generator, batch), step / updates).loss.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return f


def drawn(objective, generator, size):
    """Points of the mixture (B, 1, 1, 1), noise like them, and noise levels."""
    x = MEANS[torch.randint(2, (size,), generator=generator)].float()
    x = x + STD * torch.randn(size, generator=generator)
    x, eps = x[:, None, None, None], torch.randn((size, 1, 1, 1), generator=generator)
    return x, eps, objective.levels(functools.partial(lognormal, generator, size, **NOISE))


def denoised(x_t, t):
    """E[x_0 | x_t] of the mixture, for points (B, 1, 1, 1) in double precision."""
    alpha, sigma = (expand(value, x_t) for value in Flow().coefficients(t))
    variance = (alpha * STD) ** 2 + sigma**2
    shares = (-((x_t - alpha * MEANS) ** 2) / (2 * variance)).softmax(-1)
    means = MEANS + alpha * STD**2 / variance * (x_t - alpha * MEANS)
    return (shares * means).sum(-1, keepdim=True)


def starts(count=512):
    """Points x_t at s = 80, the quantiles of its noise."""
    quantiles = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return LAST * torch.special.ndtri(quantiles)


def exact(y):
    """Where the ODE leads points at s = 80: to the point of the data with the same quantile."""
    target = below(y, LAST)
    low, high = torch.full_like(y, -3), torch.full_like(y, 3)
    for _ in range(60):
        middle = (low + high) / 2
        less = below(middle, 0.0) < target
        low, high = torch.where(less, middle, low), torch.where(less, high, middle)
    return low


def below(y, t):
    """The share of x_t below y."""
    spread = ((1 - t) ** 2 * STD**2 + t**2) ** 0.5
    return torch.special.ndtr((y[:, None] - (1 - t) * MEANS) / spread).mean(1)


@torch.no_grad()
def error(f):
    """The root mean square error of f in one step from s = 80."""
    y = starts()
    t = torch.full((len(y),), LAST)
    found = f(y.float()[:, None, None, None], t).flatten().double()
    return float((found - exact(y)).square().mean().sqrt())
