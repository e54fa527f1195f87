"""The forward processes: clocks, rates, and the variance-exploding sample they share."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ect.models.build import PROCESSES
from ect.process import S_MAX, VE, Process, VPLinear

every_process = pytest.mark.parametrize("process", [p() for p in PROCESSES.values()],
                                        ids=list(PROCESSES))  # fmt: skip
LEVELS = torch.logspace(-4, 1.8976, 200, dtype=torch.float64)  # 1e-4 .. 79


def close(a, b, rtol=1e-9, atol=0.0):
    torch.testing.assert_close(a, b, rtol=rtol, atol=atol)


@every_process
@given(s=st.floats(1e-4, 79))
def test_clock_inverts_time(process, s):
    s = torch.tensor([s], dtype=torch.float64)
    close(process.clock(process.time(s)), s)


@every_process
@given(share=st.floats(1e-4, 1))
def test_time_inverts_clock(process, share):
    t = share * process.time(torch.tensor([79.0], dtype=torch.float64))
    close(process.time(process.clock(t)), t)


@every_process
def test_time_is_increasing_within_the_process(process):
    t = process.time(LEVELS)
    assert (t.diff() > 0).all() and t[0] > 0 and t[-1] < process.t_max


@every_process
def test_bisection_equals_the_closed_form(process):
    close(Process.time(process, LEVELS), process.time(LEVELS), rtol=1e-9)


@every_process
def test_rates_equal_central_differences(process):
    t = torch.linspace(0.05, 0.95, 19, dtype=torch.float64) * process.t_max
    h = 1e-6 * process.t_max
    values, rates = process.rates(t)
    for value, rate, low, high, here in zip(
        values, rates, process.coefficients(t - h), process.coefficients(t + h),
        process.coefficients(t),
    ):  # fmt: skip
        close(value, here, rtol=0)
        close(rate, (high - low) / (2 * h), rtol=1e-7, atol=1e-8)


@every_process
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ends_are_finite_and_start_is_the_data(process, dtype):
    ends = torch.tensor([0.0, process.t_max], dtype=dtype)
    (alpha, sigma), rates = process.rates(ends)
    for value in (alpha, sigma, *rates, process.clock(ends)):
        assert value.isfinite().all()
    assert (alpha[0], sigma[0], process.clock(ends)[0]) == (1, 0, 0)
    close(process.clock(ends)[1].double(), torch.tensor(S_MAX, dtype=torch.float64), rtol=1e-2)


@every_process
def test_noise_over_alpha_is_the_variance_exploding_sample(process, draw):
    x, eps = draw(0, 50), draw(1, 50)
    s = LEVELS[::4]
    t = process.time(s)
    alpha, _ = process.coefficients(t)
    ours = process.noise(x, eps, t) / alpha.view(-1, 1, 1, 1)
    close(ours, x + s.view(-1, 1, 1, 1) * eps, rtol=1e-9, atol=1e-9)


@every_process
def test_velocity_is_the_slope_of_the_path(process, draw):
    x, eps = draw(0, 50), draw(1, 50)
    t = process.time(LEVELS[::4])
    h = (1e-5 * t).view(-1)
    slope = process.noise(x, eps, t + h) - process.noise(x, eps, t - h)
    slope = slope / (2 * h).view(-1, 1, 1, 1)
    (_, _), (d_alpha, d_sigma) = process.rates(t)
    size = 1 + d_sigma.abs().view(-1, 1, 1, 1)  # unbounded at t = 0 in vp_linear
    found = process.velocity(process.noise(x, eps, t), x, t)
    close(found / size, slope / size, rtol=1e-6, atol=1e-6)
    wanted = d_alpha.view(-1, 1, 1, 1) * x + d_sigma.view(-1, 1, 1, 1) * eps
    close(process.velocity(process.noise(x, eps, t), x, t), wanted, rtol=1e-6, atol=1e-9)


def test_vp_linear_is_the_limit_of_ddpms_thousand_steps():
    """prod (1 - beta_i) with beta from 1e-4 to 0.02 approaches alpha^2 as steps get shorter."""
    errors = []
    for steps in (1000, 4000):
        beta = torch.linspace(0.1, 20.0, steps, dtype=torch.float64) / steps
        alpha, sigma = VPLinear().coefficients(
            torch.arange(1, steps + 1, dtype=torch.float64) / steps
        )
        close(alpha**2 + sigma**2, torch.ones_like(alpha))
        errors.append(((1 - beta).cumprod(0) - alpha**2).abs().max().item())
    assert errors[1] < 0.3 * errors[0] < 1e-3


def test_the_rates_of_ve_are_those_of_differentiation_to_the_bit():
    t = torch.tensor([0.0, 0.002, 1.0, 80.0])
    found, wanted = VE().rates(t), Process.rates(VE(), t)
    assert all(torch.equal(a, b) for pair in zip(found, wanted) for a, b in zip(*pair))
