"""Components of variance: equal to those from differences of pairs, right on average, and covered
by their intervals as often as these say."""

import numpy as np
import pytest
from scipy import stats

from ect.report import variance


def drawn(generator, shape, sds):
    """Values (..., I, J, K) with the given standard deviations of the three sources."""
    start, tuning, sampling = (generator.normal(0, sd, shape) for sd in sds)
    return 4.0 + start[..., :1, :1] + tuning[..., :1] + sampling


def by_pairs(values):
    """The components from half the mean squared difference of two sets of one model, of two models
    of one pretraining, and of two pretrainings: of balanced data another closed form of the same
    estimators."""
    index = np.indices(values.shape).reshape(3, -1)
    half = (values.ravel()[:, None] - values.ravel()[None, :]) ** 2 / 2
    same = [part[:, None] == part[None, :] for part in index]
    sets = half[same[0] & same[1] & ~same[2]].mean()
    models = half[same[0] & ~same[1]].mean()
    starts = half[~same[0]].mean()
    return {"sampling": sets, "tuning": models - sets, "pretraining": starts - models} | {
        "replicate": starts
    }


@pytest.mark.parametrize("shape", [(4, 3, 3), (2, 2, 2), (3, 5, 2)])
def test_estimators_are_those_of_differences_of_pairs(shape):
    values = drawn(np.random.default_rng(1), shape, (0.3, 0.2, 0.1))
    found, wanted = variance.components(variance.squares(values)), by_pairs(values)
    assert {key: one.variance for key, one in found.items()} == pytest.approx(wanted)


def test_degrees_of_freedom_and_squares_share_the_total():
    values = drawn(np.random.default_rng(2), (4, 3, 3), (1, 1, 1))
    found = variance.squares(values)
    assert found.freedom == (3, 8, 24) and sum(found.freedom) == values.size - 1
    total = sum(df * square for df, square in zip(found.freedom, found.squares))
    assert total == pytest.approx(((values - values.mean()) ** 2).sum())


SDS = [(0.10, 0.08, 0.05), (0.0, 0.1, 0.02), (0.2, 0.02, 0.2)]


@pytest.mark.parametrize("sds", SDS)
def test_known_components_are_found_on_average_and_lie_in_their_intervals(sds):
    every = drawn(np.random.default_rng(3), (1000, 4, 3, 3), sds)
    found = [variance.components(variance.squares(values)) for values in every]
    true = dict(zip(variance.SOURCES, np.square(sds))) | {"replicate": np.square(sds).sum()}
    for source, wanted in true.items():
        estimates = np.array([one[source] for one in found])
        error = estimates[:, 0].std() / np.sqrt(len(estimates))
        assert abs(estimates[:, 0].mean() - wanted) < 4 * error
        covered = ((estimates[:, 1] <= wanted) & (wanted <= estimates[:, 2])).mean()
        assert covered > 0.93, (source, covered)
        if wanted > 0:
            assert covered < 0.995, (source, covered)


def test_the_interval_of_one_mean_square_is_that_of_chi_squared():
    found = variance.squares(drawn(np.random.default_rng(4), (4, 3, 3), (1, 1, 1)))
    one = variance.components(found)["sampling"]
    ends = 24 * found.squares[2] / stats.chi2.ppf([0.975, 0.025], 24)
    assert one[1:] == pytest.approx(tuple(ends))


def test_the_ends_of_a_difference_touch_zero_where_the_f_test_does():
    """The lower end of a component is 0 just where the ratio of its two mean squares is the F
    quantile."""
    for factor, positive in ((1.001, True), (0.999, False)):
        edge = stats.f.isf(0.025, 8, 24) * factor
        found = variance.Squares((4, 3, 3), (edge, edge, 1.0), (3, 8, 24))
        assert (variance.components(found)["tuning"].low > 0) == positive


@pytest.mark.parametrize("sets", [1, 2, 3, 5])
def test_the_spread_of_a_mean_of_sets_is_the_sum_of_its_parts(sets):
    found = variance.squares(drawn(np.random.default_rng(5), (4, 3, 3), (0.2, 0.1, 0.1)))
    parts = {key: one.variance for key, one in variance.components(found).items()}
    between = parts["tuning"] + parts["sampling"] / sets
    assert variance.spread(found, False, sets).variance == pytest.approx(between)
    assert variance.spread(found, True, sets).variance == pytest.approx(
        between + parts["pretraining"]
    )
    if sets == 3:  # the mean square of tunings says it alone, so its interval is exact
        ends = 8 * found.squares[1] / 3 / stats.chi2.ppf([0.975, 0.025], 8)
        assert variance.spread(found, False, 3)[1:] == pytest.approx(tuple(ends))


@pytest.mark.parametrize("shape", [(3, 3), (4, 1, 3), (4, 3, 1)])
def test_a_source_with_one_value_has_no_component(shape):
    with pytest.raises(ValueError, match="each at least 2"):
        variance.squares(np.ones(shape))
