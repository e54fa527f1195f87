"""The whole config: its blocks, checked together, and the cells they ask for. Loads no torch."""

from pydantic import PrivateAttr, ValidationError, model_validator

from ect import checks, config, dataset, inherit, plugins, questions, recipe
from ect.cells import Milestone, Sampled, Tuned
from ect.config import Name
from ect.mistakes import line_of


class ConfigError(ValueError):
    """A config that cannot be run; the message names each key, what was found, what is allowed."""


class Whole(config.Block):
    """A whole config file, checked; a `Study` is one whose jobs have settings."""

    study: Name
    """Its name: `results/NAME/` is the folder of what it makes."""
    plugins: list[str] = []
    """Python files with parts of one's own."""
    dataset: dataset.Dataset
    """The images."""
    features: config.Features
    """The space in which distances are measured."""
    networks: dict[Name, recipe.Network]
    """U-Nets by name."""
    pretrain: dict[Name, recipe.Pretrain]
    """Pretrainings by name."""
    init: dict[Name, recipe.Init] = {}
    """Models from elsewhere, by name, as starts of tuning."""
    schedules: dict[Name, recipe.Schedule]
    """Maps t -> r by name."""
    tune: dict[Name, recipe.Tune]
    """Recipes of tuning by name."""
    samplers: dict[Name, config.Sampler]
    """Samplers by name."""
    evaluation: config.Evaluation
    """How many images, and what is measured of them."""
    experiments: dict[Name, questions.Experiment]
    """Questions by name: a table each, and a heading of the page."""
    figures: questions.Figures
    """What figures show, and their size."""
    search: questions.Search | None = None
    """Search of the intermediate times of multistep sampling."""
    _brought: dict = PrivateAttr({})

    @classmethod
    def read(cls, mapping):
        """Check a mapping, as read from YAML; raises `ConfigError`."""
        try:
            named = mapping.get("plugins", []) if isinstance(mapping, dict) else []
            return cls.model_validate(inherit.resolve(mapping), context=plugins.read(named))
        except ValidationError as error:
            raise ConfigError("\n".join(line_of(cls, e) for e in error.errors())) from None
        except ValueError as error:
            raise ConfigError(str(error)) from None

    @model_validator(mode="after")
    def _parts_fit(self, info):
        self._brought = info.context or {}
        checks.check(self)
        return self

    @property
    def root(self):
        """The folder of this study's artefacts."""
        return f"results/{self.study}"

    def cells(self, experiment):
        """The evaluated cells of an experiment, in the order of its rows."""
        rows = self.experiments[experiment].rows
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
        """The metrics of rows of one model, and the million images behind its imported start."""
        start = rows.pretrain[0]
        elsewhere = self.init[start].pretrain_mimg if start in self.init else 0.0
        paths = [f"{self.root}/{cell.folder}/metrics.json" for cell in self._expand(rows)]
        return {"start_mimg": elsewhere, "metrics": paths}

    def searched(self):
        """The tuned models whose intermediate times are searched."""
        return [self._model(cut) for cut in self.search.models] if self.search else []

    def _model(self, cut):
        return Tuned(
            self._start(cut.pretrain, cut.kimg), cut.schedule, cut.tune, cut.tune_kimg, cut.seed
        )

    def _start(self, name, kimg):
        """A milestone of a pretraining, or an imported model at its only one, 0."""
        return Milestone(name, 0 if name in self.init else self.pretrain[name].seed, kimg)

    def _expand(self, rows):
        for name in rows.pretrain:
            for kimg, tune_kimg in rows.budgets():
                start = self._start(name, int(kimg))
                models = [start]
                if rows.tune is not None:
                    models = [
                        Tuned(start, schedule, rows.tune, int(tune_kimg), seed)
                        for schedule in rows.schedules
                        for seed in rows.seeds
                    ]
                yield from (Sampled(m, sampler) for m in models for sampler in rows.samplers)

    def network_files(self):
        """The file of a feature space's network that the study does not train itself, if any."""
        block = self.features
        if block.extractor == "inception" and block.inception_path is None:
            return [config.FETCHED]
        if block.extractor == "inception":
            return [f"{block.inception_path}/{config.INCEPTION_FILE}"]
        return [block.dinov2_path] if block.extractor == "dinov2" else []

    def consistency_samplers(self):
        """The names of the multistep samplers, by their evaluations: Snakemake puts the keys of a
        file that is laid over another before those of the other."""
        found = [name for name, block in self.samplers.items() if block.kind == "multistep"]
        return sorted(found, key=lambda name: self.samplers[name].evaluations)

    def chain(self, name):
        """The milestones of a pretraining that experiments use, and those on the way to them."""
        block = self.pretrain[name]
        cells = [cell.model for cell in self.all_cells()]
        starts = [m.start if isinstance(m, Tuned) else m for m in cells]
        last = max((m.kimg for m in starts if m.pretrain == name), default=0)
        return [Milestone(name, block.seed, k) for k in range(block.every, last + 1, block.every)]

    def stages_of(self, model):
        """The number of stages of a tuned model's schedule, where it has steps at all."""
        stages = self.schedules[model.schedule].options().get("stages")
        return stages if isinstance(stages, int) else None
