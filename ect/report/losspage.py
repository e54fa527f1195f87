"""The loss page: why does the loss stay flat while the samples improve? Six panels, one x axis."""

import io
import math
from pathlib import Path

import numpy as np
import pandas as pd

from ect.report import style
from ect.report.curves import read_log
from ect.runtime.text import shown
from ect.schedule import LN_S_EDGES

LOGGED = {"share_r_zero": (int, float), "residual_by_ln_s": list}  # beside images and loss
SHOWN_BINS = range(1, 10, 2)  # every second bin: five lines stay legible
LN_S = (-6.0, math.log(80))  # noise levels from the lightest to the darkest line
STYLES = ["-", "--", "-.", ":"]
QUANTITIES = {"fd", "residual", "end_to_end"}
TO_START = "ratio to the start"


def plot_losspage(metrics, trace, out, width_in, stages=None, perfect=None):
    """Loss, its parts and quality over one tuning run, from its metrics.jsonl and its trace.csv;
    the ends of `stages` equal stages are marked. `perfect` is the csv of the loss of a perfect
    model of Gaussian data."""
    log = read_log([metrics], LOGGED)
    for number, line in enumerate(log, 1):
        _require_parts(f"{metrics}, line {number}", line)
    if stages is not None and not (type(stages) is int and 1 <= stages <= 1000):
        raise ValueError(f"stages: found {stages!r:.60}; allowed: a whole number from 1 to 1000")
    trace = _read_trace(trace, log[-1]["images"])
    trace["kimg"] = trace["images"] / 1000
    with style.figure(out, width_in, 1.2 * width_in, 3, 2, sharex=True) as (_, axes):
        (loss, bins), (pairs, chain), (share, quality) = axes
        _plot_log(loss, log, "loss", "a  training loss")
        if perfect:
            _plot_perfect(loss, _read_perfect(perfect, log[-1]["images"]))
        _plot_bins(bins, log)
        _plot_pairs(pairs, trace[trace["quantity"] == "residual"])
        _plot_chain(chain, trace[trace["quantity"] == "end_to_end"])
        _plot_log(share, log, "share_r_zero", "e  share of r = 0")
        _plot_quality(quality, trace[trace["quantity"] == "fd"])
        for axis in axes[-1]:
            axis.set_xlabel("thousand images of tuning")
        _mark_stages(axes, log[-1]["images"] / 1000, stages)


def _require_parts(place, line):
    """Raise `ValueError` unless the parts of the loss in a line can be those of a run."""
    bins, share = line["residual_by_ln_s"], line["share_r_zero"]
    count = len(LN_S_EDGES) - 1
    numbers = [x for x in bins if x is not None]
    if len(bins) != count or not all(type(x) in (int, float) and not x < 0 for x in numbers):
        allowed = f"{count} numbers >= 0, or null"
        raise ValueError(f"{place}: residual_by_ln_s is {bins!r:.60}; allowed: {allowed}")
    if share < 0 or share > 1:
        raise ValueError(f"{place}: share_r_zero is {share}; allowed: from 0 to 1")


def _read_trace(path, total):
    """The table of a trace.csv; raises `ValueError` that names it unless it is whole: the same
    measures of the start and of every snapshot, the last at the end of the run, after `total`."""
    table = _read_csv(path, "trace", ("images", "s", "ratio", "value"), ("quantity", "sampler"))
    _require_measures(path, table)
    what = table[["quantity", "s", "ratio", "sampler"]].itertuples(index=False)
    measured: dict = {}
    for images, row in zip(table["images"].tolist(), what):
        measured.setdefault(images, []).append(tuple(map(str, row)))
    short = [seen for seen, rows in measured.items() if rows != measured.get(0)]
    if short or max(measured) != total:
        found = "other measures after" if short else "the last after"
        found += f" {short[0] if short else max(measured)}"
        raise ValueError(
            f"{path}: found {found} images; allowed: all that `trace` wrote of a run of {total}"
        )
    return table


def _require_measures(path, table):
    """Raise `ValueError` unless a trace holds each quantity, at noise levels > 0, and none that a
    distance or a squared error cannot be; NaN is drawn as a gap."""
    kinds, images = set(table["quantity"]), table["images"]
    residuals, distances = (table[table["quantity"] == kind] for kind in ("residual", "fd"))
    squares = table["value"].where(table["quantity"] != "fd", table["value"] + 0.1)
    found = {
        f"the quantities {', '.join(map(str, sorted(kinds, key=str)))}": kinds != QUANTITIES,
        "noise levels s <= 0": (table["s"] <= 0).any(),
        "negative values": (squares < 0).any(),
        "infinite values": np.isinf(table["value"]).any(),
        "a residual whose ratio is not between 0 and 1": not residuals["ratio"].between(0, 1).all(),
        "an error without its s": table.loc[table["quantity"] != "fd", "s"].isna().any(),
        "a distance without its sampler": distances["sampler"].isna().any(),
        "images that do not rise": (images < 0).any() or not images.is_monotonic_increasing,
        "the same row twice": table.drop(columns="value").duplicated().any(),
    }
    if wrong := [what for what, is_so in found.items() if is_so]:
        raise ValueError(f"{path}: found {shown(wrong[0])}; allowed: what `trace` wrote")


def _read_perfect(path, total):
    """The table of a perfect.csv, whose points divide a run of `total` images; raises `ValueError`
    that names it unless it is a whole one."""
    table = _read_csv(path, "perfect-loss", ("images", "loss"), ())
    points = table["images"].tolist()
    if points != sorted(set(points)) or not table["loss"].between(0, math.inf, "left").all():
        found = "images that do not rise, or a loss that is not finite and >= 0"
        raise ValueError(f"{path}: found {found}; allowed: what `perfect-loss` wrote")
    if points[0] != 0 or abs(points[-1] * len(points) / (len(points) - 1 or 1) - total) > len(
        points
    ):
        raise ValueError(
            f"{path}: found images from {points[0]} to {points[-1]} in {len(points)} rows; allowed:"
            f" all that `perfect-loss` wrote of a run of {total}"
        )
    return table


def _read_csv(path, verb, numbers, texts):
    """A table with these columns that ends in a whole line; raises `ValueError`."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        table = pd.read_csv(io.StringIO(text))
        found = None if text.endswith("\n") else "an end within a line"
    except ValueError as error:
        reason = shown(" ".join(str(error).split()), 200)
        found = f"not a table of `{verb}` ({reason})"
        raise ValueError(f"{path}: {found}; allowed: the csv that it writes") from None
    lacking = sorted({*numbers, *texts} - set(table))
    if lacking or table.empty:
        found = f"no columns {', '.join(lacking)}" if lacking else "no rows"
    odd = [key for key in numbers if key in table and table[key].dtype.kind not in "if"]
    if odd and not found:
        found = f"{odd[0]} that is no number"
    if found:
        raise ValueError(f"{path}: found {found}; allowed: what `{verb}` wrote")
    return table


def _plot_log(axis, log, key, title):
    """A quantity of the log on a linear axis from 0: what is flat must look flat."""
    look = style.series(0)
    axis.plot(_kimg(log), [line[key] for line in log], color=look["color"])
    axis.set_title(title, loc="left")
    axis.set_ylabel(key.partition("_")[0])
    finite = [line[key] for line in log if math.isfinite(line[key])]
    axis.set_ylim(0, max(finite, default=0) * 1.1 or 1)


def _plot_perfect(axis, table):
    """A dotted line in the panel of the loss."""
    axis.lines[0].set_label("this run")
    label = "perfect model of Gaussian data"
    axis.plot(table["images"] / 1000, table["loss"], color="black", linestyle=":", label=label)
    axis.set_ylim(0, max(axis.get_ylim()[1], 1.1 * table["loss"].max()))
    axis.legend(loc="best", fontsize=6)


def _plot_bins(axis, log):
    values = np.array([line["residual_by_ln_s"] for line in log], dtype=float)
    for index, linestyle in zip(SHOWN_BINS, STYLES * 2):
        middle = math.exp((LN_S_EDGES[index] + LN_S_EDGES[index + 1]) / 2)
        axis.plot(_kimg(log), values[:, index], color=_shade(middle), ls=linestyle,
                  label=f"s = {middle:.2g}")  # fmt: skip
    _finish(axis, "b  residual by noise level s")


def _plot_pairs(axis, trace):
    """Every second noise level: colour and marker say which, the line style says r / s."""
    levels, ratios = sorted(set(trace["s"]))[::2], sorted(set(trace["ratio"]))
    for rank, s in enumerate(levels):
        look = style.series(rank) | {"markersize": 2.5, "linewidth": 0.9}
        for ratio, linestyle in zip(ratios, STYLES):
            rows = trace[(trace["s"] == s) & (trace["ratio"] == ratio)]
            axis.plot(rows["kimg"], _to_start(rows), **look | {"linestyle": linestyle})
        axis.plot([], [], label=f"s = {s:g}", **look | {"linestyle": ""})
    for ratio, linestyle in zip(ratios, STYLES):
        axis.plot([], [], label=f"r/s = {ratio:g}", color="black", linestyle=linestyle)
    _finish(axis, "c  residual at fixed pairs (s, r)", TO_START)


def _plot_chain(axis, trace):
    for rank, (s, rows) in enumerate(trace.groupby("s")):
        look = style.series(rank) | {"markersize": 2.5, "linewidth": 0.9}
        axis.plot(rows["kimg"], _to_start(rows), label=f"s = {s:g}", **look)
    _finish(axis, "d  end-to-end error at fixed s", TO_START)


def _to_start(rows):
    """The values as ratios to the first; empty where that is 0."""
    first = rows["value"].iloc[0]
    return rows["value"] / first if first else rows["value"] * float("nan")


def _plot_quality(axis, trace):
    for index, (sampler, rows) in enumerate(trace.groupby("sampler", sort=False)):
        axis.plot(rows["kimg"], rows["value"], label=style.label(sampler), **style.series(index))
    _finish(axis, "f  distance of samples to data", "FD")


def _finish(axis, title, ylabel="squared error per pixel"):
    """A logarithmic axis with room for its legend below the lines."""
    axis.set_yscale("log")
    axis.set_title(title, loc="left")
    axis.set_ylabel(ylabel)
    low, high = axis.get_ylim()
    rows = math.ceil(len(axis.get_legend_handles_labels()[1]) / 2)
    axis.set_ylim(low * (low / high) ** (0.1 * rows), high)
    style.log_ticks(axis.yaxis)
    axis.legend(loc="lower left", fontsize=6, ncols=2, handlelength=2.6, columnspacing=1)


def _mark_stages(axes, total, stages):
    for axis in axes.flat:
        axis.grid(axis="x", visible=not stages)
        for stage in range(1, stages or 0):
            axis.axvline(total * stage / stages, color="#bbbbbb", linewidth=0.6, zorder=0)


def _shade(s):
    """One shade for one noise level, in every panel: darker is noisier."""
    return style.PROGRESS((math.log(s) - LN_S[0]) / (LN_S[1] - LN_S[0]))


def _kimg(log):
    return [line["images"] / 1000 for line in log]
