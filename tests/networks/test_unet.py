"""The U-Net: its size, its shapes, and that every part of it has an effect."""

import subprocess
import sys

import pytest
import torch

from ect.config.checks import _check_heads
from ect.config.network import Network
from ect.networks.style import STYLES, Style
from ect.networks.unet import Attention, Resample, UNet
from ect.networks.widths import attending, widths

ARRANGEMENTS = ["ddpmpp", "ncsnpp", "adm"]
every = pytest.mark.parametrize("architecture", ARRANGEMENTS)


def perturbed(architecture, **options):
    """A small network of an arrangement, 8x8x1, all of its weights moved; ADM with 2 heads."""
    torch.manual_seed(0)
    channels = 64 if architecture == "adm" else 8
    network = UNet(8, 1, channels, [1, 2], 1, [4], 0.0, architecture, **options)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return network


def test_the_cifar_network_has_edms_parameter_count():
    with torch.device("meta"):
        network = UNet(32, 3, 128, [2, 2, 2], 4, [16], 0.0)
    assert sum(p.numel() for p in network.parameters()) == 55_732_739


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        ((32, 3, 128, [2, 2, 2], 4, [16], 0.0, "ddpmpp", "positional", 10), 55_734_147),
        ((32, 3, 128, [2, 2, 2], 4, [16], 0.0, "ncsnpp", "fourier"), 56_395_523),
        ((64, 3, 192, [1, 2, 3, 4], 3, [32, 16, 8], 0.0, "adm", "positional", 1000), 295_899_267),
    ],
)
def test_the_networks_of_edm_have_its_parameter_counts(arguments, count):
    with torch.device("meta"):
        network = UNet(*arguments)
    assert sum(p.numel() for p in network.parameters()) == count


@pytest.mark.parametrize(
    ("resolution", "depth", "multipliers", "attention"),
    [(8, 1, [1, 2], [4]), (8, 1, [1], []), (16, 3, [1, 2, 2], [8, 4])],
)
def test_output_has_the_shape_of_the_input(resolution, depth, multipliers, attention):
    network = UNet(resolution, depth, 8, multipliers, 2, attention, 0.1)
    x = torch.randn(3, depth, resolution, resolution)
    assert network(x, torch.zeros(3)).shape == x.shape


@every
@pytest.mark.parametrize("multipliers", [[1], [1, 2], [3, 1], [1, 2, 4]])
def test_the_config_check_knows_the_widths_of_all_norms(architecture, multipliers, monkeypatch):
    made = set()

    def norm(style, channels):
        made.add(channels)
        return torch.nn.Identity()

    monkeypatch.setattr(Style, "norm", norm)
    UNet(8, 1, 36, multipliers, 2, [4], 0.0, architecture)
    block = Network(channels=36, multipliers=multipliers, blocks=2, architecture=architecture)
    assert widths(block) == made


@pytest.mark.parametrize("attention", [[], [8], [4], [8, 2], [16]])
@pytest.mark.parametrize("multipliers", [[1], [1, 2, 4], [4, 1, 2]])
def test_the_config_check_knows_the_widths_of_all_attention(attention, multipliers, monkeypatch):
    made = set()

    def heads(style, channels):
        made.add(channels)
        return 1

    monkeypatch.setattr(Style, "heads", heads)
    UNet(8, 1, 32, multipliers, 1, attention, 0.0, "adm")
    block = Network(channels=32, multipliers=multipliers, blocks=1, attention=attention)
    assert attending(block, 8) == made
    assert attending(block, None) <= made


@pytest.mark.parametrize("channels", range(32, 513, 32))
def test_the_config_check_refuses_the_widths_that_attention_cannot_have(channels):
    block = Network(channels=channels, multipliers=[1], blocks=1, architecture="adm")
    attention = Attention(channels, STYLES["adm"]) if channels >= 64 else torch.nn.Identity()
    x = torch.zeros(1, channels, 1, 1)
    try:
        _check_heads("networks.adm", block, None)
    except ValueError:
        with pytest.raises(RuntimeError):
            attention(x)
    else:
        assert attention(x).shape == x.shape


@pytest.mark.parametrize(("share", "same"), [(0.0, True), (0.3, False)])
def test_only_dropout_tells_training_from_evaluation(share, same, make_unet, draw):
    network, x = make_unet(share), draw(0).float()
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


@every
@pytest.mark.parametrize("embedding", ["positional", "fourier"])
def test_gradients_reach_every_parameter(architecture, embedding, draw):
    network = perturbed(architecture, embedding=embedding, classes=4)
    values = torch.linspace(-1, 1, 4)
    network(draw(0).float(), values, torch.arange(4)).square().sum().backward()
    still = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


@every
def test_a_new_network_starts_near_zero(architecture):
    """So that f starts as c_skip x_t, the best linear denoiser of white data."""
    torch.manual_seed(0)
    network = UNet(8, 1, 16, [1, 2], 1, [4], 0.0, architecture)
    assert network(torch.randn(4, 1, 8, 8), torch.zeros(4)).abs().max() < 1e-3


@every
def test_each_label_is_told_from_the_others_and_from_none(architecture, draw):
    network, x = perturbed(architecture, classes=3), draw(0, 1).float()
    labels = [None, *(torch.tensor([label]) for label in range(3))]
    outputs = [network(x, torch.zeros(1), label) for label in labels]
    for i, first in enumerate(outputs):
        for second in outputs[:i]:
            assert (first - second).norm() > 1e-3 * first.norm()
    assert torch.equal(outputs[0], network(x, torch.zeros(1), torch.tensor([-1])))


@every
def test_labels_without_classes_are_refused(architecture, draw):
    with pytest.raises(ValueError, match="no classes"):
        perturbed(architecture)(draw(0).float(), torch.zeros(4), torch.zeros(4, dtype=torch.int64))


def test_options_leave_the_default_networks_start_alone():
    """Weights for labels are drawn last in the embedding; otherwise they only add names."""
    torch.manual_seed(0)
    bare = UNet(8, 1, 8, [1, 2], 1, [4], 0.0)
    torch.manual_seed(0)
    full = UNet(8, 1, 8, [1, 2], 1, [4], 0.0, classes=3).state_dict()
    assert set(bare.state_dict()) < set(full)
    for name in ("embedding.first.weight", "embedding.second.weight"):
        assert torch.equal(bare.state_dict()[name], full[name])


@pytest.mark.parametrize("taps", [(1, 1), (1, 3, 3, 1)])
def test_up_is_the_transpose_of_down_and_both_keep_constants(taps):
    """<down x, y> = <x, up y> / 4; away from the border a constant stays as it is."""
    down, up = Resample("down", taps).double(), Resample("up", taps).double()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 8, 8, generator=generator, dtype=torch.float64)
    y = torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64)
    torch.testing.assert_close((down(x) * y).sum(), (x * up(y)).sum() / 4)
    ones = torch.ones(1, 1, 8, 8, dtype=torch.float64)
    for resampled in (down(ones), up(ones)):
        inside = resampled[..., 1:-1, 1:-1]
        torch.testing.assert_close(inside, torch.ones_like(inside))


@pytest.mark.parametrize("architecture", ["ddpmpp", "ncsnpp", "adm"])
def test_reading_a_model_loads_no_compiler(architecture):
    """A network without values, by which each model file is checked, costs no start of a second."""
    network = {"architecture": architecture, "channels": 64, "multipliers": [1, 2], "blocks": 1}
    network |= {
        "attention": [4],
        "embedding": "fourier" if architecture == "ncsnpp" else "positional",
    }
    code = (
        f"import sys; from ect.models.build import skeleton; skeleton({network}, (1, 8, 8));"
        " sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
