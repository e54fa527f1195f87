"""The flow map: its boundary to the bit, its equations on Gaussian data, where it is known in
closed form for every process, the order of n steps, its samplers and joint priors."""

import itertools
import math

import pytest
import torch
from torch.func import jvp

from ect import flowmap, sampler
from ect.consistency import Consistency
from ect.flowmap import FlowMap
from ect.models import build
from ect.models.build import PROCESSES
from ect.process import S_MAX, expand
from ect.registry import undefined
from tests.helpers.gaussian import Exact, Instant

SD = 0.5
S = torch.tensor([80.0, 12.0, 1.5, 0.4], dtype=torch.float64)  # of t, then of m and r
M = torch.tensor([3.0, 0.9, 1.2, 0.05], dtype=torch.float64)
R = torch.tensor([0.7, 0.02, 0.1, 0.004], dtype=torch.float64)
FORMS = [(p, f) for p in PROCESSES for f in ("edm", "velocity", "noise") if not undefined(p, f)]
each_form = pytest.mark.parametrize("process, form", FORMS)
NETWORK = {"channels": 8, "multipliers": [1, 2], "blocks": 1, "attention": [4]}
close = {"rtol": 1e-6, "atol": 1e-8}


def exact(process, form, kind=Exact):
    return kind(None, PROCESSES[process](), form, SD)


def times(f, *levels):
    return [f.process.time(level) for level in levels]


def of_network(process, form, span, kind=FlowMap):
    network = build.make_network(NETWORK | {"span": span}, (1, 8, 8)).double()
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return kind(network, PROCESSES[process](), form, SD, span=span)


@each_form
@pytest.mark.parametrize("span", [True, "end"])
def test_a_way_of_no_length_is_the_identity_to_the_bit(process, form, span, draw):
    f, x = of_network(process, form, span), draw(0)
    for dtype in (torch.float32, torch.float64):
        f.network.to(dtype)
        t = f.process.time(S.to(dtype))
        assert torch.equal(f(x.to(dtype), t, t), x.to(dtype))


@each_form
@pytest.mark.parametrize("span", [True, "end"])
def test_the_consistency_function_is_its_end_0_to_the_bit(process, form, span, draw):
    f, x = of_network(process, form, span), draw(0)
    one, t = of_network(process, form, span, Consistency), f.process.time(S)
    wanted = one(x, t)
    assert torch.equal(f(x, t), wanted) and torch.equal(f(x, t, torch.zeros_like(t)), wanted)
    assert not torch.equal(f(x, t, t / 2), wanted)


@pytest.mark.parametrize("span", [True, "end"])
def test_the_network_is_told_the_end(span, draw):
    f, x = of_network("flow", "edm", span), draw(0)
    t, r = times(f, S, R)
    outs = [f.output(x, t, end) for end in (r, t, torch.zeros_like(t))]
    for a, b in itertools.combinations(outs, 2):
        assert (a - b).abs().amax(dim=(1, 2, 3)).min() > 1e-6


@each_form
def test_the_form_holds_the_exact_map(process, form, draw):
    """Whatever the parameterization, its step of DDIM with `Exact`'s F is the ODE's solution."""
    f, x = exact(process, form), draw(0)
    t, r = times(f, S, R)
    torch.testing.assert_close(f(x, t, r), f.exact(x, t, r), **close)
    assert (f(x, t, r) - exact(process, form, Instant)(x, t, r)).abs().max() > 1e-2


@each_form
def test_semigroup(process, form, draw):
    f, x = exact(process, form), draw(0)
    t, m, r = times(f, S, M, R)
    torch.testing.assert_close(f(f(x, t, m), m, r), f(x, t, r), **close)


def velocity(f, x, t):
    """Of the ODE for Gaussian data: x_t = rho(t) z, so that dx_t/dt = rho' / rho x_t."""
    rho, slope = jvp(f.rho, (t,), (torch.ones_like(t),))
    return expand(slope / rho, x) * x


@each_form
def test_tangent_condition(process, form, draw):
    f, x = exact(process, form), draw(0)
    (t,) = times(f, S)
    _, slope = jvp(lambda r: f(x, t, r), (t,), (torch.ones_like(t),))
    torch.testing.assert_close(slope, velocity(f, x, t), **close)
    torch.testing.assert_close(f.velocity(x, t), velocity(f, x, t), **close)


@each_form
def test_lagrangian_equation(process, form, draw):
    f, x = exact(process, form), draw(0)
    t, r = times(f, S, R)
    arrived, slope = jvp(lambda r: f(x, t, r), (r,), (torch.ones_like(r),))
    torch.testing.assert_close(slope, f.velocity(arrived, r), **close)


@each_form
def test_eulerian_equation(process, form, draw):
    f, x = exact(process, form), draw(0)
    t, r = times(f, S, R)
    point, way = (x, t), (f.velocity(x, t), torch.ones_like(t))
    _, change = jvp(lambda x, t: f(x, t, r), point, way)
    torch.testing.assert_close(change, torch.zeros_like(change), rtol=0, atol=1e-7)
    _, other = jvp(lambda x, t: f(x, t, r), point, (0 * x, torch.ones_like(t)))
    assert (other.abs().amax(dim=(1, 2, 3)) > 1e-5).all()


@each_form
def test_n_steps_with_the_velocity_alone_are_of_first_order(process, form, draw):
    """An F that knows only r = t makes each step one of DDIM; the exact map needs no steps."""
    instant, f, x = exact(process, form, Instant), exact(process, form), draw(0)
    start = torch.full((4,), 5.0, dtype=torch.float64)
    wanted, errors = f.exact(x, *times(f, start, start / 100)), []
    for n in (20, 40):
        levels = [start * 100 ** (-i / n) for i in range(n + 1)]
        y, z = x, x
        for s, r in itertools.pairwise(levels):
            y, z = instant(y, *times(f, s, r)), f(z, *times(f, s, r))
        errors.append((y - wanted).norm().item())
        torch.testing.assert_close(z, wanted, **close)
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert orders == pytest.approx([1], abs=0.15)


@each_form
def test_ve_and_every_process_have_one_map_in_y(process, form, draw):
    """In y = x_t / alpha at noise levels s the map is the same for all."""
    f, ve, y = exact(process, form), exact("ve", "edm"), draw(0)
    t, r = times(f, S, R)
    x = expand(f.process.coefficients(t)[0], y) * y
    arrived = f(x, t, r) / expand(f.process.coefficients(r)[0], y)
    torch.testing.assert_close(arrived, ve(y, S, R), **close)


LEVELS = [3.0, 0.7, 0.2]


@pytest.mark.parametrize("process", PROCESSES)
def test_gamma_1_is_multistep_to_the_bit(process, make_unet):
    f = of_network(process, "edm", "end")
    f.network.float()
    eps = sampler.noise(range(3), 4, (1, 8, 8))
    with torch.no_grad():
        a = sampler.flow_map(f, f.process, eps, LEVELS, gamma=1.0)
        assert torch.equal(a, sampler.multistep(f, f.process, eps, LEVELS))
        b = sampler.flow_map(f, f.process, eps, LEVELS, gamma=0.5)
    assert (a - b).abs().max() > 1e-3


@pytest.mark.parametrize("gamma", [0.0, 0.3, 0.9, 1.0])
@each_form
def test_the_exact_map_samples_the_data_at_every_gamma(process, form, gamma):
    """It is linear in the noise, so that its output's variance is the sum of squares of what unit
    noises give: sd^2, up to the start at s = 80, whose variance is 80^2 instead of sd^2 + 80^2."""
    f = exact(process, form)
    eps = torch.eye(4, dtype=torch.float64)[:, :, None, None, None]  # noise k alone in image k
    variance = float(sampler.flow_map(f, f.process, eps, LEVELS, gamma).square().sum())
    wanted, level = S_MAX**2, S_MAX
    for s in LEVELS:
        below = s * math.sqrt(1 - gamma**2)
        wanted = wanted * (SD**2 + below**2) / (SD**2 + level**2) + (gamma * s) ** 2
        level = s
    wanted *= SD**2 / (SD**2 + level**2)
    assert variance == pytest.approx(wanted, rel=1e-6)
    assert variance == pytest.approx(SD**2, rel=1e-4)


def test_without_gamma_any_steps_give_one_image_from_the_first_noise_alone():
    f = exact("flow", "velocity")
    eps = sampler.noise(range(3), 4, (1, 8, 8)).double()
    one = sampler.flow_map(f, f.process, eps)
    torch.testing.assert_close(sampler.flow_map(f, f.process, eps, LEVELS), one, **close)
    assert torch.equal(sampler.flow_map(f, f.process, eps[:1]), one)


def test_a_network_told_the_end_denoises_at_r_equal_t(draw):
    """`end`: the velocity's denoiser; a network told t - r was pretrained at r = 0."""
    x, f = draw(0), of_network("flow", "velocity", "end")
    t = f.process.time(S)
    instant = f.denoiser()
    torch.testing.assert_close(instant(x, t), x - expand(t, x) * f.velocity(x, t), **close)
    assert torch.equal(instant(x, t, t / 2), f(x, t, t / 2))
    assert not torch.equal(instant(x, t), f(x, t))
    told = of_network("flow", "velocity", True)
    assert torch.equal(told.denoiser()(x, t), told(x, t))


def normal(generator):
    return lambda mean=-0.6, std=1.6: (torch.randn(4096, generator=generator) * std + mean).exp()


def test_joint_priors_give_r_at_most_s():
    s, r = flowmap.in_order(normal(torch.Generator().manual_seed(0)))
    again = normal(torch.Generator().manual_seed(0))
    assert (r <= s).all() and torch.equal(torch.maximum(again(), again()), s)
    s, r = flowmap.lower(normal(torch.Generator().manual_seed(0)), mean=-4.0, std=1.6)
    again = normal(torch.Generator().manual_seed(0))
    assert torch.equal(again(), s) and torch.equal(torch.minimum(s, again(-4.0, 1.6)), r)
    assert 0.01 < (r == s).double().mean() < 0.15  # P(N(-3.4, 2 * 1.6^2) > 0) = 0.066
