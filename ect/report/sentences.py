"""Sentences computed from the rows of a table: which row is best, and whether noise explains it.

A row is a line of an experiment's csv, as `read` gives it. Two rows differ beyond noise if a t-test
of their means says so, two-sided, at 5 %, with Bonferroni's correction for the comparisons that
answer one question: paired where both have the same seeds, else Welch's. With fewer than three
seeds there is no verdict.
"""

import csv
import math

import numpy as np
from scipy import stats

from ect.report import budget, ends, gather, markup, noise
from ect.runtime.text import shown

LEVEL, LEAST_N = 0.05, 3
CRITERION = (
    "Beyond noise: a t-test of two means, two-sided, p < 0.05; paired where both rows have the same"
    " seeds or replicates, else Welch's. p is multiplied by the number of comparisons that answer"
    " the question (Bonferroni), and the intervals in square brackets, of 95 %, are as much wider."
    " With an n below three there is no verdict. Where n counts tuning seeds, the spread between"
    " pretrainings is not in p; where it counts replicates, it is."
)
# What a row is called, by the kind of its experiment, and what is added until names differ.
NAMED = {
    "methods": ("pretrain", "schedule"),
    "schedules": ("schedule",),
    "split": ("pretrain_share_percent",),
    "scaling": ("pretrain_share_percent",),
    "solvers": ("pretrain", "schedule"),
    "ends": ("schedule",),
    "noise": ("pretrain", "schedule"),
    "lengths": ("ema_std",),
}
MORE = ("pretrain", "schedule", "recipe", "pretrain_kimg", "tune_kimg")
COLUMNS = (*MORE, "sampler", "nfe", "features", "total_kimg", "seeds")  # read beside the numbers
OF_KIND = {  # and, by the kind of the experiment
    "noise": (*noise.MODEL.values(), *noise.SIZES, "source", "mean_square", "freedom"),
    "ends": ("map", "last_gap"),
    "lengths": ("ema_std",),
    "solvers": ("solver",),
    **dict.fromkeys(("split", "scaling"), ("pretrain_share_percent",)),
}
NUMBERS = {"n": int, "fd_mean": float, "fd_sd": float}


def read(path):
    """(rows, floor) of an experiment's csv: mappings of text, with n, fd_mean and fd_sd (nan where
    n = 1) as numbers, and fd_each as a list; the floor is None where the table has none."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = [
                row
                | {key: number(row[key] or "nan") for key, number in NUMBERS.items()}
                | _each(row)
                for row in csv.DictReader(file)
            ]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        found = f"no column {error}" if isinstance(error, KeyError) else shown(error)
        wanted = ", ".join(NUMBERS)
        raise ValueError(f"{path}: {found}; allowed: a table with numbers in {wanted}") from None
    if rows and "sampler" not in rows[0]:
        require_columns(path, rows)
    floors = [row for row in rows if row["sampler"] == "floor"]
    if len(rows) == len(floors):
        raise ValueError(f"{path}: found no rows of models; allowed: at least one")
    return [row for row in rows if row not in floors], floors[0] if floors else None


def require_columns(path, rows, kind=None):
    """Raise `ValueError` unless the rows of a csv have what sentences are computed from."""
    if lost := [key for key in (*COLUMNS, *OF_KIND.get(kind, ())) if key not in rows[0]]:
        raise ValueError(f"{path}: found no column '{lost[0]}'; allowed: a table of `tabulate`")


def answer(kind, rows, labels):
    """The sentences that answer an experiment of that kind; `labels` are {sampler: its label}."""
    every = [row | {"name": name} for row, name in zip(rows, names(kind, rows))]
    named = [row for row in every if math.isfinite(row["fd_mean"])]
    if kind == "noise":
        return list(noise.answer(rows, labels))
    if kind == "ends":
        return [*ends.answer(named, labels), *left_out(every)]
    if kind == "scaling":
        return [*budget.answer(named, labels), *left_out(every)]
    if kind == "solvers":
        return [*reached(named), *left_out(every)]
    samplers = dict.fromkeys(row["sampler"] for row in named)
    by_sampler = {s: [row for row in named if row["sampler"] == s] for s in samplers}
    gained = [text for s in samplers for text in gains(by_sampler[s], labels[s])]
    best = [f"{labels[s]}: {best_of(by_sampler[s])}" for s in samplers]
    return [*(gained if kind == "methods" else []), *best, *left_out(every)]


def left_out(rows):
    """A sentence on the named rows whose distance is not finite, if there are any."""
    told = [f"{r['name']} ({r['sampler']})" for r in rows if not math.isfinite(r["fd_mean"])]
    if told:
        yield f"Left out, since the distance of a seed is not a finite number: {', '.join(told)}."


def names(kind, rows):
    """A name for each row, the shortest that tells its model from the others."""
    models = [tuple(row[key] for key in MORE) for row in rows]
    columns = list(NAMED[kind])
    for column in MORE:
        if len(set(_said(columns, rows))) == len(set(models)):
            break
        if len(set(_said([*columns, column], rows))) > len(set(_said(columns, rows))):
            columns.append(column)
    return _said(columns, rows)


def best_of(rows):
    """Which of one sampler's named rows has the least FD, by how much, and whether beyond noise."""
    first, *others = sorted(rows, key=lambda row: row["fd_mean"])
    if not others:
        return f"{_told(first)}; there is no other row to compare it with."
    second, count = others[0], len(others)
    if (least := min(first["n"], second["n"])) < LEAST_N:
        told = f"the lowest is {_told(first)}, then {_told(second)}"
        return f"no verdict, as n = {least} in {_where(first, second)}; {told}."
    start = f"best is {_told(first)}, then {_told(second)}. {verdict(first, second, count)}"
    alike = [row["name"] for row in others if (p_value(first, row, count) or 0) >= LEVEL]
    if second["name"] in alike[:1] and len(alike) > 1:
        return f"{start}; nor from {', '.join(alike[1:])}."
    return f"{start}."


def gains(rows, label):
    """For each start among one sampler's named rows, its FD before tuning and the least after it;
    their ratio where both have an n of at least `LEAST_N`."""
    for before in rows:
        start = (before["pretrain"], before["pretrain_kimg"])
        after = [r for r in rows if r["schedule"] and start == (r["pretrain"], r["pretrain_kimg"])]
        if before["schedule"] or not after:
            continue
        best = min(after, key=lambda row: row["fd_mean"])
        low, high, way = _value(best), _value(before), ""
        many = min(before["n"], best["n"]) >= LEAST_N
        if many and min(before["fd_mean"], best["fd_mean"]) > 0:  # else there is no ratio
            ratio = before["fd_mean"] / best["fd_mean"]
            times = markup.digits(max(ratio, 1 / ratio))
            way = f": {times} times {'less' if ratio > 1 else 'more'}"
        yield f"{label}: from {high}, {before['name']}, to {low}, {best['name']}{way}."


def reached(rows):
    """For each named row of a tuned model, the fewest evaluations with which its start, before
    tuning, is as good."""
    after = [row for row in rows if row["schedule"]]
    for tuned in after:
        start = (tuned["pretrain"], tuned["pretrain_kimg"])
        others = [r for r in rows if start == (r["pretrain"], r["pretrain_kimg"])]
        before = [r for r in others if not r["schedule"]]
        if not before:
            continue
        enough = [r for r in before if r["fd_mean"] <= tuned["fd_mean"]]
        if enough:
            first = min(enough, key=lambda row: (int(row["nfe"]), row["fd_mean"]))
            what = f"As good before tuning with the fewest NFE measured: {_solved(first)}"
        else:
            first = min(before, key=lambda row: row["fd_mean"])
            what = f"Nothing measured before tuning is as good; the nearest: {_solved(first)}"
        label = f"{tuned['name']}, {tuned['nfe']} NFE"
        yield f"{label}: {_value(tuned)}. {what}. {verdict(first, tuned, len(after))}."


def verdict(less, more, comparisons=1):
    """Whether the difference of two rows, one of so many comparisons, is beyond noise, in words
    without the full stop."""
    found = difference(less, more, comparisons)
    if found is None:
        least = min(less["n"], more["n"])
        if least >= LEAST_N:
            return "No spread is known, no verdict"
        return f"n = {least} in {_where(less, more)}: no verdict"
    apart, low, high, p = found
    if apart < 0:
        apart, low, high = -apart, -high, -low
    of = f"{markup.digits(apart)} [{markup.digits(low)}, {markup.digits(high)}]"
    if p >= LEVEL:
        return f"No difference beyond noise: {of} ({_probability(p)})"
    return f"The difference of {of} is beyond noise ({_probability(p)})"


def _where(one, other):
    return "both" if one["n"] == other["n"] else "one of them"


def p_value(one, other, comparisons=1):
    """The p of `difference`, or None."""
    found = difference(one, other, comparisons)
    return None if found is None else found[-1]


def difference(one, other, comparisons=1):
    """(other's mean less one's, the ends of its interval, two-sided p) of two rows, corrected for
    the comparisons; None where an n is below `LEAST_N`, or no sd is known."""
    few = min(one["n"], other["n"]) < LEAST_N
    if few or not all(math.isfinite(row["fd_sd"]) for row in (one, other)):
        return None
    apart, values = other["fd_mean"] - one["fd_mean"], [_sample(other), _sample(one)]
    paired = bool(one.get("seeds")) and one["seeds"] == other.get("seeds")
    spread = np.ptp(values[0] - values[1]) if paired else one["fd_sd"] + other["fd_sd"]
    if spread == 0:
        return apart, apart, apart, float(apart == 0)
    test = stats.ttest_rel(*values) if paired else stats.ttest_ind(*values, equal_var=False)
    low, high = test.confidence_interval(1 - LEVEL / comparisons)
    return apart, float(low), float(high), min(1.0, comparisons * float(test.pvalue))


def _sample(row):
    """The values of a row; of an older table, that lists none, others with its mean, sd and n."""
    if row.get("fd_each"):
        return np.array(row["fd_each"])
    places = np.arange(row["n"]) - (row["n"] - 1) / 2
    return row["fd_mean"] + row["fd_sd"] * places / places.std(ddof=1)


def _each(row):
    """{"fd_each": the single values} of a line; none in an older table."""
    texts = row.get("fd_each", "").removeprefix("'").split(";")  # ' keeps "-" from being a formula
    return {"fd_each": [float(text) for text in texts if text]}


def floor_of(floor):
    """What real test images score in place of generated ones; nothing without a floor."""
    if floor is None or not math.isfinite(floor["fd_mean"]):
        return []
    return [f"Real test images ({floor['images']}): {markup.digits(floor['fd_mean'])}."]


def _told(row):
    return f"{row['name']} with {_value(row)}"


def _solved(row):
    solver = gather.SOLVERS.get(row["solver"], row["solver"])
    return f"{solver}, {row['nfe']} NFE, with {_value(row)}"


def _value(row):
    return markup.mean_and_sd(row["fd_mean"], row["fd_sd"], row["n"])


def _probability(p):
    return f"p = {p:.2g}" if p >= 1e-4 else "p < 0.0001"


def _said(columns, rows):
    return [" / ".join(filter(None, (_part(key, row[key]) for key in columns))) for row in rows]


def _part(column, text):
    if not text:
        return "before tuning" if column == "schedule" else ""
    if column == "pretrain_share_percent":
        return f"{float(text):.3g} % pretraining"
    kind = {"pretrain_kimg": " kimg of pretraining", "tune_kimg": " kimg of tuning"}
    return text + kind.get(column, "")
