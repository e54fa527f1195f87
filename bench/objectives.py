"""What a training step of each objective costs beside one of ECT's.

    python bench/objectives.py --network digits --batch 64 --steps 15

The steps take turns on one network that is told both times, without dropout: the median processor
time of each, and quartiles of its ratio to ECT's, turn by turn. Objectives that differentiate are
timed by forward mode and by a difference; `alphaflow` in the middle of a run, before it does.
"""

import json
import tempfile

import numpy as np
import torch
from runners import FAR, Ours, images_of, options, parsed, settings_of
from step import QUARTILES, turns

from ect.registry import schedule_options
from ect.runtime import device
from ect.runtime.options import errors_as_lines, whole
from ect.schedule import CONTINUOUS_TIME, DIFFERENTIATED

FLOW = {"process": "flow", "parameterization": "velocity", "c_noise": "time"}


def changes(args, name, derivative):
    """The settings of an objective in place of the map `name`, where they are not ECT's."""
    usual = settings_of(args, "tune")
    found = {"network": usual["network"] | {"span": True}}
    if name not in CONTINUOUS_TIME:
        return found
    recipe = usual["recipe"] | {"distance": {"kind": "squared", "c": 0.0}, "weight": "uniform"}
    recipe |= {} if derivative == "jvp" else {"derivative": derivative}
    given = {key: default for key, (_, default) in schedule_options(name).items()}
    schedule = {"map": name, "options": given, "clock": "noise"}
    return found | FLOW | {"recipe": recipe, "schedule": schedule}


def steps_of(args, images):
    """{objective: its step}, ECT's first."""
    kinds = [("sigmoid", "jvp")] + [(name, "jvp") for name in CONTINUOUS_TIME]
    kinds += [(name, "difference") for name in DIFFERENTIATED if name != "alphaflow"]
    steps = {}
    for name, derivative in kinds:
        ours = Ours(args, images, "tune", **changes(args, name, derivative))
        ours.state.seen = FAR // 2 if name == "alphaflow" else ours.state.seen
        steps[name if derivative == "jvp" else f"{name}, difference"] = ours.step
    return steps


def parser():
    found = options(__doc__)
    found.add_argument("--warm-up", type=whole(0, 10**6), default=2)
    found.set_defaults(network="digits", batch=64, dropout=0.0, steps=15)
    return found


def main():
    args = parsed(parser())
    found = {"device": device.device_name(), "threads": torch.get_num_threads(), **vars(args)}
    with tempfile.TemporaryDirectory() as folder:
        taken = turns(steps_of(args, images_of(args, folder)), args.warm_up, args.steps)
    processor = {name: pair[1] for name, pair in taken.items()}
    found["objectives"] = {
        name: {
            "processor_seconds": float(np.median(seconds)),
            "over_ect": np.quantile(seconds / processor["sigmoid"], QUARTILES).tolist(),
        }
        for name, seconds in processor.items()
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    with errors_as_lines(__file__):
        main()
