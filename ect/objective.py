"""The loss: w(s, r) d(f(x_t), f(x_r)), with the target held fixed (ECT, eq. 9).

The noise levels s and r are on the clock that all processes share. Where r = 0 the target is x_0
itself, so with the schedule `zero` this is the loss of diffusion or flow pretraining. In tuning
(ECT) x_r has the noise of x_t; in distillation (ECD) a frozen teacher's ODE step leads from x_t to
x_r. In consistency training as first proposed (CT, Song et al. 2023) the target is of a moving
average of the weights.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from ect.networks.dropout import ALIKE
from ect.process import Process, expand
from ect.runtime import device
from ect.schedule import HIGH, LOW, student_table


def lognormal(generator, n, mean, std):
    """n noise levels with ln s ~ N(mean, std^2). For flow this is the logit-normal prior in t."""
    return (torch.randn(n, generator=generator) * std + mean).exp()


def karras(generator, n, low=LOW, high=HIGH, rho=7.0):
    """n noise levels with s^(1 / rho) uniform: the points of a Karras grid are equally likely."""
    first, last = low ** (1 / rho), high ** (1 / rho)
    return (first + torch.rand(n, generator=generator) * (last - first)) ** rho


def student(generator, n, df, mean, std, low, high=HIGH):
    """n noise levels whose (ln s - mean) / std has Student's t distribution with `df` degrees of
    freedom, truncated to `low` < s < `high` (TCM: Lee et al. 2024): `student_table` inverted."""
    u, levels = torch.tensor(student_table(df, mean, std, low, high), dtype=torch.float64)
    at = torch.rand(n, generator=generator).double()
    index = torch.searchsorted(levels, at, right=True).clamp(1, len(u) - 1)
    share = (at - levels[index - 1]) / (levels[index] - levels[index - 1])
    ln_s = mean + std * df**0.5 * torch.lerp(u[index - 1], u[index], share).sinh()
    return ln_s.exp().float().clamp(low, high)


PRIORS: dict[str, Callable] = {"lognormal": lognormal, "karras": karras, "student": student}


def squared(a, b):
    """Mean squared error per image: (B, ...) -> (B,)."""
    return (a - b).square().flatten(1).mean(1)


def sum_squared(a, b):
    """Squared error per image, summed over pixels and channels as in EDM's code (eq. 2)."""
    return (a - b).square().flatten(1).sum(1)


def huber(a, b, c=0.0):
    """Pseudo-Huber sqrt(|a - b|^2 + c^2) - c per image (iCT, eq. 7); c = 0 is the L2 norm."""
    square = (a - b).square().flatten(1).sum(1)
    if c > 0:
        return (square + c**2).sqrt() - c
    return (square + torch.finfo(square.dtype).tiny).sqrt()  # keeps the gradient finite at 0


def lpips(a, b, network):
    """LPIPS per image, as `network` of ect/networks/lpips.py computes it (CT, Song et al. 2023)."""
    return network(a, b)


DISTANCES = {"squared": squared, "sum_squared": sum_squared, "huber": huber, "lpips": lpips}


def uniform(s, r, sd):
    return torch.ones_like(s)


def gap(s, r, sd):
    """1 / (s - r): the loss is a slope (ECT's CIFAR-10 setting)."""
    return 1 / (s - r)


def inverse_square(s, r, sd):
    """1 / s^2."""
    return s**-2


def edm_weight(s, r, sd):
    """(s^2 + sd^2) / (s sd)^2 = 1 / s^2 + 1 / sd^2 (EDM, table 1; ECT's ImageNet setting)."""
    return s**-2 + sd**-2


def flow_weight(s, r, sd):
    """(1 + 1 / s)^2 = 1 / t^2: turns |f - x_0|^2 into flow matching's |v - (eps - x_0)|^2."""
    return (1 + 1 / s) ** 2


WEIGHTS = {
    "uniform": uniform,
    "gap": gap,
    "inverse_square": inverse_square,
    "edm": edm_weight,
    "flow": flow_weight,
}


UNIT = 8  # images: fast in kernels, and most of these then round as in the whole batch


def needed(r, unit=UNIT):
    """The indices, in order, of the images whose targets are computed: those with r > 0, and as
    many others, if there are, as fill them up to a multiple of `unit`."""
    positive = r > 0
    count = -(-int(positive.sum()) // unit) * unit
    return (~positive).sort(stable=True).indices[:count].sort().values


class Terms(NamedTuple):
    """What the loss is made of, each (B,): the weighted loss, noise levels s and r, and the
    unweighted residual |f(x_t) - target|^2 per pixel."""

    loss: torch.Tensor
    s: torch.Tensor
    r: torch.Tensor
    residual: torch.Tensor


@dataclass
class Objective:
    """w(s, r) d(f(x_t), sg f(x_r)) with r = schedule(s, progress) on a shared (x, eps).

    `snap(s, progress)` first moves s to the grid of a schedule that has one. `step`, of ect/ode.py,
    leads from x_t to x_r by the frozen consistency function `teacher`; without it x_r has the noise
    of x_t. The target is f's own, or that of `averaged`, which nothing here changes. Without
    `shared_dropout` the target has dropout masks of its own.

    Targets are computed of a multiple of `unit` images; without it, of the whole batch or of none.

    With `uncertain` the network's u(t) weighs the loss of pretraining (EDM2, eq. 21): w d / exp(u)
    + n u, n the number of terms that `distance` adds up. At its best exp(u) is w d / n on average,
    so that every noise level has one weight.
    """

    process: Process
    schedule: Callable  # (s, progress) -> r
    distance: Callable  # (a, b) -> (B,)
    weight: Callable  # (s, r, sd) -> (B,)
    sd: float
    snap: Callable | None = None
    step: Callable | None = None
    teacher: Any = None
    averaged: Any = None
    shared_dropout: bool = True
    uncertain: bool = False
    unit: int | None = UNIT

    def levels(self, draw):
        """Noise levels s (B,) of a batch; `draw()` is the prior."""
        return draw()

    def __call__(self, f, x, eps, s, progress, masks=ALIKE):
        """The `Terms` of images x (B, C, H, W), noise eps like x and noise levels s (B,). With
        `s` on the CPU this call never synchronizes with the GPU.

        With `shared_dropout` both evaluations of f have the same dropout `masks`. Torch's default
        generator is left re-seeded.
        """
        s = self.snap(s, progress) if self.snap else s
        r = self.schedule(s, progress)
        indices = needed(r, self.unit or len(r))
        s, r = (device.to_device(levels, x.device) for levels in (s, r))
        prediction = self.evaluate(f, x, eps, s, masks)
        masks = masks if self.shared_dropout else masks.apart()
        target = self.target(f, x, eps, s, r, masks, indices)
        loss = self.weight(s, r, self.sd) * self.distance(prediction, target)
        if self.uncertain:
            u = f.uncertainty(self.process.time(s))
            n = x[0].numel() if self.distance is sum_squared else 1
            loss = loss / u.exp() + n * u
        return Terms(loss, s, r, squared(prediction.detach(), target))

    def evaluate(self, f, x, eps, s, masks):
        t = self.process.time(s)
        with masks.applied():
            return f(self.process.noise(x, eps, t), t)

    @torch.no_grad()
    def target(self, f, x, eps, s, r, masks, indices=None):
        """f(x_r) without gradient; the image itself where r = 0. Only the images at `indices`,
        which contain all that are `needed`, are evaluated; by default all images."""
        if indices is None or len(indices) == len(x):
            return self._at_r(f, x, eps, s, r, masks)
        if len(indices) == 0:
            return x
        masks, indices = masks.of(indices), device.to_device(indices, x.device)
        subset = x[indices], eps[indices], s[indices], r[indices]
        result = self._at_r(f.of(indices), *subset, masks)
        return x.to(result.dtype).index_copy(0, indices, result)

    def _at_r(self, f, x, eps, s, r, masks):
        positive = expand(r > 0, x)
        if self.step:  # the eps for which x + r eps is where the teacher arrives
            teacher = self.teacher.conditioned_on(f.label).augmented(f.augment)
            arrived = self.step(teacher, self.process, x + expand(s, x) * eps, s, r)
            eps = torch.where(positive, (arrived - x) / expand(r, x), eps)
        if self.averaged is not None:
            f = self.averaged.conditioned_on(f.label).augmented(f.augment)
        return torch.where(positive, self.evaluate(f, x, eps, r, masks), x)


@dataclass
class Truncated(Objective):
    """A second stage of tuning, on noise levels s >= `at` alone (TCM: Lee et al. 2024): where r <
    `at` the target is that of the first stage, `frozen`, which needs no more training there.

    In a share `boundary` of each batch s is `at` itself, so that f does not drift from `frozen`.
    The loss of a whole batch is its mean over the other images, plus `scale` times that over these.
    """

    frozen: Any = None
    at: float = 1.0
    boundary: float = 0.25
    scale: float = 0.1

    def levels(self, draw):
        """Noise levels s (B,) of a batch; the first ones are `at`."""
        s = draw()
        return torch.where(torch.arange(len(s)) < round(self.boundary * len(s)), self.at, s)

    def __call__(self, f, x, eps, s, progress, masks=ALIKE):
        """As `Objective`; each image has one evaluation of its target, by f or by `frozen`."""
        r = self.schedule(s, progress)
        ours = r >= self.at
        both = (needed(r * part, self.unit or len(r)) for part in (ours, ~ours))
        s, r, ours = (device.to_device(each, x.device) for each in (s, r, ours))
        prediction = self.evaluate(f, x, eps, s, masks)
        masks = masks if self.shared_dropout else masks.apart()
        models = f, self.frozen.conditioned_on(f.label)
        targets = [self.target(m, x, eps, s, r, masks, i) for m, i in zip(models, both)]
        target = torch.where(expand(ours, x), *targets)
        share = torch.where(s == self.at, self.scale / self.boundary, 1 / (1 - self.boundary))
        loss = share * self.weight(s, r, self.sd) * self.distance(prediction, target)
        return Terms(loss, s, r, squared(prediction.detach(), target))


class SharedMasks:
    """A consistency function whose evaluations all have the same dropout masks."""

    def __init__(self, f, masks):
        self.f, self.masks = f, masks

    def __getattr__(self, name):
        return getattr(self.f, name)

    def __call__(self, x_t, t, *r):
        if r and not self.f.span:
            raise ValueError("f(x_t, t, r) of a network without span; allowed: span: true or end")
        with self.masks.applied():
            return self.f(x_t, t, *r)

    def output(self, x_t, t, *r):
        with self.masks.applied():
            return self.f.output(x_t, t, *r)

    def velocity(self, x_t, t):
        with self.masks.applied():
            return self.f.velocity(x_t, t)


@dataclass
class PluginObjective:
    """w(s) l, with the loss l of a function (f, x, eps, s, r, progress) -> (B,); r is a second draw
    of the prior."""

    process: Process
    weight: Callable  # (s, r, sd) -> (B,)
    sd: float
    loss: Callable

    def levels(self, draw):
        """Noise levels (B, 2) of a batch: s and r, independent."""
        return torch.stack([draw(), draw()], dim=1)

    def __call__(self, f, x, eps, levels, progress, masks=ALIKE):
        """The `Terms` of images x (B, C, H, W), noise eps like x and noise levels (B, 2); the
        residual is the loss without its weight."""
        s, r = device.to_device(levels, x.device).unbind(dim=1)
        with masks.applied():  # what the function itself draws is the step's
            loss = self.loss(SharedMasks(f, masks), x, eps, s, r, progress)
        return Terms(self.weight(s, s, self.sd) * loss, s, r, loss.detach())
