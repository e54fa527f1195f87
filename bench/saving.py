"""What saving, checking and resuming cost: python bench/saving.py [--folder DIR]

Two networks: the default study's and DDPM++ as ECT has it for CIFAR-10 (55.7 million parameters).
The state is saved and read in DIR: use a real disk, not a file system in memory.
"""

import json
import statistics
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import torch
import yaml
from runners import NETWORKS

from ect.config.cells import Milestone
from ect.config.config import Config
from ect.models import build
from ect.runtime.options import Parser, errors_as_lines, folder
from ect.runtime.work import Work
from ect.study import settings as study_settings
from ect.training import log, loop, parts, train
from ect.training.state import State

ROOT = Path(__file__).parent.parent
LARGE = NETWORKS["cifar"][2]


def median(function, repeats):
    """Seconds that a call takes: the median of `repeats` calls."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


class Noise:
    """Random images of a shape, without a file."""

    sd, shift, scale = 0.5, 127.5, 1 / 127.5

    def __init__(self, shape):
        self.shape = shape

    def batch(self, seed, seen, size):
        return 0.5 * torch.randn(size, *self.shape)


def prepared(settings, images):
    """(state, one step of training as a function)."""
    state = State(settings, images)
    objective = parts.make_objective(settings, images.sd)
    f = build.make_consistency(
        state.network, objective.process, build.description(settings, images)
    )

    def step():
        terms, fine, _ = loop.step(state, settings, images, objective, f, 10**9)
        state.meter.add(terms, fine, state.seen)

    return state, step


def costs(settings, images, folder, repeats):
    state, step = prepared(settings, images)
    step()  # the optimizer's moments exist from here on
    work = Work(folder, "bench")
    saving = median(lambda: train.save(state, work, time.monotonic()), 3)

    def again():
        restored = State(settings, images)
        train.restore(restored, *work.load())

    one = torch.ones(settings["recipe"]["batch"])
    parameters = list(state.network.parameters())
    watch = SimpleNamespace(loss=one, s=one)
    counter = log.Meter()

    def check():
        fine = log.finite(one.mean(), parameters)
        counter.unchecked.append((watch, fine, 1))
        counter.check()

    stepping, checking = median(step, repeats), median(check, 5 * repeats)
    return {
        "parameters": sum(p.numel() for p in parameters),
        "state_megabytes": round(work.state_file.stat().st_size / 1e6, 1),
        "step_seconds": round(stepping, 5),
        "check_seconds": round(checking, 6),
        "check_share_of_step": round(checking / stepping, 5),
        "save_seconds": round(saving, 3),
        "save_share_of_a_minute": round(saving / (60 + saving), 5),
        "go_on_seconds": round(median(again, 3), 3),
    }


def parser():
    found = Parser(description=__doc__)
    found.add_argument("--folder", type=folder, help="where the state is saved")
    return found


def main():
    args = parser().parse_args()
    torch.set_num_threads(1)
    study = Config.read(yaml.safe_load((ROOT / "config.yaml").read_text()))
    small = study_settings.train(study, Milestone("ve", 0, 12))
    large = small | {"network": LARGE, "recipe": small["recipe"] | {"batch": 2}}
    for settings, shape, repeats in ((small, (1, 8, 8), 50), (large, (3, 32, 32), 3)):
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            print(json.dumps(costs(settings, Noise(shape), Path(folder), repeats)), flush=True)


if __name__ == "__main__":
    with errors_as_lines(__file__):
        main()
