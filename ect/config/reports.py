"""The settings of the verbs that make tables and the page, as typed blocks. Loads no torch."""

from typing import Any

from pydantic import Field

from ect.config.base import Block, Count, Seed
from ect.config.experiments import Kind


class Searched(Block):
    """A tuned model, and the file of its searched times."""

    path: str
    schedule: str
    pretrain: str
    recipe: str
    kimg: int = Field(ge=0)
    tune_kimg: Count
    seed: Seed


class StepTable(Block):
    """Of the table of searched times."""

    models: list[Searched] = Field(min_length=1)


class Ours(Block):
    """Our cell beside published numbers."""

    method: str
    budget_mimg: float | None
    start_mimg: float | None
    metrics: list[str] = Field(min_length=1)


class PaperTable(Block):
    """Of published numbers and ours."""

    dataset: str
    cells: list[Ours] = Field(min_length=1)


class Shown(Block):
    """An experiment on the page, with its files."""

    question: str
    kind: Kind
    table: str
    figure: str


class Page(Block):
    """Of the page."""

    study: str
    config: str
    samplers: dict[str, str]
    experiments: dict[str, Shown]
    figures: dict[str, str]
    tables: dict[str, str]
    planned: list[dict[str, Any]] = []


BLOCKS: dict[str, type[Block]] = {
    "tabulate_steps": StepTable,
    "tabulate_paper": PaperTable,
    "write_page": Page,
}
