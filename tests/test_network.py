"""The U-Net: its size, its shapes, and that every part of it takes part."""

import pytest
import torch

from ect.network import Attention, UNet


def test_the_cifar_network_has_edms_parameter_count():
    with torch.device("meta"):
        network = UNet(32, 3, 128, [2, 2, 2], 4, [16], 0.0)
    assert sum(p.numel() for p in network.parameters()) == 55_732_739


@pytest.mark.parametrize(
    ("resolution", "depth", "multipliers", "attention"),
    [(8, 1, [1, 2], [4]), (8, 1, [1], []), (16, 3, [1, 2, 2], [8, 4])],
)
def test_output_has_the_shape_of_the_input(resolution, depth, multipliers, attention):
    network = UNet(resolution, depth, 8, multipliers, 2, attention, 0.1)
    x = torch.randn(3, depth, resolution, resolution)
    assert network(x, torch.zeros(3)).shape == x.shape


@pytest.mark.parametrize(("dropout", "same"), [(0.0, True), (0.3, False)])
def test_only_dropout_tells_training_from_evaluation(dropout, same, make_unet, draw):
    network, x = make_unet(dropout), draw(0).float()
    trained, evaluated = network.train()(x, torch.zeros(4)), network.eval()(x, torch.zeros(4))
    assert torch.equal(trained, evaluated) == same
    assert torch.equal(evaluated, make_unet(0.0)(x, torch.zeros(4)))


def test_attention_equals_its_formula():
    """(proj(softmax(q k^T / sqrt(C)) v) + x) / sqrt(2), with q, k, v from one projection."""
    torch.manual_seed(0)
    layer = Attention(8).double()
    with torch.no_grad():
        for weight in layer.parameters():
            weight.copy_(torch.randn_like(weight))
    x = torch.randn(2, 8, 4, 4).double()
    q, k, v = layer.qkv(layer.norm(x)).flatten(2).split(8, dim=1)  # each (B, C, HW)
    weights = (torch.einsum("bci,bcj->bij", q, k) / 8**0.5).softmax(dim=2)
    mixed = torch.einsum("bij,bcj->bci", weights, v).view(x.shape)
    torch.testing.assert_close(layer(x), (layer.proj(mixed) + x) / 2**0.5, rtol=1e-9, atol=1e-9)


def test_noise_level_matters(make_unet, draw):
    network, x = make_unet(), draw(0).float()
    outputs = [network(x, torch.full((4,), c)) for c in (-1.0, 0.0, 1.0)]
    assert (outputs[0] - outputs[1]).norm() > 0.01 * outputs[0].norm()
    assert (outputs[1] - outputs[2]).norm() > 0.01 * outputs[1].norm()


def test_images_of_a_batch_do_not_mix(make_unet, draw):
    network, x = make_unet().double(), draw(0)
    c_noise = torch.linspace(-1, 1, 4).double()
    alone = torch.cat([network(x[i : i + 1], c_noise[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(network(x, c_noise), alone, rtol=1e-9, atol=1e-9)


def test_gradients_reach_every_parameter(make_unet, draw):
    network = make_unet()
    network(draw(0).float(), torch.linspace(-1, 1, 4)).square().sum().backward()
    still = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


def test_a_new_network_starts_near_zero():
    """So that f starts as c_skip x_t, the best linear denoiser of white data."""
    torch.manual_seed(0)
    network = UNet(8, 1, 16, [1, 2], 1, [4], 0.0)
    assert network(torch.randn(4, 1, 8, 8), torch.zeros(4)).abs().max() < 1e-3
