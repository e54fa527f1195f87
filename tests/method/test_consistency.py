"""The consistency function: its boundary, its clock, and EDM's and flow matching's formulas."""

import numpy as np
import pytest
import torch

from ect.consistency import C_NOISE, PARAMETERIZATIONS, Consistency, edm
from ect.models.build import PROCESSES
from ect.process import VE, Flow, VPLinear
from ect.registry import UNDEFINED

every_process = pytest.mark.parametrize("process", [p() for p in PROCESSES.values()],
                                        ids=list(PROCESSES))  # fmt: skip
every_pair = pytest.mark.parametrize(
    "process, name",
    [
        pytest.param(process(), name, id=f"{key}-{name}")
        for key, process in PROCESSES.items()
        for name in PARAMETERIZATIONS
        if (key, name) not in UNDEFINED
    ],
)
SD = 0.5


def column(s):
    return s.view(-1, 1, 1, 1)


@every_pair
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_f_at_zero_is_the_image_bit_for_bit(process, name, dtype, make_unet, draw):
    network, x = make_unet(dtype=dtype), draw(0).to(dtype)
    zero = torch.zeros(4, dtype=dtype)
    assert network(x, zero).abs().max() > 0.1  # so that c_out = 0 has something to silence
    for sd in (0.5, 0.3, 0.7436):
        assert torch.equal(Consistency(network, process, name, sd)(x, zero), x)


@every_pair
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_f_is_finite_at_the_last_time(process, name, dtype, make_unet, draw):
    f = Consistency(make_unet(dtype=dtype), process, name, SD)
    t = torch.full((4,), process.t_max, dtype=dtype)
    x_t = process.noise(draw(0).to(dtype), draw(1).to(dtype), t)
    out = f(x_t, t)
    assert out.isfinite().all() and out.dtype == dtype


@every_process
def test_edm_is_one_function_of_s_for_every_process(process, make_unet, draw):
    network = make_unet(dtype=torch.float64)
    s = torch.logspace(-3, 1.9, 40, dtype=torch.float64)
    y = draw(0, 40) + column(s) * draw(1, 40)
    t = process.time(s)
    alpha, _ = process.coefficients(t)
    ours = Consistency(network, process, "edm", SD)(column(alpha) * y, t)
    reference = Consistency(network, VE(), "edm", SD)(y, s)
    torch.testing.assert_close(ours, reference, rtol=1e-9, atol=1e-9)


def test_flow_residual_is_t_times_the_error_of_the_velocity(make_unet, draw):
    """|f(x_t, t) - x_0| = t |v - (eps - x_0)|: t, not sqrt(t), on the norm."""
    network, process = make_unet(dtype=torch.float64), Flow()
    x, eps, t = draw(0, 9), draw(1, 9), torch.linspace(0.1, 0.98, 9, dtype=torch.float64)
    seen = []

    def spy(x_in, c_noise):
        seen.append(network(x_in, c_noise))
        return seen[-1]

    f = Consistency(spy, process, "velocity", SD)
    residual = (f(process.noise(x, eps, t), t) - x).flatten(1).norm(dim=1)
    error = (seen[0] - (eps - x)).flatten(1).norm(dim=1)
    torch.testing.assert_close(residual, t * error, rtol=1e-9, atol=0)


@every_process
def test_velocity_parameterization_inverts_the_true_velocity(process, draw):
    """A network that returns v = alpha' x_0 + sigma' eps makes f return x_0."""
    x, eps = draw(0, 20), draw(1, 20)
    t = process.time(torch.logspace(-2, 1.5, 20, dtype=torch.float64))
    x_t = process.noise(x, eps, t)
    v = process.velocity(x_t, x, t)
    f = Consistency(lambda x_in, c_noise: v, process, "velocity", SD)
    torch.testing.assert_close(f(x_t, t), x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sd", [0.25, 0.5, 1.0])
def test_preconditioning_of_ve_is_edms_table_1(sd, draw):
    sigma = np.logspace(-3, 1.9, 30)
    t = torch.from_numpy(sigma)
    c_skip, c_out = edm(VE(), t, sd)
    np.testing.assert_allclose(c_skip, sd**2 / (sigma**2 + sd**2), rtol=1e-12)
    np.testing.assert_allclose(c_out, sigma * sd / np.sqrt(sd**2 + sigma**2), rtol=1e-12)

    inputs = {}
    x_t = draw(0, 30)
    f = Consistency(lambda x, c: inputs.update(x=x, c=c) or x, VE(), "edm", sd)
    f(x_t, t)
    c_in = 1 / np.sqrt(sigma**2 + sd**2)
    np.testing.assert_allclose(inputs["x"], c_in[:, None, None, None] * x_t.numpy(), rtol=1e-12)
    np.testing.assert_allclose(inputs["c"], np.log(sigma) / 4, rtol=1e-9, atol=1e-12)


@every_process
@pytest.mark.parametrize("s", [0.01, 0.3, 5.0, 80.0])
def test_the_network_sees_unit_variance(process, s, draw):
    """Data of sd 0.3 give the network inputs of variance 1 at every t."""
    x, eps = 0.3 * draw(0, 2000), draw(1, 2000)
    t = process.time(torch.full((2000,), s, dtype=torch.float64))
    inputs = []
    f = Consistency(lambda x, c: inputs.append(x) or x, process, "edm", 0.3)
    f(process.noise(x, eps, t), t)
    assert inputs[0].std().item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("process", [VE(), VPLinear()], ids=["ve", "vp_linear"])
def test_noise_parameterization_inverts_the_true_noise(process, draw):
    x, eps = draw(0, 20), draw(1, 20)
    t = process.time(torch.logspace(-2, 1.5, 20, dtype=torch.float64))
    f = Consistency(lambda x_in, c_noise: eps, process, "noise", SD)
    torch.testing.assert_close(f(process.noise(x, eps, t), t), x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("process, name", UNDEFINED)
def test_undefined_pairs_are_infinite_at_the_last_time(process, name):
    """What the config refuses would not work: 1 / alpha has no bound."""
    process = PROCESSES[process]()
    t = torch.tensor([process.t_max], dtype=torch.float64)
    assert PARAMETERIZATIONS[name](process, t, SD)[0].abs() > 1e15


@every_process
@pytest.mark.parametrize("c_noise", list(C_NOISE))
def test_every_noise_label_is_finite_and_told_to_the_network(process, c_noise, draw):
    t = torch.tensor([0.0, 0.25, 0.5, 1.0], dtype=torch.float64) * process.t_max
    seen = []
    f = Consistency(lambda x, c: seen.append(c) or x, process, "edm", SD, c_noise)
    f(draw(0), t)
    assert seen[0].isfinite().all() and (seen[0].diff() > 0).all()
    s = t.numpy()
    if isinstance(process, VE):
        wanted = {
            "log_s": np.log(s[1:]) / 4, "log_half_s": np.log(s[1:] / 2), "time": 1000 * s[1:],
            "vp": 999 * s[1:], "ddpm": 1000 * s[1:] - 1,
        }  # fmt: skip
        np.testing.assert_allclose(seen[0][1:], wanted[c_noise], rtol=1e-12)


@every_process
def test_shifted_is_ects_evaluation_formula(process, make_unet, draw):
    """On y = x_t / alpha, with s - m for s where f's boundary is."""
    network, y, m = make_unet(dtype=torch.float64), draw(0), 0.003
    f = Consistency(network, process, "edm", SD)
    s = torch.tensor([m, 0.0123, 0.821, 80.0], dtype=torch.float64)
    t = process.time(s)
    alpha, _ = process.coefficients(t)
    out = network(y / column((s**2 + SD**2).sqrt()), s.log() / 4)
    c_skip = SD**2 / ((s - m) ** 2 + SD**2)
    c_out = (s - m) * SD / (s**2 + SD**2).sqrt()
    found = f.shifted(m)(column(alpha) * y, t)
    torch.testing.assert_close(
        found, column(c_skip) * y + column(c_out) * out, rtol=1e-6, atol=1e-9
    )
    torch.testing.assert_close(found[0], y[0], rtol=1e-6, atol=1e-9)
    assert f.sigma_min == 0.0  # training's f is another object


def test_only_edm_can_be_shifted(make_unet):
    with pytest.raises(ValueError, match="edm only"):
        Consistency(make_unet(), Flow(), "velocity", SD).shifted(0.003)
