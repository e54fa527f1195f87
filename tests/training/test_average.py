"""The moving average: closed forms of its profiles, and what it keeps of the start."""

import numpy as np
import pytest
import torch

from ect.training import average
from tests.helpers.runs import PRETRAIN, changed

POWER = changed(PRETRAIN, recipe__ema_std=0.1)["recipe"]
EDM2 = {0.010: 96.9949, 0.040: 21.9782, 0.050: 16.9722, 0.100: 6.9372, 0.250: 0.7198}


def profile(recipe, steps, size):
    """The weights that the average gives to the start and to the weights after each step."""
    weights = np.eye(1, steps + 1)[0]
    for step in range(1, steps + 1):
        beta = average.kept(recipe, step * size, size)
        weights *= beta
        weights[step] = 1 - beta
    return weights


@pytest.mark.parametrize("std, gamma", EDM2.items())
def test_the_exponent_has_the_values_of_edm2(std, gamma):
    assert average.exponent(std) == pytest.approx(gamma, abs=1e-4)


@pytest.mark.parametrize("std", [0.03, 0.1, 0.25])
def test_a_power_average_has_its_length_as_its_standard_deviation(std):
    weights = profile({"ema_std": std}, 4000, 16)
    times = np.arange(4001) / 4000
    mean = (weights * times).sum()
    assert weights.sum() == pytest.approx(1)
    assert np.sqrt((weights * (times - mean) ** 2).sum()) == pytest.approx(std, rel=2e-3)


@pytest.mark.parametrize("steps", [1, 7, 500])
def test_a_power_average_keeps_nothing_of_its_start(steps):
    assert profile(POWER, steps, 64)[0] == 0


@pytest.mark.parametrize("size", [16, 64])
def test_the_weight_of_a_step_is_the_integral_of_its_power(size):
    """(n / N)^(gamma + 1) at the last of n of N images, less that at the first."""
    weights, power = profile(POWER, 100, size), average.exponent(0.1) + 1
    edges = (np.arange(101) / 100) ** power
    np.testing.assert_allclose(weights[1:], np.diff(edges), rtol=1e-9)


@pytest.mark.parametrize("size", [10, 50, 100])
def test_an_exponential_average_keeps_half_of_its_start_after_its_half_life(size):
    recipe = PRETRAIN["recipe"]  # half-life 300
    assert profile(recipe, 300 // size, size)[0] == pytest.approx(0.5)


def test_the_ramp_shortens_the_half_life_at_the_start():
    ramped = PRETRAIN["recipe"] | {"ema_ramp": 0.05}
    assert average.kept(ramped, 1000, 50) == pytest.approx(0.5 ** (50 / (0.05 * 1000)))
    assert average.kept(ramped, 100_000, 50) == average.kept(PRETRAIN["recipe"], 100_000, 50)


@pytest.mark.parametrize("before", [True, False])
def test_the_ramp_counts_the_images_before_the_step_as_in_edm(before):
    """EDM's loop: the half-life is of the images seen before the batch, so the first weights are
    the first average."""
    ramped = PRETRAIN["recipe"] | {"ema_ramp": 0.05, "ema_ramp_before": before}
    size, seen = 64, 0
    for _ in range(5):
        halflife = min(1000 * ramped["ema_halflife_kimg"], 0.05 * (seen if before else seen + size))
        seen += size
        found = average.kept(ramped, seen, size)
        assert found == pytest.approx(0.5 ** (size / max(halflife, 1e-8)))
        assert (found == 0) == (before and seen == size)


def test_tensors_move_by_the_share_that_is_not_kept():
    ours, theirs = {"a": torch.ones(3)}, {"a": torch.zeros(3)}
    average.update(ours, theirs, 0.75)
    assert ours["a"].tolist() == [0.75] * 3
