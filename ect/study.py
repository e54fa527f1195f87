"""The study: a whole config, and the settings of each job. Loads no torch.

`Study.read(mapping)` checks a whole config before the first job starts and raises `ConfigError`
with one line for each mistake: the key, what was found, what is allowed. Every cell knows the
folder of its artefacts, and the study the settings that each job receives.
"""

import json
import shlex

from ect import recipe
from ect.cells import Milestone, Tuned
from ect.schedule import LIMITS
from ect.whole import ConfigError, Whole

__all__ = ["STAGES", "ConfigError", "Milestone", "Study", "Tuned"]

# The version of what each stage computes. Raising one re-runs its jobs: do so whenever the same
# settings would give other bits.
STAGES = {
    "prepare": 1,
    "import": 1,
    "classifier": 1,
    "train": 2,
    "sample": 1,
    "extract": 1,
    "evaluate": 1,
    "trace": 1,
    "search": 1,
    "report": 1,
}
# The version of ect/kernels, in the settings of those recipes alone that use them.
NATIVE = 3

# What a recipe does unless it says otherwise; it is in a job's settings where it does.
SILENT = {"microbatch": None, "precision": "fp32", "kernels": "torch", "shared_dropout": True}


class Study(Whole):
    """A whole config file, and what its jobs are told."""

    def training(self, model):
        """The resolved settings of the job that trains `model`: all that its bits depend on,
        beside its start. A milestone's do not mention where its chain ends."""
        if isinstance(model, Tuned):
            training = self._recipe(self.tune[model.recipe])
            snapshots, target = training.pop("snapshots"), training.pop("target")
            parts, schedule = self._parts(model.start.pretrain), self.schedules[model.schedule]
            used = [("process", parts.get("process")), ("weight", training["weight"])]
            return parts | {
                "recipe": training,
                "schedule": schedule.resolved(),
                "target": target,
                "seed": model.seed,
                "first_kimg": 0,
                "last_kimg": model.kimg,
                "snapshots": snapshots,
                **self._using(*used, ("schedule", schedule.map)),
            }
        chain = self.pretrain[model.pretrain]
        return self._parts(model.pretrain) | {
            "recipe": {
                k: v for k, v in self._recipe(chain).items() if k in recipe.Recipe.model_fields
            },
            "schedule": {"map": "zero", "options": {}, "clock": "noise"},
            "target": "own",
            "seed": chain.seed,
            "first_kimg": max(model.kimg - chain.every, 0),
            "last_kimg": model.kimg,
            "snapshots": 0,
            **self._using(("process", chain.process), ("weight", chain.weight)),
        }

    def _using(self, *used):
        """{"plugins": {file: sha256}} of those that bring what is used, pairs (kind, name); nothing
        where none does, so that a job depends on its own plugins alone."""
        found = [self._brought.get(kind, {}).get(name) for kind, name in used]
        digests = dict(sorted((part.path, part.digest) for part in found if part))
        return {"plugins": digests} if digests else {}

    def _parts(self, name):
        """What the network is and how f is made of it; nothing for an imported model, whose file
        says so."""
        if name in self.init:
            return {}
        chain = self.pretrain[name]
        parts = {key: getattr(chain, key) for key in ("process", "parameterization", "c_noise")}
        return {"network": self.networks[chain.network].resolved(), **parts}

    def importing(self, name):
        """The words of `import-model` for a start, less the one file that is its input: the format,
        and what that file does not say."""
        block = self.init[name]
        if block.format == "diffusers":
            return shlex.join([block.format, block.file])
        if block.format == "state_dict":
            network = self.networks[block.network].resolved()
            about = json.dumps(block.meaning() | {"network": network}, separators=(",", ":"))
            return shlex.join([block.format, "--about", about])
        return block.format

    def _recipe(self, block):
        """A recipe's settings, without the choices it does not make: other jobs keep their text."""
        settings = block.model_dump() | {"prior": block.prior.resolved()}
        if settings["kernels"] == "native":
            settings["kernels"] = f"native-{NATIVE}"
        return {k: v for k, v in settings.items() if k not in SILENT or v != SILENT[k]}

    def sampling(self, sampler, repeat=0):
        """The resolved settings of a job that draws images: of the first repeat, or a later one."""
        block = self.samplers[sampler]
        seeds = self.evaluation.model_dump(include={"images", "batch", "seed"})
        seeds["seed"] += repeat * seeds["images"]
        labels = {"labels": block.labels}
        own = self._drawing() | self._using(("sampler", block.kind))
        return {"kind": block.kind, "options": block.options(), **labels, **seeds, **own}

    def _drawing(self):
        """The precision of all that is drawn, where it is a choice."""
        precision = self.evaluation.precision
        return {} if precision == SILENT["precision"] else {"precision": precision}

    def saving(self, sampler, repeat):
        """The resolved settings of a job that writes samples.npz: of all images or, where the
        config does not export it, of those that the figure of samples shows."""
        settings = self.sampling(sampler, repeat)
        if "npz" not in self.evaluation.export:
            settings["images"] = min(settings["images"], self.figures.grid_columns)
        return settings

    def classifying(self):
        """The resolved settings of the job that trains the classifier; none without one."""
        block = self.features.classifier
        return block.resolved() if block else {}

    def extracting(self, sampler=None, repeat=0):
        """The resolved settings of a job that extracts features: of samples.npz or the training
        images, or, where the config does not export that, of a sampler's images."""
        settings = {"features": self.feature_space()}
        if sampler is not None and "npz" not in self.evaluation.export:
            settings["sampling"] = self.sampling(sampler, repeat)
        return settings

    def measuring(self, cell):
        """The resolved settings of a job that measures the images of a cell, or, where it is None,
        the held-out ones. The metrics are named where they are not the two distances alone."""
        named = {"metrics": self.evaluation.metrics}
        return {
            "features": self._measured_space(),
            "cell": {"floor": True} if cell is None else self.facts(cell),
            **(named if set(self.evaluation.metrics) != {"fd", "kd"} else {}),
        }

    def feature_space(self):
        """The resolved settings of the feature space, for every job that extracts features."""
        others = {"classifier"} | ({"dinov2_path"} if self.features.dinov2_path is None else set())
        block = self.features.model_dump(exclude=others)
        own = self._using(("features", self.features.extractor))
        return block | own

    def _measured_space(self):
        """The feature space, and what the kernel distance in it depends on."""
        return self.feature_space() | {"kd_subsets": self.evaluation.kd_subsets}

    def tracing(self):
        """The resolved settings of a job that measures snapshots: with every multistep sampler."""
        names = self.consistency_samplers()
        return {
            "features": self.feature_space(),
            "samplers": {self.samplers[name].label: self.sampling(name) for name in names},
        }

    def searching(self):
        """The resolved settings of a search of intermediate times; none without one."""
        if self.search is None:
            return {}
        test, block = self.evaluation, self.search.model_dump(exclude={"models"})
        seeds = {"test_seed": test.seed, "test_images": test.images, "batch": test.batch}
        return {"features": self._measured_space(), **block, **seeds, **self._drawing()}

    def maps(self):
        """The settings of the figure of maps: every schedule of the config on the clock s with a
        gap t - r, and all of its options."""
        blocks = self.schedules.items()
        shown = {n: b for n, b in blocks if b.clock == "noise" and b.map not in LIMITS}
        schedules = {n: {"map": b.map, "options": b.options()} for n, b in shown.items()}
        own = self._using(*(("schedule", block.map) for block in shown.values()))
        return {"schedules": schedules} | own

    def facts(self, cell):
        """What metrics.json says of its cell."""
        model, sampler = cell.model, self.samplers[cell.sampler]
        tuned = isinstance(model, Tuned)
        start = model.start if tuned else model
        parts = self._parts(start.pretrain)
        return {
            "pretrain": start.pretrain,
            "process": parts.get("process"),
            "parameterization": parts.get("parameterization"),
            "kimg": start.kimg,
            "schedule": model.schedule if tuned else None,
            "recipe": model.recipe if tuned else None,
            "tune_kimg": model.kimg if tuned else None,
            "seed": model.seed,
            "sampler": cell.sampler,
            "label": sampler.label,
            "nfe": sampler.evaluations,
        }
