"""The kernels for the CPU compute what torch does, to rounding."""

import copy
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from ect.consistency import Consistency
from ect.networks import kernels, native
from ect.networks.dropout import Masks, kept
from ect.networks.unet import UNet
from ect.objective import Objective, gap, huber
from ect.process import VE
from ect.runtime import checkpoint, device, stop
from ect.training import train
from tests.helpers.runs import PRETRAIN, TUNE, changed

WIDE = {"channels": 16, "multipliers": [1, 2], "blocks": 1, "attention": [4]}


KEYS = Masks(7).keys(1, 3)[0]  # of masks of three images

HALF = 2**-7  # of gradients in bfloat16: two roundings


def close(found, wanted, within=1e-5):
    """The relative distance of each tensor from one in double precision."""
    for a, b in zip(found, wanted, strict=True):
        assert (a.double() - b).norm() <= within * b.norm()


def gradients(y, inputs, dy):
    return [y, *torch.autograd.grad(y, inputs, dy.to(y.dtype))]


@pytest.fixture(params=[False, True], ids=["whole", "split"])
def split(request):
    if request.param and not kernels.library().split_ready():
        pytest.skip("this processor has no tiles of bfloat16 (AMX)")
    return request.param


@contextmanager
def threads(count):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    "shape, outputs", [((3, 16, 8, 4), 48), ((3, 32, 8, 4), 96), ((2, 96, 16, 16), 32)]
)
@pytest.mark.parametrize("skips", [False, True])
@pytest.mark.parametrize("count", [1, 2])
def test_the_convolution_is_conv2d_in_double_precision(shape, outputs, skips, count, split):
    """Split: to 16 bits, and to 8 in the gradients."""
    if split and shape[1] % 32:
        pytest.skip("not split")
    torch.manual_seed(0)
    x, weight = torch.randn(shape) + 1, torch.randn(outputs, shape[1], 3, 3)
    bias, dy = torch.randn(outputs), torch.randn(shape[0], outputs, *shape[2:])
    given = [x, weight, bias, torch.randn_like(dy)][: 4 if skips else 3]
    single = [tensor.requires_grad_() for tensor in given]
    double = [tensor.detach().double().requires_grad_() for tensor in given]
    factor, skip = (0.7, single[3]) if skips else (1.0, None)
    with threads(count):
        y = native.Convolution.apply(*single[:3], skip, factor, split)
        found = gradients(y, single, dy)
    y = functional.conv2d(*double[:3], padding=1)
    wanted = gradients((y + double[3]) * 0.7 if skips else y, double, dy)
    close(found[:1], wanted[:1], 1e-4 if split else 1e-5)
    close(found[1:], wanted[1:], HALF if split else 1e-5)


def test_widths_of_sixteen_are_not_split():
    assert not native._wide(nn.Conv2d(48, 64, 3)) and not native._wide(nn.Conv2d(32, 16, 3))


@pytest.mark.parametrize("outputs", [32, 112])
def test_parts_and_threads_change_no_bit(outputs, split, monkeypatch):
    if split and outputs % 32:
        pytest.skip("not split")
    torch.manual_seed(0)
    given = [torch.randn(5, 96, 12, 8), torch.randn(outputs, 96, 3, 3), torch.randn(outputs)]
    given = [tensor.requires_grad_() for tensor in given]
    dy, found = torch.randn(5, outputs, 12, 8), []
    for count, tiles in ((1, 32), (2, 32), (2, 96), (5, 64), (8, 1024)):
        monkeypatch.setitem(kernels.TILES, split, (tiles, tiles, 32 if split else 8))
        monkeypatch.setattr(kernels, "TILES_BACK", (tiles, tiles, 8))
        with threads(count):
            y = native.Convolution.apply(*given, None, 1.0, split)
            found.append([y] if split else gradients(y, given, dy))
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("p", [0.0, 0.3])
def test_the_activation_is_norm_silu_and_dropout_in_double_precision(told, p):
    torch.manual_seed(0)
    given = [torch.randn(3, 32, 8, 8) * 2 + 1, torch.randn(3, 32), torch.randn(32), torch.randn(32)]
    single = [tensor.requires_grad_() for tensor in given]
    double = [tensor.detach().double().requires_grad_() for tensor in given]
    x, features, gain, bias = single
    y, _ = native.Activation.apply(x, features if told else None, gain, bias, 8, 1e-6, p, KEYS)
    kept = (y != 0).double() / (1 - p)
    inputs, dy = [0, 1, 2, 3] if told else [0, 2, 3], torch.randn_like(y)
    found = gradients(y, [single[i] for i in inputs], dy)
    h = double[0] + double[1][:, :, None, None] if told else double[0]
    wanted = functional.silu(functional.group_norm(h, 8, double[2], double[3], 1e-6)) * kept
    close(found, gradients(wanted, [double[i] for i in inputs], dy), 3e-6)


@pytest.mark.parametrize("told, skips, p", [(False, False, 0.0), (True, True, 0.3)])
def test_a_layer_is_its_activation_and_its_convolution(told, skips, p):
    """Forward to the bit; its gradients, with the same mask, to bfloat16's rounding; a gradient
    from another path is added in float32."""
    if not kernels.library().split_ready():
        pytest.skip("this processor has no tiles of bfloat16 (AMX)")
    torch.manual_seed(0)
    x, skip = torch.randn(3, 32, 8, 4) * 2 + 1, torch.randn(3, 64, 8, 4)
    norm, conv = nn.GroupNorm(8, 32), nn.Conv2d(32, 64, 3, padding=1)
    features = torch.randn(3, 32) if told else None
    inputs = [x, *norm.parameters(), *conv.parameters(), *[features] * told, *[skip] * skips]
    for tensor in inputs:
        tensor.requires_grad_()
    given = {"skip": skip, "factor": 0.7} if skips else {}
    h, _ = native.activated(norm, x, features, p, KEYS)
    y, again = native.layer(True, norm, conv, x, features, p, KEYS, **given)
    assert torch.equal(y, native.convolved(conv, h, **given, split=True))
    dy, aside = torch.randn_like(y), torch.randn_like(x)
    found = torch.autograd.grad([y, again], inputs, [dy, aside])
    kept = (h != 0).double() / (1 - p)
    double = [tensor.detach().double().requires_grad_() for tensor in inputs]
    x, gain, bias, weight, offset, *rest = double
    h = x + rest[0][:, :, None, None] if told else x
    h = functional.silu(functional.group_norm(h, 8, gain, bias, norm.eps)) * kept
    y = functional.conv2d(h, weight, offset, padding=1)
    y = (y + rest[-1]) * 0.7 if skips else y
    close(found, torch.autograd.grad([y, x], double, [dy.double(), aside.double()]), HALF)


@pytest.mark.parametrize("corner", [0.3, 0.4, -5.0, 300.0])
def test_moments_keep_their_digits(corner):
    """If the images' deviation is far below their mean, and a corner far from the mean."""
    torch.manual_seed(0)
    x = 0.3 + 1e-3 * torch.randn(2, 16, 64, 64)
    x[:, :, 0, 0] = corner
    norm = nn.GroupNorm(4, 16, eps=1e-12)
    found = native.activated(norm, x, silu=False)[0]
    close([found], [copy.deepcopy(norm).double()(x.double())], 1e-3)


def test_a_gradient_that_came_another_way_is_passed_on(split):
    x = torch.randn(2, 32, 4, 4, requires_grad=True)
    norm, conv = nn.GroupNorm(4, 32), nn.Conv2d(32, 32, 3, padding=1)
    _, again = native.layer(True, norm, conv, x) if split else native.activated(norm, x)
    assert torch.equal(torch.autograd.grad(again.sum(), x)[0], torch.ones_like(x))


def test_numbers_of_other_kinds_are_refused():
    norm, conv = nn.GroupNorm(4, 16), nn.Conv2d(16, 16, 3, padding=1)
    for x in (torch.zeros(1, 16, 4, 4, dtype=kind) for kind in (torch.float16, torch.float64)):
        with pytest.raises(TypeError, match=r"kernels: native; found torch\.float"):
            native.activated(norm, x)
        with pytest.raises(TypeError, match=r"kernels: native; found torch\.float"):
            native.Convolution.apply(x, conv.weight, conv.bias)


def test_the_activation_in_bfloat16_is_the_one_in_float32_rounded():
    """To the nearest: every result is within half a unit of its last place, and a gradient from
    another path is added before the rounding."""
    torch.manual_seed(0)
    norm, told = nn.GroupNorm(8, 48), torch.randn(3, 48)
    low = (torch.randn(3, 48, 8, 4) * 2 + 1).bfloat16().requires_grad_()
    dy, aside = torch.randn(2, *low.shape).bfloat16()
    found = []
    for x in (low, low.detach().float().requires_grad_()):
        y, again = native.activated(norm, x, told, 0.3, KEYS)
        (dx,) = torch.autograd.grad([y, again], x, [dy.to(x.dtype), aside.to(x.dtype)])
        found.append((y, dx))
    for rounded, exact in zip(*found, strict=True):
        assert rounded.dtype == torch.bfloat16
        assert ((rounded.float() - exact).abs() <= exact.abs() * 2**-8).all()
        assert (rounded == exact.bfloat16()).float().mean() > 0.999


def test_a_network_in_bfloat16_is_as_near_to_the_truth_as_torchs():
    torch.manual_seed(0)
    plain = UNet(8, 3, **WIDE, dropout=0.0)
    for weight in plain.parameters():
        weight.data += 0.05 * torch.randn_like(weight)
    fast = copy.deepcopy(plain)
    native.use(fast)
    x, c = torch.randn(16, 3, 8, 8), torch.randn(16)
    wanted = copy.deepcopy(plain).double()(x.double(), c.double())
    with torch.autocast("cpu", torch.bfloat16):
        off, usual = ((f(x, c).double() - wanted).norm() for f in (fast, plain))
    assert 0 < off < 1.5 * usual and off < 0.05 * wanted.norm()


@pytest.mark.parametrize("p", [0.0, 0.05, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_its_masks_are_those_of_torchs_kernels(p, dtype):
    """Forward, and where the backward pass computes them again; for rows of a larger batch."""
    norm, keys = nn.GroupNorm(4, 32), Masks(5, np.array([3, 0, 200])).keys(4, 3)[2]
    x = torch.randn(3, 32, 12, 8).to(dtype).requires_grad_()
    nn.init.ones_(norm.bias)
    y, _ = native.activated(norm, x, None, p, keys, silu=False)
    wanted = kept(keys, x.shape, p)
    assert torch.equal(y != 0, wanted)
    last = torch.nn.Parameter(torch.zeros(32))
    y, _ = native.Activation.apply(x, None, norm.weight, last, 4, norm.eps, p, keys, False)
    dy = torch.randint(0, 2, x.shape).to(dtype)
    y.backward(dy)
    torch.testing.assert_close(last.grad, (dy * wanted).float().sum((0, 2, 3)) / (1 - p))


@pytest.mark.parametrize("architecture", ["ddpmpp", "ncsnpp"])
@pytest.mark.parametrize("resolution", [8, 12])
def test_a_network_is_the_same_function_with_the_same_gradients(architecture, resolution, split):
    torch.manual_seed(0)
    plain = UNet(resolution, 3, **WIDE, dropout=0.0, architecture=architecture, classes=3)
    for weight in plain.parameters():
        weight.data += 0.05 * torch.randn_like(weight)
    fast = copy.deepcopy(plain)
    native.use(fast, "tf32" if split else "fp32")
    x, c, label = torch.randn(4, 3, resolution, resolution), torch.randn(4), torch.arange(4) - 1
    found = gradients(fast(x, c, label), list(fast.parameters()), x)
    plain, x, c = plain.double(), x.double(), c.double()
    wanted = gradients(plain(x, c, label), list(plain.parameters()), x)
    close(found[:1], wanted[:1], 1e-4)
    close(found[1:], wanted[1:], 0.05 if split else 1e-4)


def test_teacher_and_student_share_their_masks():
    """f with one seed is one function, differentiated or not; with another seed it is another."""
    torch.manual_seed(0)
    network = UNet(8, 1, **WIDE, dropout=0.4)
    native.use(network)
    network.train()
    f, objective = Consistency(network, VE(), "edm", 0.5), Objective(VE(), None, huber, gap, 0.5)
    x, eps, s = torch.randn(4, 1, 8, 8), torch.randn(4, 1, 8, 8), torch.rand(4) + 0.5
    first = objective.evaluate(f, x, eps, s, Masks(3))
    with torch.no_grad():
        second, other = (objective.evaluate(f, x, eps, s, Masks(seed)) for seed in (3, 4))
    assert first.requires_grad and torch.equal(first, second) and not torch.equal(first, other)


@pytest.mark.parametrize("precision, within", [("fp32", 1e-5), ("tf32", 1e-3), ("bf16", 0.1)])
def test_a_part_of_a_batch_has_the_masks_that_it_has_there(precision, within):
    """In other rows it has other masks."""
    torch.manual_seed(0)
    network = UNet(8, 1, **WIDE | {"channels": 32}, dropout=0.4)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    native.use(network, precision)
    x, c, rows = (
        torch.randn(24, 1, 8, 8),
        torch.randn(24),
        torch.tensor([1, 2, 3, 7, 11, 13, 20, 23]),
    )

    def evaluated(masks, *given):
        with device.precision(precision), masks.applied():
            return network.train()(*given)

    whole = evaluated(Masks(3), x, c)[rows]
    others, part = (evaluated(m, x[rows], c[rows]) for m in (Masks(3), Masks(3).of(rows)))
    assert (part - whole).norm() < within * whole.norm() < (others - whole).norm()


@pytest.mark.parametrize("settings", [PRETRAIN, TUNE], ids=["pretrain", "tune"])
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_a_run_that_goes_on_has_the_bits_of_one_that_did_not_stop(
    settings, precision, digits_file, tmp_path
):
    small = WIDE | {"multipliers": [1], "attention": []}
    settings = changed(
        settings, network=small, recipe__kernels="native", recipe__precision=precision
    )
    train.run(settings, digits_file, tmp_path / "whole")
    with pytest.raises(stop.Stopped):
        train.run(settings, digits_file, tmp_path / "rest", max_minutes=0.0)
    train.run(settings, digits_file, tmp_path / "rest")
    found = [
        checkpoint.load(tmp_path / name / "model.safetensors")[0] for name in ("whole", "rest")
    ]
    assert all(torch.equal(value, found[1][key]) for key, value in found[0].items())


@pytest.mark.parametrize("key, value", [("kernels", "native-1"), ("masks", 1)])
def test_kernels_and_masks_of_another_version_are_refused(key, value, digits_file, tmp_path):
    settings = changed(PRETRAIN, network=WIDE, **{f"recipe__{key}": value})
    with pytest.raises(ValueError, match=f"{key} is {value!r}; allowed: .*, or no such key"):
        train.run(settings, digits_file, tmp_path / "run")


def test_what_cannot_run_is_named(monkeypatch):
    with pytest.raises(ValueError, match="kernels: native; allowed: ddpmpp, ncsnpp"):
        native.use(UNet(8, 1, **WIDE, dropout=0.0, architecture="adm"))
    with pytest.raises(ValueError, match="kernels: native; allowed: on a CPU, for the U-Nets"):
        native.use(nn.Conv2d(16, 16, 3))
    kernels.library.cache_clear()
    monkeypatch.setattr(kernels, "COMMAND", ("no-such-compiler",))
    with pytest.raises(
        ValueError, match="kernels: native; no-such-compiler failed: no-such-compiler not found"
    ):
        native.use(UNet(8, 1, **WIDE, dropout=0.0))
    monkeypatch.setattr(kernels, "COMMAND", ("cc", "--no-such-flag"))
    with pytest.raises(ValueError, match=r"kernels: native; cc --no-such-flag failed: .*flag"):
        native.use(UNet(8, 1, **WIDE, dropout=0.0))
