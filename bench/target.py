"""What a step saves by not evaluating f(x_r) for images with r = 0, which are their own targets.

    python bench/target.py --network small --batch 32 --kernels native

For the first stages of ECT's schedule: the share of such images; the seconds of a step in which the
network computes all targets, and of one in which it computes only those that are needed, in turns
on the same batches; and their ratio.
"""

import json
import statistics
import tempfile
from functools import partial

import numpy as np
import torch
from runners import FAR, Ours, images_of, options, parsed
from step import QUARTILES, timed

from ect.objective import UNIT, lognormal
from ect.runtime import device
from ect.runtime.options import errors_as_lines

STAGES = 8  # of the schedule


def progress_of(stage):
    """The middle of a stage, 1 being the first."""
    return (2 * stage - 1) / (2 * STAGES)


def step_of(ours, stage, unit):
    """The step on the n-th batch of a stage, as a function of n."""

    def step(n):
        ours.state.seen = int(progress_of(stage) * FAR) + n * ours.settings["recipe"]["batch"]
        ours.objective.unit = unit
        ours.step()

    return step


def measure(ours, stage, count):
    steps = [step_of(ours, stage, unit) for unit in (None, UNIT)]
    for step in steps:
        step(0)
    pairs = [[timed(partial(step, n)) for step in steps] for n in range(count)]
    taken = np.array(pairs)
    ratios = np.quantile(taken[:, 0] / taken[:, 1], QUARTILES)
    whole, part = (statistics.median(column) for column in taken.T)
    s = lognormal(
        torch.Generator().manual_seed(0), 10**6, **ours.settings["recipe"]["prior"]["options"]
    )
    share = (ours.objective.schedule(s, progress_of(stage)) == 0).float().mean().item()
    line = {"stage": stage, "share_r_zero": share, "seconds_all": whole, "seconds_needed": part}
    return line | {"all_over_needed": ratios.tolist()}


def main():
    args = parsed(options(__doc__))
    found = {"device": device.device_name(), "threads": torch.get_num_threads(), **vars(args)}
    with tempfile.TemporaryDirectory() as folder:
        ours = Ours(args, images_of(args, folder), "tune")
        found["stages"] = [measure(ours, stage, args.steps) for stage in (1, 2, 3)]
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    with errors_as_lines(__file__):
        main()
