"""A network compiled by torch.compile: the same function, up to rounding.

What is compiled is `computed`, with static shapes: a graph for each size of a batch, with and
without gradient. The keys of dropout are dealt before, and masks are arithmetic of whole numbers,
so an evaluation drops the same whether it is compiled or not. Which graph an evaluation takes does
not depend on those before it, so a run that was resumed has the same bits as one that was not.
"""

import functools
import os
import sys
import tempfile

import torch
from torch.autograd import forward_ad

from ect.networks.dropout import deal
from ect.runtime import device

GRAPHS = 256  # of a process; more are an error, where torch would go on without compiling
CACHES = {"TORCHINDUCTOR_CACHE_DIR": "", "TRITON_CACHE_DIR": "/triton"}


@functools.cache
def prepare():
    """Have this process compile in a folder of its own, which ends with it: a compiler that was
    killed leaves broken files, and torch would read them. Raises `ValueError` where nothing can be
    compiled."""
    folder = tempfile.TemporaryDirectory(prefix="ect-compile-")
    os.environ |= {name: folder.name + below for name, below in CACHES.items()}
    from torch import _dynamo, _inductor

    _dynamo.config.recompile_limit = _dynamo.config.accumulated_recompile_limit = GRAPHS
    _dynamo.config.fail_on_recompile_limit_hit = True
    if device.current().type == "cpu":
        _inductor.config.compile_threads = 1  # no processes that outlive this one
    try:
        torch.compile(torch.sin, dynamic=False)(torch.ones(2, device=device.current()))
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(
            f"compile: found no compiler that works: {lines[0]}; allowed: one for C++, as CXX names"
            " it, with Python's headers, or compile: false"
        ) from None
    return folder


@functools.cache
def tell(text):
    """Say it on stderr, once."""
    print(f"ect: compile: {text}", file=sys.stderr)


def differentiates():
    """Whether this is inside a transformation, e.g. by `torch.func.jvp`."""
    inside = torch._C._functorch.maybe_current_level() is not None
    return inside or forward_ad._current_level >= 0


class Compiled:
    """A network whose evaluations are compiled. The network itself stays as it is, with its names.

    Inside a transformation, as of forward-mode differentiation, it is evaluated without, and so is
    a network that cannot be traced as one graph.
    """

    def __init__(self, network):
        prepare()
        self.network = network
        self.graph = torch.compile(network.computed, dynamic=False, fullgraph=True)

    def __getattr__(self, name):
        return getattr(self.network, name)

    def __call__(self, x, c_noise, **conditions):
        if differentiates():
            tell("derivatives in forward mode are computed without it")
            return self.network(x, c_noise, **conditions)
        deal(self.network.dropouts, x)
        try:
            return self.graph(x, c_noise, **conditions)
        except (torch._dynamo.exc.Unsupported, torch._dynamo.exc.UserError) as error:
            kind = type(self.network).__name__
            tell(f"{kind} is computed without it: {str(error).strip().splitlines()[0]}")
            self.graph = self.network.computed
            return self.graph(x, c_noise, **conditions)
