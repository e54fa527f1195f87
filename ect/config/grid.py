"""The blocks of a config, and the cells that they ask for. Loads no torch."""

from itertools import product
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr

from ect.config.averages import Average
from ect.config.base import Block, Name, study_name
from ect.config.cells import Milestone, Sampled, Tuned
from ect.config.dataset import Dataset
from ect.config.evaluation import Evaluation, Features, Sampler
from ect.config.experiments import Experiment, Figures, Search
from ect.config.network import Network
from ect.config.schedule import Schedule
from ect.config.start import Init
from ect.config.training import Pretrain
from ect.config.trajectories import Trajectories
from ect.config.tune import Tune
from ect.config.tuned import First
from ect.schedule import CONTINUOUS_TIME


class Grid(Block):
    """The keys of a config, and the study's grid: starts, cells, and the models that they need."""

    study: Annotated[Name, AfterValidator(study_name)]
    """The study's name: its results are in `results/NAME/`; not `published`, which is there."""
    plugins: list[str] = []
    """Python files that add parts, such as a schedule."""
    budget: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """Every number of images of the study times this: `kimg`, `every`, `milestones`, `tune_kimg`,
    `total_kimg`, `up_to_kimg`, `warmup_kimg`, `decay_kimg` and `ema_halflife_kimg`. Whole thousands
    stay whole, so the nearest possible budget is taken, and told."""
    dataset: Dataset
    """The images."""
    features: Features
    """The space in which distances are measured."""
    networks: dict[Name, Network]
    """U-Nets by name."""
    pretrain: dict[Name, Pretrain]
    """Pretraining runs by name."""
    init: dict[Name, Init] = {}
    """Models from elsewhere, by name, as starts of tuning."""
    averages: dict[Name, Average] = {}
    """Averages of another length, by name, as starts."""
    tuned: dict[Name, First] = {}
    """Tuned models of this study, by name, as starts of a second stage of tuning."""
    trajectories: dict[Name, Trajectories] = {}
    """Solved trajectories of a pretrained model, by name, for mid-training."""
    schedules: dict[Name, Schedule]
    """Maps t -> r by name."""
    tune: dict[Name, Tune]
    """Recipes of tuning by name."""
    samplers: dict[Name, Sampler]
    """Samplers by name."""
    evaluation: Evaluation
    """How many images, and what is measured of them."""
    experiments: Annotated[dict[Name, Experiment], Field(min_length=1)]
    """Experiments by name: each is a question, a table and a figure on the page."""
    figures: Annotated[Figures, BeforeValidator(lambda block: {} if block is None else block)]
    """What figures show, and their size. Null: neither a grid of samples nor a loss page."""
    search: Search | None = None
    """Search of the intermediate times of multistep sampling."""
    _plugin_parts: dict = PrivateAttr({})

    @property
    def plugin_parts(self):
        """{kind: {name: Part}} of the plugins' parts."""
        return self._plugin_parts

    @property
    def given(self):
        """The starts that are one model, not a chain: imported ones, averages, tuned ones."""
        return self.init | self.averages | self.tuned

    def first_of(self, start):
        """The start itself or, of a tuned one, that of its first stage."""
        return self.tuned[start].pretrain if start in self.tuned else start

    def chain_of(self, start):
        """The name of the pretraining run that a start is of, or averages, or goes on from; None if
        imported."""
        start = self.first_of(start)
        if start in self.init:
            return None
        return self.averages[start].pretrain if start in self.averages else start

    def block_of(self, start):
        """The block that says what a start is: of its chain, also for an average, or its import."""
        chain = self.chain_of(start)
        return self.init[self.first_of(start)] if chain is None else self.pretrain[chain]

    def origin(self, start):
        """The tuned model that a start in `tuned` is."""
        return self._model(self.tuned[start])

    def teacher(self, trajectories):
        """The pretrained model whose ODE the trajectories of a name are solved of."""
        block = self.trajectories[trajectories]
        return self._start(block.pretrain, block.kimg)

    def solved(self):
        """{name: its pretrained model} of the trajectories that the study trains on."""
        used = [self.tune[model.recipe].trajectories for model in self.all_tuned()]
        return {name: self.teacher(name) for name in dict.fromkeys(used) if name is not None}

    def kimg_of(self, start):
        """Thousand images that went into a start (a Milestone) in this study."""
        name = start.pretrain
        if name in self.tuned:
            return self.kimg_of(self.origin(name).start) + self.tuned[name].tune_kimg
        return self.averages[name].kimg if name in self.averages else start.kimg

    def milestones_of(self, start, number):
        """The milestones of the chain that an average is reconstructed from: those of its
        pretraining of this number, 0 but in replicates."""
        block = self.averages[start]
        chain = self.pretrain[block.pretrain]
        kimgs = chain.milestones_to(block.kimg)[1:]
        return [Milestone(block.pretrain, chain.seed + number, kimg) for kimg in kimgs]

    @property
    def root(self):
        """The folder of this study's artefacts."""
        return f"results/{self.study}"

    def cells(self, experiment):
        """The evaluated cells of an experiment, in the order of its rows, each once."""
        rows = self.experiments[experiment].asked()
        return list(dict.fromkeys(cell for block in rows for cell in self._expand(block)))

    def solvers(self, experiment):
        """{sampler: its kind} of an experiment."""
        return {c.sampler: self.samplers[c.sampler].kind for c in self.cells(experiment)}

    def lengths(self, experiment):
        """{average: {"ema_std": its length}} of an experiment that compares lengths."""
        starts = {cell.model.pretrain: None for cell in self.cells(experiment)}
        return {start: {"ema_std": self.averages[start].ema_std} for start in starts}

    def all_cells(self):
        """Every evaluated cell of the study, once."""
        return list(dict.fromkeys(c for name in self.experiments for c in self.cells(name)))

    def shown(self, figure):
        """The tuned model that a figure, `samples` or `loss`, shows; None without the figure."""
        cut = getattr(self.figures, figure)
        return None if cut is None else self._model(cut)

    def beside_cells(self):
        """The tuned models that the study needs beside those of its cells."""
        shown = [self.shown("samples"), self.shown("loss")]
        shown += [self.compared().model] if self.figures.nearest else []
        return [model for model in shown if model is not None] + self.searched()

    def compared(self):
        """The images that are compared with their nearest training images; None without any."""
        cut = self.figures.nearest
        return cut and Sampled(self._model(cut), cut.sampler)

    def all_tuned(self):
        """Every tuned model that the study trains, once: also the first stages of others."""
        models = [*(cell.model for cell in self.all_cells()), *self.beside_cells()]
        tuned = [model for model in models if isinstance(model, Tuned)]
        starts = {getattr(model, "start", model).pretrain for model in models}
        return list(dict.fromkeys([*tuned, *map(self.origin, sorted(starts & {*self.tuned}))]))

    def beside_published(self):
        """The settings of the paper's table: the cells that stand beside published numbers; empty
        where none does."""
        cells = [
            {**wanted.model_dump(), **self._evaluated(rows)}
            for experiment in self.experiments.values()
            for rows in experiment.rows
            for wanted in rows.published
        ]
        return {"dataset": self.dataset.source, "cells": cells} if cells else {}

    def _evaluated(self, rows):
        """The metrics.json files of rows of one model, and the million images that its imported
        start was trained on."""
        start = rows.pretrain[0]
        first = self.first_of(start)
        elsewhere = self.init[first].pretrain_mimg if first in self.init else 0.0
        if elsewhere is not None and start in self.averages | self.tuned:
            elsewhere += self.kimg_of(self._start(start, 0)) / 1000
        paths = [f"{self.root}/{cell.folder}/metrics.json" for cell in self._expand(rows)]
        return {"start_mimg": elsewhere, "metrics": paths}

    def searched(self):
        """The tuned models whose intermediate times are searched."""
        return [self._model(cut) for cut in self.search.models] if self.search else []

    def _model(self, cut):
        return Tuned(
            self._start(cut.pretrain, cut.kimg), cut.schedule, cut.tune, cut.tune_kimg, cut.seed
        )

    def _start(self, name, kimg, pretraining=0):
        """A milestone of a pretraining run; a start that is one model has only milestone 0, an
        average one for each pretraining."""
        if name in self.pretrain:
            return Milestone(name, self.pretrain[name].seed + pretraining, kimg)
        return Milestone(name, pretraining if name in self.averages else 0, kimg)

    def _expand(self, rows):
        for name in rows.pretrain:
            for kimg, tune_kimg in rows.budgets():
                for schedule, run in product(rows.schedules or [None], rows.runs()):
                    pretraining, seed, replicate = run
                    model = start = self._start(name, int(kimg), pretraining)
                    if rows.tune is not None:
                        model = Tuned(start, schedule, rows.tune, int(tune_kimg), seed)
                    yield from (Sampled(model, name, replicate) for name in rows.samplers)

    def network_files(self):
        """The file of a feature space's network that the study does not train itself, if any."""
        return [self.features.network_file] if self.features.network_file else []

    def consistency_samplers(self):
        """The names of the multistep samplers, sorted by evaluations: Snakemake changes their order
        when it lays one file over another."""
        multistep = [name for name, block in self.samplers.items() if block.kind == "multistep"]
        return sorted(multistep, key=lambda name: self.samplers[name].evaluations)

    def chain(self, name):
        """The milestones of a pretraining run that experiments use, and all before them."""
        block = self.pretrain[name]
        cells = [cell.model for cell in self.all_cells()]
        starts = [m.start if isinstance(m, Tuned) else m for m in cells]
        starts += [self.origin(m.pretrain).start for m in starts if m.pretrain in self.tuned]
        starts += self.solved().values()
        starts += [
            self.milestones_of(m.pretrain, m.seed)[-1]
            for m in starts
            if m.pretrain in self.averages
        ]
        last = max((m.kimg for m in starts if m.pretrain == name), default=0)
        return [Milestone(name, block.seed, k) for k in block.milestones_to(last)[1:]]

    def has_own_loss(self, schedule):
        """Whether a schedule names a loss, not a map t -> r: at r -> t, or a plugin's objective."""
        name = self.schedules[schedule].map
        return name in CONTINUOUS_TIME or name in self.plugin_parts.get("objective", {})

    def has_pairs(self, model):
        """Whether a tuned model's loss compares f at pairs of noise levels that a map gives, by a
        distance of numbers, so that it is known of Gaussian data."""
        perceptual = self.tune[model.recipe].distance.kind == "lpips"
        return not (perceptual or self.has_own_loss(model.schedule))

    def stages_of(self, model):
        """The number of stages of a tuned model's schedule; None if it has no stages."""
        stages = self.schedules[model.schedule].options().get("stages")
        return stages if isinstance(stages, int) else None
