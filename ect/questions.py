"""The blocks of a config that ask: experiments made of rows, and the cells that figures show. Loads
no torch."""

from fractions import Fraction
from typing import Annotated, Literal

from pydantic import Field, model_validator

from ect.config import Block, Count, Name, Positive


class Published(Block):
    """Lines of workflow/reference/published.csv: a `method`, at one `budget_mimg` where it has
    several."""

    method: str
    budget_mimg: Positive | None = None


class Rows(Block):
    """Cells as a product of lists: starts (a pretraining and its budget) x schedules x seeds, each
    evaluated with `samplers`. Without `tune` the rows are the pretrained models themselves.

    The budgets are `kimg` of pretraining and `tune_kimg` of tuning, or a `total_kimg` and the
    `shares` of it (in percent) that belong to pretraining. Beside the numbers that are `published`
    the paper's table puts these rows, which then are one model, whatever its seeds.
    """

    pretrain: Annotated[list[Name], Field(min_length=1)]
    samplers: Annotated[list[Name], Field(min_length=1)]
    kimg: Annotated[list[int], Field(min_length=1)] | None = None
    tune: Name | None = None
    schedules: list[Name] = []
    seeds: list[int] = [0]
    tune_kimg: Count | None = None
    total_kimg: Count | None = None
    shares: list[Annotated[int, Field(ge=0, lt=100)]] | None = None
    published: list[Published] = []

    @model_validator(mode="after")
    def _budgets(self):
        split, plain = (self.total_kimg, self.shares), (self.kimg, self.tune_kimg)
        if self.tune is None:
            if self.kimg is None or any(split) or self.tune_kimg or self.schedules:
                raise ValueError("rows without tune take pretrain, kimg, samplers; nothing else")
        elif not self.schedules:
            raise ValueError("rows with tune need schedules: [...]")
        elif (None in split) == (None in plain) or any(split) == any(plain):
            raise ValueError("rows with tune need kimg and tune_kimg, or total_kimg and shares")
        models = len(self.pretrain) * len(self.budgets()) * len(self.schedules or [None])
        if self.published and models > 1:
            raise ValueError(f"published is set for rows of {models} models; allowed: one model")
        return self

    def budgets(self):
        """The pairs (thousand images of pretraining, of tuning)."""
        if self.shares is None:
            return [(kimg, self.tune_kimg) for kimg in self.kimg]
        splits = [Fraction(share * self.total_kimg, 100) for share in self.shares]
        return [(split, self.total_kimg - split) for split in splits]


class Experiment(Block):
    """A question, and the rows that answer it. `kind` picks the table and the figure."""

    question: str
    kind: Literal["methods", "schedules", "split", "solvers"]
    rows: Annotated[list[Rows], Field(min_length=1)]


class Cut(Block):
    """One tuned cell, named by its parts."""

    pretrain: Name
    kimg: Annotated[int, Field(ge=0)]
    tune: Name
    schedule: Name
    tune_kimg: Count
    seed: int = 0


class Search(Block):
    """The intermediate times of `models`, for each number of `steps`: golden section in ln s, from
    `low` to `high` with `evaluations` a line, on `images` from the seeds `seed`, `seed` + 1, ...
    What is found is then measured on the evaluation's own seeds."""

    models: Annotated[list[Cut], Field(min_length=1)]
    metric: Literal["fd", "kd"] = "fd"
    steps: Annotated[list[Annotated[int, Field(ge=2)]], Field(min_length=1)] = [2, 3, 4]
    images: Annotated[int, Field(ge=10)]
    seed: Annotated[int, Field(ge=0)]
    evaluations: Count = 10
    low: Positive = 0.02
    high: Positive = 40.0

    @model_validator(mode="after")
    def _ordered(self):
        if self.low >= self.high:
            raise ValueError(f"low is {self.low}; allowed: < high = {self.high}")
        return self


class Figures(Block):
    """`width_in` is the width of every figure in inches, but for those in `widths_in`. `samples` is
    the cell whose images the grid shows, with `solver` as the sampler of its start; `loss` is the
    cell of the loss page."""

    samples: Cut
    loss: Cut
    solver: Name
    width_in: Positive = 6.5
    grid_columns: Count = 12
    widths_in: dict[Name, Positive] = {}

    def width(self, figure):
        return self.widths_in.get(figure, self.width_in)
