"""Forward processes x_t = alpha(t) x_0 + sigma(t) eps, from data at t = 0 to noise at t_max.

All of them share one clock, the noise-to-signal ratio s = sigma / alpha: at equal s, x_t / alpha is
the same variance-exploding sample. A process is therefore its two coefficients and the inverse of
its clock; everything else is derived.
"""

import math

import torch

S_MAX = 80.0  # the noise level from which every sampler starts (EDM, table 1)


def expand(t, x):
    """Reshape t of shape (B,) so that it broadcasts against x of shape (B, ...)."""
    return t.reshape(-1, *(1,) * (x.ndim - 1))


class Process:
    """A linear Gaussian process. Times t and noise levels s are tensors of shape (B,).

    A subclass gives `t_max`, `coefficients` and, in closed form where there is one, `time`.
    `s_cap` bounds the clock where alpha reaches 0.
    """

    t_max: float
    s_cap: float = S_MAX

    def coefficients(self, t):
        """(alpha(t), sigma(t)), each (B,)."""
        raise NotImplementedError

    def clock(self, t):
        """s = sigma / alpha, at most `s_cap`; finite on all of [0, t_max]."""
        alpha, sigma = self.coefficients(t)
        return sigma / torch.maximum(alpha, sigma / self.s_cap)

    def time(self, s):
        """The inverse of `clock`: the t at which sigma / alpha = s. Here by bisection."""
        low, high = torch.zeros_like(s), torch.full_like(s, self.t_max)
        for _ in range(60):
            middle = (low + high) / 2
            alpha, sigma = self.coefficients(middle)
            above = sigma > s * alpha
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        return (low + high) / 2

    def rates(self, t):
        """((alpha, sigma), (d alpha / dt, d sigma / dt)) by forward-mode differentiation."""
        return torch.func.jvp(self.coefficients, (t,), (torch.ones_like(t),))

    def noise(self, x, eps, t):
        """x_t = alpha(t) x + sigma(t) eps for x, eps of shape (B, ...)."""
        alpha, sigma = self.coefficients(t)
        return expand(alpha, x) * x + expand(sigma, x) * eps

    def velocity(self, x_t, x, t):
        """v = alpha' x + sigma' eps, the slope of the path through x_t that started at x; t > 0."""
        (alpha, sigma), (d_alpha, d_sigma) = self.rates(t)
        eps = (x_t - expand(alpha, x) * x) / expand(sigma, x)
        return expand(d_alpha, x) * x + expand(d_sigma, x) * eps


class VE(Process):
    """Variance exploding: alpha = 1, sigma = t (EDM)."""

    t_max = S_MAX
    s_cap = math.inf

    def coefficients(self, t):
        return torch.ones_like(t), t

    def time(self, s):
        return s


class Flow(Process):
    """Rectified flow and linear flow matching: alpha = 1 - t, sigma = t."""

    t_max = 1.0

    def coefficients(self, t):
        return 1 - t, t

    def time(self, s):
        return s / (1 + s)


class VPCosine(Process):
    """Variance preserving: alpha = cos(pi t / 2), sigma = sin(pi t / 2); TrigFlow in t."""

    t_max = 1.0

    def coefficients(self, t):
        return (t * math.pi / 2).cos(), (t * math.pi / 2).sin()

    def time(self, s):
        return s.atan() * 2 / math.pi


class VPLinear(Process):
    """Variance preserving with a linear rate of noise, from DDPM (Song et al. 2021, appendix C):
    alpha = exp(-L / 2), sigma = sqrt(1 - exp(-L)), L = beta_d t^2 / 2 + beta_min t."""

    t_max = 1.0
    beta_d, beta_min = 19.9, 0.1

    def coefficients(self, t):
        exponent = t * (self.beta_d * t / 2 + self.beta_min)
        return (-exponent / 2).exp(), (-torch.expm1(-exponent)).sqrt()

    def rates(self, t):
        """Sigma grows like sqrt(t) at 0, so its slope is taken at 1e-12 there."""
        _, slopes = super().rates(t.clamp(min=1e-12))
        return self.coefficients(t), slopes

    def time(self, s):
        exponent = torch.log1p(s**2)
        root = (self.beta_min**2 + 2 * self.beta_d * exponent).sqrt()
        return 2 * exponent / (self.beta_min + root)
