"""EDM2's U-Net: its sizes, the magnitudes that its layers keep, and where its dropout is."""

import itertools
import math

import pytest
import torch

from ect.limit import along
from ect.models.build import build_network
from ect.networks import edm2
from ect.networks.dropout import ALIKE
from ect.networks.edm2 import EDM2, Attention, Layer, force_unit_weights, unit
from ect.networks.unet import UNet

SIZES = {
    64: 31_307_877, 128: 124_710_949, 192: 280_209_381, 256: 497_803_173, 320: 777_492_325,
    384: 1_119_276_837, 448: 1_523_156_709,
}  # fmt: skip
BIG = {"multipliers": [1, 2, 3, 4], "blocks": 3, "attention": [16, 8], "dropout": 0.0}
SMALL = {"multipliers": [1, 2], "blocks": 1, "attention": [4], "dropout": 0.0}


def count(*shape, **options):
    with torch.device("meta"):
        network = EDM2(*shape, **options, uncertainty=True)
    return sum(p.numel() for p in network.parameters())


def small(channels=64, seed=0, **options):
    """8x8x1, heads of attention on 4x4 alone, both gains moved away from 0."""
    torch.manual_seed(seed)
    network = EDM2(8, 1, channels, **SMALL | options)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name.endswith("gain"):
                weight.copy_(torch.randn(()))
    return network


def magnitude(x):
    return x.square().mean().sqrt().item()


@pytest.mark.parametrize("channels, parameters", SIZES.items())
def test_the_sizes_from_xxs_to_xxl_have_edm2s_parameter_counts(channels, parameters):
    assert count(64, 3, channels, **BIG, classes=1000) == parameters


@pytest.mark.parametrize(
    "shape, options, parameters",
    [
        ((64, 4, 192), BIG | {"classes": 1000}, 280_212_837),
        ((32, 3, 128), BIG | {"multipliers": [2, 2, 2], "blocks": 4}, 54_607_778),
    ],
)
def test_so_have_other_networks(shape, options, parameters):
    options = options | {"attention": [16]} if shape[0] == 32 else options
    assert count(*shape, **options) == parameters


@pytest.mark.parametrize("size", [0, 1, 3])
def test_a_layer_keeps_the_magnitude_of_white_inputs_whatever_is_stored(size):
    torch.manual_seed(0)
    layer = Layer(48, 96, size)
    with torch.no_grad():
        layer.weight.mul_(7.0)
    x = torch.randn(*((64, 48, 9, 9) if size else (4096, 48)))
    inside = (..., slice(1, -1), slice(1, -1)) if size else ...  # the border sees zeros
    assert magnitude(layer(x)[inside]) == pytest.approx(1, abs=0.02)
    assert magnitude(layer(x, 0.25)) == pytest.approx(0.25 * magnitude(layer(x)))


def test_silu_sums_and_concatenations_keep_the_magnitude_of_independent_parts():
    torch.manual_seed(0)
    a, b = torch.randn(100, 30, 8, 8), torch.randn(100, 50, 8, 8)
    assert magnitude(edm2.mp_silu(a)) == pytest.approx(1, abs=5e-3)
    for share in (0.1, 0.3, 0.5):
        total = edm2.mp_sum(a, b[:, :30], share)
        assert magnitude(total) == pytest.approx(1, abs=5e-3)
        part = (total * b[:, :30]).mean().item() / (total * a).mean().item()
        assert part == pytest.approx(share / (1 - share), rel=0.02)
    joined = edm2.mp_cat(a, b)
    assert magnitude(joined) == pytest.approx(1, abs=5e-3)
    energies = [part.square().sum().item() for part in joined.split([30, 50], dim=1)]
    assert energies[0] == pytest.approx(energies[1], rel=0.02)  # both parts count alike


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("classes", [0, 10])
def test_magnitudes_stay_1_through_the_network(classes, seed):
    """Zeros at the border and attention's averages lower them a little. Weights are random: a
    layer's output is 1 on average over them."""
    torch.manual_seed(seed)
    network = EDM2(32, 3, 64, [1, 2], 3, [], 0.0, classes=classes)
    seen = []
    for module in [network.stem, network.embedding, *network.encoder, *network.decoder]:
        module.register_forward_hook(lambda m, inputs, out: seen.append(magnitude(out)))
    with torch.no_grad():
        network.gain.fill_(1.0)
        label = torch.arange(8) if classes else None
        out = network(torch.randn(8, 3, 32, 32), torch.linspace(-1.5, 1.1, 8), label)
    assert len(seen) == 2 + 7 + 9 and all(0.8 < found < 1.2 for found in seen), seen
    assert sum(seen) / len(seen) == pytest.approx(1, abs=0.06)
    assert magnitude(out) == pytest.approx(1, abs=0.2)


def test_an_output_is_clipped():
    network = small()
    with torch.no_grad():
        far = network.encoder[0](torch.full((1, 64, 8, 8), 1e4), torch.randn(1, 128))
        deep = network.decoder[-1](torch.full((1, 128, 8, 8), 1e6), torch.randn(1, 128))
    assert far.abs().max() <= 256 and deep.abs().max() == 256


def test_attention_equals_its_formula():
    """q, k and v of each head and pixel have magnitude 1; the sum keeps 0.7 of x."""
    torch.manual_seed(0)
    layer = Attention(128).double()
    x = torch.randn(2, 128, 4, 4).double()
    rows = layer.qkv(x).reshape(2, 3, 2, 64, 16)  # (B, q k v, heads, C', HW)
    q, k, v = (rows / (1e-4 + rows.square().mean(3, keepdim=True).sqrt())).unbind(1)
    weights = (torch.einsum("bhci,bhcj->bhij", q, k) / 8).softmax(dim=3)
    mixed = torch.einsum("bhij,bhcj->bhci", weights, v).reshape(x.shape)
    expected = (0.7 * x + 0.3 * layer.proj(mixed)) / math.sqrt(0.49 + 0.09)
    torch.testing.assert_close(layer(x), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"classes": 3}, {"uncertainty": True}])
def test_a_new_network_is_zero(options):
    torch.manual_seed(0)
    network = EDM2(8, 1, 64, **SMALL, **options)
    assert not network(torch.randn(4, 1, 8, 8), torch.zeros(4)).any()


def test_gradients_reach_every_parameter():
    network = small(classes=4, uncertainty=True)
    values = torch.linspace(-1, 1, 4)
    out = network(torch.randn(4, 1, 8, 8), values, torch.arange(4))
    (out.square().sum() + network.uncertainty(values).square().sum()).backward()
    still = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


def test_each_label_and_noise_level_is_told_from_the_others_and_no_label_too():
    network, x = small(classes=3), torch.randn(1, 1, 8, 8)
    labels = [None, *(torch.tensor([label]) for label in range(3))]
    outputs = [network(x, torch.tensor([c]), label) for c in (0.0, 1.0) for label in labels]
    for first, second in itertools.combinations(outputs, 2):
        assert (first - second).norm() > 1e-3 * first.norm()
    assert torch.equal(outputs[0], network(x, torch.zeros(1), torch.tensor([-1])))
    with pytest.raises(ValueError, match="no classes"):
        small()(x, torch.zeros(1), torch.zeros(1, dtype=torch.int64))


def test_images_of_a_batch_do_not_mix():
    network, x = small().double(), torch.randn(4, 1, 8, 8).double()
    c_noise = torch.linspace(-1, 1, 4).double()
    alone = torch.cat([network(x[i : i + 1], c_noise[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(network(x, c_noise), alone, rtol=1e-6, atol=1e-6)


def test_forced_weights_have_magnitude_1_and_leave_the_function_as_it_is():
    network, x = small(), torch.randn(4, 1, 8, 8)
    before = network(x, torch.zeros(4))
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, Layer):
                layer.weight.mul_(1.5)
    force_unit_weights(network)
    for layer in network.modules():
        if isinstance(layer, Layer):
            sizes = layer.weight.flatten(1).square().mean(1).sqrt()
            torch.testing.assert_close(sizes, torch.ones_like(sizes), rtol=0, atol=2e-4)
    torch.testing.assert_close(network(x, torch.zeros(4)), before, rtol=0, atol=2e-3)
    other = UNet(8, 1, 8, [1, 2], 1, [4], 0.0)
    weights = {k: v.clone() for k, v in other.state_dict().items()}
    force_unit_weights(other)
    assert all(torch.equal(v, weights[k]) for k, v in other.state_dict().items())


def test_unit_of_zeros_is_zero_with_a_finite_gradient():
    x = torch.zeros(2, 3, requires_grad=True)
    unit(x).sum().backward()
    assert not unit(x).any() and x.grad.isfinite().all()


ARCHITECTURES = ["ddpmpp", "ncsnpp", "adm", "edm2"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dropout_at, sides", [(None, {16, 8, 4}), (8, {8, 4}), (7, {4})])
def test_dropout_is_at_and_below_a_resolution(architecture, dropout_at, sides):
    """A block's level is that of its output; blocks that resample are of the level they lead to."""
    shape = {"channels": 16, "multipliers": [1, 2, 2], "blocks": 1, "attention": []}
    network = build_network(shape | {"architecture": architecture}, (1, 16, 16), 0.3, dropout_at)
    blocks, found = [m for m in network.modules() if hasattr(m, "conv1")], set()
    for block in blocks:
        block.register_forward_hook(lambda m, i, out: found.add((out.shape[-1], m.dropout.p)))
    network(torch.zeros(1, 1, 16, 16), torch.zeros(1))
    assert len(blocks) == 15
    assert found == {(side, 0.3 if side in sides else 0.0) for side in (16, 8, 4)}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_dropout_below_the_smallest_level_is_refused(architecture):
    shape = {"channels": 16, "multipliers": [1, 2], "blocks": 1, "attention": []}
    with pytest.raises(ValueError, match=r"dropout_at: found 3 for levels of 8, 4 .* 4 or more"):
        build_network(shape | {"architecture": architecture}, (1, 8, 8), 0.3, 3)


def test_it_has_a_derivative_along_a_direction():
    """As the losses in continuous time need: equal to central differences."""
    network = small().double().eval()
    x, c_noise, way = torch.randn(2, 1, 8, 8), torch.zeros(2), torch.randn(2, 1, 8, 8)
    x, c_noise, way = x.double(), c_noise.double(), way.double()
    point, direction = (x, c_noise), (way, torch.ones_like(c_noise))
    _, slope = along(lambda x, c: network(x, c), point, direction, ALIKE)
    step = 1e-5
    ends = [network(x + sign * step * way, c_noise + sign * step) for sign in (1, -1)]
    torch.testing.assert_close(slope, (ends[0] - ends[1]) / (2 * step), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inside_is_near_to_single(dtype):
    network, x = small(classes=3), torch.randn(4, 1, 8, 8)
    conditions = torch.linspace(-1, 1, 4), torch.arange(4) % 3
    with torch.autocast("cpu", dtype), torch.no_grad():
        found = network(x, *conditions)
    wanted = network(x, *conditions).detach()
    assert found.dtype == dtype
    assert (found - wanted).norm() < 0.03 * wanted.norm()
