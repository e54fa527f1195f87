"""Inputs of a report."""

import json

import numpy as np
import torch

from ect.data.file import writing
from ect.runtime import checkpoint

SAMPLERS = {"heun": ("Heun, 35 NFE", 35), "one_step": ("1 step", 1), "two_step": ("2 steps", 2)}
SAMPLERS |= {"heun_9": ("named by hand", 9), "dpm_9": ("other", 9)}
SEEDS = {"one_step": [20.0, 22.5, 19.0], "two_step": [10.0, 11.0, 13.5]}


class Inputs:
    """Writes made-up metrics.json files."""

    def __init__(self, folder):
        self.folder, self.count = folder, 0

    def file(self, text):
        self.count += 1
        path = self.folder / f"in_{self.count}"
        path.write_text(text)
        return str(path)

    def metrics(self, fd, cell, **changes):
        facts = {"images": 2000, "reference_images": 1437, "features": "classifier"}
        return self.file(json.dumps(facts | {"fd": fd, "kd": fd / 100, "cell": cell} | changes))

    def replicate(self, sampler, fd, index, **cell):
        facts = self.cell_of(sampler, **cell) | {"seed": index, "replicate": index}
        return self.metrics(fd, facts)

    def cell(self, sampler, fd, kimg=96, schedule=None, tune=None, seed=0, **changes):
        return self.metrics(fd, self.cell_of(sampler, kimg, schedule, tune, seed), **changes)

    def cell_of(self, sampler, kimg=96, schedule=None, tune=None, seed=0):
        label, nfe = SAMPLERS[sampler]
        return {
            "pretrain": "ve", "process": "ve", "parameterization": "edm", "kimg": kimg,
            "schedule": schedule, "recipe": schedule and "ect_50%", "tune_kimg": tune,
            "seed": seed, "sampler": sampler, "label": label, "nfe": nfe,
        }  # fmt: skip

    def floor(self):
        return self.metrics(1.5, {"floor": True}, images=360)

    def study(self):
        """A pretrained model with Heun only, and two schedules with one and two steps."""
        before = [self.cell("heun", 2.8)]
        return before + [
            self.cell(sampler, fd, schedule=schedule, tune=96, seed=seed)
            for schedule in ("sigmoid", "con_stant")
            for sampler, values in SEEDS.items()
            for seed, fd in enumerate(values)
        ]

    def split(self):
        return [
            self.cell("one_step", 20 + share, kimg=share, schedule="sigmoid", tune=100 - share)
            for share in (0, 50, 90)
        ]

    def nested(self):
        """Two pretrainings, two tunings of each, two sets of images of each."""
        paths = []
        for index, fd in enumerate((20.0, 21.0, 24.0, 26.0)):
            cell = self.cell_of("one_step", schedule="sigmoid", tune=96)
            cell |= {"seed": index, "replicate": index, "pretraining": index // 2}
            paths.append(self.metrics(fd, cell, repeats={"fd": [fd - 0.5, fd + 0.5]}))
        return paths

    def solvers(self):
        """The study, and its pretrained model with solvers at fewer evaluations."""
        return [*self.study(), self.cell("heun_9", 15.0), self.cell("dpm_9", 9.0)]

    def log(self):
        line = {"learning_rate": 1e-3, "share_r_zero": 0.5, "residual_by_ln_s": [None, *[0.1] * 9]}
        lines = [line | {"images": 1000 * i, "loss": 2.5} for i in range(1, 9)]
        return self.file("".join(json.dumps(line) + "\n" for line in lines))

    def trace(self):
        rows = ["images,quantity,s,ratio,sampler,value"]
        for images in (0, 4000, 8000):
            rows += [f"{images},fd,,,{label},{9000 - images}" for label in ("1 step", "2 steps")]
            for s in (0.1, 1.0, 10.0):
                rows += [f"{images},end_to_end,{s},,,0.1", f"{images},residual,{s},0.5,,0.01"]
        return self.file("\n".join(rows) + "\n")

    def perfect(self):
        rows = [f"{1000 * i},{3.5 - 0.1 * i},0.01" for i in range(8)]
        return self.file("images,loss,standard_error\n" + "\n".join(rows) + "\n")

    def images(self, channels=1):
        path = self.folder / f"images_{channels}.npz"
        pixels = np.arange(12 * 64 * channels).reshape(12, 8, 8, channels) % 256
        np.savez(path, pixels.astype(np.uint8))
        return str(path)

    def dataset(self):
        path = self.folder / "dataset.safetensors"
        about = {"classes": None, "shift": 127.5, "scale": 1 / 127.5, "sd": 0.5}
        with writing(path, about) as writer:
            for split in ("train", "test"):
                writer.add(split, np.zeros((12, 8, 8, 1), np.uint8), [0] * 12)
        return str(path)

    def nearest(self, generated=range(10), held_out=range(5, 15)):
        """What `find-nearest` writes of distances in pixels, a tenth of those in features."""
        path, tensors = self.folder / "nearest.safetensors", {"held_out.rows": torch.arange(10)}
        for of, distances in (("generated", generated), ("held_out", held_out)):
            found = torch.tensor(list(distances), dtype=torch.float64)
            for space, factor in (("pixels", 0.01), ("features", 0.1)):
                tensors[f"{of}.{space}.distance"] = factor * found
                tensors[f"{of}.{space}.row"] = torch.arange(10).flip(0)
        fd = {
            "generated": {"training": 30.0, "held_out": 31.5},
            "held_out": {"training": 2.25},
            "training": {"held_out": 2.0},
        }
        checkpoint.save(path, tensors, features="classifier", fd=fd, against=360)
        return str(path)


def read_table(path):
    """Rows of a Markdown table, as lists of cells."""
    lines = [line for line in path.read_text().splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line[1:-1].split(" | ")] for line in lines]
