"""What a run measures: the means in its log, and whether loss and gradient are finite."""

import math

import torch

from ect.runtime import device
from ect.schedule import LN_S_EDGES

PATIENCE = 50  # steps between two checks on a device that runs asynchronously


class Diverged(FloatingPointError):
    """A non-finite loss or gradient, in the step that ended at image `seen`."""

    def __init__(self, message, seen):
        super().__init__(message)
        self.seen = seen


class Meter:
    """Means between two lines of the log, kept on the device until they are read.

    So are the flags that say whether each step's loss and gradient were finite. They are checked
    after every step on the CPU, and every `PATIENCE` steps on any other device, since a check waits
    for the device.
    """

    def __init__(self):
        current = device.current()
        self.patience = 1 if current.type == "cpu" else PATIENCE
        self.edges = torch.tensor(LN_S_EDGES, dtype=torch.get_default_dtype(), device=current)
        self.sums = torch.zeros(3, device=current)
        self.bins = torch.zeros(2, len(LN_S_EDGES) - 1, device=current)
        self.unchecked = []

    def tensors(self):
        return {"sums": self.sums, "bins": self.bins}

    def restore(self, tensors):
        for name, value in self.tensors().items():
            value.copy_(tensors[name])

    @torch.no_grad()
    def add(self, terms, fine, seen):
        """Count the step that ended at image `seen`; `fine` is a Boolean tensor of one element."""
        self.unchecked.append((terms, fine, seen))
        if len(self.unchecked) >= self.patience:
            self.check()
        ones = torch.ones_like(terms.loss)
        self.sums += torch.stack([ones.sum(), terms.loss.sum(), (terms.r == 0).sum()])
        index = self._bin(terms.s)
        self.bins[0].index_add_(0, index, ones)
        self.bins[1].index_add_(0, index, terms.residual)

    def _bin(self, s):
        return torch.bucketize(s.log(), self.edges[1:-1])  # outer bins are open

    def check(self):
        """Raise `Diverged` at the first step since the last check that was not fine."""
        steps, self.unchecked = self.unchecked, []
        if not steps or torch.stack([fine for _, fine, _ in steps]).all():
            return
        terms, seen = next((terms, seen) for terms, fine, seen in steps if not fine)
        bad = sorted(set(self._bin(terms.s[~terms.loss.isfinite()]).tolist()))
        where = f" where ln s is {_words(bad)}" if bad else ""
        what = "loss" if bad else "gradient"
        raise Diverged(f"the {what} is not finite at image {seen}{where}", seen)

    def line(self, seen, rate):
        count, loss, zeros = self.sums.tolist()
        counts, residuals = self.bins.tolist()
        return {
            "images": seen,
            "loss": loss / count,
            "learning_rate": rate,
            "share_r_zero": zeros / count,
            "residual_by_ln_s": [b / a if a else None for a, b in zip(counts, residuals)],
        }


def _words(bins):
    """Intervals of ln s, as '-5 to -3, 3 to inf'."""
    edges = [-math.inf, *LN_S_EDGES[1:-1], math.inf]
    starts = [i for i in bins if i - 1 not in bins]
    ends = [i + 1 for i in bins if i + 1 not in bins]
    return ", ".join(f"{edges[i]:g} to {edges[k]:g}" for i, k in zip(starts, ends))


def finite(loss, parameters):
    """Whether a loss and its gradient's norm are finite: a Boolean tensor of one element."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    together = None if loss.device.type == "mps" else True
    norm = torch.nn.utils.get_total_norm(gradients, foreach=together)
    return loss.isfinite() & norm.isfinite()
