"""DDPM's chain in continuous time: its steps, and what lies between, before and beyond them."""

import math

import pytest
import torch

from ect.consistency import Consistency
from ect.process import BETAS, S_MAX, Process, Tabulated

CHAINS = {
    "ddpm": ("linear", 1e-4, 0.02, 1000),
    "latent": ("scaled_linear", 0.00085, 0.012, 1000),  # ends at s = 14.6
    "cosine": ("squaredcos_cap_v2", 1e-4, 0.02, 1000),
    "short": ("linear", 1e-3, 0.2, 100),
}
every_chain = pytest.mark.parametrize("chain", CHAINS.values(), ids=list(CHAINS))
LEVELS = torch.logspace(-4, 1.8976, 200, dtype=torch.float64)  # 1e-4 .. 79


def close(a, b, rtol=1e-9, atol=0.0):
    torch.testing.assert_close(a, b, rtol=rtol, atol=atol)


def steps_of(chain, dtype=torch.float64):
    """The times of the chain's steps."""
    return torch.arange(1, chain[3] + 1, dtype=dtype) / 1000


@every_chain
def test_at_its_steps_alpha_is_the_product_of_the_chain(chain):
    product, wanted = 1.0, []
    for beta in BETAS[chain[0]](*chain[1:]).tolist():
        product *= 1 - beta
        wanted.append(product)
    alpha, sigma = Tabulated(*chain).coefficients(steps_of(chain))
    wanted = torch.tensor(wanted, dtype=torch.float64)
    close(alpha**2, wanted)
    close(sigma**2, 1 - wanted, rtol=1e-7)


@pytest.mark.parametrize("steps", [50, 1000])
@pytest.mark.parametrize("schedule", BETAS)
def test_the_betas_are_diffusers(schedule, steps):
    diffusers = pytest.importorskip("diffusers", reason="the extra 'diffusers' is not installed")
    theirs = diffusers.DDPMScheduler(
        num_train_timesteps=steps, beta_start=0.001, beta_end=0.03, beta_schedule=schedule
    )
    # theirs are float32, which keeps 1 - beta to 6e-8
    close(BETAS[schedule](0.001, 0.03, steps), theirs.betas.double(), rtol=1e-6, atol=1e-7)


@every_chain
def test_single_precision_is_enough_for_the_steps(chain):
    """In single precision the steps are what they are in double, and time finds them again."""
    process, t = Tabulated(*chain), steps_of(chain, torch.float32)
    t = t[process.clock(t) < S_MAX]
    alpha, sigma = process.coefficients(t.double())
    for found, wanted in zip(process.coefficients(t), (alpha, sigma)):
        close(found.double(), wanted, rtol=2e-5)
    close(process.time((sigma / alpha).float()), t, rtol=1e-6, atol=1e-6)


@every_chain
def test_time_and_clock_are_inverses(chain):
    process = Tabulated(*chain)
    close(process.clock(process.time(LEVELS)), LEVELS)
    t = torch.linspace(0.001, 1, 500, dtype=torch.float64) * process.time(LEVELS[-1:])
    close(process.time(process.clock(t)), t)
    close(Process.time(process, LEVELS), process.time(LEVELS))
    assert process.t_max >= max(chain[3] / 1000, process.time(LEVELS)[-1])


@every_chain
def test_rates_are_finite_and_equal_central_differences(chain):
    process = Tabulated(*chain)
    last = chain[3] - 2  # in the last step of the cosine sigma / alpha grows 30-fold
    t = (torch.linspace(0, last, 37, dtype=torch.float64).floor() + 0.4) / 1000
    h = 1e-8
    values, rates = process.rates(t)
    sides = zip(process.coefficients(t - h), process.coefficients(t + h))
    for rate, (low, high) in zip(rates, sides):
        close(rate, (high - low) / (2 * h), rtol=1e-5, atol=1e-6)
    close(values[0] ** 2 + values[1] ** 2, torch.ones_like(t))


@every_chain
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_starts_at_the_data_and_ends_at_noise(chain, dtype):
    process = Tabulated(*chain)
    ends = torch.tensor([0.0, process.t_max], dtype=dtype)
    (alpha, sigma), rates = process.rates(ends)
    assert all(value.isfinite().all() for value in (alpha, sigma, *rates))
    assert (alpha[0], sigma[0], process.clock(ends)[0], process.time(ends)[0]) == (1, 0, 0, 0)
    assert process.clock(ends)[1] == pytest.approx(S_MAX, rel=1e-4)


@every_chain
def test_f_at_the_data_is_the_identity(chain):
    f = Consistency(lambda x, c: x + 3 + c.view(-1, 1, 1, 1), Tabulated(*chain), "noise", 0.5)
    x = torch.randn(5, 3, 4, 4)
    assert torch.equal(f(x, torch.zeros(5)), x)


def test_a_chain_that_ends_early_goes_on_at_its_last_rate():
    process = Tabulated(*CHAINS["latent"])
    s = process.clock(torch.tensor([0.999, 1.0, 1.001], dtype=torch.float64))
    assert s[1] == pytest.approx(14.6, abs=0.05)
    close(s[2] / s[1], s[1] / s[0])
    assert math.isclose(process.clock(process.time(s.new_tensor([80.0]))).item(), 80)
