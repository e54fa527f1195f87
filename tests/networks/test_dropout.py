"""Dropout's masks: one function on every backend, of seed, layer, row and place, and random."""

import math

import numpy as np
import pytest
import torch

from ect.networks.dropout import Dropout, Masks, kept, least, places
from ect.networks.unet import UNet

P, SHAPE = 0.2, (64, 32, 8, 8)


def masks_of(masks, layers=2, shape=SHAPE, p=P):
    return [kept(keys, shape, p) for keys in masks.keys(layers, shape[0])]


def correlation(a, b):
    """That of two masks, in standard deviations of independent ones."""
    a, b = (mask.double().flatten() - mask.double().mean() for mask in (a, b))
    return (a @ b / (a.norm() * b.norm())).item() * math.sqrt(len(a))


def mixed(bits):
    """splitmix64's finaliser, in Python's integers."""
    bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB % 2**64
    return bits ^ (bits >> 31)


def test_masks_are_the_formula_in_integers_without_bounds():
    """Seeds of 63 bits, and rows far into a batch."""
    golden, seed, shape = 0x9E3779B97F4A7C15, 2**63 - 25, (2, 3, 5)
    rows, layers = [0, 7, 100_000], 3
    keys = Masks(seed, np.array(rows)).keys(layers, len(rows))
    for layer in range(layers):
        stream = mixed((mixed(seed) + (layer + 1) * golden) % 2**64)
        found = kept(keys[layer], (3, *shape), 0.4)
        for image, row in enumerate(rows):
            both = mixed((stream + (row + 1) * golden) % 2**64)
            a, b = both % 2**32 | 1, both >> 32 | 1
            for place in range(30):
                q = (place + 1) * 0x9E3779B1 % 2**32
                q = (q ^ (q >> 15)) * 0x7FEB352D % 2**32
                h = (q ^ (q >> 16)) * a % 2**32
                h = (h ^ (h >> 16)) * b % 2**32
                signed = h - 2**32 if h >= 2**31 else h
                assert found[image].flatten()[place] == (signed >= round(0.4 * 2**32) - 2**31)


def test_places_of_an_image_have_different_hashes():
    assert places((64, 64, 64)).unique().numel() == 64**3


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_masks_do_not_depend_on_layout_gradient_or_differentiation(layout):
    layer = Dropout(0.25)
    layer.keys = Masks(3).keys(1, 4)[0]
    x = torch.randn(4, 16, 8, 8).contiguous(memory_format=layout)
    y, wanted = layer(x), kept(layer.keys, x.shape, 0.25)
    assert torch.equal(y, x * wanted / 0.75) and torch.equal(layer(x.contiguous()), y)
    assert torch.equal(layer(x.clone().requires_grad_()), y)
    value, slope = torch.func.jvp(layer, (x,), (torch.ones_like(x),))
    assert torch.equal(value, y) and torch.equal(slope != 0, wanted)
    assert torch.equal(layer.eval()(x), x)


@pytest.mark.parametrize("shape", [(24, 8, 6, 6), (24, 10, 7)])
def test_an_image_keeps_its_masks_in_every_part_of_its_batch(shape):
    whole, rows = masks_of(Masks(5), shape=shape), torch.tensor([20, 3, 4, 11])
    part = Masks(5).of(rows)
    for again, ours in ((part, rows), (part.of(torch.tensor([2, 0])), rows[[2, 0]])):
        found = masks_of(again, shape=(len(ours), *shape[1:]))
        assert all(torch.equal(a, b[ours]) for a, b in zip(found, whole, strict=True))


@pytest.mark.parametrize("p", [0.001, 0.01, 0.2, 0.5, 0.9])
def test_the_share_that_is_dropped_is_p(p):
    """In the whole, and among images, channels and places no further apart than chance."""
    mask = masks_of(Masks(7), p=p)[0].double()
    for dims in ((0, 1, 2, 3), (1, 2, 3), (0, 2, 3), (0, 1), (2, 3)):
        count = math.prod(mask.shape[dim] for dim in dims)
        sums = mask.sum(dims).flatten()
        spread = (sums - count * (1 - p)).square().sum() / (count * p * (1 - p))
        bound = 4.5 * math.sqrt(2 * len(sums) * (1 + 1 / (2 * count * p * (1 - p))))
        assert abs(spread - len(sums)) < bound


def test_every_share_has_a_least_hash_of_32_bits():
    assert least(0.5) == 0 and least(0.0) == -(2**31) and least(1 - 1e-15) == 2**31 - 1


@pytest.mark.parametrize("shape", [SHAPE, (512, 16, 8, 8), (8, 64, 16, 16)])
def test_masks_of_neighbours_layers_seeds_and_rows_are_independent(shape):
    first, second = masks_of(Masks(11), shape=shape)
    pairs = [(first, second), (first, masks_of(Masks(11).apart(), shape=shape)[0])]
    pairs.append((first, masks_of(Masks(11, np.arange(512)[-shape[0] :] + 1), shape=shape)[0]))
    for dim in range(4):
        for lag in (1, 2, 4):
            length = shape[dim] - lag
            pairs.append((first.narrow(dim, lag, length), first.narrow(dim, 0, length)))
    assert max(abs(correlation(a, b)) for a, b in pairs) < 4
    c = first.double() - first.double().mean()
    for a, b in ((c[1:], c[:-1]), (c[:, :, 1:], c[:, :, :-1])):  # cycles: a sum of two keys fails
        cycle = a[..., 1:] * a[..., :-1] * b[..., 1:] * b[..., :-1]
        assert abs(cycle.mean() / cycle.std()) * math.sqrt(cycle.numel()) < 4


def test_other_numbers_of_images_than_of_rows_are_refused():
    with pytest.raises(ValueError, match="masks: found 3 images; allowed: 2, one for each row"):
        Masks(0, np.arange(2)).keys(1, 3)


def test_every_layer_of_a_network_has_masks_of_its_own():
    """Without `Masks` torch's default generator decides."""
    torch.manual_seed(0)
    network = UNet(8, 1, 8, [1, 2], 1, [4], 0.3).train()
    x, c = torch.randn(4, 1, 8, 8), torch.zeros(4)
    with Masks(3).applied():
        network(x, c)
    keys = torch.stack([layer.keys for layer in network.dropouts])
    assert len(keys.flatten(0, 1).unique(dim=0)) == len(network.dropouts) * 4
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        network(x, c)
        found.append(network.dropouts[0].keys)
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
