"""FD against the length of the average of the weights, reconstructed after training: the standard
deviation of its profile as a share of the images (EDM2, Karras et al. 2024, sec. 3.2).
"""

from ect.report import gather, quality, style
from ect.runtime.checkpoint import typed


def columns(table, about):
    """{"ema_std": ...} of the starts of a table, from `about`, {start: {"ema_std": its length}}.
    Raises `ValueError` where a start is not among them."""
    lacking = sorted(set(table["pretrain"]) - set(about))
    if lacking:
        raise ValueError(f"about: found nothing on {lacking[0]}; allowed: ema_std of all starts")
    found = {
        name: typed(about[name], f"about: {name}", {"ema_std": (int, float)}) for name in about
    }
    for name, one in found.items():
        gather.require_possible(f"about: {name}", "ema_std", one["ema_std"])
    return {"ema_std": [float(found[name]["ema_std"]) for name in table["pretrain"]]}


def plot_lengths(metrics, out, width_in, floor=None, about=None):
    """FD against the length of the average: for each sampler the means with sd of three replicates
    or more, joined by a line, and a dot for each replicate."""
    frame = gather.read(metrics)
    frame = frame.assign(**columns(frame, about or {}))
    table = gather.spread(frame)
    table = table.assign(**columns(table, about or {}))
    table = table.sort_values(["nfe", "ema_std"], kind="stable")
    with style.figure(out, width_in, 0.6 * width_in) as (_, axes):
        axis = axes[0, 0]
        groups = table.groupby("sampler", sort=False)
        for index, (sampler, rows) in enumerate(groups):
            look = style.series(index)
            label = style.label(f"{rows['label'].iloc[0]} ({quality.counted(rows)})")
            bars = quality.bars(rows)
            axis.errorbar(rows["ema_std"], rows["fd_mean"], yerr=bars, label=label, **look)
            single = frame[frame["sampler"] == sampler]
            axis.plot(single["ema_std"], single["fd"], ".", color=look["color"], markersize=3)
        axis.set(xscale="log", yscale="log", ylabel=gather.measure(frame))
        axis.set_xlabel("length of the average of the weights, as a share of the images")
        quality.plot_floor(axis, frame, floor)
        style.ticks(axis.xaxis, sorted(set(table["ema_std"])))
        style.log_ticks(axis.yaxis)
        axis.legend()
