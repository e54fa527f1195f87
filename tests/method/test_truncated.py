"""The second of two stages: its prior, the share at the boundary, exact solutions, whose target."""

import math

import pytest
import torch

from ect.consistency import Consistency
from ect.networks.dropout import Masks
from ect.objective import Objective, Truncated, squared, student, uniform
from ect.process import VE, expand
from ect.schedule import student_table
from ect.training.perfect import Gaussian

SPECTRUM = torch.tensor([0.04, 0.5, 2.0], dtype=torch.float64)
TCM = {"df": 0.01, "mean": 0.0, "std": 0.2, "low": 1.0, "high": 80.0}


def test_the_prior_of_one_degree_of_freedom_is_cauchys_between_its_ends():
    """Its distribution function is known: F(z) = 1/2 + atan(z) / pi."""
    s = student(torch.Generator().manual_seed(0), 100_000, 1.0, -0.5, 0.4, 0.2, 5.0)
    assert s.dtype == torch.float32 and s.min() >= 0.2 and s.max() <= 5.0

    def distribution(s):
        return 0.5 + torch.atan((torch.as_tensor(s).log() + 0.5) / 0.4) / math.pi

    low, high = distribution(0.2), distribution(5.0)
    uniforms = ((distribution(s.double().sort().values) - low) / (high - low)).clamp(0, 1)
    distance = (uniforms - torch.linspace(0, 1, len(s), dtype=torch.float64)).abs().max()
    assert distance < 1.63 / len(s) ** 0.5  # Kolmogorov and Smirnov, 1 %


@pytest.mark.parametrize("df", [0.01, 0.5, 3.0, 1000.0])
def test_the_table_of_the_prior_is_the_integral_of_students_density(df):
    u, levels = (
        torch.tensor(t, dtype=torch.float64) for t in student_table(df, 0.3, 0.2, 1.0, 80.0)
    )
    z = torch.linspace(-1.5, (math.log(80) - 0.3) / 0.2, 2_000_001, dtype=torch.float64)
    whole = torch.cumulative_trapezoid((1 + z**2 / df) ** (-(df + 1) / 2), z)
    at = torch.searchsorted(z[1:], df**0.5 * u[256::256].sinh() - 1e-9).clamp(max=len(whole) - 1)
    torch.testing.assert_close(levels[256::256], whole[at] / whole[-1], rtol=2e-3, atol=1e-5)


def second(f, step=None, boundary=0.25, scale=0.1, distance=squared):
    ratio = {"step": step, "teacher": f, "frozen": f, "at": 1.0, "boundary": boundary}
    return Truncated(VE(), lambda s, _: 0.8 * s, distance, uniform, 0.5, scale=scale, **ratio)


def flow_of_the_data(teacher, process, y, s, r):
    """The exact path of the ODE of Gaussian data."""
    s, r = expand(s, y), expand(r, y)
    return y * ((SPECTRUM + r**2) / (SPECTRUM + s**2)).sqrt()


def drawn(f, count=64):
    generator = torch.Generator().manual_seed(1)
    x = f.draw(count, generator)
    eps = torch.randn(x.shape, generator=generator).double()
    return x, eps, student(generator, count, **TCM).double()


def test_with_the_exact_first_stage_and_path_the_loss_of_the_exact_map_is_zero():
    f = Gaussian(VE(), SPECTRUM)
    x, eps, s = drawn(f)
    loss = second(f, flow_of_the_data)
    levels = loss.levels(lambda: s)
    assert loss(f, x, eps, levels, 0.0).loss.max() < 1e-25
    loss.frozen = Gaussian(VE(), SPECTRUM, power=1)  # a denoiser is no consistency function
    wrong = loss(f, x, eps, levels, 0.0).loss > 1e-9
    assert torch.equal(wrong, 0.8 * levels < 1.0) and 16 < wrong.sum() < 64


@pytest.mark.parametrize("size", [4, 64, 100, 101])
def test_the_share_at_the_boundary_is_exact_and_the_loss_is_the_two_means(size):
    f = Gaussian(VE(), SPECTRUM)
    x, eps, s = drawn(f, size)
    loss = second(f)
    levels = loss.levels(lambda: s)
    edge = levels == 1.0
    assert int(edge.sum()) == round(0.25 * size) and torch.equal(levels[~edge], s[~edge])
    plain = Objective(VE(), loss.schedule, squared, uniform, 0.5)(f, x, eps, levels, 0.0).loss
    found = loss(f, x, eps, levels, 0.0).loss
    if size % 4 == 0:
        wanted = plain[~edge].mean() + 0.1 * plain[edge].mean()
        torch.testing.assert_close(found.mean(), wanted)
    torch.testing.assert_close(found[edge] / plain[edge], torch.full_like(found[edge], 0.4))


def test_each_target_is_that_of_its_stage_evaluated_once(make_unet, draw):
    """With dropout masks of its own row each, whichever network gives it."""
    network, old = (make_unet(0.3, torch.float64).train() for _ in range(2))
    with torch.no_grad():
        old.load_state_dict({k: v + 0.1 for k, v in old.state_dict().items()})
    f, frozen = (Consistency(n, VE(), "edm", 0.5) for n in (network, old))
    x, eps, counts = draw(0, 40), draw(1, 40), {}
    for name, each in (("new", network), ("old", old)):
        counts[name] = []
        each.register_forward_hook(
            lambda _, given, out, name=name: counts[name].append((out.requires_grad, len(out)))
        )
    s = torch.cat([torch.ones(16), torch.linspace(1.3, 9.0, 24)]).double()
    loss = second(f)
    loss.frozen = frozen
    terms = loss(f, x, eps, s, 0.0, Masks(3))
    assert counts == {"new": [(True, 40), (False, 24)], "old": [(False, 16)]}
    plain = Objective(VE(), loss.schedule, squared, uniform, 0.5)
    own, others = (plain.target(m, x, eps, s, 0.8 * s, Masks(3)) for m in (f, frozen))
    target = torch.where(expand(s == 1.0, x), others, own)
    wanted = squared(plain.evaluate(f, x, eps, s, Masks(3)), target)
    torch.testing.assert_close(terms.residual, wanted.detach(), rtol=1e-9, atol=1e-12)
    terms.loss.mean().backward()
    assert all(p.grad is None for p in old.parameters())


def test_the_whole_of_a_batch_is_the_sum_of_its_parts():
    """As microbatches and processes compute it, from levels that were drawn for all."""
    f = Gaussian(VE(), SPECTRUM)
    x, eps, s = drawn(f, 24)
    loss = second(f)
    levels = loss.levels(lambda: s)
    whole = loss(f, x, eps, levels, 0.0).loss
    parts = [loss(f, x[i], eps[i], levels[i], 0.0).loss for i in (slice(9), slice(9, 24))]
    torch.testing.assert_close(torch.cat(parts), whole)
