"""Which jobs of a study are to do: their file is not there, or what it is made from changed since.

A change is told by the records of the jobs that prepare, train and sample: by their settings and
the version of their stage. Snakemake knows of more, such as another metric. Loads no torch.
"""

import json
import os
from pathlib import Path

from ect.config.cells import Tuned
from ect.runtime.versions import STAGES
from ect.study import settings

BLIND = ("import_model", "fetch_inception", "draw_maps")  # rules that read no images
REPORTS = ("tabulate", "draw_", "write_page")  # how rules of reports begin
MEASURES = (
    "extract_reference", "summarize_reference", "measure_floor", "extract", "evaluate",
    "trace_tuning", "search_steps", "find_nearest",
)  # fmt: skip


def left(config, every, images_changed=False):
    """Those of the jobs `every` that are to do, in their order. `images_changed` is whether the
    files of images are others than when they were prepared."""
    changes = Changes(config, every, images_changed)
    found = {job for job in every if not _is_there(config, job) or changes.reach(job)}
    folders = {os.path.dirname(job.path) for job in found}
    return [job for job in every if job in found or _reports_of(config, job, folders)]


def _is_there(config, job):
    return any(Path().glob(os.path.normpath(f"{config.root}/{job.path}")))


def _reports_of(config, job, folders):
    """Whether a job is a report of jobs in these folders: that of one experiment of its cells."""
    if job.rule in BLIND or not job.rule.startswith(REPORTS):
        return False
    if job.rule in ("tabulate", "draw_experiment"):
        return any(cell.folder in folders for cell in config.cells(Path(job.path).stem))
    return any(folder not in ("tables", "figures", ".", "") for folder in folders)


class Changes:
    """What of a study is not as its config says: images, feature space, models, drawn images."""

    def __init__(self, config, every, images):
        self.config, self.known = config, {}
        self.images = images or self._differs("data", config.dataset.resolved(), "prepare")
        self.space = self._differs("features", settings.train_classifier(config), "classifier")
        old = {job.model for job in every if job.model and self._is_old(job.model)}
        self.folders = [f"{model.folder}/" for model in old]
        self.folders += [f"{folder}/" for folder, wanted in self._drawn()
                         if self._differs(folder, wanted, "sample")]  # fmt: skip

    def reach(self, job):
        """Whether a job, no report, reads what changed."""
        if job.rule in BLIND:
            return False
        if self.images or (self.space and job.rule in (*MEASURES, "train_classifier")):
            return True
        return job.path.startswith(tuple(self.folders))

    def _is_old(self, model):
        """Whether a model was trained by other settings, or goes on from one that was."""
        if model not in self.known:
            before = self._before(model)
            given = not isinstance(model, Tuned) and model.pretrain in self.config.given
            wanted = None if given else settings.train(self.config, model)
            old = wanted is not None and self._differs(model.folder, wanted, "train")
            self.known[model] = old or any(self._is_old(other) for other in before)
        return self.known[model]

    def _before(self, model):
        """The models that one goes on from."""
        if isinstance(model, Tuned):
            return [model.start]
        name = model.pretrain
        if name in self.config.tuned:
            return [self.config.origin(name)]
        if name in self.config.averages:
            return self.config.milestones_of(name, model.seed)
        if name in self.config.init or model.kimg == 0:
            return []
        return [model.__class__(name, model.seed, self.config.pretrain[name].before(model.kimg))]

    def _drawn(self):
        """(folder, settings) of every set of images that is kept for its distance."""
        if "npz" in self.config.evaluation.export:
            for cell in self.config.all_cells():
                for index in range(self.config.evaluation.repeats):
                    folder = cell.folder + (f"/repeat-{index}" if index else "")
                    yield folder, settings.sample(self.config, cell.sampler, index, cell.replicate)

    def _differs(self, folder, wanted, stage):
        """Whether the run.json in a folder of the study names other settings, or another version of
        its stage. One that cannot be read is named by whoever reads it."""
        try:
            record = json.loads(Path(self.config.root, folder, "run.json").read_text())
            made, version = record["settings"], record["stages"][stage]
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return made != json.loads(json.dumps(wanted)) or version != STAGES[stage]
