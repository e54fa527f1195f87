"""Shape or last gap? Maps t -> r at equal last gaps, and last gaps at equal maps, with a figure.

The model is ln FD = map + last gap + replicate + error, by least squares over all rows, so that
every row's replicates count and a map that has one of the gaps only does too.
"""

import math
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy import stats

from ect.report import gather, quality, style
from ect.runtime.checkpoint import typed

LEVEL, LEAST_N = 0.05, 3
SAME = 0.01  # the part by which last gaps may differ and still be one
METHOD = (
    "Ratios of FD with 95 % intervals: ln FD = map + last gap + replicate by least squares, one"
    " variance for all rows; p and intervals are corrected for the comparisons of both kinds"
    " (Bonferroni). The last gap is (s - r) / s at the end of a run, at the prior's median; what"
    " differs on the way there, the maps' gaps at other s and in earlier stages, counts as shape."
)


class Row(NamedTuple):
    """A map with a last gap, and its distance in each replicate."""

    name: str
    map: str
    gap: float
    values: tuple[float, ...]


class Fit(NamedTuple):
    """The coefficients of the model, their covariance, and what is left."""

    maps: list
    gaps: list
    coefficients: np.ndarray
    covariance: np.ndarray
    freedom: int
    interaction: float  # the p of an F-test; nan where no rows are left to test it


class Ratio(NamedTuple):
    """A ratio of distances, the ends of its interval, and p, all corrected."""

    ratio: float
    low: float
    high: float
    p: float


def levels(gaps):
    """{gap: the least one that is the same but for rounding}."""
    found = {}
    for gap in sorted(gaps):
        near = next((level for level in found.values() if gap <= level * (1 + SAME)), gap)
        found[gap] = near
    return found


def fit(rows):
    """The `Fit` of rows with equally many replicates, in one order; None where fewer than three, a
    distance is not > 0, or maps and last gaps are not told apart by these rows."""
    count = {len(row.values) for row in rows}
    values = np.array([value for row in rows for value in row.values])
    if len(count) > 1 or min(count) < LEAST_N or not (values > 0).all():
        return None
    n, level = count.pop(), levels({row.gap for row in rows})
    maps = list(dict.fromkeys(row.map for row in rows))
    gaps = sorted(set(level.values()))
    cells = [(maps.index(row.map), gaps.index(level[row.gap])) for row in rows]
    if len(gaps) < 2 or len(set(cells)) < len(cells):
        return None
    matrix = _design(cells, n, len(maps), len(gaps))
    wide = np.hstack([np.kron(np.eye(len(rows)), np.ones((n, 1))), matrix])
    if np.linalg.matrix_rank(matrix) < matrix.shape[1]:
        return None
    coefficients, rest, freedom = _least_squares(matrix, np.log(values))
    _, least, left = _least_squares(wide, np.log(values))
    covariance = rest / freedom * np.linalg.inv(matrix.T @ matrix)
    interaction = math.nan
    if freedom > left and least > 0:
        ratio = (rest - least) / (freedom - left) / (least / left)
        interaction = float(stats.f.sf(ratio, freedom - left, left))
    return Fit(maps, gaps, coefficients, covariance, freedom, interaction)


def _design(cells, n, maps, gaps):
    """Columns for each map, for every gap and replicate but the first."""
    lines = []
    for one, gap in cells:
        for replicate in range(n):
            places = (np.arange(maps) == one, np.arange(1, gaps) == gap)
            lines.append(np.concatenate([*places, np.arange(1, n) == replicate]))
    return np.array(lines, dtype=float)


def _least_squares(matrix, values):
    """(coefficients, sum of squares of the residuals, their degrees of freedom)."""
    found, _, rank, _ = np.linalg.lstsq(matrix, values, rcond=None)
    return found, float(((values - matrix @ found) ** 2).sum()), len(values) - int(rank)


def ratio(found, contrast, comparisons=1):
    """The `Ratio` exp(contrast . coefficients)."""
    apart = float(contrast @ found.coefficients)
    error = math.sqrt(contrast @ found.covariance @ contrast)
    half = error * stats.t.isf(LEVEL / comparisons / 2, found.freedom)
    p = 2 * float(stats.t.sf(abs(apart) / error, found.freedom)) if error else float(apart == 0)
    least, most = math.exp(apart - half), math.exp(apart + half)
    return Ratio(math.exp(apart), least, most, min(1.0, comparisons * p))


def of_maps(found, one, other, comparisons=1):
    """FD with the map `one` over that with the `other`, at equal last gaps."""
    contrast = np.zeros(len(found.coefficients))
    contrast[found.maps.index(one)] += 1
    contrast[found.maps.index(other)] -= 1
    return ratio(found, contrast, comparisons)


def of_gaps(found, one, other, comparisons=1):
    """FD with the last gap `one` over that with the `other`, of the same map."""
    contrast = np.zeros(len(found.coefficients))
    for gap, sign in ((one, 1), (other, -1)):
        if found.gaps.index(gap):
            contrast[len(found.maps) + found.gaps.index(gap) - 1] += sign
    return ratio(found, contrast, comparisons)


def comparisons(found):
    """The number of comparisons: of the best map with each other, and of gaps with the least."""
    return len(found.maps) - 1 + len(found.gaps) - 1


def answer(rows, labels):
    """The sentences for each sampler among rows of a csv, as `sentences.read` gives them."""
    samplers = dict.fromkeys(row["sampler"] for row in rows)
    for sampler in samplers:
        told = [_row(row) for row in rows if row["sampler"] == sampler]
        yield from _told(labels[sampler], told)
    yield METHOD


def _row(row):
    pairs = zip(map(int, row["seeds"].split(";")), row["fd_each"])
    values = tuple(value for _, value in sorted(pairs))
    return Row(row["schedule"], row["map"], float(row["last_gap"]), values)


def _told(label, rows):
    n, found = min(len(row.values) for row in rows), fit(rows)
    if found is None:
        yield f"{label}: n = {n}; these rows give no verdict on shape and last gap."
        return
    count = comparisons(found)
    best = min(found.maps, key=lambda name: found.coefficients[found.maps.index(name)])
    others = [name for name in found.maps if name != best]
    parts = [f"{name} {_said(of_maps(found, name, best, count))}" for name in others]
    yield (
        f"{label}, shape, at equal last gaps: {best} has the least FD; against it FD is, with"
        f" {'; '.join(parts)} (n = {n})."
    )
    wide = found.gaps[-1]
    for gap in found.gaps[:-1]:
        yield (
            f"{label}, last gap, of the same map, {gap:.2g} against {wide:.2g}: FD is"
            f" {_said(of_gaps(found, gap, wide, count))}{_interacts(found)} (n = {n})."
        )
    yield from _confounded(label, found, rows, count)


def _confounded(label, found, rows, count):
    """What two rows that differ in both are apart by: shape times last gap."""
    level = levels({row.gap for row in rows})
    names = {row.name: row for row in rows}
    for one, other in combinations(names.values(), 2):
        if one.name == one.map and other.name == other.map and level[one.gap] != level[other.gap]:
            whole = math.exp(np.mean(np.log(one.values)) - np.mean(np.log(other.values)))
            shape = of_maps(found, one.map, other.map, count).ratio
            gap = of_gaps(found, level[one.gap], level[other.gap], count).ratio
            yield (
                f"{label}: {one.name} as it is against {other.name} as it is, {whole:.2f} times:"
                f" by shape {shape:.2f}, by last gap {gap:.2f}."
            )


def _said(found):
    p = f"p = {found.p:.2g}" if found.p >= 1e-4 else "p < 0.0001"
    told = "" if found.p < LEVEL else ", not told apart"
    return f"{found.ratio:.2f} times [{found.low:.2f}, {found.high:.2f}] ({p}{told})"


def _interacts(found):
    if math.isnan(found.interaction):
        return ""
    return f"; that this ratio depends on the map has p = {found.interaction:.2g} (F-test)"


def plot_ends(metrics, out, width_in, floor=None, about=None):
    """A panel for each sampler: the distance of each map, a marker for each last gap, with the sd
    of three replicates or more and a dot for each. The distance of real test images, `floor`, is
    far below and left to the table."""
    frame = gather.read(metrics)
    table = gather.spread(frame).sort_values("nfe", kind="stable")
    table = table.assign(**columns(table, about or {}))
    level = levels(set(table["last_gap"]))
    table["level"] = table["last_gap"].map(level)
    names, gaps = list(dict.fromkeys(table["map"])), sorted(set(level.values()), reverse=True)
    labels = dict(zip(table["sampler"], table["label"]))
    size = width_in, 1.2 + 0.42 * len(names)
    with style.figure(out, *size, 1, len(labels), sharey=True) as (figure, axes):
        for axis, (sampler, label) in zip(axes[0], labels.items()):
            for index, gap in enumerate(gaps):
                rows = table[(table["sampler"] == sampler) & (table["level"] == gap)]
                shift = 0.3 * (index - (len(gaps) - 1) / 2)
                rows = rows.assign(label=f"last gap {gap:.2g}", height=[
                    names.index(name) + shift for name in rows["map"]
                ])  # fmt: skip
                seeds = frame.merge(rows[["schedule", "sampler", "height"]])
                quality.draw_dots(axis, seeds, rows, style.series(index))
            axis.set(xscale="log", title=style.label(label))
            axis.set(ylim=(len(names) - 0.5, -0.5))
            axis.set_yticks(range(len(names)), [style.label(name) for name in names])
            style.log_ticks(axis.xaxis)
        figure.supxlabel(gather.measure(frame), fontsize=8)
        handles = dict(zip(*reversed(axes[0, 0].get_legend_handles_labels())))
        figure.legend(handles.values(), handles, loc="outside upper center", ncols=len(gaps))


def columns(table, about):
    """{"map": ..., "last_gap": ...} of the schedules of a table, from `about`, {schedule: both}.
    Raises `ValueError` where a schedule is not among them."""
    lacking = sorted(set(table["schedule"].dropna()) - set(about)) or (
        ["a model before tuning"] if table["schedule"].isna().any() else []
    )
    if lacking:
        raise ValueError(
            f"about: found nothing on {lacking[0]}; allowed: map and last gap of all rows"
        )
    known = {"map": str, "gap": (int, float)}
    found = [typed(about[name], f"about: {name}", known) for name in table["schedule"]]
    for name, one in zip(table["schedule"], found):
        gather.require_possible(f"about: {name}", "gap", one["gap"])
        if not one["map"].strip():
            raise ValueError(f"about: {name}: map is {one['map']!r}; allowed: the name of a map")
    return {"map": [one["map"] for one in found], "last_gap": [one["gap"] for one in found]}
