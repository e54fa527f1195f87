"""The components of variance of a distance as a table, a figure and sentences."""

import math

import numpy as np
import pandas as pd

from ect.report import gather, markup, power, style, variance
from ect.report.tables import HEADERS, write
from ect.runtime.checkpoint import typed

SOURCES = {  # in words; the last is of all three together
    "pretraining": "pretraining seeds",
    "tuning": "tuning seeds",
    "sampling": "sets of images",
    "replicate": "replicates",
}
ASKED = (10, 20, 50)  # differences in percent
MODEL = {"pretrain": "pretrain", "kimg": "pretrain_kimg", "tune_kimg": "tune_kimg"}
MODEL |= {key: key for key in ("schedule", "recipe", *gather.SAMPLER, "features", "images")}
SIZES = ["pretrainings", "tunings", "sets"]
METHOD = (
    "Random effects, nested: sets of images in tunings in pretrainings, no seed shared. Percentages"
    " are standard deviations of ln FD; in square brackets 95 % intervals (modified large sample)."
)


def tabulate(metrics, out, about=None):
    """Write out.csv, out.md and out.tex from the metrics.json files of nested seeds. A line of the
    csv is a source of variance of one model and sampler; `about` is {start: its conditions}, the
    mapping in which other studies look for their own. Raises `ValueError` on unequal numbers."""
    frame = gather.read(metrics)
    groups = _groups(frame)
    lines = [line for one, values in groups for line in _lines(one, values, about or {})]
    table = pd.DataFrame(lines)
    write(f"{out}.csv", markup.csv(table))
    headers, rows = _layout(table)
    aligns, caption = "llrrlr".ljust(len(headers), "r"), _caption(table)
    write(f"{out}.md", markup.markdown(headers, rows, aligns, caption))
    group = 6, "standard deviation of FD, %"
    write(f"{out}.tex", markup.latex(headers, group, rows, aligns, caption, "noise", False))


def _groups(frame):
    """(facts, FD (I, J, K)) of every model and sampler."""
    for _, group in frame.groupby([*gather.MODEL, *gather.SAMPLER], dropna=False, sort=False):
        yield group.iloc[0], nested(group)


def nested(group):
    """The distances (I, J, K) of one model's pretrainings, tunings and sets of images. Raises
    `ValueError` where numbers are unequal, or a distance is not > 0."""
    path = group["path"].iloc[0]
    starts = [part["fd_of_sets"].tolist() for _, part in group.groupby("pretraining")]
    sizes = {len(models) for models in starts}
    if len(sizes) > 1 or min(len(starts), *sizes, group["repeats"].min()) < 2:
        raise ValueError(
            f"{path}: found {', '.join(str(len(models)) for models in starts)} tunings of"
            f" {len(starts)} pretrainings, {group['repeats'].iloc[0]} sets of images each; allowed:"
            " as many of each, 2 or more throughout"
        )
    values = np.array(starts)
    if not (values > 0).all():
        raise ValueError(f"{path}: found a distance that is not > 0; allowed: others, for ln FD")
    return values


def _lines(first, values, about):
    """The lines of the csv of one model and sampler."""
    told = typed(about.get(first["pretrain"], {}), f"about: {first['pretrain']}")
    found = variance.squares(np.log(values))
    count, tunings, _ = found.shape
    numbers = count, count * tunings, values.size, count
    facts = {name: first[key] for key, name in MODEL.items()} | dict(zip(SIZES, found.shape))
    each = ";".join(f"{value:.6g}" for value in values.flat)
    for index, (source, estimate) in enumerate(variance.components(found).items()):
        sd, low, high = estimate.sds
        own = index < len(found.squares)
        yield facts | {
            "source": source,
            "n": numbers[index],
            "freedom": found.freedom[index] if own else pd.NA,
            "mean_square": found.squares[index] if own else math.nan,
            "variance": estimate.variance,
            "sd_percent": 100 * sd,
            "low_percent": 100 * low,
            "high_percent": 100 * high,
            "fd_mean": values.mean(),
            "fd_sd": sd * values.mean(),
            "fd_each": each if source == "sampling" else "",
            "conditions": markup.compact(told),
        }


def _layout(table):
    names = ["pretrain", "schedule", "pretrain_kimg", "tune_kimg"]
    heads = [HEADERS[{"pretrain_kimg": "kimg"}.get(name, name)] for name in names]
    headers = [*heads, "Sampler", "Mean FD", *(f"sd of {SOURCES[s]}, %" for s in SOURCES)]
    rows = []
    for _, lines in table.groupby([*MODEL.values()], dropna=False, sort=False):
        first = lines.iloc[0]
        told = [_told(line) for _, line in lines.iterrows()]
        mean = markup.digits(first["fd_mean"])
        rows.append([*(str(first[name]) for name in names), first["label"], mean, *told])
    return headers, rows


def _told(line):
    sd, low, high = (float(line[f"{key}_percent"]) for key in ("sd", "low", "high"))
    return f"{markup.short(sd)} [{markup.short(low)}, {markup.short(high)}]"


def _caption(table):
    first = table.iloc[0]
    count, tunings, sets = (int(first[key]) for key in SIZES)
    return (
        f"{gather.metric_name(first['features'])}. {METHOD} {count} pretraining seeds, {tunings}"
        f" tunings of each, {sets} sets of {first['images']} images of each tuned model. A"
        " replicate varies all three. Budgets in thousands of images (kimg)."
    )


def spreads(rows):
    """[(facts, {source: row}, `variance.Squares`)] of the rows of a csv, mappings of text."""
    keys, found = [key for key in MODEL.values()], {}
    for row in rows:
        found.setdefault(tuple(row[key] for key in keys), {})[row["source"]] = row
    return [
        (dict(zip(keys, key)), lines, squares_of([lines[s] for s in variance.SOURCES]))
        for key, lines in found.items()
    ]


def squares_of(lines):
    """The `variance.Squares` of the lines of `variance.SOURCES`."""
    return variance.Squares.of(
        [int(lines[0][key]) for key in SIZES],
        [float(line["mean_square"]) for line in lines],
        [int(line["freedom"]) for line in lines],
    )


def answer(rows, labels):
    """The sentences on the rows of a csv, as `sentences.read` gives them."""
    for facts, lines, found in spreads(rows):
        name = f"{labels.get(facts['sampler'], facts['sampler'])}, {facts['pretrain']}"
        parts = [f"{SOURCES[source]} {_percent(line)}" for source, line in lines.items()]
        count, tunings, sets = found.shape
        yield (
            f"{name}: the standard deviation of FD is, of {', of '.join(parts[:-1])}; of"
            f" {parts[-1]} (n = {count} pretrainings, {count * tunings} tunings,"
            f" {count * tunings * sets} sets; mean FD {markup.digits(lines['sampling']['fd_mean'])}"
            f" at {facts['pretrain_kimg']} + {facts['tune_kimg']} kimg)."
        )
        yield f"{name}: {_needs(found, True)}; {_needs(found, False)}."
    yield METHOD


def _percent(line):
    sd, low, high = (float(line[f"{key}_percent"]) for key in ("sd", "low", "high"))
    return f"{markup.short(sd)} % [{markup.short(low)}, {markup.short(high)}]"


def _needs(found, pretraining):
    spread = variance.spread(found, pretraining)
    needed = [needed_of(1 + percent / 100, spread) for percent in ASKED]
    what = "replicates" if pretraining else "tuning seeds of one start"
    asked = ", ".join(map(str, ASKED))
    return f"a difference of {asked} % needs {', '.join(needed)} {what} at 80 % power"


def needed_of(ratio, spread, comparisons=1, freedom=None):
    """'9 (4 to 21)': the replicates that a ratio of distances needs at the spread and the ends of
    its interval."""
    counts = [power.replicates(ratio, sd, comparisons, freedom) for sd in spread.sds]
    middle, low, high = ("over a million" if n is None else str(n) for n in counts)
    return middle if low == high else f"{middle} ({low} to {high})"


def plot_noise(metrics, out, width_in, floor=None, about=None):
    """Above, a panel for each sampler: the distance of every set of images, in columns of one tuned
    model, with the means of models and of pretrainings. Below, the standard deviations by source
    with their intervals, and the replicates that a difference needs."""
    frame = gather.read(metrics)
    groups = sorted(_groups(frame), key=lambda part: part[0]["nfe"])
    columns = max(2, len(groups))
    with style.figure(out, width_in, 0.8 * width_in, 2, columns) as (figure, axes):
        for index, (first, values) in enumerate(groups):
            _plot_values(axes[0, index], values, style.series(index))
            axes[0, index].set_title(style.label(first["label"]))
        axes[0, 0].set_ylabel(gather.metric_name(frame["features"].iloc[0]))
        spreads = [variance.squares(np.log(values)) for _, values in groups]
        labels = [style.label(first["label"]) for first, _ in groups]
        _plot_sources(axes[1, 0], spreads, labels)
        _plot_needed(axes[1, 1], spreads, labels)
        for axis in [*axes[0, len(groups) :], *axes[1, 2:]]:
            axis.axis("off")
        handles, names = axes[1, 0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=len(names))


def _plot_values(axis, values, look):
    """Columns of dots, one for each tuned model, in groups, one for each pretraining."""
    count, tunings, sets = values.shape
    for start in range(count):
        left = start * (tunings + 1)
        places = left + np.arange(tunings)
        axis.plot(places.repeat(sets), values[start].ravel(), ".", color=look["color"], alpha=0.6)
        means = values[start].mean(1)
        axis.plot(places, means, "_", color=look["color"], markersize=9, markeredgewidth=1.5)
        axis.hlines(values[start].mean(), left - 0.5, left + tunings - 0.5, "black", linewidth=0.8)
    axis.set_xticks([s * (tunings + 1) + (tunings - 1) / 2 for s in range(count)], range(count))
    axis.set(xlabel="pretraining seed", yscale="log")
    axis.grid(axis="x", visible=False)
    style.log_ticks(axis.yaxis)


def _plot_sources(axis, spreads, labels):
    for index, (found, label) in enumerate(zip(spreads, labels)):
        sds = 100 * np.array([one.sds for one in variance.components(found).values()])
        heights = np.arange(len(sds)) + 0.24 * (index - (len(spreads) - 1) / 2)
        bars = np.array([sds[:, 0] - sds[:, 1], sds[:, 2] - sds[:, 0]]).clip(0)
        look = style.series(index) | {"linestyle": ""}
        axis.errorbar(sds[:, 0], heights, xerr=bars, label=label, **look)
    axis.set_yticks(range(len(SOURCES)), [name.replace(" ", "\n", 1) for name in SOURCES.values()])
    axis.set(xlabel="sd of FD (%)", xlim=(0, None), ylim=(len(SOURCES) - 0.5, -0.5))
    axis.grid(axis="y", visible=False)


def _plot_needed(axis, spreads, labels):
    """Replicates against the difference, with the band of the interval of the spread."""
    ratios = np.geomspace(1.05, 2, 25)
    for index, (found, label) in enumerate(zip(spreads, labels)):
        look = style.series(index)
        needed = np.array([
            [power.replicates(ratio, sd) or math.nan for sd in variance.spread(found).sds]
            for ratio in ratios
        ])  # fmt: skip
        percent = 100 * (ratios - 1)
        axis.plot(percent, needed[:, 0], label=label, **look | {"marker": ""})
        axis.fill_between(percent, needed[:, 1], needed[:, 2], color=look["color"], alpha=0.15)
    axis.set(xscale="log", yscale="log", xlabel="difference of FD (%)")
    axis.set_ylabel("replicates needed")
    style.ticks(axis.xaxis, [5, 10, 20, 50, 100])
    style.log_ticks(axis.yaxis)
