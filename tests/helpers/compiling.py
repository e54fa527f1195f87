"""What is compiled in tests: a network of few kernels, as a compiler takes seconds for each."""

import functools

import torch
from torch import nn
from torch.nn import functional

from ect.networks import compiled
from ect.networks.dropout import Dropout, deal, layers


class Tiny(nn.Module):
    """A network with the interface of `UNet`, and two layers of dropout."""

    def __init__(self, channels=1, dropout=0.0):
        super().__init__()
        self.stem = nn.Conv2d(channels, 5, 3, padding=1)
        self.head = nn.Conv2d(5, channels, 3, padding=1)
        self.early, self.late = Dropout(dropout), Dropout(dropout)
        self.dropouts = layers(self)

    def forward(self, x, c_noise):
        deal(self.dropouts, x)
        return self.computed(x, c_noise)

    def computed(self, x, c_noise):
        h = self.early(functional.silu(self.stem(x) + c_noise[:, None, None, None]))
        return self.head(self.late(h.square()))


def without_kernels(monkeypatch, graphs=None):
    """Have torch trace what it compiles, and evaluate that as it is; of each graph note the shape
    of its images."""

    def backend(graph, inputs):
        if graphs is not None:
            graphs.append(next(tuple(x.shape) for x in inputs if x.ndim == 4 and not leaf(x)))
        return graph.forward

    def leaf(x):
        return isinstance(x, nn.Parameter)

    torch._dynamo.reset()
    monkeypatch.setattr(compiled, "prepare", lambda: None)
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
