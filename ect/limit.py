"""The loss at the limit r -> t, where f(x_t) - f(x_r) becomes a derivative.

`Continuous` is ECT with an infinitely small step, trained as sCM is (Lu and Song 2024). It
differentiates the network along its path and holds the result fixed, as MeanFlow does
(ect/flowloss.py): by forward-mode differentiation, in one evaluation, or by a central difference of
two, which any network and kernel can compute.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.module import register_module_forward_pre_hook

from ect.networks.dropout import ALIKE
from ect.objective import Terms
from ect.process import Process, expand
from ect.runtime import device


@dataclass
class Continuous:
    """w(s) |F - sg(F - sign(c_out) g / (rms(g) + c))|^2 per pixel, with the tangent
    g = sqrt(s^2 + sd^2) df/ds; with F's parameterization `edm` this is sCM's loss (its eq. 8).

    Its gradient points where that of |f(x_t) - sg f(x_r)|^2 points for r -> t. As in sCM, the part
    of g that differentiates the network is weighted linearly from 0 to 1 over the share `warmup` of
    the run.

    With `adaptive` the network's u(t), which depends on t alone, weighs the loss as in sCM's eq. 8,
    where it is -w: w(s) |...|^2 / exp(u) + u, so that every noise level comes to one weight.
    """

    process: Process
    weight: Callable  # (s, r, sd) -> (B,)
    sd: float
    warmup: float
    c: float
    step: float | None = None  # of a central difference in asinh(s / sd); None: forward mode
    adaptive: bool = False

    def levels(self, draw):
        """Noise levels s (B,) of a batch; `draw()` is the prior."""
        return draw()

    def __call__(self, f, x, eps, s, progress, masks=ALIKE):
        """The `Terms` of images x (B, C, H, W), noise eps like x and noise levels s (B,); the
        residual is the mean square of g."""
        s = device.to_device(s, x.device)
        t = self.process.time(s)
        with masks.applied():
            out = f.output(self.process.noise(x, eps, t), t)
        warm = min(1.0, progress / self.warmup)
        c_out, held, g = self.tangent(f, x, eps, t, warm, masks, out.detach())
        size = g.square().flatten(1).mean(1)
        step = expand(c_out.sign() / (size.sqrt() + self.c), x) * g
        loss = self.weight(s, s, self.sd) * (out - held + step).square().flatten(1).mean(1)
        if self.adaptive:
            u = f.uncertainty(t)
            loss = loss / u.exp() + u
        return Terms(loss, s, s, size)

    @torch.no_grad()
    def tangent(self, f, x, eps, t, warm, masks, out=None):
        """(c_out (B,), F, g) at t, the derivative of F weighted by `warm`; `out` is F, if known.

        f = k u + c_out F in the variance-preserving u = c_in sd x_t, so that, as in sCM,
        df = (k du + dc_out F) + (dk u + c_out dF), whose second half is warmed up.
        """

        def known(t):
            x_t, (c_skip, c_out) = self.process.noise(x, eps, t), f.coefficients(t)
            alpha, sigma = self.process.coefficients(t)
            c_in = self.sd * (alpha**2 * self.sd**2 + sigma**2).rsqrt()
            return c_skip / c_in, c_out, expand(c_in, x) * x_t

        def network(t):
            return f.output(self.process.noise(x, eps, t), t)

        (alpha, sigma), (d_alpha, d_sigma) = self.process.rates(t)
        s = sigma / alpha
        rate = (s**2 + self.sd**2).sqrt() * alpha**2 / (d_sigma * alpha - sigma * d_alpha)
        if self.step is None:
            whole = along(lambda t: (*known(t), network(t)), (t,), (rate,), masks)
            (k, c_out, u, out), (dk, dc_out, du, d_out) = whole
        else:
            (k, c_out, u), (dk, dc_out, du) = along(known, (t,), (rate,), masks)
            with masks.applied():
                out = network(t) if out is None else out
            reach = within(self.process, t, rate, self.step)
            _, d_out = difference(network, (t,), (rate,), masks, reach)
        first = expand(k, x) * du + expand(dc_out, x) * out
        return c_out, out, first + warm * (expand(dk, x) * u + expand(c_out, x) * d_out)


def along(function, point, direction, masks):
    """(values, derivatives) of a function at a point along a direction, each a tuple of tensors.

    Only the plain attention kernel has a forward-mode derivative; before torch 2.14 group norm has
    one for contiguous inputs only.
    """
    older = torch.__version__ < "2.14"
    norms = register_module_forward_pre_hook(contiguous) if older else nullcontext()
    with masks.applied(), sdpa_kernel(SDPBackend.MATH), norms:
        return torch.func.jvp(function, point, direction)


def difference(function, point, direction, masks, step):
    """(value, derivative) of a function to a tensor, at a point along a direction, by the mean and
    the difference of two evaluations, `step` (B,) to either side: both of second order."""
    sides = []
    for sign in (1, -1):
        moved = [p + sign * expand(step, p) * d for p, d in zip(point, direction)]
        with masks.applied():
            sides.append(function(*moved))
    return sum(sides) / 2, (sides[0] - sides[1]) / expand(2 * step, sides[0])


def within(process, t, rate, step):
    """The step (B,) of a central difference at times t along `rate` > 0: `step`, or less where t
    would lose more than nine tenths of its distance to 0, or to an end where alpha is 0."""
    alpha, _ = process.coefficients(torch.tensor([process.t_max], dtype=torch.float64))
    room = torch.minimum(t, process.t_max - t) if float(alpha) < 1e-6 else t
    return (0.9 * room / rate).clamp(max=step)


def contiguous(module, inputs):
    """A forward pre-hook: the inputs of a group norm in contiguous format; None otherwise."""
    return tuple(x.contiguous() for x in inputs) if isinstance(module, nn.GroupNorm) else None


OBJECTIVES = {"continuous": Continuous}
