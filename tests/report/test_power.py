"""The power by the noncentral t is that of simulated t-tests; so many replicates as it
asks for are enough, and one fewer is not."""

import numpy as np
import pytest
from scipy import stats

from ect.report import power


@pytest.mark.parametrize(
    "ratio, sd, n, comparisons",
    [(1.2, 0.1, 3, 1), (1.2, 0.1, 6, 4), (1.5, 0.15, 4, 1), (1.05, 0.05, 20, 7), (1.0, 0.1, 5, 2)],
)
def test_power_is_that_of_simulated_paired_tests(ratio, sd, n, comparisons):
    generator, trials = np.random.default_rng(0), 20_000
    one = generator.normal(0, sd, (trials, n))
    other = generator.normal(np.log(ratio), sd, (trials, n))
    found = (stats.ttest_rel(other, one, axis=1).pvalue * comparisons < 0.05).mean()
    error = np.sqrt(max(found * (1 - found), 1e-4) / trials)
    assert power.power(ratio, sd, n, comparisons) == pytest.approx(found, abs=4 * error)


def test_power_is_that_of_simulated_unpaired_tests():
    generator = np.random.default_rng(1)
    one = generator.normal(0, 0.1, (20_000, 5))
    other = generator.normal(np.log(1.2), 0.1, (20_000, 5))
    found = (stats.ttest_ind(other, one, axis=1).pvalue < 0.05).mean()
    assert power.power(1.2, 0.1, 5, freedom=8) == pytest.approx(found, abs=0.015)


def test_power_is_right_far_away():
    """Where the noncentrality is large, scipy's lower tail is not a number; the sum here is."""
    for freedom in (2, 4, 14, 100):
        found = [power.power(1 + 2.0**k, 0.05, freedom + 1, 8) for k in range(-6, 40)]
        assert np.isfinite(found).all() and found == sorted(found) and found[-1] == 1.0
        assert 0 < found[0] < 0.3


@pytest.mark.parametrize("sd", [0.01, 0.1, 0.4])
@pytest.mark.parametrize("ratio", [1.1, 1.5, 0.5])
@pytest.mark.parametrize("freedom", [None, lambda n: 7 * (n - 1)])
def test_so_many_replicates_are_enough_and_one_fewer_is_not(ratio, sd, freedom):
    n = power.replicates(ratio, sd, 4, freedom)
    at = [power.power(ratio, sd, k, 4, freedom and freedom(k)) for k in (n, n - 1)]
    assert at[0] >= 0.8 and (n == 3 or at[1] < 0.8)


def test_a_ratio_and_its_inverse_need_as_many():
    assert power.replicates(1.25, 0.1, 3) == power.replicates(0.8, 0.1, 3)


@pytest.mark.parametrize("n", [3, 5, 30])
def test_the_least_ratio_told_has_the_power_asked_for(n):
    ratio = power.told(0.1, n, 4)
    assert power.power(ratio, 0.1, n, 4) == pytest.approx(0.8, abs=1e-6)
    assert power.replicates(ratio * 1.0001, 0.1, 4) == n


def test_no_number_of_replicates_tells_what_is_too_small():
    assert power.replicates(1.00001, 0.5) is None and power.replicates(1.0, 0.1) is None
    assert power.replicates(1.1, 0.0) == 3
