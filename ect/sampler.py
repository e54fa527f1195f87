"""From noise to images: `sampler(f, process, eps, **options) -> images`.

`f(x_t, t)` estimates x_0; `eps` has shape (K, B, C, H, W), one slice for each fresh noise that the
sampler uses, drawn per image by `noise`; or it yields them as they are used, by `fresh`. Times in
the options are noise levels s = sigma / alpha, so a sampler is the same for every process: it moves
y = x_t / alpha along dy/ds = (y - f) / s. For `flow_map` f is a flow map, f(x_t, t, r).
"""

import math
from itertools import islice, pairwise

import torch

from ect import ode
from ect.process import S_MAX, expand


def fresh(seeds, shape):
    """The slices (B, *shape) of `noise` one after the other, without end."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    while True:
        yield torch.stack([torch.randn(shape, generator=generator) for generator in generators])


def noise(seeds, count, shape):
    """Standard normal noise (count, B, *shape), a function of each image's seed alone.

    It is drawn on the CPU, so an image does not depend on the device, the batch or its neighbours.
    """
    return torch.stack([*islice(fresh(seeds, shape), count)])


def multistep(f, process, eps, times=(), sigma_min=0.0):
    """One-step generation from s = 80, then re-noising to each of `times` (Song et al. 2023); with
    `sigma_min`, f is shifted as in ECT's released code."""
    f = f.shifted(sigma_min) if sigma_min else f
    s = torch.full_like(eps[0, :, 0, 0, 0], S_MAX)
    t = process.time(s)
    x = f(process.noise(torch.zeros_like(eps[0]), eps[0], t), t)
    for level, again in zip(times, eps[1:]):
        t = process.time(torch.full_like(s, level))
        x = f(process.noise(x, again, t), t)
    return x


def flow_map(f, process, eps, times=(), gamma=0.0):
    """From s = 80 to each of `times` and to 0 along the flow map f(x_t, t, r), one evaluation each.

    With `gamma` each step but the last leads below its level, to s sqrt(1 - gamma^2), and fresh
    noise leads back: 0 is the deterministic map, 1 `multistep` (gamma-sampling of CTM: Kim et al.
    2024, arXiv 2310.02279).
    """
    s = torch.full_like(eps[0, :, 0, 0, 0], S_MAX)
    t = process.time(s)
    x = process.noise(torch.zeros_like(eps[0]), eps[0], t)
    for level, again in zip(times, eps[1:]):
        below = process.time(torch.full_like(s, level * math.sqrt(1 - gamma**2)))
        x = f(x, t, below)
        t = process.time(torch.full_like(s, level))
        if gamma == 0:
            continue
        x = process.noise(x / expand(process.coefficients(below)[0], x), gamma * again, t)
    return f(x, t, torch.zeros_like(t))


def grid(steps, s_min=0.002, s_max=S_MAX, rho=7.0):
    """EDM's noise levels s_max = s_0 > ... > s_{steps-1} = s_min, then 0 (eq. 5); float64."""
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    levels = (s_max ** (1 / rho) + ramp * (s_min ** (1 / rho) - s_max ** (1 / rho))) ** rho
    return torch.cat([levels, torch.zeros(1, dtype=torch.float64)]).tolist()


def even(steps, s_min=0.002, s_max=S_MAX):
    """As `grid`, with levels whose logarithms are evenly spaced, as log-SNR is: its limit for large
    rho (CMT)."""
    ratio = s_min / s_max
    return [*(s_max * ratio ** (i / (steps - 1)) for i in range(steps)), 0.0]


def euler(f, process, eps, steps, s_min=0.002, rho=7.0):
    """First order; the same as DDIM, and as Euler in t of any process, up to the grid."""
    levels = grid(steps, s_min, S_MAX, rho)
    y = eps[0] * levels[0]
    for s, r in pairwise(levels):
        y = ode.euler(f, process, y, s, r)
    return y


def heun(
    f, process, eps, steps, s_min=0.002, rho=7.0,
    churn=0.0, churn_min=0.0, churn_max=math.inf, churn_noise=1.0,
):  # fmt: skip
    """Second order with a plain Euler step to s = 0: 2 steps - 1 evaluations (EDM, algorithm 1).

    With `churn` (S_churn) it is stochastic (EDM, algorithm 2): at levels s from `churn_min` to
    `churn_max` fresh noise of deviation `churn_noise` first raises y to s (1 + churn / steps), at
    most to sqrt(2) s; then `eps` has one more slice for each of these.
    """
    levels, slices = grid(steps, s_min, S_MAX, rho), iter(eps)
    y = next(slices) * levels[0]
    for s, r in pairwise(levels):
        if (high := raised(process, s, churn / steps, churn_min, churn_max)) > s:
            y = y + churn_noise * math.sqrt(high**2 - s**2) * next(slices)
        step = ode.heun if r > 0 else ode.euler
        y = step(f, process, y, high, r)
    return y


def raised(process, s, share, low, high):
    """The level to which noise raises s between `low` and `high`; one that the process has."""
    if not low <= s <= high:
        return s
    return max(s, min(s * (1 + min(share, math.sqrt(2) - 1)), process.s_cap))


def dpm_solver(f, process, eps, steps, s_min=0.002, rho=7.0):
    """DPM-Solver++(2M): `steps` evaluations, one at each level of `grid`."""
    levels = grid(steps, s_min, S_MAX, rho)
    *_, y = dpm_path(f, process, eps[0] * levels[0], levels)
    return y


def dpm_path(f, process, y, levels):
    """y at each of `levels`, which end with 0, by DPM-Solver++(2M): second order in lambda = -ln s,
    with f of this step and of the one before (Lu et al. 2022, arXiv 2211.01095, algorithm 2,
    divided by alpha). The first step and the last, to s = 0, are of first order."""
    before = None
    yield y
    for higher, s, r in zip([None, *levels], levels, levels[1:]):
        x = ahead = ode.estimate(f, process, y, s)
        if before is not None and r > 0:
            ahead = x + math.log(s / r) / math.log(higher / s) / 2 * (x - before)
        y = r / s * y + (1 - r / s) * ahead
        before = x
        yield y


SAMPLERS = {
    "multistep": multistep,
    "flow_map": flow_map,
    "euler": euler,
    "heun": heun,
    "dpm_solver": dpm_solver,
}
