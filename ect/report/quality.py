"""Quality: FD against evaluations, against the share of pretraining, schedule by schedule, and of
solvers beside tuned models."""

import math

from ect.report import gather, style

ASIDE = 0.07  # models stand this part of a tick apart, so that equal values do not hide each other
BESIDE_NFE = 1.06  # single seeds stand this factor to the right of their mean, in NFE
BESIDE = 1.2  # single seeds stand this much to the right of their mean, in percent of the budget
BELOW = 0.1  # and this much below it, in rows, where the distance runs along x
FAR = 10  # a real distance is drawn where the least one of a model is at most so many times it


def plot_nfe(metrics, out, width_in, floor=None):
    """FD against network evaluations, a marker for each model and sampler: hollow before tuning,
    filled after it, with a dot for each seed or replicate. Ticks are evenly spaced, whatever their
    values.

    Error bars are sd over them; `floor` is the metrics.json of real test images.
    """
    frame = gather.read(metrics)
    table = _with_budget(gather.spread(frame))
    counts = sorted(set(table["nfe"]))
    table["tick"] = table["nfe"].map(counts.index).astype(float)
    models = [model for _, model in table.groupby(gather.MODEL, dropna=False, sort=False)]
    with style.figure(out, width_in, 0.65 * width_in) as (figure, axes):
        axis = axes[0, 0]
        for index, model in enumerate(models):
            first = model.iloc[0]
            tuned = isinstance(first["schedule"], str)
            look = style.series(index) | {"linestyle": ""}
            what = f"tuned: {first['schedule']}" if tuned else "pretrained"
            extra = _varying(first, table, ["recipe", "budget"])
            label = f"{', '.join([first['pretrain'], what, *extra])} ({counted(model)})"
            aside = ASIDE * (index - (len(models) - 1) / 2)
            hollow = {} if tuned else {"markerfacecolor": "white"}
            _line(axis, model.assign(tick=model["tick"] + aside), "tick", label, look | hollow)
            seeds = _seeds(frame, model)
            places = seeds["nfe"].map(counts.index) + aside + ASIDE / 3
            axis.plot(places, seeds["fd"], ".", color=look["color"], markersize=3)
        axis.set(yscale="log", xlim=(-0.5, len(counts) - 0.5), xticks=range(len(counts)))
        axis.set_xticklabels(counts)
        axis.set_xlabel("network evaluations per image (NFE), not to scale")
        axis.set_ylabel(gather.measure(frame))
        plot_floor(axis, frame, floor)
        style.log_ticks(axis.yaxis)
        figure.legend(loc="outside lower center", ncols=2)


def plot_split(metrics, out, width_in, floor=None):
    """FD against the share of a fixed total that is pretraining: the mean of each sampler with its
    sd, a dot for each tuning seed. No line joins shares between which nothing was measured."""
    frame = _one_total(gather.read(metrics))
    table = gather.spread(frame).sort_values("nfe", kind="stable")
    keys = ["pretrain", "recipe", *gather.SAMPLER]
    with style.figure(out, width_in, 0.6 * width_in) as (_, axes):
        axis = axes[0, 0]
        groups = table.groupby([*keys, "schedule"], dropna=False, sort=False)
        for index, (_, model) in enumerate(groups):
            extra = _varying(model.iloc[0], table, ["pretrain", "schedule", "recipe"])
            label = f"{', '.join([model['label'].iloc[0], *extra])} ({counted(model)})"
            _line(axis, model, "share", label, style.series(index) | {"linestyle": ""})
            seeds = _seeds(frame, model)
            places, colour = seeds["share"] + BESIDE, style.series(index)["color"]
            axis.plot(places, seeds["fd"], ".", color=colour, markersize=3)
        total = table["total_kimg"].iloc[0]
        axis.set(yscale="log", ylabel=gather.measure(frame))
        axis.set_xlabel(f"share of pretraining in {total} thousand images of training (%)")
        plot_floor(axis, frame, floor)
        style.ticks(axis.xaxis, sorted(set(table["share"])))
        style.log_ticks(axis.yaxis)
        axis.legend()


def plot_schedules(metrics, out, width_in, floor=None):
    """FD of tuned models, one row for each schedule, one marker for each sampler: the mean, its sd,
    and a dot below for each tuning seed."""
    frame = _tuned(gather.read(metrics))
    table = _with_budget(gather.spread(frame)).sort_values("nfe", kind="stable")
    table["name"] = [_row_label(row, table) for _, row in table.iterrows()]
    names = list(dict.fromkeys(table["name"]))
    samplers = table.groupby("sampler", sort=False)
    row_in = 0.2 + 0.12 * max(len(samplers), *(1 + name.count("\n") for name in names))
    with style.figure(out, width_in, 1.1 + row_in * len(names)) as (figure, axes):
        axis = axes[0, 0]
        for index, (_, rows) in enumerate(samplers):
            shift = min(0.3, 0.9 / len(samplers)) * (index - (len(samplers) - 1) / 2)
            _dots(axis, frame, rows, names, shift, style.series(index))
        axis.set(xscale="log", xlabel=gather.measure(frame), ylim=(len(names) - 0.5, -0.5))
        axis.set_yticks(range(len(names)), [style.label(name) for name in names])
        plot_floor(axis, frame, floor, upright=True)
        style.log_ticks(axis.xaxis)
        figure.legend(loc="outside lower center", ncols=3)


def _row_label(row, table):
    """The name of a row: its schedule, and in words what else tells it from the others."""
    words = {"pretrain": "start {}", "recipe": "recipe {}", "budget": "{}"}
    parts = {key: _varying(row, table, [key]) for key in words}
    return "\n".join(
        [row["schedule"], *(words[k].format(*part) for k, part in parts.items() if part)]
    )


def plot_solvers(metrics, solvers, out, width_in, floor=None):
    """FD against network evaluations, a panel for each start: models tuned from it filled, with a
    dot for each tuning seed; its solvers hollow. Thin lines extend the tuned values to the right.

    `solvers` is {sampler: its kind}.
    """
    frame = gather.read(metrics, solvers)
    table = _named_by_solver(_with_budget(gather.spread(frame)))
    curves = table.sort_values("before", kind="stable").groupby("name", sort=False)
    starts = list(dict.fromkeys(table["pretrain"]))
    columns = min(2, len(starts))
    lines = math.ceil(len(starts) / columns)
    shared = {"sharex": True, "sharey": True}
    with style.figure(out, width_in, 0.8 + 2.9 * lines, lines, columns, **shared) as (figure, axes):
        for axis, start in zip(axes.flat, starts):
            for index, (name, rows) in enumerate(curves):
                hollow = (
                    {"markerfacecolor": "white"} if rows["before"].all() else {"linestyle": "-"}
                )
                look, label = style.series(index) | hollow, f"{name} ({counted(rows)})"
                _curve(axis, frame, rows[rows["pretrain"] == start], label, look)
            axis.set(title=style.label(f"start: {start}"), xscale="log", yscale="log")
            axis.set_xlabel("network evaluations per image (NFE)")
            plot_floor(axis, frame, floor, beside=False)
            axis.plot([], [], color="black", linewidth=0.4, label="mean of a tuned model, drawn on")
            style.ticks(axis.xaxis, sorted(set(table["nfe"])))
            style.log_ticks(axis.yaxis)
        for axis in axes[:, 0]:
            axis.set_ylabel(gather.measure(frame))
        for axis in axes.flat[len(starts) :]:
            axis.axis("off")
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)


def _named_by_solver(table):
    """Adds `before`, whether a row is of a model before tuning, and `name`, that of its curve."""
    table = table.assign(before=table["schedule"].isna())
    names = []
    for _, row in table.iterrows():
        alike = table[table["before"] == row["before"]]
        solver = gather.SOLVERS.get(row["solver"], row["solver"])
        first = solver if row["before"] else f"tuned: {row['schedule']}, {solver}"
        names.append(", ".join([first, *_varying(row, alike, ["recipe", "budget"])]))
    return table.assign(name=names)


def _curve(axis, frame, model, label, look):
    """One model and solver: means with their sd, and single seeds to their right."""
    _line(axis, model, "nfe", label, look)
    tuned, last = model[~model["before"]], frame["nfe"].max()
    axis.hlines(tuned["fd_mean"], tuned["nfe"], last, color=look["color"], linewidth=0.4)
    seeds = _seeds(frame, model)
    places = seeds["nfe"].astype(float) * BESIDE_NFE
    axis.plot(places, seeds["fd"], ".", color=look["color"], markersize=3)


def _dots(axis, frame, rows, names, shift, look):
    rows = rows.assign(height=[names.index(name) + shift for name in rows["name"]])
    label = f"{rows['label'].iloc[0]} ({counted(rows)})"
    draw_dots(axis, _seeds(frame, rows), rows.assign(label=label), look)


def draw_dots(axis, seeds, rows, look):
    """Means of rows at their `height` with sd, in one look, and the single `seeds` a little below
    them. The `label` of the rows is one."""
    look = look | {"linestyle": ""}
    axis.plot(seeds["fd"], seeds["height"] + BELOW, ".", color=look["color"], markersize=3)
    label = style.label(rows["label"].iloc[0])
    axis.errorbar(rows["fd_mean"], rows["height"], xerr=bars(rows), label=label, **look)


def _line(axis, model, x, label, look):
    """Means joined by a line, with sd where there is one."""
    model = model.sort_values(x, kind="stable")
    places, means = model[x].astype(float), model["fd_mean"]
    axis.errorbar(places, means, yerr=bars(model), label=style.label(label), **look)


def bars(rows):
    """The sd of three values or more, of fewer the dots say all; None where no row has so many."""
    spread = rows["fd_sd"].where(rows["n"] > 2)
    return None if spread.isna().all() else spread.fillna(0)


def plot_floor(axis, frame, path, upright=False, beside=True):
    """A dotted line at the distance of real test images, across the axis on which FD runs; its name
    stands beside it, or in the legend if not `beside`. A distance that would press all others into
    a small part of the axis is written, and not drawn."""
    if path is None:
        return
    floor = gather.read_floor(path)
    gather.require_same_features(frame, floor, path)
    label, near = f"{floor['images']} real test images", frame["fd"].min() <= FAR * floor["fd"]
    line = {"color": "black", "linestyle": ":", "linewidth": 1}
    if not near:
        label, line = f"{label}: {floor['fd']:.3g}, off the axis", {"linestyle": ""}
    place = floor["fd"] if near else axis.get_xlim()[0] if upright else axis.get_ylim()[0]
    (axis.axvline if upright else axis.axhline)(place, label="" if beside else label, **line)
    if beside and upright:
        axis.text(place, 1.0, label, va="bottom", fontsize=7, transform=axis.get_xaxis_transform())
    elif beside:
        axis.text(0.01, place, label, va="bottom", fontsize=7, transform=axis.get_yaxis_transform())


def _seeds(frame, rows):
    """The single seeds behind the rows that are means of several, at the rows' heights."""
    keys = gather.MODEL + gather.SAMPLER
    columns = [*keys, *rows.columns.intersection(["height"])]
    return frame.merge(rows.loc[rows["n"] > 1, columns], on=keys)


def _varying(row, table, keys):
    """The parts of a model's name that tell it from the others in the table."""
    return [row[key] for key in keys if table[key].nunique() > 1 and isinstance(row[key], str)]


def _with_budget(table):
    """Adds `budget`: '100 kimg' of pretraining, or '100 + 50 kimg' of pretraining and tuning."""
    tuned = table["tune_kimg"].notna()
    plain = table["kimg"].astype(str)
    both = plain + " + " + table["tune_kimg"].astype(str)
    return table.assign(budget=both.where(tuned, plain) + " kimg")


def counted(rows):
    """'n = 3', or 'n = 1 to 3' where rows differ."""
    least, most = rows["n"].min(), rows["n"].max()
    return f"n = {least}" if least == most else f"n = {least} to {most}"


def _tuned(frame):
    tuned = frame[frame["schedule"].notna()]
    if tuned.empty:
        path = frame["path"].iloc[0]
        raise ValueError(f"{path}: found no tuned model; allowed: one at least, for this figure")
    return tuned


def _one_total(frame):
    """The tuned models, which must share one total, and the pretrained models of that total."""
    tuned = _tuned(frame)
    total = tuned["total_kimg"].iloc[0]
    others = tuned[tuned["total_kimg"] != total]
    if len(others):
        path, found = others["path"].iloc[0], others["total_kimg"].iloc[0]
        found = f"{found} kimg in total, but {total} in {tuned['path'].iloc[0]}"
        raise ValueError(f"{path}: {found}; allowed: one total")
    return frame[frame["total_kimg"] == total]
