"""Training loss against images: a panel for pretraining, and one for each schedule of tuning."""

import math

from ect.report import style
from ect.runtime.checkpoint import read_jsonl
from ect.runtime.text import shown

PRETRAINING = "pretraining"
COLUMNS = 3


def plot_curves(runs, out, width_in):
    """`runs` is {label: [metrics.jsonl, ...]}, the pieces of one run in order; a label is 'pretrain
    NAME' or 'SCHEDULE, NAME'. The panels of tuning share one range of losses. The axes of losses
    are logarithmic, unless one is 0 or less, as with a learned weight."""
    panels = _panels(runs)
    logs = {tuple(paths): read_log(paths) for paths in runs.values()}
    above_0 = all(line["loss"] > 0 for log in logs.values() for line in log)
    scale = "log" if above_0 else "linear"
    columns = min(COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    lines = [panels[row * columns : (row + 1) * columns] for row in range(rows)]
    longest = [max(len(group) for _, group in line) for line in lines]
    heights = [height for names in longest for height in (0.3 * width_in, 0.1 + 0.16 * names)]
    ratios = {"height_ratios": heights}
    with style.figure(out, width_in, sum(heights), 2 * rows, columns, **ratios) as (_, axes):
        for axis in axes.flat:
            axis.axis("off")
        panel_axes = list(zip(axes[::2].flat, axes[1::2].flat, panels))
        for axis, key, (title, group) in panel_axes:
            axis.axis("on")
            for index, (name, paths) in enumerate(group.items()):
                _curve(axis, name, logs[tuple(paths)], style.series(index))
            axis.set(
                title=style.label(title), yscale=scale, xlabel="thousand images", ylabel="loss"
            )
            key.legend(*axis.get_legend_handles_labels(), loc="upper center")
        _share_range([axis for axis, _, (title, _) in panel_axes if title != PRETRAINING])
        for axis, _, _ in panel_axes if above_0 else ():
            style.log_ticks(axis.yaxis)


def _panels(runs):
    """[(title, {name: its logs})], pretraining first."""
    panels = {}
    for label, paths in runs.items():
        title, _, name = label.partition(", ")
        if label.startswith("pretrain "):
            title, name = PRETRAINING, label.removeprefix("pretrain ")
        panel, name = panels.setdefault(title, {}), name or title
        if name in panel:
            found = f"found '{shown(name)}' of {shown(title)} twice"
            raise ValueError(f"runs: {found}; allowed: another name for each")
        panel[name] = paths
    return sorted(panels.items(), key=lambda panel: panel[0] != PRETRAINING)


def _share_range(axes):
    limits = [limit for axis in axes for limit in axis.get_ylim()]
    for axis in axes:
        axis.set_ylim(min(limits), max(limits))


def read_log(paths, more=None):
    """The lines of a run's metrics.jsonl files, in order; `more` are the types of keys beside
    images and loss. Raises `ValueError` that names file and line, or a file without lines."""
    needed = {"images": int, "loss": (int, float), **(more or {})}
    lines, last = [], 0
    for path in paths:
        for number, line in enumerate(_lines(path, needed), 1):
            if not math.isfinite(line["loss"]):
                found = f"a loss of {line['loss']}"
                raise ValueError(f"{path}, line {number}: found {found}; allowed: finite numbers")
            if not last < line["images"] < 2**53:
                found = f"{shown(line['images'], 60)} images after {last}"
                raise ValueError(f"{path}, line {number}: found {found}; allowed: rising numbers")
            last = line["images"]
            lines.append(line)
    return lines


def _lines(path, needed):
    lines = read_jsonl(path, needed)
    if not lines:
        raise ValueError(f"{path}: found no lines; allowed: what a training run logs")
    return lines


def _curve(axis, label, lines, look):
    images = [line["images"] / 1000 for line in lines]
    loss = [line["loss"] for line in lines]
    axis.plot(
        images,
        loss,
        label=style.label(label),
        linewidth=0.9,
        color=look["color"],
        ls=look["linestyle"],
    )
