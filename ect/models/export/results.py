"""What a study's records say of a model, for its card: its dataset, and the distances measured.

A number counts only where a chain of hashes leads to it: the images were drawn from this very file,
the features are of these images, and metrics.json is of them, as its job wrote it.
"""

import math
import statistics
from pathlib import Path

from ect.runtime import checkpoint, record

NUMBER = (int, float)
NAMES = {
    "fd": "Frechet distance", "kd": "kernel distance", "precision": "precision",
    "recall": "recall", "inception_score": "Inception score",
}  # fmt: skip
METRICS = {"features": str, "images": int, "reference_images": int, "cell": dict}
CELL = {"sampler": str, "label": str, "nfe": int}


def dataset_of(run):
    """The name of the dataset of a training run, by the record beside the file that it read:
    'images' for a reader's own; None where none is found."""
    for path, digest in (run or {}).get("inputs", {}).items():
        made = _json(Path(path).with_name("run.json"))
        if digest in made.get("outputs", {}).values():
            source = made.get("settings", {}).get("source")
            if isinstance(source, str):
                return source
    return None


def measured(model):
    """[{sampler, label, nfe, features, images, reference_images, metrics: {name: values}}] of the
    sets of images drawn from a model file that lie beside it, a value for each set."""
    found = [_counted(path) for path in sorted(model.parent.glob("*/metrics.json"))]
    found = [entry for entry in found if entry]
    if not found:
        return []
    drawn = _made_from(record.digest(model), model.parent)
    return [facts for facts, sets, inputs in found if len(drawn & inputs) == sets]


def _counted(path):
    """(facts, number of sets, digests that its job read) of a metrics.json; None for one without a
    record, or of other bytes."""
    try:
        made = record.of(path)
        whole = checkpoint.read_json(path, METRICS)
        cell = checkpoint.typed(whole["cell"], path, CELL)
    except ValueError:
        return None
    if made is None:
        return None
    sets = whole["repeats"] if isinstance(whole.get("repeats"), dict) else {}
    values = {name: sets.get(name, [whole[name]]) for name in NAMES if name in whole}
    facts = {key: cell[key] for key in CELL} | {key: whole[key] for key in METRICS if key != "cell"}
    if not values or not all(map(_are_numbers, values.values())):
        return None
    count = max(map(len, values.values()))
    return facts | {"metrics": values}, count, set(made["inputs"].values())


def _are_numbers(values):
    return isinstance(values, list) and all(
        type(value) in NUMBER and math.isfinite(value) for value in values
    )


def _made_from(digest, folder):
    """The digests of the files under a folder that were made from the file of a digest, directly or
    not, by the records of the jobs that draw and extract."""
    records = [_json(path) for name in ("run", "features") for path in folder.rglob(f"{name}.json")]
    reached, before = {digest}, 0
    while len(reached) > before:
        before = len(reached)
        for made in records:
            if reached & {*_digests(made, "inputs")}:
                reached |= {*_digests(made, "outputs")}
    return reached - {digest}


def _digests(made, key):
    held = made.get(key)
    values = held.values() if isinstance(held, dict) else ()
    return (value for value in values if isinstance(value, str))


def _json(path):
    """The mapping in a record; {} where it is none."""
    try:
        found = checkpoint.read_json(path, known={"settings": dict, "outputs": dict})
    except ValueError:
        return {}
    return found


def model_index(name, dataset, entries):
    """The card's `model-index` by Hugging Face's specification: one result for each sampler. A
    metric of several sets is their mean, with the interval that holds it at 95 % (t, of sets of
    images of this one model: not of models trained again)."""
    held = {"name": dataset, "type": "imagefolder" if dataset == "images" else dataset}
    results = [
        {
            "task": {"type": "unconditional-image-generation", "name": entry["label"]},
            "dataset": held,
            "metrics": [_metric(entry, kind, values) for kind, values in entry["metrics"].items()],
        }
        for entry in entries
    ]
    return [{"name": name, "results": results}]


def _metric(entry, kind, values):
    about = {key: entry[key] for key in ("features", "images", "reference_images", "nfe")}
    about |= {"sets": len(values)}
    if len(values) > 1:
        about["interval_95"] = interval(values)
    name = f"{NAMES[kind]} ({entry['features']}, {entry['label']})"
    return {"type": kind, "value": statistics.fmean(values), "name": name, "args": about}


def interval(values):
    """[low, high] of the mean of two or more values at 95 %, by Student's t."""
    from scipy.stats import t

    middle = statistics.fmean(values)
    half = t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return [float(middle - half), float(middle + half)]
