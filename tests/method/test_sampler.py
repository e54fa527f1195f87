"""The samplers: closed forms on Gaussian data, order of convergence, seeds, evaluations."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ect import sampler
from ect.config import evaluation
from ect.consistency import Consistency
from ect.models.build import PROCESSES
from ect.models.draw import draw as draw_images
from ect.models.draw import labels_of
from ect.process import S_MAX, VE
from ect.runtime.seeds import generator_of

every_process = pytest.mark.parametrize("process", [p() for p in PROCESSES.values()],
                                        ids=list(PROCESSES))  # fmt: skip
SD = 0.5


def nothing(x, c_noise):
    """The zero network: under `edm` the exact denoiser of data N(0, SD^2 I)."""
    return torch.zeros_like(x)


def solved(y, start, stop):
    """The ODE's solution for Gaussian data: y(stop) = y(start) sqrt((sd^2 + stop^2) / ...)."""
    return y * math.sqrt((SD**2 + stop**2) / (SD**2 + start**2))


@every_process
@pytest.mark.parametrize(
    ("solver", "order"), [(sampler.euler, 1), (sampler.heun, 2), (sampler.dpm_solver, 2)]
)
def test_solvers_converge_at_their_order(process, solver, order, draw):
    """The last step, s_min -> 0, returns f(y, s_min): the limit of many steps ends with it."""
    eps, s_min = draw(0, 2)[None], 0.002
    limit = solved(S_MAX * eps[0], S_MAX, s_min) * SD**2 / (SD**2 + s_min**2)
    steps = [20, 40, 80, 160]
    f = Consistency(nothing, process, "edm", SD)
    errors = [(solver(f, process, eps, steps=n) - limit).norm().item() for n in steps]
    slopes = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert slopes == pytest.approx([order] * 3, abs=0.25)
    assert slopes[-1] == pytest.approx(order, abs=0.1)
    assert errors[-1] < 0.1 * limit.norm()


@every_process
@given(steps=st.integers(1, 12), s_min=st.floats(1e-3, 0.5), rho=st.floats(1, 9))
def test_dpm_solver_is_exact_where_f_is_constant(process, steps, s_min, rho):
    x = torch.arange(64, dtype=torch.float64).reshape(1, 1, 8, 8)
    eps = sampler.noise([steps], 1, (1, 8, 8)).double()
    path = []
    f = lambda x_t, t: path.append((x_t, t)) or x  # noqa: E731
    assert torch.equal(sampler.dpm_solver(f, process, eps, steps, s_min, rho), x)
    assert len(path) == steps
    for x_t, t in path:  # the path is straight in s
        alpha, sigma = process.coefficients(t)
        wanted = alpha * x + sigma * (eps[0] - x / S_MAX)
        torch.testing.assert_close(x_t, wanted, rtol=1e-6, atol=1e-6)


def test_the_first_step_of_dpm_solver_is_eulers(make_unet, draw):
    """It extrapolates from two values of f, and has one."""
    f = Consistency(make_unet(dtype=torch.float64), VE(), "edm", SD)
    asked = {}
    for solver in (sampler.euler, sampler.dpm_solver):
        points = asked[solver] = []
        spy = lambda x_t, t, points=points: points.append(x_t) or f(x_t, t)  # noqa: E731
        solver(spy, VE(), draw(0)[None], steps=5)
    euler, dpm = asked.values()
    for place in (0, 1):
        torch.testing.assert_close(dpm[place], euler[place], rtol=1e-12, atol=1e-12)
    assert (dpm[2] - euler[2]).abs().max() > 1e-3


@pytest.mark.parametrize("steps", [2, 3, 5, 12])
def test_dpm_solver_is_that_of_diffusers(steps, make_unet, draw):
    """On the levels that diffusers makes from its settings, whose last step is to s = 0."""
    diffusers = pytest.importorskip("diffusers")
    chain = diffusers.EDMDPMSolverMultistepScheduler(
        sigma_min=0.002, sigma_max=80.0, sigma_data=SD, rho=7.0, final_sigmas_type="zero"
    )
    chain.set_timesteps(steps)
    assert chain.sigmas.tolist() == pytest.approx(sampler.grid(steps), rel=1e-5)
    f = Consistency(make_unet().eval(), VE(), "edm", SD)
    eps = draw(0).float()[None]
    y = eps[0] * S_MAX
    with torch.no_grad():
        for t in chain.timesteps:
            output = f.network(chain.scale_model_input(y, t), t.expand(len(y)))
            y = chain.step(output, t, y).prev_sample
        found = sampler.dpm_solver(f, VE(), eps, steps)
    torch.testing.assert_close(found, y, rtol=1e-5, atol=1e-5)


@every_process
def test_gaussian_data_come_back_with_their_deviation(process, draw):
    f = Consistency(nothing, process, "edm", SD)
    x = sampler.heun(f, process, draw(0, 500)[None], steps=40)
    assert x.std().item() == pytest.approx(SD, rel=0.02)


def churned(f, steps, churn, low, high, deviation, eps):
    """EDM's algorithm 2 in plain numpy, for ve: D(x; sigma) is f."""
    power = np.linspace(80 ** (1 / 7), 0.002 ** (1 / 7), steps)
    levels, slices = [*power**7, 0.0], iter(eps)
    x = levels[0] * next(slices)
    for level, after in itertools.pairwise(levels):
        gamma = min(churn / steps, np.sqrt(2) - 1) if low <= level <= high else 0.0
        hat = level * (1 + gamma)
        if gamma > 0:
            x = x + np.sqrt(hat**2 - level**2) * deviation * next(slices)
        slope = (x - f(x, hat)) / hat
        moved = x + (after - hat) * slope
        if after > 0:
            moved = x + (after - hat) * (slope + (moved - f(moved, after)) / after) / 2
        x = moved
    return x


@pytest.mark.parametrize(
    "options", [(0, 0, 50, 1.0), (40, 0.05, 50, 1.003), (3, 0.5, 5, 1.1), (400, 0, math.inf, 1.0)]
)
def test_heun_with_churn_is_algorithm_2(options, make_unet):
    f = Consistency(make_unet(dtype=torch.float64), VE(), "edm", SD)

    def plain(x, sigma):
        with torch.no_grad():
            return f(torch.from_numpy(x), torch.full((2,), sigma, dtype=torch.float64)).numpy()

    eps = sampler.noise([4, 9], 12, (1, 8, 8)).double()
    names = ("churn", "churn_min", "churn_max", "churn_noise")
    with torch.no_grad():
        found = sampler.heun(f, VE(), eps, steps=9, **dict(zip(names, options)))
    wanted = churned(plain, 9, *options, eps.numpy())
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9)
    without = sampler.heun(f, VE(), eps, steps=9)
    assert torch.equal(found.detach(), without.detach()) == (options[0] == 0)


def spread(process, steps, **churn):
    """The variance of what Heun draws of Gaussian data, exactly: y is linear in its noise."""
    f, count = Consistency(nothing, process, "edm", SD), steps + 1
    eps = torch.eye(count, dtype=torch.float64)[:, :, None, None, None]
    return sampler.heun(f, process, eps, steps=steps, **churn).square().sum().item()


@every_process
@pytest.mark.parametrize("churn", [0.5, 4.0, 16.0])
def test_gaussian_data_have_the_right_variance_with_any_churn(process, churn):
    """Up to the last step, from s_min to 0, the variance is right to second order in the steps."""
    s_min = 0.002
    wanted = SD**2 * SD**2 / (SD**2 + s_min**2)
    errors = [abs(spread(process, n, churn=churn) - wanted) for n in (80, 160, 320)]
    slopes = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert slopes == pytest.approx([2, 2], abs=0.3) and errors[-1] < 2e-3 * wanted
    assert spread(process, 80, churn=churn, churn_noise=1.1) > 1.001 * spread(process, 80)


@every_process
def test_no_churn_has_the_bits_of_no_such_option(process, make_unet):
    f, eps = Consistency(make_unet(), process, "edm", SD), sampler.noise([0, 1], 3, (1, 8, 8))
    plain = sampler.heun(f, process, eps, steps=4)
    for options in ({"churn": 0.0}, {"churn": 5.0, "churn_min": 81.0}):
        assert torch.equal(sampler.heun(f, process, eps, steps=4, **options), plain)


def test_noise_comes_slice_by_slice_as_it_comes_at_once():
    together = sampler.noise([3, 8], 4, (3, 8, 8))
    for one, found in zip(together, sampler.fresh([3, 8], (3, 8, 8))):
        assert torch.equal(one, found)


def test_churned_images_depend_on_their_seeds_alone(make_unet):
    f, about = Consistency(make_unet().eval(), VE(), "edm", SD), {"network": {}, "shape": [1, 8, 8]}
    about |= {"shift": 127.5, "scale": 1 / 127.5}
    options = {"steps": 5, "churn": 2.0, "churn_max": 20.0}
    settings = {"kind": "heun", "options": options, "images": 5, "batch": 5, "seed": 3}
    whole = draw_images(f, VE(), about, settings)
    alone = draw_images(f, VE(), about, settings | {"batch": 2})
    assert np.abs(whole.astype(int) - alone).max() <= 1
    later = draw_images(f, VE(), about, settings | {"seed": 5, "images": 3})
    assert np.abs(whole[2:].astype(int) - later).max() <= 1
    plain = draw_images(f, VE(), about, settings | {"options": {"steps": 5}})
    assert np.abs(whole.astype(int) - plain).max() > 1


def test_multistep_is_the_chain_of_its_formulas(make_unet, draw):
    f = Consistency(make_unet(dtype=torch.float64), VE(), "edm", SD)
    eps = torch.stack([draw(0), draw(1), draw(2)])
    at = lambda level: torch.full((4,), level, dtype=torch.float64)  # noqa: E731
    one = f(80 * eps[0], at(80.0))
    two = f(one + 0.8 * eps[1], at(0.8))
    three = f(two + 0.2 * eps[2], at(0.2))
    for times, wanted in (([], one), ([0.8], two), ([0.8, 0.2], three)):
        torch.testing.assert_close(
            sampler.multistep(f, VE(), eps, times), wanted, rtol=1e-12, atol=1e-12
        )


@pytest.mark.parametrize(
    ("draw_images", "options"),
    [
        (sampler.multistep, {"times": []}),
        (sampler.multistep, {"times": [0.821]}),
        (sampler.euler, {"steps": 6}),
        (sampler.heun, {"steps": 6}),
        (sampler.dpm_solver, {"steps": 6}),
    ],
)
def test_the_same_noise_gives_the_same_image_under_every_process(draw_images, options, make_unet):
    network = make_unet(dtype=torch.float64)
    eps = sampler.noise(range(5), 2, (1, 8, 8)).double()
    images = {}
    for name, kind in PROCESSES.items():
        f = Consistency(network, kind(), "edm", SD)
        images[name] = draw_images(f, kind(), eps, **options)
    for name in images:
        torch.testing.assert_close(images[name], images["ve"], rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("split", [[[0, 1, 2, 3, 4]], [[3], [0, 4], [2, 1]], [[4, 3, 2, 1], [0]]])
def test_an_image_depends_on_its_seed_alone(split, make_unet):
    f = Consistency(make_unet().eval(), VE(), "edm", SD)
    together = sampler.noise(range(5), 2, (1, 8, 8))
    with torch.no_grad():
        images = sampler.multistep(f, VE(), together, [0.8])
        for seeds in split:
            apart = sampler.noise(seeds, 2, (1, 8, 8))
            assert torch.equal(apart, together[:, seeds])
            found = sampler.multistep(f, VE(), apart, [0.8])
            torch.testing.assert_close(found, images[seeds], rtol=1e-5, atol=1e-5)
    assert len(set(together[0, :, 0, 0, 0].tolist())) == 5


@pytest.mark.parametrize(("precision", "most"), [("tf32", 2), ("bf16", 4)])
def test_a_precision_rounds_the_network_and_nothing_else(precision, most, make_unet):
    """To 11 and 8 bits: images change by less than one grey value of 256 on average. fp32 is the
    default, and holds again for the next image."""
    f, settings = Consistency(make_unet(), VE(), "edm", 0.5), {"seed": 3, "images": 8, "batch": 8}
    about = {"shape": [1, 8, 8], "shift": 127.5, "scale": 1 / 127.5, "network": {}}
    settings |= {"kind": "multistep", "options": {"times": []}}

    def draw(**more):
        return draw_images(f, VE(), about, settings | more).astype(int)

    exact, rounded = draw(), draw(precision=precision)
    assert (draw(precision="fp32") == exact).all() and (draw() == exact).all()
    gap = np.abs(rounded - exact)
    assert gap.max() <= most and gap.mean() < 1
    assert gap.any() or precision == "tf32"  # which some processors do not have


def test_the_first_noise_does_not_depend_on_how_many_follow():
    one, three = (sampler.noise([5, 9], count, (3, 8, 8)) for count in (1, 3))
    assert torch.equal(one[0], three[0])
    assert not torch.equal(three[0], three[1])


def test_grid_is_edms_equation_5():
    levels = sampler.grid(18)
    root = [80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7)) for i in range(18)]
    assert levels == pytest.approx([v**7 for v in root] + [0.0], rel=1e-12)


@every_process
@pytest.mark.parametrize(
    ("block", "nfe"),
    [
        ({"kind": "multistep"}, 1),
        ({"kind": "multistep", "times": [0.821]}, 2),
        ({"kind": "multistep", "times": [5.0, 1.0, 0.2]}, 4),
        ({"kind": "euler", "steps": 1}, 1),
        ({"kind": "euler", "steps": 7}, 7),
        ({"kind": "heun", "steps": 1}, 1),
        ({"kind": "heun", "steps": 18}, 35),
        ({"kind": "dpm_solver", "steps": 1}, 1),
        ({"kind": "dpm_solver", "steps": 7}, 7),
    ],
)
def test_declared_evaluations_are_those_counted(process, block, nfe, draw):
    declared = evaluation.Sampler(label="a", **block)
    calls = []
    f = Consistency(lambda x, c: calls.append(1) or nothing(x, c), process, "edm", SD)
    eps = torch.stack([draw(seed) for seed in range(4)])
    sampler.SAMPLERS[declared.kind](f, process, eps, **declared.options())
    assert declared.evaluations == len(calls) == nfe


def test_a_label_is_a_function_of_the_seed():
    ten, none = {"network": {"classes": 10}}, {"network": {"classes": 0}}
    uniform = labels_of(range(2000), ten)
    assert torch.equal(labels_of(range(500, 600), ten), uniform[500:600])
    alone = [torch.randint(10, (1,), generator=generator_of(k, "label")) for k in range(2000)]
    assert torch.equal(uniform, torch.cat(alone))
    assert (torch.bincount(uniform) - 200).abs().max() < 60
    assert labels_of(range(4, 9), ten, [7, 3]).tolist() == [7, 3, 7, 3, 7]
    assert labels_of(range(3), none) is None
    with pytest.raises(ValueError, match="labels has 10; allowed: 0 to 9"):
        labels_of(range(3), ten, [10])
    with pytest.raises(ValueError, match="labels has 3; allowed: none, as the model has no"):
        labels_of(range(3), none, [3])
