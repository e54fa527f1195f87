"""Shape and last gap apart: exact on products, equal to the balanced analysis of variance and to a
t-test of differences, and no verdict where rows do not tell them apart."""

import csv
import math

import numpy as np
import pytest
from scipy import stats

from ect.report import ends, figures, sentences, tables
from tests.helpers.reports import Inputs

MAPS, GAPS = {"sigmoid": 1.0, "smooth": 1.2, "constant": 0.9}, {0.0123: 1.0, 0.0039: 0.8}


def product(spread=0.0, n=3, skip=(), seed=0):
    """Rows whose distances are 50 x map x gap x replicate, times exp(noise)."""
    generator = np.random.default_rng(seed)
    replicates = np.exp(generator.normal(0, 0.3, n))
    return [
        ends.Row(f"{name}_{gap}", name, gap,
                 tuple(50 * by_map * by_gap * replicates * np.exp(generator.normal(0, spread, n))))
        for name, by_map in MAPS.items() for gap, by_gap in GAPS.items()
        if (name, gap) not in skip
    ]  # fmt: skip


@pytest.mark.parametrize("skip", [(), {("smooth", 0.0039)}, {("smooth", 0.0123)}])
def test_factors_of_a_product_are_found_also_where_a_map_has_one_gap(skip):
    found = ends.fit(product(skip=skip))
    assert ends.of_maps(found, "smooth", "constant").ratio == pytest.approx(1.2 / 0.9)
    assert ends.of_gaps(found, 0.0039, 0.0123).ratio == pytest.approx(0.8)
    assert ends.of_gaps(found, 0.0123, 0.0039).ratio == pytest.approx(1.25)


def test_of_balanced_rows_it_is_the_analysis_of_variance():
    rows = product(spread=0.1, n=4)
    found = ends.fit(rows)
    logs = np.log([row.values for row in rows]).reshape(3, 2, 4)  # map, gap, replicate
    mean = logs.mean()
    by_map, by_gap, by_run = logs.mean((1, 2)), logs.mean((0, 2)), logs.mean((0, 1))
    fitted = by_map[:, None, None] + by_gap[:, None] + by_run - 2 * mean
    freedom = 24 - 1 - 2 - 1 - 3
    variance = ((logs - fitted) ** 2).sum() / freedom
    one, comparisons = ends.of_maps(found, "sigmoid", "constant", 3), 3
    assert found.freedom == freedom
    apart, error = by_map[0] - by_map[2], math.sqrt(variance * 2 / 8)
    assert math.log(one.ratio) == pytest.approx(apart)
    assert one.p == pytest.approx(min(1, comparisons * 2 * stats.t.sf(abs(apart) / error, freedom)))
    half = error * stats.t.isf(0.025 / comparisons, freedom)
    assert np.log([one.low, one.high]) == pytest.approx([apart - half, apart + half])
    gap = ends.of_gaps(found, 0.0039, 0.0123)
    assert math.log(gap.high / gap.low) / 2 == pytest.approx(
        math.sqrt(variance * 2 / 12) * stats.t.isf(0.025, freedom)
    )
    cells = logs.mean(2)
    extra = 4 * ((cells - by_map[:, None] - by_gap + mean) ** 2).sum() / 2
    rest = ((logs - cells[..., None] - by_run + mean) ** 2).sum() / (freedom - 2)
    assert found.interaction == pytest.approx(stats.f.sf(extra / rest, 2, freedom - 2))


def test_of_one_map_the_gap_is_a_paired_test():
    rows = [row for row in product(spread=0.1, n=5) if row.map == "smooth"]
    found = ends.fit(rows)
    wide, narrow = (np.log(row.values) for row in rows)
    assert ends.of_gaps(found, 0.0039, 0.0123).p == pytest.approx(
        stats.ttest_rel(narrow, wide).pvalue
    )


def test_intervals_hold_the_truth_as_often_as_they_say():
    held = []
    for seed in range(400):
        found = ends.fit(product(spread=0.1, skip={("smooth", 0.0039)}, seed=seed))
        one = ends.of_maps(found, "smooth", "constant")
        held.append(one.low <= 1.2 / 0.9 <= one.high)
    assert 0.92 < np.mean(held) < 0.98


@pytest.mark.parametrize(
    "rows",
    [
        product(n=2),
        [row for row in product() if (row.map == "sigmoid") == (row.gap == 0.0123)],
        [row for row in product() if row.gap == 0.0123],
        [row._replace(values=(*row.values[:2], 0.0)) for row in product()],
    ],
)
def test_no_verdict_where_rows_do_not_tell_shape_from_gap(rows):
    """Two replicates; a map of its own for each gap; one gap; a distance of 0."""
    assert ends.fit(rows) is None
    text, _ = ends.answer([_line(row) for row in rows], {"one_step": "1 step"})
    assert "no verdict" in text


def test_gaps_that_differ_by_rounding_are_one():
    assert set(ends.levels([0.0123107, 0.0123105, 0.0039]).values()) == {0.0123105, 0.0039}


def _line(row):
    facts = {"schedule": row.name, "map": row.map, "last_gap": f"{row.gap}", "sampler": "one_step"}
    order = range(len(row.values))
    return facts | {"seeds": ";".join(map(str, order)), "fd_each": list(row.values)}


def test_the_table_and_figure_of_files(tmp_path):
    """The csv has map and gap, the sentences come from it alone, and the figure is drawn."""
    inputs, about, paths = Inputs(tmp_path), {}, []
    for row in product(spread=0.02, skip={("smooth", 0.0039)}):
        name = row.map if (row.map == "constant") == (row.gap == 0.0039) else f"{row.map}_x"
        about[name] = {"map": row.map, "gap": row.gap}
        for sampler, factor in (("one_step", 1.0), ("two_step", 0.5)):
            paths += [
                inputs.replicate(sampler, factor * fd, index, schedule=name, tune=96)
                for index, fd in enumerate(row.values)
            ]
    tables.tabulate("ends", paths, tmp_path / "t", inputs.floor(), about=about)
    rows, floor = sentences.read(f"{tmp_path}/t.csv")
    assert floor is not None and len(rows) == 10
    said = sentences.answer("ends", rows, {"one_step": "1 step", "two_step": "2 steps"})
    shape, gap, confounded, *_ = said
    assert shape.startswith("1 step, shape, at equal last gaps: constant has the least FD")
    assert "of the same map, 0.0039 against 0.012: FD is 0.8" in gap and "(F-test)" in gap
    assert confounded.startswith("1 step: sigmoid as it is against constant as it is")
    assert said[-1] == ends.METHOD and len(said) == 2 * 4 + 1
    settings = {"metrics": paths, "floor": inputs.floor(), "width_in": 6.5, "about": about}
    figures.plot("ends", settings, tmp_path / "f")
    assert (tmp_path / "f.png").stat().st_size > 10_000
    with open(f"{tmp_path}/t.csv", newline="") as file:
        one = next(csv.DictReader(file))
    assert (one["map"], float(one["last_gap"])) == ("sigmoid", 0.0123)
    with pytest.raises(
        ValueError, match="about: found nothing on constant; allowed: map and last gap"
    ):
        tables.tabulate("ends", paths, tmp_path / "t", about={})
