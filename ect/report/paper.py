"""The paper's table, regenerated: every published number of a dataset with its source and tag, and
our cell beside it. What was not published, or not run here, is empty."""

import math

import pandas as pd

from ect.config import published
from ect.report import gather, markup
from ect.report.margin import margin
from ect.report.tables import write

HEADERS = [
    "Method", "Network", "NFE", "Mimg in all", "published", "Tag", "Source",
    "ours", "Mimg in all, ours", "Difference", "May be up to", "Is a difference",
]  # fmt: skip
OURS = 7  # the first column of ours


def tabulate(dataset, numbers, cells, out):
    """Write out.csv, out.md and out.tex.

    `numbers` is the file of published numbers; `cells` are mappings, each with the `method` and
    `budget_mimg` (or null) of published lines, the `metrics` files of our cell, and `start_mimg`,
    the million images that its imported start was trained on (0 without one, null if unknown). Our
    cell with n evaluations stands beside the published number with n. Raises `ValueError` if ours
    are not comparable with published numbers of the dataset.
    """
    frame = gather.read(dict.fromkeys(path for cell in cells for path in cell["metrics"]))
    first = frame.iloc[0]
    try:
        metric = published.require_comparable(
            dataset, first["features"], int(first["images"]), int(first["reference_images"])
        )
        every = published.of(dataset, metric, numbers)
        pairs = [(number, _ours(number, cells, frame)) for number in every]
        published.require_same_images([n for n, ours in pairs if ours], _resize(first))
    except ValueError as error:
        raise ValueError(f"{first['path']}: {error}") from None
    table = pd.DataFrame([_facts(number, ours, every) for number, ours in pairs])
    table = table.astype({"published_n": "Int64", "ours_n": "Int64"})
    write(f"{out}.csv", markup.csv(table))
    _lay_out(table, gather.measure(frame), _caption(dataset, frame), out)


def _resize(first):
    """How our training images were resized, by a metrics.json."""
    found = first.get("resize")
    return gather.RESIZED if pd.isna(found) else found


def _ours(number, cells, frame):
    """Our mean, sd and n beside a published number, with our budget; None where there is no cell.
    Raises `ValueError` if there are two."""
    matches = []
    for cell in cells:
        if number.answers(cell["method"], cell["budget_mimg"]):
            table = gather.spread(frame[frame["path"].isin(cell["metrics"])])
            rows = table[table["nfe"] == number.nfe].to_dict("records")
            matches += [row | {"start_mimg": cell["start_mimg"]} for row in rows]
    if len(matches) > 1:
        raise ValueError(
            f"{number.method} at {number.nfe} NFE: {len(matches)} of our cells; allowed: one"
        )
    return matches[0] if matches else None


def _facts(number, ours, every):
    """One line of the csv."""
    theirs = number._asdict() | {"total_mimg": number.total_mimg, "published": number.value}
    keys = ("dataset", "method", "network", "budget_mimg", "pretrain_mimg", "total_mimg", "nfe",
            "metric", "published")  # fmt: skip
    facts = {key: theirs[key] for key in keys}
    facts |= {"published_sd": number.sd, "published_n": number.n}
    facts |= {"tag": number.tag, "source": number.source}
    return facts | (_beside(number, ours, every) if ours else dict.fromkeys(_EMPTY))


def _beside(number, ours, every):
    tuned = 0.0 if pd.isna(ours["tune_kimg"]) else ours["tune_kimg"] / 1000
    before = published.total(ours["kimg"] / 1000, ours["start_mimg"])
    difference, beyond = ours["fd_mean"] - number.value, None
    alike = [(n.sd, n.n) for n in every if n.setting == number.setting]
    known = margin([*alike, (ours["fd_sd"], ours["n"])], ours["n"], number.n or 1)
    if known and math.isfinite(difference):
        beyond = "yes" if abs(difference) > known.width else "no"
    names = ("pretrain", "schedule", "recipe", "sampler", "fd_mean", "fd_sd", "n")
    values = [*(ours[name] for name in names), tuned, before, published.total(tuned, before)]
    return dict(zip(_EMPTY, [*values, difference, known and known.width, beyond]))


_EMPTY = (
    "start", "schedule", "recipe", "sampler", "ours_mean", "ours_sd", "ours_n", "ours_tune_mimg",
    "ours_pretrain_mimg", "ours_total_mimg", "difference", "margin", "beyond_margin",
)  # fmt: skip


def _lay_out(table, measure, caption, out):
    rows = [_row(line) for line in table.to_dict("records")]
    short, aligns = measure.split()[0], "llrrrllrrrrl"
    headers = [{"published": f"{short}, published", "ours": f"{short}, ours"}.get(h, h)
               for h in HEADERS]  # fmt: skip
    write(f"{out}.md", markup.markdown(headers, rows, aligns, caption))
    group = (OURS, f"Ours: {measure}")
    write(f"{out}.tex", markup.latex(headers, group, rows, aligns, caption, "paper", False))


def _row(line):
    """The cells of a line of the csv, as text; published numbers with the decimals as printed."""
    theirs = f"{line['published']:.2f}"
    if not pd.isna(line["published_sd"]):
        theirs += f" ± {line['published_sd']:.2f} ({line['published_n']})"
    ours = [""] * 5
    if not pd.isna(line["ours_n"]):
        ours = [
            markup.mean_and_sd(line["ours_mean"], line["ours_sd"], line["ours_n"]),
            _number(line["ours_total_mimg"]),
            f"{line['difference']:+.2f}" if math.isfinite(line["difference"]) else "",
            "" if pd.isna(line["margin"]) else f"± {line['margin']:.2f}",
            "" if pd.isna(line["beyond_margin"]) else line["beyond_margin"],
        ]
    named = [line["method"], line["network"], str(line["nfe"]), _number(line["total_mimg"])]
    return [*named, theirs, line["tag"], line["source"], *ours]


def _number(value):
    return "" if pd.isna(value) else f"{value:g}"


def _caption(dataset, frame):
    first = frame.iloc[0]
    return (
        f"Published numbers of {dataset} and, beside them, ours: mean ± sd (n) over"
        f" {gather.over(frame)} of the distance between {first['images']} generated and"
        f" {first['reference_images']} training images."
        " Mimg in all: million training images, pretraining included, ours with"
        " the pretraining behind an imported start; empty where a part is not known. Difference:"
        " ours less published. May be up to: half the 95 % prediction interval of that difference"
        " where both are one recipe, by Student's t from all known spreads over seeds: ours, the"
        " published one, those of others at this setting; empty where there is none."
        " Tags: code, read in the released source; paper, printed in it;"
        " third, measured by others. EDM reports the least of three repeats and ECT follows it;"
        " ours are no minima. A cell is empty where nothing was published, or nothing run here."
    )
