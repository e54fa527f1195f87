"""Sentences say what the rows say: the least value, its neighbour, and noise only where there is
any."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ect.report import markup, sentences

VALUES = st.lists(st.floats(1, 1000), min_size=3, max_size=5)
FEW = st.lists(st.floats(1, 1000), min_size=1, max_size=2)


def paired(values, *names, **changes):
    """The same, as a table that lists seeds and values has it."""
    seeds = ";".join(map(str, range(len(values))))
    return row(values, *names, **changes) | {"seeds": seeds, "fd_each": list(values)}


def row(values, schedule="sigmoid", sampler="one_step", share="50", **changes):
    """A line of a csv, of the distances of its seeds."""
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    facts = {"pretrain": "ve", "schedule": schedule, "recipe": "ect" * bool(schedule)}
    facts |= {"pretrain_kimg": "60", "tune_kimg": "60" * bool(schedule)}
    facts |= {"sampler": sampler, "pretrain_share_percent": share, "images": "2000"}
    return facts | {"n": len(values), "fd_mean": float(np.mean(values)), "fd_sd": sd} | changes


def said(kind, *rows):
    return sentences.answer(kind, list(rows), {"one_step": "1 step", "two_step": "2 steps"})


@given(VALUES, VALUES)
def test_p_is_that_of_welchs_test_on_the_seeds_themselves(one, other):
    if np.std(one) < 1e-3 or np.std(other) < 1e-3:
        return
    wanted = stats.ttest_ind(one, other, equal_var=False).pvalue
    assert sentences.p_value(row(one), row(other)) == pytest.approx(wanted, rel=1e-6, abs=1e-12)


@given(st.lists(st.tuples(st.floats(1, 1000), st.floats(1, 1000)), min_size=3, max_size=5))
def test_rows_of_the_same_seeds_are_paired(pairs):
    one, other = (np.array(values) for values in zip(*pairs))
    if np.std(one - other) < 1e-3:
        return
    wanted = stats.ttest_rel(one, other).pvalue
    assert sentences.p_value(paired(one), paired(other)) == pytest.approx(wanted)
    apart = paired(other) | {"seeds": "7;8;9"}
    if np.std(one) > 1e-3 and np.std(other) > 1e-3:
        wanted = stats.ttest_ind(one, other, equal_var=False).pvalue
        assert sentences.p_value(paired(one), apart) == pytest.approx(wanted, rel=1e-6, abs=1e-12)


@given(VALUES, VALUES, st.integers(1, 9), st.booleans())
def test_an_interval_is_around_the_difference_and_agrees_with_p(one, other, count, same):
    size = min(len(one), len(other))
    make, values = (paired if same else row), (one[:size], other[:size])
    if min(np.std(values[0]), np.std(values[1]), np.std(np.subtract(*values))) < 1e-3:
        return
    apart, low, high, p = sentences.difference(*map(make, values), count)
    assert (low + high) / 2 == pytest.approx(apart, rel=1e-6, abs=1e-6)
    if abs(p - 0.05) > 1e-6:
        assert (low <= 0 <= high) == (p >= 0.05)


@given(VALUES)
def test_equal_samples_do_not_differ(values):
    (text,) = said("schedules", row(values), row(values, "constant"))
    assert "No difference beyond noise" in text and "is beyond noise" not in text


@given(st.floats(10, 100), st.floats(0.01, 0.1))
def test_well_separated_samples_differ(middle, spread):
    low = [middle - spread, middle, middle + spread]
    (text,) = said("schedules", row([v + middle for v in low]), row(low, "constant"))
    assert text.startswith("1 step: best is constant with") and "is beyond noise (p" in text
    assert f"The difference of {markup.digits(middle)} [" in text


@given(VALUES, VALUES, st.integers(1, 9))
def test_p_grows_with_the_number_of_comparisons_and_is_at_most_one(one, other, count):
    alone = sentences.p_value(row(one), row(other))
    assert sentences.p_value(row(one), row(other), count) == pytest.approx(min(1, count * alone))


def test_the_best_of_many_rows_needs_a_larger_difference():
    """p = 0.021 of one pair: a verdict for two rows, none for four."""
    best, near = [10.0, 11.0, 12.0], [13.0, 14.0, 15.0]
    others = [row([v + far for v in near], name) for far, name in ((8, "b"), (9, "c"))]
    (text,) = said("schedules", row(best), row(near, "a"))
    assert "The difference of 3.00 [0.733, 5.27] is beyond noise" in text
    (text,) = said("schedules", row(best), row(near, "a"), *others)
    assert "No difference beyond noise: 3.00 [" in text and "(p = 0.064)" in text


@given(FEW, VALUES)
def test_fewer_than_three_seeds_have_no_verdict(few, others):
    for rows in ([row(few), row(others, "constant")], [row(few), row([2000], "constant")]):
        (text,) = said("schedules", *rows)
        assert f"n = {min(r['n'] for r in rows)} in " in text and "no verdict" in text
        assert "beyond noise" not in text and "p = " not in text


@pytest.mark.parametrize("other, differs", [(20.0, False), (20.5, True)])
def test_seeds_without_any_spread_differ_where_their_means_do(other, differs):
    (text,) = said("schedules", row([20.0] * 3), row([other] * 3, "constant"))
    assert ("No difference" not in text) == differs


@given(st.lists(VALUES, min_size=2, max_size=4, unique_by=lambda v: np.mean(v)))
def test_numbers_are_the_rows_and_the_best_is_the_least(seeds):
    shares = [0, 50, 80, 90][: len(seeds)]
    rows = [row(values, share=str(share)) for values, share in zip(seeds, shares)]
    (text,) = said("split", *rows)
    for place, one in enumerate(sorted(rows, key=lambda one: one["fd_mean"])[:2]):
        value = markup.mean_and_sd(one["fd_mean"], one["fd_sd"], one["n"])
        share = f"{one['pretrain_share_percent']} % pretraining with {value}"
        assert f"{('best is', 'then')[place]} {share}" in text


def test_every_row_that_noise_may_explain_is_named():
    near = [[10, 11, 12], [10.5, 11.5, 12.5], [10.2, 11.3, 12.4]]
    rows = [row(v, name) for v, name in zip([*near, [900, 901, 902]], ("a", "b", "c", "far"))]
    (text,) = said("schedules", *rows)
    assert "then c with" in text and text.endswith("; nor from b.")


def test_each_sampler_has_its_own_best():
    rows = [row([1, 2, 1.5]), row([3, 4, 3.5], "constant")]
    rows += [row([9, 9.5, 9], sampler="two_step"), row([5, 6, 5], "constant", "two_step")]
    one, two = said("schedules", *rows)
    assert one.startswith("1 step: best is sigmoid") and two.startswith("2 steps: best is constant")


@pytest.mark.parametrize("after, way", [(25, "4.00 times less"), (200, "2.00 times more")])
def test_what_tuning_gives_is_the_ratio_to_its_own_start(after, way):
    other = row([1.0] * 3, schedule="", pretrain="flow")
    values = [after - 1, after, after + 1]
    gained, best = said("methods", row([100.0] * 3, schedule=""), row(values), other)
    told = markup.mean_and_sd(after, 1, 3)
    assert gained.startswith("1 step: from 100") and gained.endswith(
        f"to {told}, ve / sigmoid: {way}."
    )
    assert best.startswith("1 step: best is flow / before tuning")


def test_without_three_seeds_nothing_is_called_best_and_no_ratio_is_told():
    gained, best = said("methods", row([100.0], schedule=""), row([25.0, 24.0, 26.0]))
    assert gained.endswith("ve / sigmoid.") and "times" not in gained
    assert best.startswith(
        "1 step: no verdict, as n = 1 in one of them; the lowest is ve / sigmoid"
    )


def solved(values, nfe, schedule="", solver="heun", **changes):
    return row(values, schedule) | {"nfe": str(nfe), "solver": solver} | changes


@given(
    st.floats(1, 100),
    st.lists(st.tuples(st.sampled_from([5, 9, 19, 35]), st.floats(1, 100)), min_size=1, max_size=6),
)
def test_the_fewest_evaluations_are_those_of_the_table(tuned, solvers):
    rows = [solved([fd], nfe) for nfe, fd in solvers]
    (text,) = said("solvers", *rows, solved([tuned], 2, "sigmoid", "multistep"))
    assert text.startswith(f"ve / sigmoid, 2 NFE: {markup.digits(tuned)} (1). ")
    enough = [(nfe, fd) for nfe, fd in solvers if fd <= tuned]
    nfe, fd = min(enough) if enough else min(solvers, key=lambda pair: pair[1])
    assert ("Nothing measured before tuning is as good" in text) == (not enough)
    assert f": Heun, {nfe} NFE, with {markup.digits(fd)} (1). n = 1 in both: no verdict" in text


def test_a_tuned_model_is_held_against_its_own_start_alone():
    rows = [solved([1.0], 9), solved([9.0], 9, pretrain="flow"), solved([2.0], 1, "sigmoid")]
    rows += [solved([5.0], 1, "sigmoid", pretrain="flow"), solved([5.0], 1, "ict", pretrain="vp")]
    ve, flow = said("solvers", *rows)
    assert ve.startswith("ve / sigmoid") and "fewest NFE measured: Heun, 9 NFE, with 1.00" in ve
    assert flow.startswith("flow / sigmoid") and "the nearest: Heun, 9 NFE, with 9.00" in flow


@given(VALUES, VALUES)
def test_noise_is_named_where_there_is_any(before, after):
    if np.std(before) < 1e-3 or np.std(after) < 1e-3:
        return
    (text,) = said("solvers", solved(before, 9), solved(after, 1, "sigmoid", "multistep"))
    p = stats.ttest_ind(before, after, equal_var=False).pvalue
    assert ("No difference beyond noise" in text) == (p >= 0.05)
    assert ("is beyond noise (p" in text) == (p < 0.05)


PARTS = {
    "pretrain": ["ve", "flow"], "schedule": ["", "sigmoid", "ict"], "recipe": ["ect", "ict"],
    "pretrain_kimg": ["0", "60"], "tune_kimg": ["60", "120"],
}  # fmt: skip
MODELS = st.tuples(*map(st.sampled_from, PARTS.values()))


@given(st.sampled_from(list(sentences.NAMED)), st.lists(MODELS, min_size=1, max_size=8))
def test_names_tell_models_apart_and_nothing_else(kind, models):
    rows = [row([1.0]) | dict(zip(PARTS, model)) for model in models]
    named = dict(zip(models, sentences.names(kind, rows)))
    assert len(set(named.values())) == len(named)
    assert sentences.names(kind, rows) == [named[model] for model in models]


def test_the_csv_is_read_with_its_floor(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("sampler,images,n,fd_mean,fd_sd\none_step,9,1,2.5,\nfloor,360,1,10.4756,\n")
    (one,), floor = sentences.read(path)
    assert (one["n"], one["fd_mean"]) == (1, 2.5) and math.isnan(one["fd_sd"])
    assert sentences.floor_of(floor) == ["Real test images (360): 10.5."]
    assert sentences.floor_of(None) == []
    path.write_text(
        "sampler,images,n,fd_mean,fd_sd,fd_each\nb,9,2,2.5,0.5,2.1;2.9\nfloor,9,1,1,,\n"
    )
    assert sentences.read(path)[0][0]["fd_each"] == [2.1, 2.9] and one["fd_each"] == []
