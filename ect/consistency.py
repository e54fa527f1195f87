"""f(x_t, t) -> x_0, the consistency function, with f(x, 0) = x exactly.

Every parameterization is linear in the network F:

    f(x_t, t) = c_skip x_t + c_out F(c_in x_t, c_noise).

Each reads only the process's coefficients, and so serves every process; where sigma = 0, c_skip = 1
and c_out = 0 hold in floating point, without a mask. Each also serves a flow map, which leads to
another `end` than the data: alpha(r) x_0 + sigma(r) eps, for the x_0 and eps that F stands for at
x_t. With `end` = (alpha(t), sigma(t)), f = x_t holds in floating point too.
"""

import copy
import math

import torch

from ect.process import expand

DATA = (1.0, 0.0)  # (alpha, sigma) at t = 0
S_MIN = 1e-8  # below every noise level a prior draws; keeps ln(s) finite at s = 0


def edm(process, t, sd, end=DATA):
    """EDM's preconditioning (table 1), written for any process; f depends on t through s alone. To
    another end it is the form named simple-EDM (IMM, Zhou et al. 2025)."""
    (alpha, sigma), (alpha_r, sigma_r) = process.coefficients(t), end
    total = alpha**2 * sd**2 + sigma**2
    c_skip = (alpha * alpha_r * sd**2 + sigma * sigma_r) / total
    return c_skip, (sigma * alpha_r - alpha * sigma_r) * sd / total.sqrt()


def velocity(process, t, sd, end=DATA):
    """F is the velocity v = alpha' x_0 + sigma' eps; for flow and for ve f = x_t - (t - r) v, the
    Euler form."""
    ((alpha, sigma), (d_alpha, d_sigma)), (alpha_r, sigma_r) = process.rates(t), end
    wronskian = alpha * d_sigma - d_alpha * sigma
    c_skip = (alpha_r * d_sigma - d_alpha * sigma_r) / wronskian
    return c_skip, -(sigma * alpha_r - alpha * sigma_r) / wronskian


def noise(process, t, sd, end=DATA):
    """F is the noise eps (DDPM): f = (x_t - sigma F) / alpha. Undefined if alpha(t_max) = 0."""
    (alpha, sigma), (alpha_r, sigma_r) = process.coefficients(t), end
    return alpha_r / alpha, -(sigma * alpha_r - alpha * sigma_r) / alpha


PARAMETERIZATIONS = {"edm": edm, "velocity": velocity, "noise": noise}


def _log_s(process, t):
    return process.clock(t).clamp(min=S_MIN).log()


def _edm(process, t):
    return _log_s(process, t) / 4


def _ncsn(process, t):
    return _log_s(process, t) - math.log(2)  # in EDM's terms


def _flow(process, t):
    return 1000 * t


def _score_sde(process, t):
    return 999 * t  # of its DDPM++


def _ddpm(process, t):
    return (1000 * t - 1).clamp(min=0)  # steps 0 .. 999 at t = 1/1000 .. 1


# The time label that the network receives, by name: EDM's, or that of a pretrained network.
# Functions with a name, so that a model can be pickled.
C_NOISE = {
    "log_s": _edm, "log_half_s": _ncsn, "time": _flow, "vp": _score_sde, "ddpm": _ddpm,
}  # fmt: skip


class Consistency:
    """The consistency function of a network under a process and a parameterization.

    `sd` is the data's standard deviation (EDM's sigma_data). Calling it maps x_t (B, C, H, W) and
    t (B,) to an estimate of x_0 (B, C, H, W). The network receives c_in x_t, `scaled` to unit
    variance or with c_in = 1 (`one`: NCSN++, DDPM), and the time label named `c_noise`.
    `conditioned_on(label)` is f for images of known classes, `augmented(labels)` for images that
    augmentation changed. A network with `span` is told r, the end of f, too, which is 0 here
    (ect/flowmap.py): as t - r, or with `end` by the label of r.
    """

    label, augment, sigma_min = None, None, 0.0

    def __init__(
        self, network, process, parameterization, sd, c_noise="log_s", c_in="scaled", span=False
    ):
        self.network, self.process, self.sd, self.span = network, process, sd, span
        self.c_noise, self.scales = C_NOISE[c_noise], {"scaled": True, "one": False}[c_in]
        self.parameterization = PARAMETERIZATIONS[parameterization]

    def conditioned_on(self, label):
        """The same function, conditioned on class labels (B,); unconditional with None."""
        other = copy.copy(self)
        other.label = label
        return other

    def augmented(self, labels):
        """The same function for images that augmentation changed as labels (B, L) say; with None
        for images as they are."""
        other = copy.copy(self)
        other.augment = labels
        return other

    def of(self, indices):
        """The same function for some of its images: those at `indices`, of a tensor or a slice."""
        parts = (self.label, self.augment)
        label, augment = (part if part is None else part[indices] for part in parts)
        return self.conditioned_on(label).augmented(augment)

    def denoiser(self):
        """What the solvers take for E[x_0 | x_t]: f itself, of a network that was not tuned."""
        return self

    def shifted(self, sigma_min):
        """f with the boundary f(x, t) = x at s = `sigma_min` instead of 0, as ECT's released code
        evaluates it, with 0.003: c_skip and the factor s of c_out are taken at s - sigma_min.
        Raises `ValueError` for a parameterization other than `edm`."""
        if self.parameterization is not edm:
            raise ValueError("sigma_min is set; allowed: with the parameterization edm only")
        other = copy.copy(self)
        other.sigma_min = sigma_min
        return other

    def __call__(self, x_t, t):
        c_skip, c_out = self.coefficients(t)
        return expand(c_skip, x_t) * x_t + expand(c_out, x_t) * self.output(x_t, t)

    def coefficients(self, t):
        """(c_skip, c_out), each (B,)."""
        c_skip, c_out = self.parameterization(self.process, t, self.sd)
        if not self.sigma_min:
            return c_skip, c_out
        alpha, s = self.process.coefficients(t)[0], self.process.clock(t)
        rest = (s - self.sigma_min).clamp(min=0)
        return self.sd**2 / (rest**2 + self.sd**2) / alpha, c_out * rest / s

    def output(self, x_t, t, r=0.0):
        """F, the network's output (B, C, H, W); `r` is the end time, for a network with `span`."""
        inputs = (self.scaled(x_t, t), self.c_noise(self.process, t))
        conditions = {} if self.label is None else {"label": self.label}
        if self.augment is not None:
            conditions["augment"] = self.augment
        if self.span == "end":
            conditions["span"] = self.c_noise(self.process, r + torch.zeros_like(t))
        elif self.span:
            conditions["span"] = t - r
        return self.network(*inputs, **conditions)

    def uncertainty(self, t):
        """The network's u (B,) at times t (B,): the logarithm of the variance that it gives the
        loss there (EDM2, eq. 21)."""
        return self.network.uncertainty(self.c_noise(self.process, t))

    def scaled(self, x_t, t):
        """c_in x_t with c_in = 1 / sqrt(alpha^2 sd^2 + sigma^2), or x_t itself."""
        if not self.scales:
            return x_t
        alpha, sigma = self.process.coefficients(t)
        return expand((alpha**2 * self.sd**2 + sigma**2).rsqrt(), x_t) * x_t
