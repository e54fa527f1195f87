"""The flow map of Gaussian data N(0, sd^2) for every process, in closed form."""

import torch

from ect.consistency import edm
from ect.flowmap import FlowMap
from ect.process import expand


class Exact(FlowMap):
    """x_r = x_t rho(r) / rho(t) with rho^2 = alpha^2 sd^2 + sigma^2, as the network's output F.

    In the angle a = atan2(sigma, alpha sd), simple-EDM's F is tan((a(t) - a(r)) / 2) x_t / rho(t);
    the x_0 that it stands for gives F in the other parameterizations, which is finite at r = t.
    """

    def output(self, x_t, t, r=None):
        r = torch.zeros_like(t) if r is None else r + torch.zeros_like(t)
        (a, b), (a_r, b_r) = self.process.coefficients(t), self.process.coefficients(r)
        half = (torch.atan2(b, a * self.sd) - torch.atan2(b_r, a_r * self.sd)) / 2
        out = expand(half.tan() / self.rho(t), x_t) * x_t
        c_skip, c_out = edm(self.process, t, self.sd)
        x_0 = expand(c_skip, x_t) * x_t + expand(c_out, x_t) * out
        c_skip, c_out = self.parameterization(self.process, t, self.sd)
        return (x_0 - expand(c_skip, x_t) * x_t) / expand(c_out, x_t)

    def rho(self, t):
        alpha, sigma = self.process.coefficients(t)
        return (alpha**2 * self.sd**2 + sigma**2).sqrt()

    def exact(self, x_t, t, r):
        return expand(self.rho(r) / self.rho(t), x_t) * x_t


class Instant(Exact):
    """The exact velocity in place of the map's: F is that of r = t, whatever r."""

    def output(self, x_t, t, r=None):
        return super().output(x_t, t, t)
