"""Settings of small runs, and what such a run leaves."""

import copy

from ect.runtime.versions import MASKS

PRETRAIN = {
    "network": {"channels": 8, "multipliers": [1, 2], "blocks": 1, "attention": [4]},
    "process": "ve",
    "parameterization": "edm",
    "c_noise": "log_s",
    "recipe": {
        "batch": 100,
        "prior": {"kind": "lognormal", "options": {"mean": -1.0, "std": 1.5}},
        "distance": {"kind": "squared", "c": 0.0},
        "weight": "edm",
        "optimizer": {
            "name": "adam", "lr": 2.0e-3, "betas": [0.9, 0.999], "warmup_kimg": 0.3,
            "decay_from": 1.0, "lr_final": 0.0,
        },
        "ema_halflife_kimg": 0.3,
        "ema_ramp": None,
        "dropout": 0.1,
        "masks": MASKS,
    },
    "schedule": {"map": "zero", "options": {}, "clock": "noise"},
    "target": "own",
    "seed": 0,
    "first_kimg": 0,
    "last_kimg": 1,
    "snapshots": 0,
}  # fmt: skip


ARTEFACTS = ("model.safetensors", "state.safetensors", "snapshots.safetensors", "metrics.jsonl")


def changed(settings, **changes):
    """A copy of settings in which `a__b=1` sets settings['a']['b']."""
    settings = copy.deepcopy(settings)
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = settings
        for parent in parents:
            place = place[parent]
        place[last] = value
    return settings


TUNE = changed(
    PRETRAIN,
    recipe__distance={"kind": "huber", "c": 0.0},
    recipe__weight="gap",
    recipe__dropout=0.3,
    recipe__optimizer__decay_from=0.5,
    schedule={"map": "sigmoid", "options": {"q": 2.0, "stages": 4}, "clock": "noise"},
    snapshots=2,
)


def contents(folder, names=ARTEFACTS):
    return {name: (folder / name).read_bytes() for name in names}
