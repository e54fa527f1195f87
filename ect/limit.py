"""The loss at the limit r -> t, where f(x_t) - f(x_r) becomes a derivative.

`Continuous` is ECT with an infinitely small step, trained as sCM is (Lu and Song 2024). It
differentiates the network along its path by forward-mode differentiation, in one evaluation, and
holds the result fixed; so does MeanFlow (ect/flowloss.py).
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
    """

    process: Process
    weight: Callable  # (s, r, sd) -> (B,)
    sd: float
    warmup: float
    c: float

    def levels(self, draw):
        """Noise levels s (B,) of a batch; `draw()` is the prior."""
        return draw()

    def __call__(self, f, x, eps, s, progress, masks=ALIKE):
        """The `Terms` of images x (B, C, H, W), noise eps like x and noise levels s (B,); the
        residual is the mean square of g."""
        s = device.to_device(s, x.device)
        t = self.process.time(s)
        c_out, held, g = self.tangent(f, x, eps, t, min(1.0, progress / self.warmup), masks)
        size = g.square().flatten(1).mean(1)
        step = expand(c_out.sign() / (size.sqrt() + self.c), x) * g
        with masks.applied():
            out = f.output(self.process.noise(x, eps, t), t)
        loss = self.weight(s, s, self.sd) * (out - held + step).square().flatten(1).mean(1)
        return Terms(loss, s, s, size)

    @torch.no_grad()
    def tangent(self, f, x, eps, t, warm, masks):
        """(c_out (B,), F, g) at t, the derivative of F weighted by `warm`.

        f = k u + c_out F in the variance-preserving u = c_in sd x_t, so that, as in sCM,
        df = (k du + dc_out F) + (dk u + c_out dF), whose second half is warmed up.
        """

        def parts(t):
            x_t, (c_skip, c_out) = self.process.noise(x, eps, t), f.coefficients(t)
            alpha, sigma = self.process.coefficients(t)
            c_in = self.sd * (alpha**2 * self.sd**2 + sigma**2).rsqrt()
            return c_skip / c_in, c_out, expand(c_in, x) * x_t, f.output(x_t, t)

        (alpha, sigma), (d_alpha, d_sigma) = self.process.rates(t)
        s = sigma / alpha
        rate = (s**2 + self.sd**2).sqrt() * alpha**2 / (d_sigma * alpha - sigma * d_alpha)
        (k, c_out, u, out), (dk, dc_out, du, d_out) = along(parts, (t,), (rate,), masks)
        known = expand(k, x) * du + expand(dc_out, x) * out
        return c_out, out, known + warm * (expand(dk, x) * u + expand(c_out, x) * d_out)


def along(function, point, direction, masks):
    """(values, derivatives) of a function at a point along a direction, each a tuple of tensors.

    Only the plain attention kernel has a forward-mode derivative; before torch 2.14 group norm has
    one for contiguous inputs only.
    """
    older = torch.__version__ < "2.14"
    norms = register_module_forward_pre_hook(contiguous) if older else nullcontext()
    with masks.applied(), sdpa_kernel(SDPBackend.MATH), norms:
        return torch.func.jvp(function, point, direction)


def contiguous(module, inputs):
    """A forward pre-hook: the inputs of a group norm in contiguous format; None otherwise."""
    return tuple(x.contiguous() for x in inputs) if isinstance(module, nn.GroupNorm) else None


OBJECTIVES = {"continuous": Continuous}
