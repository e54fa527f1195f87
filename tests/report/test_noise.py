"""The table of the components of variance, from metrics.json files to sentences."""

import numpy as np
import pytest

from ect.report import figures, noise, planned, sentences, variance
from ect.study import noise as measured
from tests.helpers.reports import Inputs

CONDITIONS = {"ve": {"dataset": {"source": "digits"}, "network": {"channels": 16}}}


def values_of(seed=0, shape=(4, 3, 2), sds=(0.05, 0.1, 0.03)):
    generator = np.random.default_rng(seed)
    start, tuning, sampling = (generator.normal(0, sd, shape) for sd in sds)
    return 60 * np.exp(start[:, :1, :1] + tuning[:, :, :1] + sampling)


def files(inputs, values, sampler="one_step"):
    """metrics.json files of nested seeds, in an order that is not that of the seeds."""
    count, tunings, _ = values.shape
    paths = []
    for start in reversed(range(count)):
        for tuning in range(tunings):
            index, sets = start * tunings + tuning, values[start, tuning].tolist()
            facts = {"seed": index, "replicate": index, "pretraining": start}
            facts |= {"kimg": 18, "schedule": "sigmoid", "recipe": "ect", "tune_kimg": 18}
            cell = inputs.cell_of(sampler) | facts
            if index == start:
                del cell["pretraining"]  # as it is written where the replicate says it
            paths.append(inputs.metrics(float(np.mean(sets)), cell, repeats={"fd": sets}))
    return paths


def table(tmp_path, values=None):
    inputs, values = Inputs(tmp_path), values_of() if values is None else values
    paths = files(inputs, values) + files(inputs, values / 2, "two_step")
    noise.tabulate(paths, tmp_path / "t", CONDITIONS)
    return paths, sentences.read(f"{tmp_path}/t.csv")[0]


def test_the_table_holds_the_components_and_every_distance(tmp_path):
    values = values_of()
    _, rows = table(tmp_path, values)
    found = variance.squares(np.log(values))
    wanted = variance.components(found)
    lines = {row["source"]: row for row in rows if row["sampler"] == "one_step"}
    assert list(lines) == [*variance.SOURCES, "replicate"]
    for source, line in lines.items():
        assert float(line["variance"]) == pytest.approx(wanted[source].variance, rel=1e-4)
        assert float(line["sd_percent"]) == pytest.approx(100 * wanted[source].sds[0], rel=1e-4)
    assert [lines[s]["n"] for s in lines] == [4, 12, 24, 4]
    assert lines["sampling"]["fd_each"] == pytest.approx(values.ravel().tolist(), rel=1e-5)
    (_, _, read), _ = noise.spreads(rows)
    assert read.shape == found.shape and read.freedom == found.freedom
    assert read.squares == pytest.approx(found.squares, rel=1e-4)
    (one, two) = measured.measured(f"{tmp_path}/t.csv")
    assert one["conditions"] == CONDITIONS["ve"] and (one["nfe"], two["nfe"]) == (1, 2)
    assert one["squares"][1] == pytest.approx(found.squares, rel=1e-4)


def test_ratios_of_distances_alone_matter(tmp_path):
    """The components are of ln FD: half of every distance has the same."""
    _, rows = table(tmp_path)
    one, two = noise.spreads(rows)
    assert one[2].squares == pytest.approx(two[2].squares)


def test_sentences_say_sizes_intervals_and_what_a_difference_needs(tmp_path):
    _, rows = table(tmp_path)
    first, second, *_ = sentences.answer("noise", rows, {"one_step": "1 step", "two_step": "2"})
    assert first.startswith("1 step, ve: the standard deviation of FD is, of pretraining seeds")
    assert "(n = 4 pretrainings, 12 tunings, 24 sets;" in first and "at 18 + 18 kimg" in first
    assert first.count("[") == 4 and "replicates at 80 % power" in second


def test_the_figure_is_drawn(tmp_path):
    paths, _ = table(tmp_path)
    settings = {"metrics": paths, "width_in": 6.5, "floor": None, "about": CONDITIONS}
    figures.plot("noise", settings, tmp_path / "f")
    assert (tmp_path / "f.png").stat().st_size > 10_000


@pytest.mark.parametrize("broken", ["unequal", "one set", "zero"])
def test_unequal_numbers_and_impossible_distances_are_told(tmp_path, broken):
    inputs, values = Inputs(tmp_path), values_of()
    if broken == "zero":
        values[0, 0, 0] = 0.0
    paths = files(inputs, values[..., :1] if broken == "one set" else values)
    if broken == "unequal":
        paths = paths[:-1]
    with pytest.raises(ValueError, match=r"allowed: (as many of each|others)"):
        noise.tabulate(paths, tmp_path / "t")


def fact(**changes):
    squares = [[4, 3, 3], [0.09, 0.03, 0.01], [3, 8, 24]]
    plain = {
        "experiment": "schedules", "kind": "schedules", "label": "1 step", "rows": 5, "totals": 1,
        "n": 3, "over": "tuning seeds", "sets": 1, "without": [],
        "spread": {"at": "18 + 18 kimg along sigmoid", "squares": squares},
    }  # fmt: skip
    return plain | changes


def test_a_planned_comparison_uses_the_spread_of_what_its_n_counts():
    seeds, replicates = planned.spread_of(fact()), planned.spread_of(fact(over="replicates"))
    assert seeds.variance == pytest.approx((0.03 - 0.01) / 3 + 0.01)
    assert replicates.variance - seeds.variance == pytest.approx((0.09 - 0.03) / 9)
    assert planned.spread_of(fact(sets=4)).variance == pytest.approx(0.02 / 3 + 0.01 / 4)


def test_what_a_plan_says():
    said = planned.sentence(fact())
    assert "3 tuning seeds tell a difference of" in said and "4 comparisons" in said
    assert "at 18 + 18 kimg along sigmoid" in said
    assert "n = 2 gives no verdict" in planned.sentence(fact(n=2))
    assert "not known" in planned.sentence(fact(spread=None))
    assert "not measured of flow" in planned.sentence(fact(without=["flow"]))
    assert planned.sentence(fact(rows=1)) == "one row, nothing to compare."


def test_a_pooled_variance_needs_fewer_replicates_than_a_paired_test():
    one, pooled = fact(), fact(kind="scaling", over="tuning seeds")
    assert planned.comparisons(one) == planned.comparisons(pooled) == 4
    needed = [
        noise.needed_of(1.2, planned.spread_of(f), 4, planned.freedom(f)).split()[0]
        for f in (one, pooled)
    ]
    assert int(needed[0]) > int(needed[1])


def test_the_plan_lays_comparisons_side_by_side():
    head, one, other, origin = planned.lines([fact(), fact(label="4 steps", spread=None)])
    assert head.split("  ")[0] == "comparison (power 80 %)" and "n for 20 %" in head
    assert one.startswith(f"{fact()['experiment']}, {fact()['label']}") and " %" in one
    assert other.endswith("no measure") and origin.startswith("sd of FD")
    assert [line.index("no measure") for line in (other,)] == [head.index("tells")]
    assert len(planned.lines([fact(spread=None)])) == 1 and planned.lines([fact(rows=1)]) == []
