"""f(x_t, t, r) -> x_r, the flow map: from time t along the ODE to any time r <= t.

`Consistency` is r = 0 of it. Four equations tell it from other functions, with v(x, t) the
velocity of the ODE; each is a loss in ect/flowloss.py, and a test on Gaussian data:

    f(x, t, t) = x,  df/dr = v at r = t       tangent condition
    df/dr (x, t, r) = v(f(x, t, r), r)        Lagrangian equation
    df/dt (x, t, r) + (v . grad) f = 0        Eulerian equation: f is constant along a path
    f(f(x, t, m), m, r) = f(x, t, r)          semigroup

(Boffi, Albergo and Vanden-Eijnden 2024, Flow map matching). The pairs (t, r) of a training batch
are drawn by a joint prior; here they are noise levels s and r <= s.
"""

import copy

import torch

from ect.consistency import Consistency
from ect.process import expand


class FlowMap(Consistency):
    """The flow map of a network that is told t and r, with `Consistency`'s other arguments.

    Called with x_t (B, C, H, W), t and r (B,) it gives x_r; without r the estimate of x_0, to the
    bit that of `Consistency`. A parameterization leads to r as to 0: it is the step of DDIM from t
    to r, with an F that is told r.
    """

    instant = False  # whether f(x_t, t) tells the network r = t, instead of 0

    def __call__(self, x_t, t, r=None):
        if r is None:
            return super().__call__(x_t, t)
        return self.applied(self.coefficients(t, r), x_t, self.output(x_t, t, r))

    @staticmethod
    def applied(coefficients, x_t, out):
        """c_skip x_t + c_out F of coefficients (B,) each."""
        c_skip, c_out = coefficients
        return expand(c_skip, x_t) * x_t + expand(c_out, x_t) * out

    def coefficients(self, t, r=None):
        """(c_skip, c_out) of the way from t to r, each (B,)."""
        if r is None:
            return super().coefficients(t)
        return self.parameterization(self.process, t, self.sd, self.process.coefficients(r))

    def slopes(self, t):
        """(d c_skip / dr, d c_out / dr) at r = t, each (B,): both are linear in their end."""
        return self.parameterization(self.process, t, self.sd, self.process.rates(t)[1])

    def velocity(self, x_t, t):
        """v(x_t, t) = df/dr at r = t, in the process's time."""
        return self.applied(self.slopes(t), x_t, self.output(x_t, t, t))

    def output(self, x_t, t, r=None):
        if r is None:
            r = t if self.instant else 0.0
        return super().output(x_t, t, r)

    def denoiser(self):
        """E[x_0 | x_t] as the velocity has it, from F at r = t. A network that is told t - r was
        pretrained at r = 0, so there it is f."""
        other = copy.copy(self)
        other.instant = self.span == "end"
        return other


def in_order(draw):
    """Two draws of the prior, the larger one first (MeanFlow)."""
    r, s = torch.stack([draw(), draw()]).sort(dim=0).values
    return s, r


def lower(draw, mean=-4.0, std=1.6):
    """s of the prior and r of a lognormal one of its own, or r = s where that is above s (SoFlow;
    MeanFlow's later code)."""
    s = draw()
    return s, torch.minimum(s, draw(mean=mean, std=std))


JOINTS = {"sorted": in_order, "lower": lower}
