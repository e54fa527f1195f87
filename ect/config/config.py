"""The whole config: its blocks, checked together, and the cells they ask for. Loads no torch."""

from itertools import product
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, PrivateAttr, ValidationError, model_validator

from ect.config import averages, base, checks, compared, fits, gaps, load, places, rates, training
from ect.config.averages import Average
from ect.config.base import Name
from ect.config.cells import Milestone, Sampled, Tuned
from ect.config.dataset import Dataset
from ect.config.errors import at, line_of, lines_of, without_base
from ect.config.evaluation import FETCHED, INCEPTION_FILE, Evaluation, Features, Sampler
from ect.config.experiments import Experiment, Figures, Search
from ect.config.schedule import Schedule
from ect.config.start import Init
from ect.plugins import read as read_plugins
from ect.schedule import CONTINUOUS_TIME


class ConfigError(ValueError):
    """A config that cannot be run; the message names each key, what was found, what is allowed."""


def require_plain(mapping, place_of):
    """Raises `ConfigError` for what no config may hold, whatever its key."""
    places.require_bounded(mapping)
    found = {}
    for path, message in places.unfit(mapping):
        place, key = place_of(path), ".".join(map(str, path))
        told = at(place, f"{key}: {message}")
        found.setdefault(place[:3] if place and place.line else path, told)
    if found:
        raise ConfigError("\n".join(found.values()))


def _plugins(mapping):
    """{kind: {name: Part}} of the plugins that a mapping lists."""
    named = mapping.get("plugins", []) if isinstance(mapping, dict) else []
    if isinstance(named, list) and all(isinstance(path, str) for path in named):
        try:
            base.distinct([base.path(path) for path in named])
        except ValueError as error:
            raise ValueError(f"plugins: {error}") from None
    return read_plugins(named)


class Config(base.Block):
    """A whole config file, checked."""

    study: Annotated[Name, AfterValidator(base.study_name)]
    """The study's name: its results are in `results/NAME/`; not `published`, which is there."""
    plugins: list[str] = []
    """Python files that add parts, such as a schedule."""
    dataset: Dataset
    """The images."""
    features: Features
    """The space in which distances are measured."""
    networks: dict[Name, training.Network]
    """U-Nets by name."""
    pretrain: dict[Name, training.Pretrain]
    """Pretraining runs by name."""
    init: dict[Name, Init] = {}
    """Models from elsewhere, by name, as starts of tuning."""
    averages: dict[Name, Average] = {}
    """Averages of another length, by name, as starts."""
    schedules: dict[Name, Schedule]
    """Maps t -> r by name."""
    tune: dict[Name, training.Tune]
    """Recipes of tuning by name."""
    samplers: dict[Name, Sampler]
    """Samplers by name."""
    evaluation: Evaluation
    """How many images, and what is measured of them."""
    experiments: Annotated[dict[Name, Experiment], Field(min_length=1)]
    """Experiments by name: each is a question, a table and a figure on the page."""
    figures: Figures
    """What figures show, and their size."""
    search: Search | None = None
    """Search of the intermediate times of multistep sampling."""
    _plugin_parts: dict = PrivateAttr({})

    @classmethod
    def read(cls, mapping, where=None):
        """Check a mapping, as read from YAML; raises `ConfigError`. `where` are the places of its
        keys, which a mapping that was read from files has itself."""
        where = getattr(mapping, "places", {}) if where is None else where

        def place_of(path):
            return places.find(where, load.origin(mapping, path))

        try:
            require_plain(mapping, place_of)
            return cls.model_validate(load.resolve(mapping), context=_plugins(mapping))
        except ValidationError as error:
            found = error.errors()
            told = without_base(found) or lines_of(cls, found, place_of)
            raise ConfigError("\n".join(told)) from None
        except ConfigError:
            raise
        except ValueError as error:
            raise ConfigError(line_of(str(error), place_of)) from None

    @model_validator(mode="after")
    def _parts_fit(self, info):
        self._plugin_parts = info.context or {}
        fits.require_bounded(self)
        averages.check(self)
        checks.check(self)
        compared.check(self)
        fits.check(self, self.dataset.facts)
        gaps.check(self)
        rates.check(self)
        self._require_results_apart()
        return self

    def _require_results_apart(self):
        """The images of a folder are not those that the study itself draws into it."""
        folder = self.dataset.folder
        if folder is not None and Path(self.root).resolve().is_relative_to(Path(folder).resolve()):
            raise ValueError(
                f"dataset.path: found {base.short(self.dataset.path)}, which holds the study's own"
                f" figures in {self.root}; allowed: a folder of images alone"
            )

    @property
    def plugin_parts(self):
        """{kind: {name: Part}} of the plugins' parts."""
        return self._plugin_parts

    @property
    def given(self):
        """The starts that are one model, not a chain: imported ones and averages."""
        return self.init | self.averages

    def chain_of(self, start):
        """The name of the pretraining run that a start is of, or averages; None if imported."""
        if start in self.init:
            return None
        return self.averages[start].pretrain if start in self.averages else start

    def block_of(self, start):
        """The block that says what a start is: of its chain, also for an average, or its import."""
        chain = self.chain_of(start)
        return self.init[start] if chain is None else self.pretrain[chain]

    def milestones_of(self, start):
        """The milestones of the chain that an average is reconstructed from."""
        block = self.averages[start]
        chain = self.pretrain[block.pretrain]
        kimgs = chain.milestones_to(block.kimg)[1:]
        return [Milestone(block.pretrain, chain.seed, kimg) for kimg in kimgs]

    @property
    def root(self):
        """The folder of this study's artefacts."""
        return f"results/{self.study}"

    def cells(self, experiment):
        """The evaluated cells of an experiment, in the order of its rows."""
        rows = self.experiments[experiment].asked()
        return [cell for block in rows for cell in self._expand(block)]

    def solvers(self, experiment):
        """{sampler: its kind} of an experiment."""
        return {c.sampler: self.samplers[c.sampler].kind for c in self.cells(experiment)}

    def all_cells(self):
        """Every evaluated cell of the study, once."""
        return list(dict.fromkeys(c for name in self.experiments for c in self.cells(name)))

    def shown(self, figure):
        """The tuned model that a figure, `samples` or `loss`, shows."""
        return self._model(getattr(self.figures, figure))

    def compared(self):
        """The images that are compared with their nearest training images; None without any."""
        cut = self.figures.nearest
        return cut and Sampled(self._model(cut), cut.sampler)

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
        elsewhere = self.init[start].pretrain_mimg if start in self.init else 0.0
        if start in self.averages:
            elsewhere = self.averages[start].kimg / 1000
        paths = [f"{self.root}/{cell.folder}/metrics.json" for cell in self._expand(rows)]
        return {"start_mimg": elsewhere, "metrics": paths}

    def searched(self):
        """The tuned models whose intermediate times are searched."""
        return [self._model(cut) for cut in self.search.models] if self.search else []

    def _model(self, cut):
        return Tuned(
            self._start(cut.pretrain, cut.kimg), cut.schedule, cut.tune, cut.tune_kimg, cut.seed
        )

    def _start(self, name, kimg, replicate=0):
        """A milestone of a pretraining run; a start that is one model has only milestone 0."""
        seed = 0 if name in self.given else self.pretrain[name].seed + replicate
        return Milestone(name, seed, kimg)

    def _expand(self, rows):
        for name in rows.pretrain:
            for kimg, tune_kimg in rows.budgets():
                for schedule, (replicate, seed) in product(rows.schedules or [None], rows.runs()):
                    model = start = self._start(name, int(kimg), replicate)
                    if rows.tune is not None:
                        model = Tuned(start, schedule, rows.tune, int(tune_kimg), seed)
                    yield from (Sampled(model, name, replicate) for name in rows.samplers)

    def network_files(self):
        """The file of a feature space's network that the study does not train itself, if any."""
        block = self.features
        if block.extractor == "inception" and block.inception_path is None:
            return [FETCHED]
        if block.extractor == "inception":
            return [f"{block.inception_path}/{INCEPTION_FILE}"]
        return [block.dinov2_path] if block.extractor == "dinov2" else []

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
        starts += [
            self.milestones_of(m.pretrain)[-1] for m in starts if m.pretrain in self.averages
        ]
        last = max((m.kimg for m in starts if m.pretrain == name), default=0)
        return [Milestone(name, block.seed, k) for k in block.milestones_to(last)[1:]]

    def has_pairs(self, model):
        """Whether a tuned model's loss compares f at pairs of noise levels, not at r -> s."""
        return self.schedules[model.schedule].map not in CONTINUOUS_TIME

    def stages_of(self, model):
        """The number of stages of a tuned model's schedule; None if it has no stages."""
        stages = self.schedules[model.schedule].options().get("stages")
        return stages if isinstance(stages, int) else None
