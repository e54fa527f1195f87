"""One step of the probability-flow ODE dy/ds = (y - f) / s, for y = x_t / alpha at noise level s.

In (y, s) it is the same equation for every process. Noise levels s > r are tensors (B,), or floats
that all images share. The samplers are made of these steps, and so is the target of distillation.
"""

import torch

from ect.process import expand


def estimate(f, process, y, s):
    """f(x_t, t), the estimate of x_0 from y (B, C, H, W) at noise level s."""
    t = process.time(torch.full_like(y[:, 0, 0, 0], s) if isinstance(s, float) else s)
    alpha, _ = process.coefficients(t)
    return f(expand(alpha, y) * y, t)


def slope(f, process, y, s):
    """dy/ds of y at s."""
    return (y - estimate(f, process, y, s)) / _column(s, y)


def euler(f, process, y, s, r):
    """From s to r, first order; exact where f does not change on the way (DDIM)."""
    return y + _column(r - s, y) * slope(f, process, y, s)


def heun(f, process, y, s, r):
    """From s to r > 0, second order: the mean of the slopes at both ends (EDM, algorithm 1)."""
    first = slope(f, process, y, s)
    y_r = y + _column(r - s, y) * first
    return y + _column(r - s, y) * (first + slope(f, process, y_r, r)) / 2


def _column(s, y):
    return s if isinstance(s, float) else expand(s, y)


STEPS = {"euler": euler, "heun": heun}
