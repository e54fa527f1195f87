"""The maps t -> r as gaps: how far below a noise level s its target r lies, one panel for each
schedule, one curve for each stage."""

import math

import numpy as np

from ect.report import style

T = np.geomspace(0.002, 80, 241)
FINE = (np.arange(400) + 0.5) / 400
MANY = 20  # with more distinct curves than this over a run, a schedule has no stages to show


def plot_maps(schedules, out, width_in, plugins=None):
    """`schedules` is {name: {"map": ..., "options": {...}}}, `plugins` {path: sha256} of the
    plugin files that define some of the maps; lighter curves are earlier in the run. On the axis,
    logarithmic, 1 is r = 0; a level whose r is s itself has no gap and no curve."""
    columns = 4 if len(schedules) % 4 == 0 else min(3, len(schedules))
    rows = math.ceil(len(schedules) / columns)
    options = {"sharex": True, "sharey": True}
    height = 0.5 + 0.27 * width_in * rows
    with style.figure(out, width_in, height, rows, columns, **options) as (figure, axes):
        for axis, (name, schedule) in zip(axes.flat, schedules.items()):
            _panel(axis, name, stages(schedule["map"], schedule["options"], plugins))
        figure.supxlabel("noise level s", fontsize=8)
        figure.supylabel("gap (s - r) / s", fontsize=8)
        style.progress_bar(figure, axes)
        _hide_rest(axes, len(schedules))


def stages(name, options, plugins=None):
    """[(progress, r / t at `T`)]: one curve for each stage, at its middle; for a schedule without
    stages, a curve at each of eight values of progress."""
    curves = [ratio(name, options, progress, plugins) for progress in FINE]
    starts = [0] + [i for i in range(1, len(FINE)) if not np.array_equal(curves[i], curves[i - 1])]
    if len(starts) > MANY:
        return [(p, ratio(name, options, p, plugins)) for p in np.linspace(0.05, 0.95, 8).tolist()]
    ends = [*starts[1:], len(FINE)]
    return [((a + b) / 2 / len(FINE), curves[a]) for a, b in zip(starts, ends)]


def ratio(name, options, progress, plugins=None):
    """r / t of a schedule at the noise levels `T`, moved up to its grid if it has one."""
    import torch

    from ect.plugins import with_plugins
    from ect.schedule import SCHEDULES, SNAPS

    t = torch.from_numpy(T)
    if name in SNAPS:
        t = SNAPS[name](t, float(progress), **options)
    schedule = with_plugins(SCHEDULES, "schedule", {"plugins": plugins or {}})[name]
    return (schedule(t, float(progress), **options) / t).numpy()


def _panel(axis, name, curves):
    gaps = [(progress, np.where(curve < 1, 1 - curve, np.nan)) for progress, curve in curves]
    for progress, gap in gaps:
        axis.plot(T, gap, color=style.PROGRESS(progress), linewidth=1)
    if all(np.isnan(gap).all() for _, gap in gaps):
        axis.text(0.5, 0.5, "r = s: no gap", ha="center", fontsize=7, transform=axis.transAxes)
    axis.set(title=style.label(name), xscale="log", yscale="log", xlim=(T[0], T[-1]))
    axis.xaxis.set_major_locator(style.LogLocator(numticks=6))


def _hide_rest(axes, used):
    """Remove panels beyond the last, and give the ones above them their tick labels."""
    for index, axis in enumerate(axes.flat):
        if index >= used:
            axis.remove()
        elif index + axes.shape[1] >= used:
            axis.tick_params(labelbottom=True)
