"""FD against the share of a budget for each total, and the best share against the total."""

import math

import numpy as np

from ect.report import gather, optimum, style

PANEL_IN = 2.2  # height of a row of panels
RING = {"marker": "o", "markersize": 9, "markerfacecolor": "none", "linestyle": ""}


def plot_scaling(metrics, out, width_in, floor=None):
    """A column for each sampler. Above, a row of panels for each start: mean FD against the share
    of pretraining with its sd, a line for each total, a ring at the best. Below, the best share
    against the total, with its band over bootstrap samples of replicates. `floor` is the
    metrics.json of real test images, which must be of the same features."""
    frame = gather.read(metrics)
    if floor is not None:
        gather.require_same_features(frame, gather.read_floor(floor), floor)
    table = gather.spread(frame).sort_values("nfe", kind="stable")
    labels = dict(zip(table["sampler"], table["label"]))
    found = optimum.series(map(_row, table[table["fd_mean"].notna()].to_dict("records")))
    if not found:
        path = frame["path"].iloc[0]
        raise ValueError(f"{path}: found no tuned model; allowed: one at least, for this figure")
    starts = list(dict.fromkeys(key[:3] for key in found))
    totals = sorted({total for of in found.values() for total in of})
    rows, columns = len(starts) + 1, len(labels)
    metric = gather.metric_name(frame["features"].iloc[0])
    size = width_in, 0.6 + PANEL_IN * rows
    with style.figure(out, *size, rows, columns, sharey="row") as (figure, axes):
        for key, of in found.items():
            place = starts.index(key[:3]), list(labels).index(key.sampler)
            _plot_shares(axes[place], of, totals)
            _plot_best(axes[-1, place[1]], of, _name(key[:3], starts), place[0])
        for index, label in enumerate(labels.values()):
            axes[0, index].set_title(style.label(label))
            _finish_best(axes[-1, index], totals)
        for row, start in enumerate(starts):
            axes[row, 0].set_ylabel(f"{style.label(_name(start, starts))}: {metric}")
            for axis in axes[row]:
                axis.set(yscale="log", xlabel="share of pretraining (%)")
                style.log_ticks(axis.yaxis)
        axes[-1, 0].set_ylabel("best share (%)")
        lines = {line.get_label(): line for axis in axes[:-1].flat for line in axis.lines}
        keys = {f"{total} kimg": lines[f"{total} kimg"] for total in totals}
        figure.legend(keys.values(), keys, loc="outside lower center", ncols=len(totals))


def _row(row):
    """A row of `gather.spread` as `optimum.series` takes it."""
    facts = {name: row[name] for name in optimum.Series._fields}
    facts["schedule"] = row["schedule"] if isinstance(row["schedule"], str) else ""
    values = [float(text) for text in row["fd_each"].split(";")]
    shares = {"total": int(row["total_kimg"]), "share": float(row["share"])}
    return facts | shares | {"seeds": row["seeds"].split(";"), "values": values}


def _name(start, starts):
    """The shortest name that tells a start, schedule and recipe from the others."""
    alone = len({one[0] for one in starts}) == len(starts)
    return start[0] if alone else ", ".join(start)


def _plot_shares(axis, of, totals):
    for total, distances in of.items():
        shares, values = optimum.shares_of(distances)
        mean, n = values.mean(1), values.shape[1]
        look = style.series(totals.index(total))
        sd = values.std(1, ddof=1) if n > 2 else np.zeros(len(mean))
        axis.plot(shares, mean, label=f"{total} kimg", **look)
        axis.errorbar(shares, mean, yerr=sd, color=look["color"], linestyle="")
        best = mean.argmin()
        axis.plot(shares[best], mean[best], color=look["color"], label="_", **RING)
    style.ticks(axis.xaxis, list(range(0, 101, 20)))


def _plot_best(axis, of, name, index):
    bests = [optimum.best(distances) for distances in of.values()]
    look = style.series(index)
    counts = sorted({best.n for best in bests})
    label = f"{style.label(name)} (n = {' to '.join(map(str, counts[:: len(counts) - 1 or 1]))})"
    axis.plot(list(of), [best.share for best in bests], label=label, **look)
    if not any(math.isnan(best.low) for best in bests):
        low, high = [b.low for b in bests], [b.high for b in bests]
        axis.fill_between(list(of), low, high, color=look["color"], alpha=0.2, linewidth=0)


def _finish_best(axis, totals):
    axis.axhline(optimum.ASKED, color="black", linestyle="--", linewidth=0.8)
    axis.set(xscale="log", ylim=(-3, 103), xlabel="total, thousand images")
    style.ticks(axis.xaxis, totals)
    style.ticks(axis.yaxis, list(range(0, 101, 20)))
    axis.legend(loc="lower right")
