"""The intermediate times of multistep sampling, searched on some seeds and measured on others.

Golden section in ln s, one level at a time; the times of k steps start from those of k - 1 (Song et
al. 2023 choose theirs by a greedy ternary search). A searched minimum is biased low, so the
reported distance is that of images from seeds that the search never saw.
"""

import math

from ect.evaluation import features, metrics
from ect.evaluation.evaluate import space_of
from ect.models import build
from ect.models.draw import draw
from ect.runtime import checkpoint
from ect.runtime.versions import setting

RATIO = (math.sqrt(5) - 1) / 2  # 1 / golden ratio


def golden(value, low, high, evaluations):
    """The best point that golden section finds for a function on (low, high), none evaluated twice.

    n evaluations leave a unimodal function's minimum within RATIO^n (high - low) of it. The search
    ends early when no floating-point number is left between two points.
    """
    if not (low < high and evaluations >= 1):
        raise ValueError(f"no search: {evaluations} evaluations between {low:g} and {high:g}")
    left, right = high - RATIO * (high - low), low + RATIO * (high - low)
    seen, fresh = {left: value(left)}, right
    while len(seen) < evaluations and low < left < right < high:
        seen[fresh] = value(fresh)
        if seen[left] <= seen[right]:
            high, right = right, left
            left = fresh = high - RATIO * (high - low)
        else:
            low, left = left, right
            right = fresh = low + RATIO * (high - low)
    return min(seen, key=seen.__getitem__)


def extend(value, times, settings):
    """(best times, {times tried: value}): one level is added below `times`, then all are improved.

    The new level is searched first, then the others from the last to the first, each between its
    neighbours, so that the levels stay in order. `settings` holds low, high and evaluations.
    """
    tried, times = {}, (*times, settings["low"])  # the search of the last level replaces `low`
    for index in reversed(range(len(times))):
        bounded = (settings["high"], *times, settings["low"])
        low, high = math.log(bounded[index + 2]), math.log(bounded[index])
        golden(_along(value, times, index, tried), low, high, settings["evaluations"])
        times = min(tried, key=tried.__getitem__)
    return times, tried


def _along(value, times, index, tried):
    """The value as a function of one level's ln s, kept in `tried`."""

    def at(log_s):
        moved = (*times[:index], math.exp(log_s), *times[index + 1 :])
        if moved not in tried:
            tried[moved] = value(moved)
        return tried[moved]

    return at


def check(settings):
    """Raise `ValueError` if the settings are wrong, or if search and test share seeds."""
    search = range(settings["seed"], settings["seed"] + settings["images"])
    test = range(settings["test_seed"], settings["test_seed"] + settings["test_images"])
    if not (search and test):
        raise ValueError(f"images is {len(search)}, test_images is {len(test)}; allowed: > 0")
    if search.start < test.stop and test.start < search.stop:
        raise ValueError(
            f"seeds {search.start} to {search.stop - 1} of the search and {test.start} to"
            f" {test.stop - 1} of the test overlap; allowed: seeds apart"
        )
    if settings["metric"] not in ("fd", "kd"):
        raise ValueError(f"metric is {settings['metric']!r}; allowed: fd, kd")
    if not settings["steps"] or min(settings["steps"]) < 2:
        raise ValueError(f"steps is {settings['steps']}; allowed: numbers from 2 on")
    if not 0 < settings["low"] < settings["high"] or settings["evaluations"] < 1:
        found = ", ".join(f"{key} is {settings[key]}" for key in ("low", "high", "evaluations"))
        raise ValueError(f"{found}; allowed: 0 < low < high and evaluations >= 1")


def measure(settings, model, reference, classifier=None):
    """(name of the feature space, value): value(times, seed, images) is the distance of multistep
    images from the seeds `seed`, `seed` + 1, ... to the training images, whose features are stored
    in `reference`."""
    f, process, about = build.load_model(model)
    name, extract, real = space_of(reference, settings["features"], about["shape"], classifier)
    kinds = {key: setting(settings, key) for key in ("precision", "compile")}
    real = metrics.Reference(real)

    def value(times, seed, images):
        sampling = {"kind": "multistep", "options": {"times": list(times)}, "seed": seed}
        sampling |= {"images": images, "batch": settings["batch"]} | kinds
        drawn = features.of_images(extract, draw(f, process, about, sampling))
        features.require_width(model, drawn, real.features, reference)
        metric, subsets = settings["metric"], settings["features"]["kd_subsets"]
        try:
            return metrics.measures([metric], drawn, real, subsets)[metric]
        except FloatingPointError as error:
            raise FloatingPointError(f"at times {times}: {error}") from None

    return name, value


def run(settings, model, reference, out, classifier=None):
    """Write the times found for each number of steps, their value on the seeds of the search and on
    those of the test, and all values tried, as JSON.

    `settings` holds features, metric (fd or kd), steps, images, batch, seed, test_seed,
    test_images, evaluations (of one line search), low and high, and unless they are fp32 and false
    the `precision` and `compile` of drawing. Raises `ValueError` if the ranges of seeds overlap.
    """
    check(settings)
    name, value = measure(settings, model, reference, classifier)
    search = {key: settings[key] for key in ("seed", "images")}
    test = {key: settings[f"test_{key}"] for key in ("seed", "images")}
    times, rows = (), []
    for k in range(2, max(settings["steps"]) + 1):
        times, tried = extend(lambda levels: value(levels, **search), times, settings)
        if k in settings["steps"]:
            rows.append({
                "k": k, "times": times, "search": tried[times], "test": value(times, **test),
                "evaluations": list(tried.items()),
            })  # fmt: skip
    facts = {"metric": settings["metric"], "features": name, "search": search, "test": test}
    checkpoint.write_json(out, facts | {"steps": rows})
