"""Compiled networks: the function, masks and gradients of those that are not, and what is said."""

import os
from pathlib import Path

import pytest
import torch

from ect.models import build
from ect.networks import compiled
from ect.networks.compiled import Compiled
from ect.networks.dropout import Masks
from ect.networks.unet2d import UNet2D
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
    own = Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
    assert own.name.startswith("ect-compile-") and list(own.rglob("*.so"))


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
        ValueError, match="compile: found no compiler that works: RuntimeError: No"
    ) as told:
        Compiled(Tiny())
    assert "\n" not in str(told.value)
    compiled.prepare.cache_clear()


def missing():
    raise RuntimeError("No working C++ compiler found\nfor many reasons")


PLAIN = {"channels": 8, "multipliers": [1], "blocks": 1, "attention": []}
KINDS = {
    "ADM": {**PLAIN, "architecture": "adm", "classes": 3},
    "told two times, and what augmentation did": {**PLAIN, "span": "end", "augment_labels": 2},
    "EDM2": {**PLAIN, "architecture": "edm2", "classes": 3, "uncertainty": True},
}


@pytest.mark.parametrize("described", KINDS.values(), ids=KINDS)
def test_every_network_is_compiled_with_what_it_is_told(described, monkeypatch):
    graphs = []
    without_kernels(monkeypatch, graphs)
    network, told = build.build_network(described, (1, 8, 8), 0.3).train(), {}
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    if "classes" in described:
        told["label"] = torch.tensor([0, 2])
    else:
        told |= {"span": torch.rand(2), "augment": torch.rand(2, 2)}
    agrees(network, torch.randn(2, 1, 8, 8), torch.rand(2), told)
    assert len(graphs) == 1


def agrees(network, x, t, told):
    f = Compiled(network)
    with Masks(3).applied():
        wanted = network(x, t, **told)
    with Masks(3).applied():
        torch.testing.assert_close(f(x, t, **told), wanted)


def test_a_network_of_diffusers_is_compiled(monkeypatch):
    unet2d = pytest.importorskip("tests.helpers.unet2d")
    graphs = []
    without_kernels(monkeypatch, graphs)
    others = ("num_class_embeds", "dropout")  # which `UNet2D` sets
    config = dict(unet2d.unet(1).config).items()
    config = {k: v for k, v in config if not k.startswith("_") and k not in others}
    network = UNet2D(config, 1000, 3, 0.3).train()
    agrees(network, torch.randn(2, 1, 8, 8), 900 * torch.rand(2), {"label": torch.tensor([0, 2])})
    assert graphs


class Branching(Tiny):
    """A network whose way depends on values."""

    def computed(self, x, c_noise):
        return super().computed(x, c_noise) if x.mean() > 0 else x


def test_a_network_that_cannot_be_traced_is_not_compiled_and_it_says_so_once(monkeypatch, said):
    graphs = []
    without_kernels(monkeypatch, graphs)
    network = Branching(dropout=0.3).train()
    for _ in range(2):
        agrees(network, X, T, {})
    assert not graphs
    (line,) = said().splitlines()
    assert line.startswith("ect: compile: Branching is computed without it: ")
