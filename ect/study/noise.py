"""How many replicates do the comparisons of a study need? Read from the components of variance that
the study `noise` measured. Loads no torch.

`noise.csv` beside this file is that study's table. Its spreads hold for the images, network,
process and feature space they were measured with; other studies have none.
"""

import csv
import json
from pathlib import Path

from ect.config import gaps
from ect.config.cells import Tuned
from ect.study import settings

FILE = Path(__file__).with_name("noise.csv")
SOURCES = ("pretraining", "tuning", "sampling")
SHAPE = ("pretrainings", "tunings", "sets")


def measured(path=FILE):
    """The spreads of a table: one mapping for each model and sampler, with its conditions and
    `squares`, [shape, mean squares, degrees of freedom]."""
    found = {}
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            key = row["pretrain"], row["schedule"], row["recipe"], row["sampler"]
            found.setdefault(key, {})[row["source"]] = row
    return [_spread(lines) for lines in found.values()]


def _spread(lines):
    first = lines[SOURCES[0]]
    return {
        "conditions": json.loads(first["conditions"]),
        "nfe": int(first["nfe"]),
        "images": int(first["images"]),
        "at": f"{first['pretrain_kimg']} + {first['tune_kimg']} kimg along {first['schedule']}",
        "squares": [
            [int(first[key]) for key in SHAPE],
            [float(lines[source]["mean_square"]) for source in SOURCES],
            [int(lines[source]["freedom"]) for source in SOURCES],
        ],
    }


def planned(config, path=FILE):
    """What each experiment and sampler compares, JSON-able: its rows, the n of each, what n counts,
    the sets of images, and the measured spread, or None where none fits."""
    spreads = measured(path)
    return [
        fact
        for name, experiment in config.experiments.items()
        for fact in _of(config, name, experiment, spreads)
    ]


def _of(config, name, experiment, spreads):
    if experiment.kind == "noise":
        return
    cells = [cell for cell in config.cells(name) if isinstance(cell.model, Tuned)]
    for sampler in dict.fromkeys(cell.sampler for cell in cells):
        rows: dict[tuple, int] = {}
        for cell in (cell for cell in cells if cell.sampler == sampler):
            model = cell.model
            row = model.start.pretrain, model.start.kimg, model.schedule, model.recipe, model.kimg
            rows[row] = rows.get(row, 0) + 1
        starts = dict.fromkeys(row[0] for row in rows)
        more = _of_ends(config, name) if experiment.kind == "ends" else {}
        fitting = [_fitting(config, start, sampler, spreads) for start in starts]
        yield {
            "experiment": name,
            "kind": experiment.kind,
            "label": config.samplers[sampler].label,
            "rows": len(rows),
            "totals": len({row[1] + row[4] for row in rows}),
            "n": min(rows.values()),
            "over": "tuning seeds" if experiment.rows[0].replicates is None else "replicates",
            "sets": config.evaluation.repeats,
            "spread": next((spread for spread in fitting if spread), None),
            "without": [start for start, spread in zip(starts, fitting) if not spread],
            **more,
        }


def _of_ends(config, name):
    """The numbers of maps and of last gaps that an experiment compares."""
    ends = settings.ends(config, name).values()
    maps = {one["map"] for one in ends}
    return {"maps": len(maps), "gaps": len(gaps.distinct(one["gap"] for one in ends))}


def _fitting(config, start, sampler, spreads):
    """{"at", "squares"} of the measured spread of a start's cells, or None."""
    wanted = settings.conditions(config, start)
    for spread in spreads:
        sizes = spread["nfe"], spread["images"]
        if spread["conditions"] == wanted and sizes == (
            config.samplers[sampler].evaluations,
            config.evaluation.images,
        ):
            return {key: spread[key] for key in ("at", "squares")}
    return None
