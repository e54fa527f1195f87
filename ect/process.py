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

    A subclass defines `t_max`, `coefficients` and, in closed form where there is one, `time`.
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

    def rates(self, t):
        """In closed form: `torch.export` cannot differentiate what does not depend on t."""
        return self.coefficients(t), (torch.zeros_like(t), torch.ones_like(t))

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


BETAS = {  # DDPM's variances beta_i of (start, end, steps), float64, by their names in diffusers
    "linear": lambda a, b, n: torch.linspace(a, b, n, dtype=torch.float64),
    "scaled_linear": lambda a, b, n: torch.linspace(a**0.5, b**0.5, n, dtype=torch.float64) ** 2,
    "squaredcos_cap_v2": lambda a, b, n: squared_cosine(n),
}


def squared_cosine(steps):
    """1 - c(t_i+1) / c(t_i) up to 0.999, c = cos^2 (Nichol and Dhariwal 2021, eq. 17)."""
    t = torch.arange(steps + 1, dtype=torch.float64) / steps
    level = ((t + 0.008) / 1.008 * math.pi / 2).cos() ** 2
    return (1 - level[1:] / level[:-1]).clamp(max=0.999)


class Tabulated(Process):
    """The chain of DDPM in continuous time: step i = 0, 1, ..., steps - 1 is at t = (i + 1) / 1000,
    with alpha^2 = (1 - beta_0) ... (1 - beta_i) and alpha^2 + sigma^2 = 1.

    Between the steps ln s is linear in t; before the first, s itself is, so that alpha(0) = 1 and
    sigma(0) = 0 with finite rates. A chain that ends below s = 80 is continued at its last rate.
    """

    def __init__(self, schedule, start, end, steps):
        logs = torch.log1p(-BETAS[schedule](start, end, steps)).cumsum(0)
        self.ln_s, self.copies = torch.expm1(-logs).log() / 2, {}  # (steps,), float64
        last = self.time(torch.tensor([S_MAX], dtype=torch.float64))
        self.t_max = max(steps / 1000, last.item())

    def coefficients(self, t):
        ln_s, position = self._levels(t), 1000 * t - 1
        index = position.detach().long().clamp(0, len(ln_s) - 2)
        later = torch.lerp(ln_s[index], ln_s[index + 1], position - index).exp()
        s = torch.where(position < 0, ln_s[0].exp() * 1000 * t, later)
        alpha = (1 + s**2).rsqrt()
        return alpha, alpha * s

    def time(self, s):
        ln_s, at = self._levels(s), s.log()
        index = (torch.searchsorted(ln_s, at) - 1).clamp(0, len(ln_s) - 2)
        position = index + (at - ln_s[index]) / (ln_s[index + 1] - ln_s[index])
        return torch.where(at < ln_s[0], s / ln_s[0].exp(), position + 1) / 1000

    def _levels(self, like):
        """The table on a tensor's device, cached: each copy would synchronize with a GPU."""
        key = like.dtype, like.device
        if key not in self.copies:
            self.copies[key] = self.ln_s.to(like.dtype).to(like.device)  # mps has no float64
        return self.copies[key]
