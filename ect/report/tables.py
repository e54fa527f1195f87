"""The tables of an experiment: every fact as csv, the same facts laid out as md and tex."""

import pandas as pd

from ect.report import ends, gather, lengths, markup
from ect.runtime.checkpoint import replacing

# The columns that say which model a row is, beside the samplers' columns, and their headings.
ROWS = {
    "methods": ["pretrain", "process", "parameterization", "schedule", "kimg", "tune_kimg"],
    "schedules": ["schedule", "pretrain", "kimg", "tune_kimg"],
    "scaling": ["total_kimg", "share", "pretrain", "schedule", "kimg", "tune_kimg"],
    "split": ["share", "pretrain", "schedule", "kimg", "tune_kimg"],
    "solvers": ["pretrain", "schedule", "kimg", "tune_kimg", "solver"],
    "ends": ["map", "last_gap", "pretrain", "kimg", "tune_kimg"],
    "lengths": ["ema_std", "pretrain", "kimg"],
}
HEADERS = {
    "pretrain": "Start",
    "process": "Process",
    "parameterization": "Network output",
    "schedule": "Schedule",
    "recipe": "Recipe",
    "total_kimg": "Total (kimg)",
    "share": "Pretraining (%)",
    "kimg": "Pretraining (kimg)",
    "tune_kimg": "Tuning (kimg)",
    "solver": "Sampler",
    "map": "Map",
    "last_gap": "Last gap",
    "ema_std": "Length",
}
NUMBERS = ("ema_std", "last_gap", "total_kimg", "share", "kimg", "tune_kimg")
CSV = [
    "pretrain", "process", "parameterization", "pretrain_kimg", "tune_kimg", "total_kimg",
    "pretrain_share_percent", "schedule", "recipe", "sampler", "nfe", "features", "images", "n",
    "fd_mean", "fd_sd", "fd_min", "kd_mean", "kd_sd", "over", "seeds", "fd_each",
]  # fmt: skip

# Columns of repeats: papers report the minimum of three FIDs, which is below the FID of one set.
REPEATS = ["repeats", "fd_repeats_mean", "fd_repeats_sd", "fd_repeats_min"]


def tabulate(kind, metrics, out, floor=None, solvers=None, about=None):
    """Write out.csv, out.md and out.tex from metrics.json files.

    `kind` is 'methods', 'schedules', 'split', 'scaling', 'solvers', 'ends' or 'lengths' and
    decides which columns name a row in md and tex; `floor` is the metrics.json of real test images,
    `solvers` {sampler: its kind} where solvers are compared, `about` {schedule: its map and last
    gap} where ends are, {start: its length} where lengths are. Raises `ValueError` on metrics that
    cannot be compared.
    """
    if kind == "solvers" and solvers is None:
        raise ValueError("solvers: missing; the kind 'solvers' needs the kind of each sampler")
    if kind != "solvers" and solvers is not None:
        raise ValueError(f"solvers is set for the kind '{kind}'; allowed: 'solvers' only")
    if kind not in ("ends", "lengths") and about is not None:
        raise ValueError(f"about is set for the kind '{kind}'; allowed: 'noise', 'ends', 'lengths'")
    frame = gather.read(metrics, solvers)
    real = None
    if floor is not None:
        real = gather.read_floor(floor)
        gather.require_same_features(frame, real, floor)
    table = gather.spread(frame)
    if kind == "ends":
        table = table.assign(**ends.columns(table, about or {}))
    if kind == "lengths":
        table = table.assign(**lengths.columns(table, about or {})).sort_values(
            "ema_std", kind="stable"
        )
    if kind == "split":
        table = table.sort_values("share", kind="stable")
    if kind == "scaling":
        starts = table["pretrain"].map(list(table["pretrain"].unique()).index)
        keys = ["start", "total_kimg", "share"]
        table = table.assign(start=starts).sort_values(keys, kind="stable").drop(columns="start")
    write(f"{out}.csv", _csv(table, real))
    names, headers, rows = _layout(kind, table, real)
    aligns = "".join("r" if name in NUMBERS else "l" for name in names).ljust(len(headers), "r")
    measure, caption = gather.measure(frame), _caption(frame, real)
    first = len(names)
    short = measure.split()[0]  # FD or FID; the caption says in which features
    named = headers[:first] + [f"{short}, {header}" for header in headers[first:]]
    write(f"{out}.md", markup.markdown(named, rows, aligns, caption))
    apart, group = real is not None, (first, measure)
    write(f"{out}.tex", markup.latex(headers, group, rows, aligns, caption, kind, apart))


def _csv(table, real):
    """All columns, all samplers, six digits."""
    names = {"kimg": "pretrain_kimg", "share": "pretrain_share_percent"}
    more = [f"{name}_{short}" for name in gather.MORE for short in ("mean", "sd")]
    table = table.rename(columns=names)
    columns = CSV + [name for name in more if name in table]
    if table["solver"].notna().any():
        columns = [*columns, "solver"]
    columns += [name for name in ("map", "last_gap", "ema_std") if name in table]
    if (table["repeats"] > 1).any():
        table["fd_repeats_mean"] = table["fd_mean"]
        columns = columns + REPEATS
    table = table[columns]
    if real is not None:
        facts = {key: real[key] for key in ("features", "images")}
        means = {f"{name}_mean": real[name] for name in ("fd", "kd", *gather.MORE) if name in real}
        row = {"sampler": "floor", "n": 1, "repeats": 1, **facts, **means, "fd_min": real["fd"]}
        floor = pd.DataFrame([row]).reindex(columns=columns).astype(table.dtypes)
        table = pd.concat([table, floor], ignore_index=True)
    return markup.csv(table)


def _layout(kind, table, real):
    """(columns that name a row, headers, rows of text): models down, samplers across; or models and
    their solvers down, NFE across.

    A model that was not evaluated with a sampler has an empty cell.
    """
    names = ROWS[kind] + ["recipe"] * (table["recipe"].nunique() > 1)
    if kind == "solvers":
        nfe = table["nfe"].astype(str)
        table = table.assign(sampler=nfe, label=nfe + " NFE")
    samplers = table.sort_values("nfe", kind="stable").drop_duplicates("sampler")
    rows = []
    for _, model in table.groupby([*gather.MODEL, "solver"], dropna=False, sort=False):
        cells = {
            row.sampler: markup.mean_and_sd(row.fd_mean, row.fd_sd, row.n)
            for row in model.itertuples()
        }
        rows.append(
            [_text(name, model[name].iloc[0]) for name in names]
            + [cells.get(sampler, "") for sampler in samplers["sampler"]]
        )
    if real is not None:
        title = f"real test images ({real['images']})"
        blank = [""] * (len(names) - 1)
        rows.append([title, *blank, *[markup.digits(real["fd"])] * len(samplers)])
    return names, [HEADERS[name] for name in names] + list(samplers["label"]), rows


def _text(name, value):
    if pd.isna(value):
        return {"schedule": "none: before tuning", "tune_kimg": "0"}.get(name, "")
    if name == "solver":
        return gather.SOLVERS.get(value, value)
    return f"{value:.3g}" if name in ("share", "last_gap", "ema_std") else str(value)


def _caption(frame, real):
    metric = gather.metric_name(frame["features"].iloc[0])
    images, reference = frame["images"].iloc[0], frame["reference_images"].iloc[0]
    caption = (
        f"{metric} between {images} generated and {reference} training images; lower is better."
        f" Mean ± sd over {gather.over(frame)}, their number n in brackets; of two both values."
        " Budgets in thousands of images (kimg)."
    )
    repeats = frame["repeats"].iloc[0]
    if repeats > 1:
        caption += f" Each value is the mean over {repeats} sets of {images} images."
    if real is None:
        return caption
    return caption + (
        f" Last row: {real['images']} real test images in place of generated ones, a guide and no"
        " bound: the distance of so small a set is biased upwards."
    )


def write(path, text):
    """Text in UTF-8 with Unix line ends, atomically."""
    with replacing(path) as scratch:
        scratch.write_text(text, encoding="utf-8", newline="\n")
