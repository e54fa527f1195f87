"""The moving average of the weights, which is the model that a run publishes.

    theta_hat <- theta_hat + (1 - beta) (theta - theta_hat)

after a batch of B images, n of them seen in all. Two profiles:

- exponential (EDM): beta = 2^(-B / h), with a half-life of h images;
- a power of the images seen (EDM2, sec. 3.1): beta = (1 - B / n)^(gamma + 1), which weighs the
  weights at n' <= n by n'^gamma. Its length is a share of the run, whatever the run's length, and
  nothing of the start is left after the first batch.

A run may keep several of the second kind, each of its own length. The target of consistency
training as first proposed is another average, of its own profile.
"""

import functools

import numpy as np
import torch

from ect.runtime.versions import setting
from ect.schedule import GRIDS


@functools.cache
def exponent(std: float) -> float:
    """gamma of the power profile whose standard deviation is `std` of the images seen,
    0 < std < 12^(-1/2): the root > -1 of std^2 (g + 2)^2 (g + 3) = g + 1 (EDM2, eq. 126)."""
    inverse = std**-2
    roots = np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse])
    return max(root.real for root in roots if abs(root.imag) < 1e-9)


def singly(recipe: dict) -> list[dict]:
    """A recipe for each of its averages; the first is published."""
    lengths = setting(recipe, "ema_std")
    several = lengths if isinstance(lengths, list) else [lengths]
    return [recipe | {"ema_std": std} for std in several]


def names(count: int) -> list[str]:
    """How a training state names its averages."""
    return ["average", *(f"average{index}" for index in range(1, count))]


def kept(recipe: dict, seen: int, size: int) -> float:
    """beta: the share of a recipe's one average that stays after a batch of `size` images, the last
    of `seen` images."""
    if (std := setting(recipe, "ema_std")) is not None:
        return (1 - size / seen) ** (exponent(std) + 1)
    halflife = 1000 * recipe["ema_halflife_kimg"]
    if recipe["ema_ramp"] is not None:
        before = size if setting(recipe, "ema_ramp_before") else 0
        halflife = min(halflife, recipe["ema_ramp"] * (seen - before))
    return 0.5 ** (size / max(halflife, 1e-8))


def of_target(settings: dict, progress: float) -> float:
    """mu = exp(s0 ln mu0 / N): the share of an averaged target that stays after the step at
    `progress`, N being the number of points of its grid (CT: Song et al. 2023, appendix C). At the
    start of a run of `ct` it is mu0."""
    schedule, mu0 = settings["schedule"], settings["recipe"]["mu0"]
    s0, s1 = (schedule["options"][key] for key in ("s0", "s1"))
    return mu0 ** (s0 / GRIDS[schedule["map"]](progress, s0, s1))


@torch.no_grad()
def update(average: dict, weights: dict, beta: float) -> None:
    """Move the averaged tensors, by name, towards the weights, in place."""
    torch._foreach_lerp_(list(average.values()), list(weights.values()), 1 - beta)


def advance(averages: list[dict], recipe: dict, weights: dict, seen: int, size: int) -> None:
    """Move all averages of a recipe towards the weights after a batch of `size` images."""
    for average, one in zip(averages, singly(recipe), strict=True):
        update(average, weights, kept(one, seen, size))
