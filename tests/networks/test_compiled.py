"""Compiled networks: the function, masks and gradients of those that are not, and what is said."""

import pytest
import torch

from ect.networks import compiled
from ect.networks.compiled import Compiled
from ect.networks.dropout import Masks
from tests.helpers.compiling import Tiny, without_kernels

X, T = torch.randn(6, 1, 7, 7, generator=torch.Generator().manual_seed(0)), torch.linspace(0, 1, 6)


@pytest.fixture
def said(capsys):
    compiled.tell.cache_clear()
    return lambda: capsys.readouterr().err


def evaluated(network, f, seed):
    """F and its gradients, under the masks of a seed."""
    network.zero_grad()
    with Masks(seed).applied():
        out = f(X, T)
    out.square().mean().backward()
    return [out.detach(), *(weight.grad.clone() for weight in network.parameters())]


def test_compiled_evaluations_have_the_masks_and_gradients_of_others():
    """Of each seed its own, with and without gradient; to rounding, where other masks differ in
    half of all values."""
    torch._dynamo.reset()
    network = Tiny(dropout=0.4).train()
    f = Compiled(network)
    for seed in (0, 1):
        wanted, found = evaluated(network, network, seed), evaluated(network, f, seed)
        for a, b in zip(wanted, found, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        with torch.no_grad(), Masks(seed).applied():
            torch.testing.assert_close(f(X, T), wanted[0], rtol=1e-4, atol=1e-5)
    with Masks(2).applied():
        assert (f(X, T) - wanted[0]).abs().mean() > 0.01


def test_the_network_keeps_its_names_and_its_own_evaluations(monkeypatch, make_unet):
    without_kernels(monkeypatch)
    network = make_unet()
    names, before = list(network.state_dict()), network.forward
    f = Compiled(network)
    assert list(network.state_dict()) == names == list(f.state_dict())
    assert network.forward == before and f.dropouts is network.dropouts


def test_seeds_and_calls_before_change_no_graph(monkeypatch, make_unet):
    """A graph for each size of a batch, with and without gradient, and no more."""
    graphs = []
    without_kernels(monkeypatch, graphs)
    f = Compiled(make_unet(dropout=0.3).train())
    x, t = torch.randn(4, 1, 8, 8), torch.rand(4)
    for seed in range(2):
        for size in (4, 3):
            for gradient in (True, False):
                with torch.set_grad_enabled(gradient), Masks(seed).applied():
                    f(x[:size], t[:size])
    assert sorted(shape[0] for shape in graphs) == [3, 3, 4, 4]


def test_derivatives_in_forward_mode_are_not_compiled_and_it_says_so_once(monkeypatch, said):
    graphs = []
    without_kernels(monkeypatch, graphs)
    network = Tiny().train()
    f, ones = Compiled(network), torch.ones_like(T)
    for _ in range(2):
        found = torch.func.jvp(lambda t: f(X, t), (T,), (ones,))
        wanted = torch.func.jvp(lambda t: network(X, t), (T,), (ones,))
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert not graphs
    assert said() == "ect: compile: derivatives in forward mode are computed without it\n"


def test_a_machine_without_a_compiler_is_told_so_in_one_line(monkeypatch):
    torch._dynamo.reset()
    compiled.prepare.cache_clear()
    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", missing)
    with pytest.raises(
        ValueError, match="compile: found no compiler that works: No working"
    ) as told:
        Compiled(Tiny())
    assert "\n" not in str(told.value)
    compiled.prepare.cache_clear()


def missing():
    raise RuntimeError("No working C++ compiler found\nfor many reasons")
