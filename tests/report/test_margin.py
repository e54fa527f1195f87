"""How far two means may lie apart: against closed forms, scipy, and runs that are drawn."""

import math

import numpy as np
import pytest
from scipy import stats

from ect.config.published import of
from ect.report.margin import margin, quantile


@pytest.mark.parametrize("df", [1, 2, 3, 4, 8, 30, 1000])
def test_the_quantile_is_students(df):
    assert quantile(df) == pytest.approx(stats.t.ppf(0.975, df), rel=1e-9)


def test_the_quantile_in_closed_form():
    """One degree of freedom is Cauchy's distribution, two have a root."""
    assert quantile(1) == pytest.approx(math.tan(math.pi * 0.475), rel=1e-9)
    assert quantile(2) == pytest.approx(0.95 * math.sqrt(2 / (1 - 0.95**2)), rel=1e-9)


def test_the_one_hour_run():
    """2.88 +- 0.39 over five seeds: one further run may lie 0.39 t(0.975; 4) sqrt(6 / 5) apart."""
    found = margin([(0.39, 5)], 1, 5)
    assert found.df == 4 and found.sd == pytest.approx(0.39)
    assert found.width == pytest.approx(0.39 * 2.7764451 * math.sqrt(1.2), rel=1e-6)
    assert 1.18 < found.width < 1.19
    known = [n for n in of("cifar10", "fid") if (n.budget_mimg, n.nfe) == (1.024, 2)]
    pooled = margin([(n.sd, n.n) for n in known], 1, 5)  # with 2.81 +- 0.09 over three others
    assert pooled.df == 6 and pooled.width == pytest.approx(0.865, abs=1e-3)


def test_spreads_are_pooled_by_their_degrees_of_freedom():
    found = margin([(0.3, 3), (0.6, 5)], 3, 1)
    assert found.df == 6 and found.sd == pytest.approx(math.sqrt((2 * 0.09 + 4 * 0.36) / 6))


@pytest.mark.parametrize(
    "spreads", [[], [(None, None)], [(math.nan, 1)], [(None, 1), (None, None)]]
)
def test_without_a_spread_nothing_is_told(spreads):
    assert margin(spreads, 1, 1) is None


def test_a_spread_of_one_run_adds_nothing():
    assert margin([(0.39, 5), (math.nan, 1)], 1, 5) == margin([(0.39, 5)], 1, 5)


@pytest.mark.parametrize("ours, theirs", [(3, 5), (1, 5), (3, 1)])
def test_ninety_five_of_a_hundred_comparisons_of_one_recipe_stay_inside(ours, theirs):
    random, count = np.random.default_rng(0), 4000
    inside = 0
    for _ in range(count):
        first, second = random.normal(size=ours), random.normal(size=theirs)
        spreads = [(x.std(ddof=1) if len(x) > 1 else None, len(x)) for x in (first, second)]
        inside += abs(first.mean() - second.mean()) <= margin(spreads, ours, theirs).width
    assert inside / count == pytest.approx(0.95, abs=4 * math.sqrt(0.05 * 0.95 / count))
