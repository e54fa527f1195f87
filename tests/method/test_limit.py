"""The loss at r -> t: the derivative along a path, sCM's formula, Gaussian closed forms."""

import copy
import math

import pytest
import torch

from ect import flowloss, limit
from ect.consistency import Consistency
from ect.flowmap import FlowMap
from ect.models import build
from ect.models.build import PROCESSES
from ect.networks.dropout import Masks
from ect.objective import Objective, squared, uniform
from ect.process import VE, Flow, VPCosine, expand
from ect.sampler import multistep, noise
from ect.training import train
from tests.helpers.runs import TUNE, changed, contents

SD = 0.5
S = torch.tensor([0.05, 0.4, 1.5, 12.0], dtype=torch.float64)
PAIRS = [("ve", "edm"), ("flow", "velocity"), ("vp_cosine", "edm"), ("vp_linear", "noise")]


def consistency(network, process, parameterization, sd=SD):
    return Consistency(network, PROCESSES[process](), parameterization, sd)


def continuous(process, warmup=0.1, c=0.1, sd=SD):
    return limit.Continuous(process, uniform, sd, warmup, c)


@pytest.mark.parametrize("process, parameterization", PAIRS)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_tangent_is_the_difference_quotient_under_one_mask(
    process, parameterization, dropout, make_unet, draw
):
    network = make_unet(dropout, torch.float64).to(memory_format=torch.channels_last).train()
    f, x, eps = consistency(network, process, parameterization), SD * draw(0), draw(1)

    def at(s):
        t = f.process.time(s)
        with Masks(7).applied():
            return f(f.process.noise(x, eps, t), t)

    loss = continuous(f.process)
    _, _, g = loss.tangent(f, x, eps, f.process.time(S), 1.0, Masks(7))
    with torch.no_grad():
        quotient = (at(S * (1 + 1e-5)) - at(S * (1 - 1e-5))) / expand(2e-5 * S, x)
    wanted = expand((S**2 + SD**2).sqrt(), x) * quotient
    torch.testing.assert_close(g, wanted, rtol=1e-6, atol=1e-7 * float(wanted.abs().max()))


@pytest.mark.parametrize("process, parameterization", PAIRS)
@pytest.mark.parametrize("s", [0.1, 1.0, 10.0])
def test_its_gradient_points_where_ects_does(process, parameterization, s, make_unet, draw):
    """One image, so that the norm of its tangent changes no direction."""
    network, s = make_unet(0.2, torch.float64).train(), torch.tensor([s], dtype=torch.float64)
    network.to(memory_format=torch.channels_last)
    f, x, eps = consistency(network, process, parameterization), SD * draw(0, 1), draw(1, 1)

    def gradient(objective):
        network.zero_grad()
        objective(f, x, eps, s, 0.9, Masks(3)).loss.sum().backward()
        return torch.cat([p.grad.flatten() for p in network.parameters()])

    steps = Objective(f.process, lambda s, _: s * (1 - 1e-5), squared, uniform, SD)
    a, b = gradient(continuous(f.process)), gradient(steps)
    assert torch.nn.functional.cosine_similarity(a, b, dim=0) > 1 - 1e-6


@pytest.mark.parametrize("progress", [0.0, 0.03, 0.5])
def test_it_is_scms_loss_in_trigflow(progress, make_unet, draw):
    """sCM, algorithm 1, for sd = 1, where TrigFlow's angle is that of vp_cosine; its F is -F."""
    network = make_unet(dtype=torch.float64)
    f, x, eps = consistency(network, "vp_cosine", "edm", sd=1.0), draw(0), draw(1)
    angle = expand(S.atan(), x)
    x_t, dx = angle.cos() * x + angle.sin() * eps, angle.cos() * eps - angle.sin() * x

    def scm(x_t, angle):
        t = angle.flatten() * 2 / math.pi
        return -network(f.scaled(x_t, t), f.c_noise(f.process, t))

    with torch.no_grad():
        h = 1e-6
        out = scm(x_t, angle)
        slope = (scm(x_t + h * dx, angle + h) - scm(x_t - h * dx, angle - h)) / (2 * h)
        r = min(1.0, progress / 0.1)
        g = -(angle.cos() ** 2) * (out - dx) - r * angle.cos() * angle.sin() * (x_t + slope)
        rms = g.square().flatten(1).mean(1)
        g = g / expand(rms.sqrt() + 0.1, x)
    terms = continuous(f.process, sd=1.0)(f, x, eps, S, progress)
    torch.testing.assert_close(terms.loss, squared(out, out + g), rtol=1e-6, atol=0)
    torch.testing.assert_close(terms.residual, rms, rtol=1e-6, atol=0)


def regression(y, x):
    """The coefficient of y on x per image, over all pixels, with its standard error."""
    y, x = y.flatten(1), x.flatten(1)
    b = (x * y).sum(1) / (x * x).sum(1)
    error = ((y - b[:, None] * x).square().mean(1) / (x * x).sum(1)).sqrt()
    return b, error


def gaussian(s, count=40_000):
    generator = torch.Generator().manual_seed(0)
    x, eps = torch.randn(2, len(s), 1, 1, count, generator=generator, dtype=torch.float64)
    return SD * x, eps


def test_on_gaussian_data_the_mean_tangent_of_the_exact_function_is_zero():
    """f = sd y / sqrt(s^2 + sd^2) solves the ODE; the denoiser sd^2 y / (s^2 + sd^2) does not."""
    x, eps = gaussian(S)
    exact, denoiser = (consistency(network, "ve", "edm") for network in (solution, zero))
    for f, is_solution in ((exact, True), (denoiser, False)):
        _, _, g = continuous(VE()).tangent(f, x, eps, S, 1.0, Masks())
        b, error = regression(g, x + expand(S, x) * eps)
        assert ((b.abs() < 4 * error) if is_solution else (b.abs() > 20 * error)).all()


def zero(x, c_noise):
    return torch.zeros_like(x)


def solution(x_in, c_noise):
    """(f - c_skip y) / c_out of f = sd y / sqrt(s^2 + sd^2); its input is y / sqrt(s^2 + sd^2)."""
    s = expand((4 * c_noise).exp(), x_in)
    root = (s**2 + SD**2).sqrt()
    return (SD - SD**2 / root) * x_in * root / (s * SD)


def spread(t):
    return ((1 - t) ** 2 * SD**2 + t**2).sqrt()


CONTINUOUS = changed(
    TUNE,
    recipe__distance={"kind": "squared", "c": 0.0},
    recipe__weight="uniform",
    schedule={"map": "continuous", "options": {"warmup": 0.5, "c": 0.1}, "clock": "noise"},
)


def test_it_trains_and_repeats_its_bits_and_samples(digits_file, tmp_path):
    for name in ("a", "b"):
        train.run(copy.deepcopy(CONTINUOUS), digits_file, tmp_path / name)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    f, process, about = build.load_model(tmp_path / "a/model.safetensors")
    images = multistep(f, process, noise(range(3), 2, about["shape"]), times=[0.5])
    assert images.isfinite().all() and len(images.unique()) > 100


def test_vp_cosine_and_ve_have_one_tangent_at_equal_s(make_unet, draw):
    """f, edm's, depends on s alone, and so does g."""
    network, x, eps = make_unet(dtype=torch.float64), SD * draw(0), draw(1)
    tangents = []
    for process in (VE(), VPCosine()):
        f = Consistency(network, process, "edm", SD)
        tangents.append(continuous(process).tangent(f, x, eps, process.time(S), 0.3, Masks())[2])
    torch.testing.assert_close(*tangents, rtol=1e-7, atol=1e-9)


def test_a_difference_is_the_derivative_up_to_the_square_of_its_step(make_unet, draw):
    network = make_unet(0.3, torch.float64).to(memory_format=torch.channels_last).train()
    for process, parameterization in PAIRS:
        f, x, eps = consistency(network, process, parameterization), SD * draw(0), draw(1)
        loss, t = continuous(f.process), f.process.time(S)
        _, out, exact = loss.tangent(f, x, eps, t, 1.0, Masks(7))
        errors = []
        for step in (0.02, 0.01):
            loss.step = step
            _, same, found = loss.tangent(f, x, eps, t, 1.0, Masks(7))
            torch.testing.assert_close(same, out, rtol=1e-9, atol=1e-9)
            errors.append((found - exact).flatten(1).norm(dim=1))
        assert ((errors[0] / errors[1]) - 4).abs().max() < 0.2, process


def test_a_difference_of_meanflow_is_its_derivative_up_to_the_square_of_its_step(draw):
    x, eps = SD * draw(0), draw(1)

    def network(x_in, c_noise, span):
        t, span = expand(c_noise / 1000, x_in), expand(span, x_in)
        return (x_in * (1 + span)).sin() * (2 * t).exp()

    f = FlowMap(network, Flow(), "velocity", SD, c_noise="time", span=True)
    loss = flowloss.MeanFlow(Flow(), uniform, SD, 0.75, 1.0, 1e-3)
    t = f.process.time(S)
    given = f, f.process.noise(x, eps, t), eps - x, t, t / 2, Masks(7)
    exact, errors = loss.target(*given), []
    for step in (0.004, 0.002):
        loss.step = step
        errors.append((loss.target(*given) - exact).flatten(1).norm(dim=1))
    assert ((errors[0] / errors[1]) - 4).abs().max() < 0.2


@pytest.mark.parametrize("process", ["ve", "flow", "vp_cosine", "vp_linear"])
def test_a_difference_stays_within_the_clock(process):
    process = PROCESSES[process]()
    t = process.time(torch.logspace(-6, 6, 25, dtype=torch.float64))
    step = limit.within(process, t, rate := torch.ones_like(t), 0.1)
    assert (step > 0).all() and (step <= 0.1).all() and (t - step * rate > 0).all()
    ends = isinstance(process, (Flow, VPCosine))
    assert not ends or (t + step < process.t_max).all()


@pytest.mark.parametrize("step, counts", [(None, (1, 1)), (0.005, (2, 1))])
def test_the_limit_evaluates_the_network_as_often_as_docs_say(step, counts, make_unet, draw):
    """(without, with gradient): in forward mode one evaluation gives value and derivative."""
    network, calls = make_unet(dtype=torch.float64), []
    network.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    f, loss = consistency(network, "ve", "edm"), continuous(VE())
    loss.step = step
    loss(f, SD * draw(0), draw(1), S, 0.5)
    assert (calls.count(False), calls.count(True)) == counts
