"""The settings of each figure of the verb `draw`, as typed blocks. Loads no torch."""

from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from ect import registry
from ect.config import parts, verbs
from ect.config.base import (
    Block,
    FilePath,
    Text,
    distinct,
    distinct_list,
    file_path,
    nearest,
    part,
    whole,
)
from ect.config.experiments import Inches
from ect.config.schedule import Schedule
from ect.schedule import CONTINUOUS_TIME


class Figure(Block):
    """What every figure has: its width."""

    width_in: Inches


class Comparison(Figure):
    """Of metrics.json files, and that of real images."""

    metrics: distinct_list(FilePath, Field(min_length=1))
    floor: FilePath | None = None


class Solvers(Comparison):
    """Of solvers beside tuned models, with the kind of each sampler."""

    solvers: Annotated[dict[str, Text], Field(min_length=1)]


class Told(Comparison):
    """Of rows of which more is told than their files say, by name: map and last gap of a schedule,
    the length of an average, or what a spread was measured of."""

    about: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]


class Drawn(Block):
    """A map that is drawn, with its options apart."""

    map: part("schedule")
    options: dict[str, Any]

    @model_validator(mode="after")
    def _options_fit(self, info):
        if self.map in CONTINUOUS_TIME:
            raise ValueError(f"map: found '{self.map}', a loss; allowed: a map t -> r")
        parts.hold(Schedule, {"map": self.map, "clock": "noise"}, self.options, info)
        return self


class Maps(Figure):
    """Of the maps t -> r by name."""

    schedules: Annotated[dict[str, Drawn], Field(min_length=1)]
    plugins: parts.Plugins


class Curves(Figure):
    """Of losses: the logs of each run, in order."""

    runs: Annotated[dict[Text, distinct_list(FilePath, Field(min_length=1))], Field(min_length=1)]


def _row(row):
    """A label and the path of a file."""
    return [row[0], file_path(row[1])]


Row = Annotated[list[Text], Field(min_length=2, max_length=2), AfterValidator(_row)]


class Samples(Figure):
    """Of images: a label and a samples.npz for each row, and the dataset file above them."""

    rows: Annotated[list[Row], Field(min_length=1, max_length=1000)]
    columns: whole(1000)
    data: FilePath | None = None

    @model_validator(mode="after")
    def _labels_differ(self):
        try:
            distinct([label for label, _ in self.rows])
        except ValueError as error:
            raise ValueError(f"rows: {error}") from None
        return self


class Loss(Figure):
    """Of one tuning run's log and trace."""

    metrics: FilePath
    trace: FilePath
    stages: whole(1000) | None = None
    perfect: FilePath | None = None


class Nearest(Figure):
    """Of generated images and their nearest training images."""

    nearest: FilePath
    samples: FilePath
    data: FilePath
    columns: whole(1000)


BLOCKS: dict[str, type[Figure]] = {
    **dict.fromkeys(("methods", "split", "scaling", "schedules"), Comparison),
    **dict.fromkeys(("ends", "noise", "lengths"), Told),
    "solvers": Solvers,
    "maps": Maps,
    "curves": Curves,
    "samples": Samples,
    "loss": Loss,
    "nearest": Nearest,
}


def require(figure, settings):
    """Raise `ValueError` unless there is such a figure, and its settings are such as a study gives
    it."""
    if figure not in BLOCKS:
        allowed = f"{', '.join(BLOCKS)}{nearest(figure, BLOCKS)}"
        raise ValueError(f"figure is '{figure:.60}'; allowed: {allowed}")
    verbs.validate(BLOCKS[figure], settings)


def require_solvers(solvers):
    """Raise `ValueError` unless a mapping {sampler: its kind} can be one."""
    for name, kind in solvers.items():
        if not isinstance(kind, str) or not kind.strip():
            allowed = f"{', '.join(registry.SAMPLERS)}, or that of a plugin"
            raise ValueError(f"--solvers: {name} is {kind!r:.60}; allowed: {allowed}")
