"""The best share of a budget: found where it was put, with a band only where there are replicates,
and no answer that the distances do not give."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ect.report import budget, figures, optimum, sentences, tables
from tests.helpers.reports import Inputs

SHARES = (0, 20, 50, 80, 90, 95)
VALUES = st.lists(st.floats(1, 100), min_size=3, max_size=4)


def bowl(best, noise=0.0, n=3, depth=4.0, seed=0):
    """Distances of n replicates, least at the share `best`."""
    draw = np.random.default_rng(seed).standard_normal
    return {s: list(20 * np.exp(depth * ((s - best) / 100) ** 2 + noise * draw(n))) for s in SHARES}


@pytest.mark.parametrize("place", SHARES)
def test_the_best_share_is_where_the_distance_is_least(place):
    found = optimum.best(bowl(place))
    assert found == (place, place, place, 3)


@given(VALUES)
def test_replicates_that_only_shift_leave_no_doubt(shifts):
    """A bootstrap sample takes whole replicates: what they share does not widen the band."""
    distances = {share: [value + share for value in shifts] for share in SHARES}
    assert optimum.best(distances)[:3] == (0, 0, 0)


def test_a_band_holds_every_share_that_some_sample_prefers():
    distances = {0: [1.0, 9.0, 5.0], 50: [5.0, 4.9, 5.0], 90: [9.0, 1.0, 5.5]}
    found = optimum.best(distances)
    assert (found.share, found.low, found.high) == (50, 0, 90)


@pytest.mark.parametrize("n", [1, 2])
def test_fewer_than_three_have_no_band_and_no_verdict(n):
    distances = bowl(50, n=n)
    assert np.isnan(optimum.best(distances).low) and optimum.cost(distances) is None
    (text,) = said({60: distances})
    assert f"the best share is 50 % of 60 kimg (n = {n})" in text
    assert text.endswith("No verdict, n < 3, at 60 kimg.") and "p " not in text


@pytest.mark.parametrize("n", [2, 3, 5])
def test_few_replicates_are_resampled_in_all_ways(n):
    wanted = set(itertools.product(range(n), repeat=n))
    assert set(map(tuple, optimum.resampled(n))) == wanted


def test_many_replicates_are_resampled_alike_each_time():
    assert np.array_equal(optimum.resampled(6), optimum.resampled(6))


def test_of_two_shares_the_cost_is_the_paired_t_test_of_logarithms():
    distances = {50: [20.0, 26.0, 23.0, 22.0], 90: [31.0, 35.0, 30.0, 33.0]}
    factor, low, high, p = optimum.cost(distances)
    test = stats.ttest_rel(*(np.log(distances[share]) for share in (90, 50)))
    assert p == pytest.approx(test.pvalue)
    assert (low, high) == pytest.approx(tuple(np.exp(test.confidence_interval(0.95))))
    assert low * high == pytest.approx(factor**2)
    assert optimum.cost(distances, 5)[3] == pytest.approx(min(1, 5 * p))


@pytest.mark.parametrize("totals", [1, 5])
def test_p_and_interval_of_a_cost_agree(totals):
    for noise, seed in itertools.product((0.05, 0.3), range(5)):
        factor, low, high, p = optimum.cost(bowl(50, noise, seed=seed), totals)
        assert low <= factor <= high and (low <= 1 <= high) == (p >= 0.05)


def test_there_is_no_cost_where_ninety_percent_is_best_or_was_not_measured():
    assert optimum.cost(bowl(90)) is None
    assert optimum.cost({s: v for s, v in bowl(50).items() if s != 90}) is None


def test_a_power_law_is_found_again():
    """Shares that follow tuning = factor total^power, on a grid fine enough."""
    power, factor, totals = 0.5, 3.0, (60, 120, 240, 480)
    shares = {t: 100 * (1 - factor * t ** (power - 1)) for t in totals}
    distances = {
        t: {s: [1.0 + abs(s - shares[t])] * 3 for s in sorted(shares.values())} for t in totals
    }
    law = optimum.law(distances)
    assert (law.power, law.factor) == pytest.approx((power, factor))
    assert law.low == law.high == pytest.approx(power)
    assert law.share(law.total(97)) == pytest.approx(97)
    assert optimum.law({t: distances[t] for t in totals[:2]}) is None


def said(totals):
    rows = [
        {
            "pretrain": "ve", "schedule": "sigmoid", "recipe": "ect", "sampler": "one_step",
            "total_kimg": str(total), "pretrain_share_percent": str(share), "fd_each": values,
            "seeds": ";".join(map(str, range(len(values)))),
        }
        for total, shares in totals.items() for share, values in shares.items()
    ]  # fmt: skip
    *texts, method = budget.answer(rows, {"one_step": "1 step"})
    assert method == budget.METHOD
    return texts


def test_the_answer_is_that_of_the_distances():
    noisy = bowl(80, noise=1.0, depth=0.01)
    (text, _) = said({60: bowl(20, 0.02), 120: bowl(95, 0.02), 240: noisy})
    assert "No at 60 kimg; yes at 120 kimg; open at 240 kimg." in text and "(n = 3)" in text


@pytest.mark.parametrize(
    "best, words", [((0, 20, 50), "Extrapolation: 90 %"), ((0, 0, 0), "far above any such total")]
)
def test_what_was_not_measured_is_called_extrapolation(best, words):
    *_, law = said({t: bowl(b, 0.01) for t, b in zip((60, 120, 240), best)})
    assert words in law and "totals of 60 to 240 kimg" in law


def test_table_sentence_and_figure_of_files(tmp_path):
    inputs, paths = Inputs(tmp_path), []
    for total, share, index in itertools.product((60, 120, 240), (0, 50, 90), range(3)):
        fd = 20.0 + share - total / 60 + index
        kimg = total * share // 100
        more = {"schedule": "sigmoid", "kimg": kimg, "tune": total - kimg}
        paths.append(inputs.replicate("one_step", fd, index, **more))
    tables.tabulate("scaling", paths, tmp_path / "t", inputs.floor())
    rows, _ = sentences.read(tmp_path / "t.csv")
    assert [int(row["total_kimg"]) for row in rows] == [60] * 3 + [120] * 3 + [240] * 3
    text, *_ = sentences.answer("scaling", rows, {"one_step": "1 step"})
    assert text.startswith("1 step, ve: the best share is 0 % (0 to 0) of 60 kimg")
    settings = {"metrics": paths, "floor": inputs.floor(), "width_in": 5}
    figures.plot("scaling", settings, tmp_path / "f")
    assert (tmp_path / "f.png").stat().st_size > 10_000
    with pytest.raises(ValueError, match="found no tuned model; allowed"):
        figures.plot("scaling", settings | {"metrics": [inputs.cell("heun", 2.0)]}, tmp_path / "f")
