"""The table of searched times: what the search found, and its distance on the test's seeds."""

import pandas as pd

from ect.report import gather, markup
from ect.report.tables import HEADERS, write
from ect.runtime.checkpoint import read_json, typed
from ect.runtime.text import shown

MODEL = ("schedule", "pretrain", "recipe", "kimg", "tune_kimg", "seed")
ROW = ("k", "times", "search", "test")
SHARED = ("features", "metric", "search", "test")  # what values must share to stand in one table

# The types in steps.json, and in each of its steps.
FACTS = {"features": str, "metric": str, "search": dict, "test": dict, "steps": list}
STEP = {"k": int, "times": list, "search": (int, float), "test": (int, float)}


def tabulate(models, out):
    """Write out.csv, out.md and out.tex from steps.json files.

    `models` are mappings that name a tuned model and the `path` of its steps.json. Raises
    `ValueError` if the files measure different things.
    """
    _require_once(models, "file", ("path",))
    found = [_read(model["path"]) for model in models]
    if not found:
        raise ValueError("models: found none; allowed: at least one")
    for model, steps in zip(models, found):
        for key in SHARED:
            if steps[key] != found[0][key]:
                raise ValueError(
                    f"{model['path']}: {key} is {steps[key]}, but {found[0][key]} in"
                    f" {models[0]['path']}; allowed: one for all"
                )
    _require_once(models, "model", MODEL)
    rows = [
        {key: model[key] for key in MODEL} | {key: step[key] for key in ROW}
        for model, steps in zip(models, found)
        for step in steps["steps"]
    ]
    _write_table(pd.DataFrame(rows), found[0], out)


def _require_once(models, what, keys):
    """Raise `ValueError` where two of the models are alike in all of the keys."""
    seen = set()
    for model in models:
        key = tuple(model[key] for key in keys)
        if key in seen:
            raise ValueError(f"{model['path']}: found its {what} twice; allowed: each once")
        seen.add(key)


def _read(path):
    found = read_json(path, FACTS)
    gather.require_name(path, found["features"])
    for key in ("search", "test"):
        typed(found[key], f"{path}: {key}", {"images": int, "seed": int})
        for name in ("images", "seed"):
            gather.require_possible(f"{path}: {key}", name, found[key][name])
    one, other = (
        range(f["seed"], f["seed"] + f["images"]) for f in (found["search"], found["test"])
    )
    if one.start < other.stop and other.start < one.stop:
        seeds = (
            f"the seeds {one.start} to {one.stop - 1}, tested on {other.start} to {other.stop - 1}"
        )
        raise ValueError(f"{path}: found a search on {seeds}; allowed: seeds apart")
    if found["metric"] not in ("fd", "kd"):
        raise ValueError(f"{path}: metric is {shown(found['metric'], 60)}; allowed: fd, kd")
    for number, step in enumerate(found["steps"], 1):
        typed(step, f"{path}: step {number}", STEP)
        _require_step(f"{path}: step {number}", step, found["metric"])
    counts = [step["k"] for step in found["steps"]]
    if not counts or len(set(counts)) < len(counts):
        raise ValueError(f"{path}: found steps of k = {counts}; allowed: each k once")
    return found


def _require_step(place, step, metric):
    """Raise `ValueError` unless one row of a steps.json can be what `search-steps` found."""
    times = step["times"]
    if not all(isinstance(time, (int, float)) and type(time) is not bool for time in times):
        raise ValueError(f"{place}: found times that are no numbers; allowed: noise levels")
    falling = all(high > low for high, low in zip([80, *times], [*times, 0]))
    if not times or not falling or step["k"] != len(times) + 1:
        found = f"k = {step['k']} with the times {shown(times, 80)}"
        allowed = "times that fall between 80 and 0, one less than k"
        raise ValueError(f"{place}: found {found}; allowed: {allowed}")
    for key in ("search", "test"):
        gather.require_possible(f"{place}: {key}", metric, step[key])


def _write_table(frame, facts, out):
    text = frame.assign(times=[" ".join(f"{s:.3g}" for s in times) for times in frame["times"]])
    write(f"{out}.csv", markup.csv(text))
    name = gather.metric_name(facts["features"], facts["metric"])
    short = name.split()[0]
    headers = [HEADERS[key] for key in MODEL[:-1]] + ["Tuning seed", "Steps", "Times s"]
    headers += [f"{short}, search", f"{short}, test"]
    cells = [
        [str(row[key]) for key in (*MODEL, "k", "times")]
        + [markup.digits(row[key]) for key in ("search", "test")]
        for _, row in text.iterrows()
    ]
    aligns, caption = "lllrrrrlrr", _caption(name, facts)
    write(f"{out}.md", markup.markdown(headers, cells, aligns, caption))
    group, names = (8, name), [*headers[:8], "search", "test"]
    write(f"{out}.tex", markup.latex(names, group, cells, aligns, caption, "steps", False))


def _caption(name, facts):
    search, test = facts["search"], facts["test"]
    return (
        f"{name} of multistep images at the intermediate times found by golden section."
        f" The search saw {search['images']} images from seed {search['seed']} on; the test"
        f" {test['images']} others, from seed {test['seed']} on. A minimum that was searched for"
        " flatters itself: the test's values are the ones to quote."
    )
