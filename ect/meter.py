"""What a run measures of itself: the means of its log, and whether its numbers are numbers."""

import math

import torch

from ect import machine

LN_S_BINS = torch.linspace(-6, 4, 11)  # edges of the bins of ln s in metrics.jsonl
PATIENCE = 50  # steps between two looks at a device that computes ahead of its host


class Diverged(FloatingPointError):
    """A loss or gradient that is no number, in the step that ended at image `seen`."""

    def __init__(self, message, seen):
        super().__init__(message)
        self.seen = seen


class Meter:
    """Means between two lines of the log, kept on the device until they are read.

    So is what says whether each step's loss and gradient were finite: the CPU is asked at once, any
    other device every `PATIENCE` steps, since asking it is waiting for it.
    """

    def __init__(self):
        place = machine.device()
        self.patience = 1 if place.type == "cpu" else PATIENCE
        self.edges = LN_S_BINS.to(place, torch.get_default_dtype())
        self.sums = torch.zeros(3, device=place)
        self.bins = torch.zeros(2, len(LN_S_BINS) - 1, device=place)
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
    edges = [-math.inf, *LN_S_BINS[1:-1].tolist(), math.inf]
    starts = [i for i in bins if i - 1 not in bins]
    ends = [i + 1 for i in bins if i + 1 not in bins]
    return ", ".join(f"{edges[i]:g} to {edges[k]:g}" for i, k in zip(starts, ends))


def finite(loss, parameters):
    """Whether a loss and the norm of its whole gradient are: a Boolean tensor of one element."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    together = None if loss.device.type == "mps" else True
    norm = torch.nn.utils.get_total_norm(gradients, foreach=together)
    return loss.isfinite() & norm.isfinite()
