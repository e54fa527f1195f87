"""The settings of the verbs that make tables and the page, as typed blocks. Loads no torch."""

from typing import Annotated, Literal

from pydantic import Field

from ect.config.base import Block, Count, FilePath, Seed, Text
from ect.config.experiments import Kind

Mean = Annotated[float, Field(ge=0)]


class Searched(Block):
    """A tuned model, and the file of its searched times."""

    path: FilePath
    schedule: Text
    pretrain: Text
    recipe: Text
    kimg: int = Field(ge=0)
    tune_kimg: Count
    seed: Seed


class StepTable(Block):
    """Of the table of searched times."""

    models: list[Searched] = Field(min_length=1)


class Ours(Block):
    """Our cell beside published numbers."""

    method: Text
    budget_mimg: float | None
    start_mimg: float | None
    metrics: list[FilePath] = Field(min_length=1)


class PaperTable(Block):
    """Of published numbers and ours."""

    dataset: Text
    cells: list[Ours] = Field(min_length=1)


class Shown(Block):
    """An experiment on the page, with its files."""

    question: Text
    kind: Kind
    table: FilePath
    figure: FilePath


class Spread(Block):
    """A measured spread: where, and shape, mean squares and degrees of freedom."""

    at: Text
    squares: Annotated[list[list[Mean]], Field(min_length=3, max_length=3)]


class Planned(Block):
    """What a sampler's rows in an experiment compare, by `planned` of ect/study/noise.py."""

    experiment: Text
    kind: Kind
    label: Text
    rows: Count
    totals: Count
    n: Count
    over: Literal["tuning seeds", "replicates"]
    sets: Count
    spread: Spread | None
    without: list[str]
    maps: Count = 1
    gaps: Count = 1


class Page(Block):
    """Of the page."""

    study: Text
    config: Text
    samplers: dict[str, Text]
    experiments: dict[str, Shown]
    figures: dict[str, FilePath]
    tables: dict[str, FilePath]
    planned: list[Planned] = []


BLOCKS: dict[str, type[Block]] = {
    "tabulate_steps": StepTable,
    "tabulate_paper": PaperTable,
    "write_page": Page,
}
