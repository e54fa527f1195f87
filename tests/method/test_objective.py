"""The loss: EDM's and flow matching's as special cases, ECT's formula, shared masks, gradients."""

import functools
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ect import ode
from ect.consistency import Consistency
from ect.networks.dropout import Masks
from ect.networks.unet import UNet
from ect.objective import DISTANCES, WEIGHTS, Objective, huber, karras, lognormal, needed, squared
from ect.process import VE, Flow
from ect.schedule import constant, sigmoid, zero
from ect.training import parts

SD = 0.5


def wave(x, c_noise):
    """A network that numpy can evaluate as well."""
    return torch.sin(3 * x + c_noise.view(-1, 1, 1, 1))


def numpy_denoiser(x_t, s):
    """EDM's D around `wave`, in plain numpy."""
    s = s.reshape(-1, 1, 1, 1)
    total = s**2 + SD**2
    network = np.sin(3 * x_t / np.sqrt(total) + np.log(s) / 4)
    return SD**2 / total * x_t + s * SD / np.sqrt(total) * network


def levels(n, mean=-1.0, std=1.5):
    return lognormal(torch.Generator().manual_seed(7), n, mean, std).double()


def halves(s, progress):
    """r = 0 for half of the batch, s / 2 for the rest."""
    return torch.where(torch.arange(len(s)) % 2 == 0, 0.0, s / 2)


def test_pretraining_with_edms_weight_is_edms_loss(draw):
    x, eps, s = SD * draw(0, 16), draw(1, 16), levels(16)
    loss = Objective(VE(), zero, squared, WEIGHTS["edm"], SD)(
        Consistency(wave, VE(), "edm", SD), x, eps, s, 0.3
    ).loss
    y, sigma = x.numpy(), s.numpy()
    weight = (sigma**2 + SD**2) / (sigma * SD) ** 2
    denoised = numpy_denoiser(y + sigma.reshape(-1, 1, 1, 1) * eps.numpy(), sigma)
    wanted = weight * ((denoised - y) ** 2).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(loss, wanted, rtol=1e-9)


def test_pretraining_with_flows_weight_is_flow_matching(draw):
    x, eps, s = SD * draw(0, 16), draw(1, 16), levels(16)
    velocities = []

    def network(x_in, c_noise):
        velocities.append(wave(x_in, c_noise))
        return velocities[-1]

    loss = Objective(Flow(), zero, squared, WEIGHTS["flow"], SD)(
        Consistency(network, Flow(), "velocity", SD), x, eps, s, 0.3
    ).loss
    wanted = (velocities[0] - (eps - x)).square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(loss, wanted, rtol=1e-9, atol=0)


@pytest.mark.parametrize("progress", [0.05, 0.2, 0.5, 0.95])
def test_tuning_is_ects_loss(progress, draw):
    """|f(x_t) - f(x_r)| / (t - r) with r = t (1 - 2^-a n(t)), at a = 1, 2, 5, 8."""
    x, eps, s = SD * draw(0, 32), draw(1, 32), levels(32)
    terms = Objective(VE(), sigmoid, huber, WEIGHTS["gap"], SD)(
        Consistency(wave, VE(), "edm", SD), x, eps, s, progress
    )
    t, y, z = s.numpy(), x.numpy(), eps.numpy()
    stage = int(8 * progress) + 1
    r = np.maximum(t * (1 - 2.0**-stage * (1 + 8 / (1 + np.exp(t)))), 0)
    target = y.copy()
    on = r > 0
    target[on] = numpy_denoiser((y + r.reshape(-1, 1, 1, 1) * z)[on], r[on])
    prediction = numpy_denoiser(y + t.reshape(-1, 1, 1, 1) * z, t)
    norm = np.sqrt(((prediction - target) ** 2).sum(axis=(1, 2, 3)))
    np.testing.assert_allclose(terms.r, r, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(terms.loss, norm / (t - r), rtol=1e-6)
    np.testing.assert_allclose(terms.residual, norm**2 / 64, rtol=1e-6)


def test_target_is_the_image_where_r_is_zero_and_f_elsewhere(draw):
    x, eps, s = draw(0, 8), draw(1, 8), levels(8)
    f = Consistency(wave, VE(), "edm", SD)
    objective = Objective(VE(), halves, squared, WEIGHTS["uniform"], SD)
    r = halves(s, 0)
    target = objective.target(f, x, eps, s, r, Masks())
    assert torch.equal(target[::2], x[::2])
    assert torch.equal(objective.target(lambda x_t, t: x_t + 1, x, eps, s, r, Masks())[::2], x[::2])
    assert torch.equal(target[1::2], f(VE().noise(x, eps, r), r)[1::2])
    assert (target[1::2] != x[1::2]).any()


@given(st.lists(st.sampled_from([0.0, 0.5, math.nan]), max_size=40), st.integers(1, 40))
def test_images_with_r_above_zero_are_needed_and_few_others(r, unit):
    """In batch order; none if all r are 0, else a multiple of `unit` or the whole batch."""
    wanted = {place for place, value in enumerate(r) if value > 0}
    found = needed(torch.tensor(r), unit).tolist()
    assert found == sorted(set(found)) and wanted <= set(found) <= set(range(len(r)))
    assert len(found) % unit == 0 or len(found) == len(r)
    assert len(found) < len(wanted) + unit and bool(found) == bool(wanted)


def few(s, progress):
    """r > 0 for every fifth image."""
    return torch.where(torch.arange(len(s)) % 5 == 3, s / 2, 0.0)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("step", [None, ode.heun])
def test_targets_are_those_of_a_whole_batch_at_a_part_of_its_cost(shared, step, draw):
    """Masks of dropout and labels are those of the image's row in the batch."""
    torch.manual_seed(0)
    network = UNet(8, 1, 8, [1, 2], 1, [4], 0.3, classes=3).double().train()
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    counts = []
    network.register_forward_pre_hook(lambda module, given: counts.append(len(given[0])))
    f = Consistency(network, VE(), "edm", SD).conditioned_on(torch.arange(24) % 3)
    teacher = Consistency(lambda x, c, label: wave(x, c + label), VE(), "edm", SD)
    objective = Objective(
        VE(), few, huber, WEIGHTS["gap"], SD,
        step=step, teacher=teacher, shared_dropout=shared,
    )  # fmt: skip
    given = f, draw(0, 24), draw(1, 24), levels(24), 0.5, Masks(11)
    part = objective(*given)
    assert counts == [24, 8]
    objective.unit = None
    for found, wanted in zip(part, objective(*given)):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)
    assert counts == [24, 8, 24, 24]


def test_pretraining_evaluates_the_network_once(draw):
    calls = []
    f = Consistency(lambda x, c: calls.append(1) or wave(x, c), VE(), "edm", SD)
    x, eps, s = draw(0), draw(1), levels(4)
    Objective(VE(), zero, squared, WEIGHTS["edm"], SD)(f, x, eps, s, 0.9)
    assert len(calls) == 1
    Objective(VE(), halves, squared, WEIGHTS["edm"], SD)(f, x, eps, s, 0.9)
    assert len(calls) == 3


def test_r_equal_to_t_gives_zero_loss_under_the_same_mask_only(make_unet, draw):
    network = make_unet(dropout=0.3).train()
    f = Consistency(network, VE(), "edm", SD)
    x, eps, s = draw(0).float(), draw(1).float(), levels(4).float()
    objective = Objective(VE(), lambda s, progress: s, squared, WEIGHTS["uniform"], SD)
    assert (objective(f, x, eps, s, 0.5, Masks(11)).loss == 0).all()
    one, other = (objective.evaluate(f, x, eps, s, Masks(seed)) for seed in (11, 12))
    assert (squared(one, other) > 1e-6).all()
    assert torch.equal(one, objective.evaluate(f, x, eps, s, Masks(11)))
    objective.shared_dropout = False
    assert (objective(f, x, eps, s, 0.5, Masks(11)).loss > 1e-6).all()


def test_no_gradient_flows_through_the_target(draw):
    """The gradient is that of |f(x_t) - c|^2 with the target as a constant c."""
    x, eps, s = draw(0), draw(1), levels(4)
    gain = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    f = Consistency(lambda x, c: gain * wave(x, c), VE(), "edm", SD)
    objective = Objective(VE(), lambda s, progress: s / 2, squared, WEIGHTS["uniform"], SD)
    assert not objective.target(f, x, eps, s, s / 2, Masks()).requires_grad
    (ours,) = torch.autograd.grad(objective(f, x, eps, s, 0.5).loss.sum(), gain)

    constant = f(VE().noise(x, eps, s / 2), s / 2).detach()
    loss = squared(f(VE().noise(x, eps, s), s), constant).sum()
    torch.testing.assert_close(ours, torch.autograd.grad(loss, gain)[0], rtol=1e-12, atol=0)

    free = squared(f(VE().noise(x, eps, s), s), f(VE().noise(x, eps, s / 2), s / 2)).sum()
    assert (torch.autograd.grad(free, gain)[0] - ours).abs() > 1e-3 * ours.abs()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("c", [0.0, 0.06])
def test_huber_has_a_finite_gradient_at_distance_zero(dtype, c):
    a = torch.ones(2, 1, 8, 8, dtype=dtype, requires_grad=True)
    distance = huber(a, torch.ones_like(a), c)
    distance.sum().backward()
    assert (distance.abs() < 1e-6).all() and (a.grad == 0).all()


def test_distances_equal_their_formulas(draw):
    a, b = draw(0), draw(1)
    square = ((a - b).numpy() ** 2).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(DISTANCES["squared"](a, b), square / 64, rtol=1e-12)
    for c in (0.0, 0.1, 2.0):
        found = functools.partial(DISTANCES["huber"], c=c)(a, b)
        np.testing.assert_allclose(found, np.sqrt(square + c**2) - c, rtol=1e-12)


def test_weights_equal_their_formulas():
    s, r = np.array([0.01, 0.4, 3.0, 70.0]), np.array([0.0, 0.1, 2.9, 69.0])
    wanted = {
        "uniform": np.ones(4),
        "gap": 1 / (s - r),
        "inverse_square": 1 / s**2,
        "edm": (s**2 + SD**2) / (s * SD) ** 2,
        "flow": ((1 + s) / s) ** 2,
    }
    assert set(wanted) == set(WEIGHTS)
    for name, values in wanted.items():
        found = WEIGHTS[name](torch.from_numpy(s), torch.from_numpy(r), SD)
        np.testing.assert_allclose(found, values, rtol=1e-12, err_msg=name)


def test_prior_is_lognormal():
    ln_s = lognormal(torch.Generator().manual_seed(0), 100_000, -1.1, 2.0).log()
    assert ln_s.mean().item() == pytest.approx(-1.1, abs=0.03)
    assert ln_s.std().item() == pytest.approx(2.0, abs=0.03)


@pytest.mark.parametrize("options", [{}, {"low": 0.1}, {"low": 0.5, "high": 2.0}])
def test_karras_prior_is_uniform_in_the_seventh_root(options):
    root = karras(torch.Generator().manual_seed(0), 100_000, **options) ** (1 / 7)
    ends = options.get("low", 0.002) ** (1 / 7), options.get("high", 80) ** (1 / 7)
    share = (root - ends[0]) / (ends[1] - ends[0])
    counts = torch.histc(share, 10, 0, 1) / len(share)
    assert (
        (share >= -1e-6).all() and (share <= 1 + 1e-6).all() and (counts - 0.1).abs().max() < 0.005
    )


@pytest.mark.parametrize("order, step", [(1, ode.euler), (2, ode.heun)])
def test_teachers_step_has_its_order(order, step, draw):
    """Data N(0, sd^2): y / sqrt(s^2 + sd^2) is constant along the ODE; halving a step divides its
    local error by 2^(order + 1)."""
    f = Consistency(lambda x, c: 0 * x, VE(), "edm", SD)
    y, s = draw(0, 4), torch.full((4,), 1.0, dtype=torch.float64)
    errors = []
    for gap in (0.04, 0.02):
        r = s - gap
        wanted = y * ((r**2 + SD**2) / (s**2 + SD**2)).sqrt().view(-1, 1, 1, 1)
        errors.append((step(f, VE(), y, s, r) - wanted).abs().max().item())
    assert errors[0] / errors[1] == pytest.approx(2 ** (order + 1), rel=0.15)


@pytest.mark.parametrize("step", [ode.euler, ode.heun])
def test_a_step_is_the_same_for_levels_shared_and_per_image(step, draw):
    f = Consistency(wave, VE(), "edm", SD)
    levels_of = [torch.full((4,), v, dtype=torch.float64) for v in (2.0, 1.5)]
    torch.testing.assert_close(
        step(f, VE(), draw(0), 2.0, 1.5), step(f, VE(), draw(0), *levels_of), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("process", [VE(), Flow()], ids=["ve", "flow"])
def test_distillations_target_starts_where_the_teacher_arrives(process, draw):
    """f(x_r) at alpha(r) y_r for the teacher's y_r where r > 0, the image itself elsewhere."""
    x, eps, s = draw(0, 8), draw(1, 8), levels(8)
    f = Consistency(wave, process, "edm", SD)
    teacher = Consistency(lambda x, c: 0 * x, process, "edm", SD)
    objective = Objective(
        process, halves, squared, WEIGHTS["uniform"], SD, step=ode.heun, teacher=teacher
    )
    r = halves(s, 0)
    target = objective.target(f, x, eps, s, r, Masks())
    assert torch.equal(target[::2], x[::2])
    on = slice(1, None, 2)
    y_r = ode.heun(teacher, process, x[on] + s[on].view(-1, 1, 1, 1) * eps[on], s[on], r[on])
    t = process.time(r[on])
    alpha, _ = process.coefficients(t)
    wanted = f(alpha.view(-1, 1, 1, 1) * y_r, t)
    torch.testing.assert_close(target[on], wanted, rtol=1e-9, atol=1e-9)
    own = Objective(process, halves, squared, WEIGHTS["uniform"], SD)
    assert (own.target(f, x, eps, s, r, Masks())[on] - target[on]).abs().max() > 1e-3


def documented(target):
    """(evaluations without gradient where r > 0, with gradient) by docs/objectives.md."""
    text = (Path(__file__).parents[2] / "docs" / "objectives.md").read_text()
    ends = r"[^|]*\|.*\| (\d) where r > 0 \| (\d) \|$"
    (row,) = re.findall(rf"^\|[^|]*target `{target}`{ends}", text, re.M)
    return tuple(map(int, row))


@pytest.mark.parametrize("target", ["own", "ema", "euler", "heun"])
def test_evaluations_of_each_target_are_those_that_the_docs_say(target, draw):
    """By f and by what gives the target, in images: of a batch, half of which has r > 0."""
    counts = {True: 0, False: 0}

    def counted(x, c_noise):
        counts[torch.is_grad_enabled()] += len(x)
        return wave(x, c_noise)

    f, other = (Consistency(counted, VE(), "edm", SD) for _ in range(2))
    step = ode.STEPS.get(target)
    added = {"step": step, "teacher": other, "averaged": other if target == "ema" else None}
    loss = Objective(VE(), halves, squared, WEIGHTS["uniform"], SD, **added)
    loss(f, draw(0, 16), draw(1, 16), levels(16), 0.5)
    without, with_gradient = documented(target)
    assert counts == {True: 16 * with_gradient, False: 8 * without}


def test_snapped_levels_are_the_ones_the_loss_uses(draw):
    x, eps, s = draw(0), draw(1), levels(4)
    f = Consistency(wave, VE(), "edm", SD)
    objective = Objective(
        VE(), lambda s, p: s / 2, squared, WEIGHTS["gap"], SD, snap=lambda s, p: s.ceil()
    )
    plain = Objective(VE(), lambda s, p: s / 2, squared, WEIGHTS["gap"], SD)
    for ours, wanted in zip(objective(f, x, eps, s, 0.5), plain(f, x, eps, s.ceil(), 0.5)):
        assert torch.equal(ours, wanted)


def test_clock_time_applies_the_map_to_the_processs_own_time():
    """For flow with r = t / 2 in time: s = t / (1 - t), so r_s = (t / 2) / (1 - t / 2)."""
    schedule = {"map": "constant", "options": {"q": 2.0, "stages": 1}, "clock": "time"}
    s = levels(9)
    r = parts.on_clock(constant, schedule, Flow())(s, 0.5)
    t = s / (1 + s)
    torch.testing.assert_close(r, (t / 2) / (1 - t / 2), rtol=1e-9, atol=0)
    assert (r < s).all()
    ve = parts.on_clock(constant, schedule, VE())(s, 0.5)
    assert torch.equal(ve, constant(s, 0.5, q=2.0, stages=1))
