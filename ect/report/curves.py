"""Training loss against images, pretraining and tuning side by side."""

from ect.report import style
from ect.runtime.checkpoint import read_jsonl


def plot_curves(runs, out, width_in):
    """`runs` is {label: [metrics.jsonl, ...]}, the pieces of one run in order; labels that start
    with 'pretrain' go left, all others right."""
    left = {label: paths for label, paths in runs.items() if label.startswith("pretrain")}
    right = {label: paths for label, paths in runs.items() if label not in left}
    panels = [(n, r) for n, r in (("pretraining", left), ("tuning", right)) if r]
    heights = [0.42 * width_in, 0.17 * max(len(group) for _, group in panels)]
    ratios = {"height_ratios": heights}
    with style.figure(out, width_in, sum(heights), 2, len(panels), **ratios) as (_, axes):
        for axis, key, (name, group) in zip(*axes, panels):
            for index, (label, paths) in enumerate(group.items()):
                _curve(axis, label, read_log(paths), style.series(index))
            axis.set(title=name, yscale="log", xlabel="thousand images", ylabel="loss")
            style.log_ticks(axis.yaxis)
            key.legend(*axis.get_legend_handles_labels(), loc="upper center")
            key.axis("off")


def read_log(paths, more=None):
    """The lines of a run's metrics.jsonl files, in order; `more` are the types of keys beside
    images and loss. Raises `ValueError` that names file and line, or a file without lines."""
    needed = {"images": int, "loss": (int, float), **(more or {})}
    return [line for path in paths for line in _lines(path, needed)]


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
