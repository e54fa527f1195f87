"""The blocks of a config that ask questions: experiments made of rows, a search, figures. Loads no
torch."""

import math
from fractions import Fraction
from typing import Annotated, Literal

from pydantic import Field, model_serializer, model_validator

from ect.config.base import (
    Block,
    Count,
    Level,
    Name,
    Positive,
    Seed,
    Text,
    distinct_list,
    names,
    short,
    whole,
)

Kind = Literal["methods", "schedules", "split", "scaling", "solvers", "noise", "ends", "lengths"]
Percent = Annotated[int, Field(ge=0, lt=100)]
Inches = Annotated[float, Field(ge=2, le=100)]  # narrower axes are of size 0


class Published(Block):
    """Lines of ect/config/published.csv."""

    method: str
    """As in the file."""
    budget_mimg: Positive | None = None
    """Million images of tuning, where the method has several budgets."""


class Rows(Block):
    """Cells as a product of lists: starts (a pretraining and its budget) x schedules x seeds, each
    evaluated with `samplers`. Without `tune` the rows are the pretrained models themselves. The
    budgets are `kimg` and `tune_kimg`, or `total_kimg` and `shares`. In place of `seeds`,
    `replicates` repeats all of it."""

    pretrain: distinct_list(Name, Field(min_length=1))
    """Names in `pretrain` or `init`."""
    samplers: distinct_list(Name, Field(min_length=1))
    """Names in `samplers`."""
    kimg: distinct_list(whole(10**9, 0), Field(min_length=1)) | None = None
    """Thousand images of pretraining: milestones of the chain; 0 is its start."""
    tune: Name | None = None
    """A name in `tune`."""
    schedules: distinct_list(Name) = []
    """Names in `schedules`."""
    seeds: distinct_list(Seed, Field(min_length=1)) = [0]
    """Seeds of tuning."""
    replicates: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Number of replicates, in place of `seeds`: the i-th, from 0, has pretraining from its own
    seed + i (an imported start is the same in all), tuning from seed i, and other images' seeds."""
    pretrainings: Annotated[int, Field(ge=2, le=1000)] | None = None
    """Number of pretraining seeds, from its own on, in rows of an experiment of kind `noise`."""
    tunings: Annotated[int, Field(ge=2, le=1000)] | None = None
    """Number of tuning seeds of each of these `pretrainings`, in place of `seeds`. No two models
    share a seed of tuning or of an image; `evaluation.repeats` is the number of sets of images."""
    tune_kimg: Count | None = None
    """Thousand images of tuning."""
    total_kimg: Count | None = None
    """Thousand images of pretraining and tuning together."""
    shares: distinct_list(Percent, Field(min_length=1)) | None = None
    """Percent of the total that belong to pretraining."""
    published: list[Published] = []
    """Published numbers beside these rows in the paper's table; the rows must be of one model."""

    @model_validator(mode="after")
    def _budgets(self):
        split, plain = (self.total_kimg, self.shares), (self.kimg, self.tune_kimg)
        if self.tune is None:
            if self.kimg is None or any(split) or self.tune_kimg or self.schedules:
                raise ValueError(
                    f"found no tune, but {self._given()}; allowed: rows without tune take pretrain,"
                    " kimg, samplers; nothing else"
                )
            if self.seeds != [0]:
                raise ValueError(
                    f"seeds is {short(self.seeds)} without tune, whose seeds they are; allowed:"
                    " replicates, which repeats pretraining too"
                )
        elif not self.schedules:
            raise ValueError("found no schedules; allowed: rows with tune need schedules: [...]")
        elif (None in split) == (None in plain) or any(split) == any(plain):
            raise ValueError(
                f"found {self._given()}; allowed: rows with tune need kimg and tune_kimg, or"
                " total_kimg and shares"
            )
        models = len(self.pretrain) * len(self.budgets()) * len(self.schedules or [None])
        if self.published and models > 1:
            raise ValueError(f"published is set for rows of {models} models; allowed: one model")
        self._require_one_kind_of_seeds()
        return self

    def _require_one_kind_of_seeds(self):
        given = {"seeds", "replicates", "pretrainings"} & self.model_fields_set
        if len(given) > 1:
            raise ValueError(f"found {' and '.join(sorted(given, reverse=True))}; allowed: one")
        if (self.pretrainings is None) != (self.tunings is None):
            raise ValueError("found one of pretrainings and tunings; allowed: both, or none")
        if self.tunings is not None and self.tune is None:
            raise ValueError("found tunings without tune; allowed: with a recipe")

    @model_serializer(mode="wrap")
    def _without_unset(self, handler):
        """Without what is newer than the other keys, where it is not set."""
        newer = ("replicates", "pretrainings", "tunings")
        return {k: v for k, v in handler(self).items() if k not in newer or v is not None}

    def _given(self):
        """The keys that are set."""
        return names(key for key in type(self).model_fields if key in self.model_fields_set)

    def runs(self):
        """The triples (seed of pretraining less its own one, seed of tuning, replicate); the
        replicate decides the images' seeds."""
        if self.tunings is not None:
            count = self.pretrainings * self.tunings
            return [(index // self.tunings, index, index) for index in range(count)]
        if self.replicates is not None:
            return [(index, index, index) for index in range(self.replicates)]
        return [(0, seed, 0) for seed in self.seeds] if self.tune else [(0, 0, 0)]

    def budgets(self):
        """The pairs (thousand images of pretraining, of tuning)."""
        if self.shares is None:
            return [(kimg, self.tune_kimg) for kimg in self.kimg]
        splits = [Fraction(share * self.total_kimg, 100) for share in self.shares]
        return [(split, self.total_kimg - split) for split in splits]


class Experiment(Block):
    """A question, and the rows that answer it."""

    question: Text
    """The question, a heading of the page."""
    kind: Kind
    """Which table, figure and sentences it gets."""
    rows: Annotated[list[Rows], Field(min_length=1)]
    """The cells that answer it; all rows have `replicates`, or none has, so that every n counts the
    same."""
    up_to_kimg: Count | None = None
    """Totals above this are left out, in thousand images: a study of many can go step by step."""

    def asked(self):
        """The rows, but for those whose total is above `up_to_kimg`."""
        most = math.inf if self.up_to_kimg is None else self.up_to_kimg
        return [rows for rows in self.rows if (rows.total_kimg or 0) <= most]

    @model_validator(mode="after")
    def _rows_are_left(self):
        if not self.asked():
            raise ValueError(
                f"up_to_kimg is {self.up_to_kimg}; allowed: a total of the rows, or more"
            )
        if self.up_to_kimg is not None and not any(rows.total_kimg for rows in self.rows):
            raise ValueError(
                f"up_to_kimg is {self.up_to_kimg}, and no rows have total_kimg; allowed: with it"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_unset(self, handler):
        """Without `up_to_kimg` where it is not set: as before there was such a key."""
        return {k: v for k, v in handler(self).items() if (k, v) != ("up_to_kimg", None)}

    @model_validator(mode="after")
    def _one_kind_of_n(self):
        lacking = [index for index, rows in enumerate(self.rows) if rows.replicates is None]
        if 0 < len(lacking) < len(self.rows):
            raise ValueError(
                f"rows.{lacking[0]} has no replicates, others have; allowed: in all rows of an"
                " experiment, or in none"
            )
        for index, rows in enumerate(self.rows):
            if (rows.tunings is None) == (self.kind == "noise"):
                raise ValueError(
                    f"rows.{index} has {'no ' * (rows.tunings is None)}pretrainings and tunings;"
                    " allowed: with the kind noise, and with no other"
                )
        return self


class Cut(Block):
    """One tuned model, named by its parts."""

    pretrain: Name
    """A name in `pretrain` or `init`."""
    kimg: whole(10**9, 0)
    """Thousand images of pretraining."""
    tune: Name
    """A name in `tune`."""
    schedule: Name
    """A name in `schedules`."""
    tune_kimg: Count
    """Thousand images of tuning."""
    seed: Seed = 0
    """Seed of tuning."""


class Nearest(Cut):
    """One tuned model and a sampler, whose images are compared with the training images that are
    nearest to them."""

    sampler: Name
    """A name in `samplers`."""


class Search(Block):
    """A search of intermediate times by golden section in ln s. The times found are then
    measured on the evaluation's own seeds."""

    models: distinct_list(Cut, Field(min_length=1))
    """The tuned models whose times are searched."""
    metric: Literal["fd", "kd"] = "fd"
    """What is minimized: Frechet or kernel distance."""
    steps: distinct_list(whole(64, 2), Field(min_length=1)) = [2, 3, 4]
    """Numbers of steps."""
    images: whole(10**7, 10)
    """Images of each evaluation."""
    seed: Seed
    """Seed of the first image; the search uses no seed of the evaluation."""
    evaluations: whole(1000) = 10
    """Evaluations in one line search."""
    low: Level = 0.02
    """The lowest noise level s."""
    high: Level = 40.0
    """The highest noise level s."""

    @model_validator(mode="after")
    def _ordered(self):
        if self.low >= self.high:
            raise ValueError(f"low is {self.low}; allowed: < high = {self.high}")
        if self.high < 2 * self.low:
            found = f"high is {self.high} with low {self.low}, which leaves its levels no room"
            raise ValueError(f"{found}; allowed: at least twice low")
        return self


class Figures(Block):
    """What the figures show, and their widths."""

    samples: Cut | None = None
    """The model whose images the grid shows; null: no grid."""
    loss: Cut | None = None
    """The model of the loss page; its recipe keeps snapshots. Null: no such page."""
    nearest: Nearest | None = None
    """The images that are compared with their nearest training images, beside held-out ones;
    without the key none are."""
    solver: Name | None = None
    """A name in `samplers`, for the images of the grid before tuning."""
    width_in: Inches = 6.5
    """Width of every figure, in inches."""
    grid_columns: whole(100) = 12
    """Images in a row of the grid."""
    widths_in: dict[Name, Inches] = {}
    """Widths of single figures, in inches."""

    @model_validator(mode="after")
    def _solver_of_a_grid(self):
        if self.samples is not None and self.solver is None:
            raise ValueError("solver: missing; the grid of samples needs one")
        return self

    @model_serializer(mode="wrap")
    def _without_unset(self, handler):
        """Without `nearest` where it is not set: as before there was such a key."""
        return {k: v for k, v in handler(self).items() if (k, v) != ("nearest", None)}

    def width(self, figure):
        return self.widths_in.get(figure, self.width_in)
