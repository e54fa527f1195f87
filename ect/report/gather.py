"""metrics.json files -> one frame; mean, sd and n over seeds."""

import math
import os
import statistics
from collections import Counter

import pandas as pd

from ect.data.file import RESIZES
from ect.registry import METRICS
from ect.runtime.checkpoint import read_json, typed
from ect.runtime.text import shown

MODEL = [
    "pretrain", "process", "parameterization", "kimg", "tune_kimg", "total_kimg", "share",
    "schedule", "recipe",
]  # fmt: skip
SAMPLER = ["sampler", "label", "nfe"]
SOLVERS = {
    "multistep": "multistep", "flow_map": "flow map", "euler": "Euler", "heun": "Heun",
    "dpm_solver": "DPM-Solver++(2M)",
}  # fmt: skip
MORE = [name for name in METRICS if name not in ("fd", "kd")]  # where the config asks for them
# What distances must share to be compared.
EQUAL = ["features", "images", "reference_images", "repeats"]
RESIZED = "lanczos"  # how images were resized, if a file does not say
CELL = [key for key in MODEL + SAMPLER if key not in ("total_kimg", "share")] + ["seed"]
RUN = [*CELL, "replicate"]

GIVEN = ("pretrain", "kimg", "seed", "sampler", "label", "nfe")  # never null
COUNTS = ("kimg", "tune_kimg", "nfe", "seed")
# The types in metrics.json, as `read_json` takes them; of a cell's keys any may be null.
NUMBER, COUNT, NAME = (int, float), (int, type(None)), (str, type(None))
NETWORKS = {"efficientnet-lite0": "EfficientNet-Lite0"}  # names of published feature spaces
# What metrics can be: a Frechet distance of equal sets is 0 but for rounding; a kernel distance is
# an unbiased estimate and may be negative.
MOST = 2**63 - 1
RANGES = {
    "fd": (-0.1, math.inf), "precision": (0, 1), "recall": (0, 1), "inception_score": (1, math.inf),
    "images": (1, MOST), "reference_images": (1, MOST), "against": (1, MOST),
    "kimg": (0, MOST), "tune_kimg": (1, MOST), "gap": (1e-9, 1), "ema_std": (1e-6, 1),
    "nfe": (1, MOST), "seed": (0, MOST), "replicate": (0, MOST), "pretraining": (0, MOST),
}  # fmt: skip
SIZES = {"fd": NUMBER, "features": str, "images": int, "reference_images": int}


def read(paths, solvers=None):
    """One row for each metrics.json, in the order given: its cell, its metrics, sizes, `path`.

    Adds `total_kimg`, `share`, the percentage of the total that is pretraining, and `solver`, the
    kind of its sampler by `solvers`, {sampler: kind}. Raises `ValueError` if the files mix feature
    spaces or numbers of images, or hold a cell twice, or a solver twice with the same NFE.
    """
    if again := [path for path, n in Counter(map(os.path.realpath, paths)).items() if n > 1]:
        raise ValueError(f"{again[0]}: found twice among the metrics; allowed: each file once")
    frame = pd.DataFrame([_row(path) for path in map(str, paths)])
    if frame.empty:
        raise ValueError("found no metrics.json; allowed: at least one")
    for key in (*COUNTS, "replicate", "pretraining"):
        frame[key] = frame[key].astype("Int64")
    if "resize" in frame:
        _require_equal(frame.fillna({"resize": RESIZED}), ["resize"])
    if "kd" not in frame:  # a config may leave it out, but the csv has its columns
        frame["kd"] = float("nan")
    frame["total_kimg"] = frame["kimg"] + frame["tune_kimg"].fillna(0)
    frame["share"] = 100 * frame["kimg"] / frame["total_kimg"].mask(frame["total_kimg"] == 0)
    frame["solver"] = frame["sampler"].map(solvers or {})
    _require_equal(frame)
    _require_once(frame, RUN, "this cell and seed is in another file too")
    _require_one_kind_of_n(frame)
    _require_one_meaning(frame)
    if solvers is not None:
        _require_solvers(frame)
    return frame


def spread(frame):
    """One row for each (model, sampler), in order of appearance, with mean, sd (sample sd, empty
    where n = 1) and least value over tuning seeds or replicates, and n, their number. All three are
    NaN where a seed's value is: what is left of a mean is another mean. `over` says which of the
    two n counts, `seeds` and `fd_each` list them and their values: '0;1;2'.

    `fd_repeats_sd` and `fd_repeats_min` describe the repeats of one model: over the seeds, the root
    of the mean variance, and the mean of the least value.
    """
    counted = frame["replicate"] if over(frame) == "replicates" else frame["seed"]
    frame = frame.assign(each=list(zip(counted, frame["fd"])))
    groups = frame.groupby([*MODEL, "solver", *SAMPLER, *EQUAL], dropna=False, sort=False)
    more = {
        f"{name}_{short}": (name, how)
        for name in frame.columns.intersection(MORE, sort=False)
        for short, how in (("mean", "mean"), ("sd", "std"))
    }
    table = groups.agg(
        n=("fd", "size"),
        fd_mean=("fd", "mean"),
        fd_sd=("fd", "std"),
        fd_min=("fd", "min"),
        each=("each", sorted),
        kd_mean=("kd", "mean"),
        kd_sd=("kd", "std"),
        **more,
        fd_repeats_sd=("fd_repeats_sd", _pooled),
        fd_repeats_min=("fd_repeats_min", "mean"),
    ).reset_index()
    each = table.pop("each")
    table["over"] = over(frame)
    table["seeds"] = each.map(lambda pairs: _joined(seed for seed, _ in pairs))
    table["fd_each"] = each.map(lambda pairs: _joined(f"{fd:.6g}" for _, fd in pairs))
    for name in ("fd", "kd", *frame.columns.intersection(MORE, sort=False)):
        lacking = groups[name].count().to_numpy() < table["n"]
        table.loc[lacking, [key for key in table if key.startswith(f"{name}_")]] = float("nan")
    return table


def _joined(values):
    return ";".join(map(str, values))


def over(frame):
    """What the n of a frame counts: 'tuning seeds' or 'replicates'."""
    return "replicates" if (frame["replicate"] > 0).any() else "tuning seeds"


def read_floor(path):
    """The floor's {"fd", "images", ...}: real test images against real training images."""
    floor = _measured(path)
    if floor["cell"].get("floor") is not True:
        found = shown(str(floor["cell"]), 100)
        raise ValueError(f"{path}: found the cell {found}; allowed: a floor, of real test images")
    return floor


def require_same_features(frame, floor, path):
    """Raise `ValueError` if the floor has other features or another reference than the frame."""
    first = frame.iloc[0]
    for key in ("features", "reference_images"):
        if floor[key] != first[key]:
            found = f"{key} is {floor[key]}, but {first[key]} in {first['path']}"
            raise ValueError(f"{path}: {found}; allowed: one for both")


def metric_name(features, metric="fd"):
    """'FID' and 'KID' for Inception's features only; else 'FD' and 'KD' with the space's name."""
    if features.startswith("inception"):
        name = {"fd": "FID", "kd": "KID"}[metric]
        return f"{name} ({features.partition(':')[2] or 'Inception'})"
    return f"{metric.upper()} ({NETWORKS.get(features, f'{features} features')})"


def measure(frame):
    """What the numbers of a frame are: the metric and the number of images."""
    first = frame.iloc[0]
    times = f"{first['repeats']} x " if first["repeats"] > 1 else ""
    return f"{metric_name(first['features'])}, {times}{first['images']} images"


def _row(path):
    metrics = _measured(path)
    cell = metrics.pop("cell")
    missing = [key for key in CELL if key not in cell]
    if missing:
        raise ValueError(f"{path}: its cell has no {', '.join(missing)}; they are needed")
    typed(cell, f"{path}: cell", {key: COUNT if key in COUNTS else NAME for key in CELL})
    typed(cell, f"{path}: cell", known={"replicate": int, "pretraining": int})
    blank = [key for key in CELL if isinstance(cell[key], str) and not _is_text(cell[key])]
    if null := [*blank, *(key for key in GIVEN if cell[key] is None)]:
        raise ValueError(
            f"{path}: cell: {null[0]} is {cell[null[0]]!r}; allowed: what it says of it"
        )
    seeds = ("replicate", "pretraining")
    for key in (key for key in (*COUNTS, *seeds) if cell.get(key) is not None):
        require_possible(f"{path}: cell", key, cell[key])
    tuned = [cell[key] is not None for key in ("schedule", "recipe", "tune_kimg")]
    if any(tuned) != all(tuned):
        allowed = "schedule, recipe and tune_kimg of a tuned model, null for all three before"
        raise ValueError(f"{path}: cell: found some of a tuned model; allowed: {allowed}")
    each = metrics.pop("repeats", {"fd": [metrics["fd"]]})["fd"]
    repeats = {"repeats": len(each), "fd_repeats_min": min(each), "fd_repeats_sd": _sd(each)}
    known = {key: cell[key] for key in CELL} | {"replicate": cell.get("replicate", 0)}
    known["pretraining"] = cell.get("pretraining", known["replicate"])
    return {**known, **metrics, **repeats, "fd_of_sets": each, "path": path}


def _is_text(value):
    """Whether there is something to see in a text, and a file can hold it: no lone surrogate."""
    return bool(value.strip()) and not any("\ud800" <= one <= "\udfff" for one in value)


def _measured(path):
    """What a metrics.json holds; raises `ValueError` that names it unless that is complete."""
    known = {"cell": dict, "repeats": dict} | dict.fromkeys(METRICS, NUMBER)
    metrics = read_json(path, SIZES, known)
    if "cell" not in metrics:
        raise ValueError(f"{path}: found no cell; allowed: one with {', '.join(CELL)}")
    require_name(path, metrics["features"])
    if metrics.get("resize", RESIZED) not in RESIZES:
        found = shown(metrics["resize"], 60)
        raise ValueError(f"{path}: resize is {found}; allowed: {', '.join(RESIZES)}")
    for key in (key for key in (*SIZES, *METRICS) if isinstance(metrics.get(key), NUMBER)):
        require_possible(path, key, metrics[key])
    each = metrics.get("repeats", {"fd": [metrics["fd"]]}).get("fd")
    if not each or not isinstance(each, list) or not all(type(x) in NUMBER for x in each):
        raise ValueError(f"{path}: repeats of fd are {each!r:.60}; allowed: a list of numbers")
    for value in each:
        require_possible(path, "fd", value)
    mean = math.fsum(value / len(each) for value in each)
    if not math.isclose(mean, metrics["fd"], rel_tol=1e-6, abs_tol=1e-6):
        found = f"fd is {metrics['fd']}, the mean of its repeats {mean}"
        raise ValueError(f"{path}: {found}; allowed: equal ones")
    return metrics


def require_name(path, features):
    """Raise `ValueError` unless a text can be the name of a feature space."""
    if not (features.strip() and features.isprintable()):
        found = shown(features, 60)
        raise ValueError(f"{path}: features is '{found}'; allowed: a name on one line")


def require_possible(path, key, value):
    """Raise `ValueError` for a number that this metric cannot be: no job writes it."""
    least, most = RANGES.get(key, (-math.inf, math.inf))
    if not (least <= value <= most and abs(value) < math.inf):
        limits = [f">= {least:g}"] * (least > -math.inf) + [f"<= {most:g}"] * (most < math.inf)
        allowed = " and ".join(["a finite number", *limits])
        raise ValueError(f"{path}: '{key}' is {shown(value, 60)}; allowed: {allowed}")


def _sd(values):
    finite = len(values) > 1 and all(map(math.isfinite, values))
    return statistics.stdev(values) if finite else math.nan


def _pooled(deviations):
    return math.sqrt((deviations**2).mean())


def _require_equal(frame, keys=EQUAL):
    first = frame.iloc[0]
    for key in keys:
        others = frame[frame[key] != first[key]]
        if len(others):
            other = others.iloc[0]
            raise ValueError(
                f"{other['path']}: {key} is {other[key]}, but {first[key]} in {first['path']};"
                " allowed: one for all"
            )


def _require_one_kind_of_n(frame):
    """Replicates differ in all seeds at once, others in that of tuning alone: their spreads are
    different things."""
    alone = frame[(frame["replicate"] == 0) & (frame["seed"] > 0) & frame["schedule"].notna()]
    if over(frame) == "replicates" and len(alone):
        first = alone.iloc[0]
        raise ValueError(
            f"{first['path']}: seed {first['seed']} of tuning alone, beside replicates; allowed:"
            " one of the two"
        )


def _require_one_meaning(frame):
    """A sampler is a column of a table, with one label and one number of evaluations."""
    first = frame.drop_duplicates("sampler").set_index("sampler")
    for key in ("label", "nfe"):
        for _, row in frame[frame["sampler"].notna()].iterrows():
            one = first.loc[row["sampler"]]
            if str(row[key]) != str(one[key]):
                found = (
                    f"{key} of '{row['sampler']}' is {row[key]}, but {one[key]} in {one['path']}"
                )
                raise ValueError(f"{row['path']}: {found}; allowed: one for each sampler")


def _require_once(frame, keys, words):
    again = frame[frame.duplicated(keys)]
    if len(again):
        raise ValueError(f"{again['path'].iloc[0]}: {words}; allowed: each once")


def _require_solvers(frame):
    for _, row in frame[frame["solver"].isna()].iterrows():
        found = f"solvers has no '{row['sampler']}', its sampler"
        raise ValueError(f"{row['path']}: {found}; allowed: a kind for each sampler")
    words = "another file has this model, kind of sampler and NFE too"
    _require_once(frame, [*MODEL, "solver", "nfe", "seed", "replicate"], words)
