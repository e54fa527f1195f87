"""The losses of a flow map f(x_t, t, r): one file, one common form, a class for each paper.

Each compares the mean velocity u = (f(x_t, t, r) - x_t) / (r - t), the velocity where r = t, with a
target that is held fixed, and weighs each image's error by (|error|^2 + c)^-p, held fixed too. In a
share `pairs` of each batch r < t, drawn by the joint prior; elsewhere r = t, and the target is the
velocity v = alpha' x + sigma' eps: flow matching.

Times here are the process's. `MeanFlow` and what is made of it need the process `flow` and the
parameterization `velocity`, by which u is the network's output; the others serve every process.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from ect.flowmap import in_order
from ect.limit import along, difference, within
from ect.networks.dropout import ALIKE
from ect.objective import Terms
from ect.process import Process, expand
from ect.runtime import device


class Pair(NamedTuple):
    """Images x_t (B, C, H, W) at times t and the ends r of their way (B,); x_t = alpha x + sigma
    eps has the velocity v on the straight path of this image and this noise."""

    x: torch.Tensor
    eps: torch.Tensor
    x_t: torch.Tensor
    v: torch.Tensor
    t: torch.Tensor
    r: torch.Tensor

    def over(self, difference):
        """`difference` / (t - r); where r = t it is divided by 1."""
        return difference / expand(torch.where(self.r < self.t, self.t - self.r, 1.0), difference)

    def where_equal(self, velocity, mean):
        """`velocity` where r = t, else `mean`."""
        return torch.where(expand(self.r < self.t, mean), mean, velocity)


@dataclass
class TwoTimes:
    """What the losses have in common; a subclass says its `error`."""

    process: Process
    weight: Callable  # (s, r, sd) -> (B,)
    sd: float
    pairs: float
    p: float
    c: float
    joint: Callable = field(default=in_order, kw_only=True)  # (draw) -> (s, r)

    def levels(self, draw):
        """Noise levels (B, 2) of a batch: s and r <= s; `draw(**options)` is the prior."""
        s, r = self.joint(draw)
        equal = torch.arange(len(s)) >= round(self.pairs * len(s))
        return torch.stack([s, torch.where(equal, s, r)], dim=1)

    def __call__(self, f, x, eps, levels, progress, masks=ALIKE):
        """The `Terms` of images x (B, C, H, W), noise eps like x and noise levels (B, 2)."""
        s, r = device.to_device(levels, x.device).unbind(dim=1)
        t, t_r = self.process.time(s), self.process.time(r)
        _, (d_alpha, d_sigma) = self.process.rates(t)
        v = expand(d_alpha, x) * x + expand(d_sigma, x) * eps
        pair = Pair(x, eps, self.process.noise(x, eps, t), v, t, t_r)
        square = self.error(f, pair, progress, masks).square().flatten(1)
        held = (self.size(square.detach()) + self.c) ** -self.p * self.factor(progress)
        loss = self.weight(s, r, self.sd) * held * self.size(square)
        return Terms(loss, s, r, square.detach().mean(1))

    def error(self, f, pair, progress, masks):
        """u less its target (B, C, H, W), the target held fixed."""
        raise NotImplementedError

    def size(self, square):
        """|error|^2 (B,) of squares (B, D)."""
        return square.mean(1)

    def factor(self, progress):
        """A factor of the whole loss."""
        return 1.0

    def arrival(self, f, pair, out):
        """(f(x_t, t, r), the velocity at x_t) of the network's output F at (x_t, t, r)."""
        ends = f.coefficients(pair.t, pair.r), f.slopes(pair.t)
        return tuple(f.applied(end, pair.x_t, out) for end in ends)

    def mean_velocity(self, f, pair, out):
        """u of the network's output F at (x_t, t, r)."""
        arrived, velocity = self.arrival(f, pair, out)
        return pair.where_equal(velocity, pair.over(pair.x_t - arrived))

    def output(self, f, pair, masks):
        """F at (x_t, t, r), with its gradient."""
        with masks.applied():
            return f.output(pair.x_t, pair.t, pair.r)


@dataclass
class MeanFlow(TwoTimes):
    """|u - sg(v - (t - r) du/dt)|^2 (Geng et al. 2025, arXiv 2505.13447, eq. 10), the Eulerian
    equation in terms of u: the derivative is taken along the path, dx_t/dt = v. f(x_t, t) =
    x_t - t u(x_t, 0, t)."""

    step: float | None = field(default=None, kw_only=True)  # of a difference; None: forward mode

    def error(self, f, pair, progress, masks):
        target = self.target(f, pair.x_t, pair.v, pair.t, pair.r, masks)
        return self.output(f, pair, masks) - target

    def size(self, square):
        return square.sum(1)

    @torch.no_grad()
    def target(self, f, x_t, v, t, r, masks):
        """v - (t - r) du/dt."""
        path, way = (x_t, t), (self.direction(f, x_t, v, t, masks), torch.ones_like(t))

        def network(x_t, t):
            return f.output(x_t, t, r)

        if self.step is None:
            _, slope = along(network, path, way, masks)
        else:
            reach = within(self.process, t, way[1], self.step)
            _, slope = difference(network, path, way, masks, reach)
        return v - expand(t - r, v) * slope

    def direction(self, f, x_t, v, t, masks):
        """dx_t/dt: that of the image's straight path."""
        return v


@dataclass
class ImprovedMeanFlow(MeanFlow):
    """MeanFlow with the derivative along the network's own velocity u(x_t, t, t), so that
    |u + (t - r) sg(du/dt) - v|^2 is a regression on v (Geng et al. 2025, Improved mean flows), here
    without its second head for v and without guidance."""

    def direction(self, f, x_t, v, t, masks):
        with masks.applied():
            return f.output(x_t, t, t)


class Stepping(TwoTimes):
    """One step with the noise of x_t, from t to q = t - a (t - r), before the way is left to f."""

    def ahead(self, f, pair, a, masks):
        """(sg f(x_q, q, r) - f(x_t, t, r)) / (t - r); where r = t its limit, a (u - v)."""
        out, q = self.output(f, pair, masks), torch.lerp(pair.t, pair.r, a)
        with torch.no_grad(), masks.applied():
            target = f(self.process.noise(pair.x, pair.eps, q), q, pair.r)
        arrived, velocity = self.arrival(f, pair, out)
        return pair.where_equal(a * (velocity - pair.v), pair.over(target - arrived))


@dataclass
class SoFlow(Stepping):
    """|(f(x_t, t, r) - sg f(x_q, q, r)) / (t - q)|^2 (Luo et al. 2025, arXiv 2512.15657, as its
    released code has it): ECT's loss with a second time, and no derivative. The share a of the way
    falls from `first` to `last`, exponentially over the run."""

    first: float
    last: float

    def error(self, f, pair, progress, masks):
        a = self.first * (self.last / self.first) ** progress
        return self.ahead(f, pair, a, masks) / a


FLOOR = 0.005  # the least a of alpha-Flow: below it the loss is MeanFlow's, and 1 - FLOOR is 1


@dataclass
class AlphaFlow(Stepping):
    """|u - a v - (1 - a) sg u(x_q, q, r)|^2, weighted by a / (|error|^2 + c) (alpha-Flow, Zhang et
    al. 2025). At a = 1 it is flow matching along the whole way, for a -> 0 it is MeanFlow, whose
    error it then takes. Where r = t the error is a (u - v); the released code has u - v there,
    without the factor a, and limits the target to a range.

    a = 1 - sigmoid(gamma (progress - (start + end) / 2) / (end - start)). Since x_q lies on the
    straight path of x_t, the error is that of one step.
    """

    start: float
    end: float
    gamma: float
    step: float | None = field(default=None, kw_only=True)  # of MeanFlow's derivative

    def alpha(self, progress):
        """a, rounded to 0 or 1 within `FLOOR` of it."""
        middle, width = (self.start + self.end) / 2, self.end - self.start
        a = 1 / (1 + math.exp(min(self.gamma * (progress - middle) / width, 700.0)))
        return 0.0 if a < FLOOR else 1.0 if a > 1 - FLOOR else a

    def factor(self, progress):
        return self.alpha(progress) or 1.0

    def error(self, f, pair, progress, masks):
        a = self.alpha(progress)
        if a > 0:
            return self.ahead(f, pair, a, masks)
        parts = (self.process, self.weight, self.sd, self.pairs, self.p, self.c)
        return MeanFlow(*parts, step=self.step).error(f, pair, progress, masks)


@dataclass
class Semigroup(TwoTimes):
    """|f(x_t, t, r) - sg f(f(x_t, t, m), m, r)|^2 / (t - r)^2 at the middle m of t and r: PSD, the
    progressive self-distillation of Boffi, Albergo and Vanden-Eijnden 2025 (arXiv 2505.18825)."""

    def error(self, f, pair, progress, masks):
        u = self.mean_velocity(f, pair, self.output(f, pair, masks))
        with torch.no_grad(), masks.applied():
            middle = (pair.t + pair.r) / 2
            arrived = f(f(pair.x_t, pair.t, middle), middle, pair.r)
        return u - pair.where_equal(pair.v, pair.over(pair.x_t - arrived))


@dataclass
class Shortcut(Semigroup):
    """The semigroup on a grid: a way of length d = 1, 1/2, 1/4, ..., 2 / `steps` of the process's
    time is learned from two of half its length, and starts on the grid of d (Frans et al. 2024, One
    step diffusion via shortcut models).

    The paper takes targets from an average of the weights, and its flow matching is told a way of
    1 / steps; here targets are the network's own, and flow matching is told r = t.
    """

    steps: int

    def levels(self, draw):
        s, order = draw(), torch.argsort(draw())
        way = self.process.t_max * 0.5 ** (order % int(math.log2(self.steps)))
        t = (self.process.time(s) / way).ceil().clamp(min=1) * way
        pairs = torch.stack([self.process.clock(t), self.process.clock(t - way)], dim=1)
        equal = torch.arange(len(s)) >= round(self.pairs * len(s))
        return torch.where(equal[:, None], s[:, None], pairs)


@dataclass
class Lagrangian(TwoTimes):
    """|df/dr (x_t, t, r) - sg v(f(x_t, t, r), r)|^2, the Lagrangian equation with the network's own
    velocity: LSD, the Lagrangian self-distillation of Boffi, Albergo and Vanden-Eijnden 2025 (arXiv
    2505.18825). Its gradient passes through the derivative in r."""

    step: float | None = field(default=None, kw_only=True)  # of a difference; None: forward mode

    def error(self, f, pair, progress, masks):
        point, way = (pair.r,), (torch.ones_like(pair.r),)

        def arrival(r):
            return f(pair.x_t, pair.t, r)

        if self.step is None:
            arrived, slope = along(arrival, point, way, masks)
        else:
            reach = within(self.process, pair.r, way[0], self.step)
            arrived, slope = difference(arrival, point, way, masks, reach)
        with torch.no_grad(), masks.applied():
            ahead = f.velocity(arrived.detach(), pair.r)
        return slope - pair.where_equal(pair.v, ahead)


OBJECTIVES = {
    "meanflow": MeanFlow,
    "imf": ImprovedMeanFlow,
    "soflow": SoFlow,
    "alphaflow": AlphaFlow,
    "shortcut": Shortcut,
    "psd": Semigroup,
    "lsd": Lagrangian,
}
