"""The whole config: its blocks, read and checked together. Loads no torch."""

from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import PrivateAttr, ValidationError, model_serializer, model_validator

from ect.config import (
    augment,
    averages,
    base,
    checks,
    compared,
    fits,
    gaps,
    load,
    places,
    rates,
    trajectories,
    tuned,
    unused,
)
from ect.config.budget import Scale, scale_of, scaled
from ect.config.dataset import SHARDS
from ect.config.errors import at, line_of, lines_of, without_base
from ect.config.grid import Grid
from ect.plugins import read as read_plugins

LINES = 20  # mistakes that are told at once


class ConfigError(ValueError):
    """A config that cannot be run; the message names each key, what was found, what is allowed."""

    @classmethod
    def of(cls, lines):
        """That of these lines: the first `LINES`, and how many more there are."""
        more = [f"and {len(lines) - LINES} more mistakes like these"] * (len(lines) > LINES)
        return cls("\n".join([*lines[:LINES], *more]))


def require_plain(mapping, place_of):
    """Raises `ConfigError` for what no config may hold, whatever its key."""
    places.require_bounded(mapping)
    found = {}
    for path, message in places.unfit(mapping):
        place, key = place_of(path), ".".join(map(str, path))
        told = at(place, f"{key}: {message}")
        found.setdefault(place[:3] if place and place.line else path, told)
    if found:
        raise ConfigError.of([*found.values()])


def _plugins(mapping):
    """{kind: {name: Part}} of the plugins that a mapping lists."""
    named = mapping.get("plugins", []) if isinstance(mapping, dict) else []
    if isinstance(named, list) and all(isinstance(path, str) for path in named):
        try:
            base.distinct([base.path(path) for path in named])
        except ValueError as error:
            raise ValueError(f"plugins: {error}") from None
    return read_plugins(named)


class Config(Grid):
    """A whole config file, checked."""

    _place_of: Any = PrivateAttr(None)  # the function of `read`
    _scale: Scale | None = PrivateAttr(None)

    @classmethod
    def read(cls, mapping, where=None):
        """Check a mapping, as read from YAML; raises `ConfigError`. `where` are the places of its
        keys, which a mapping that was read from files has itself."""
        where = getattr(mapping, "places", {}) if where is None else where

        def place_of(path):
            return places.find(where, load.origin(mapping, path))

        try:
            require_plain(mapping, place_of)
            study = cls._checked(load.resolve(mapping), _plugins(mapping))
            unused.check_prior(mapping, study)
            study._place_of = place_of
            return study
        except ValidationError as error:
            found = error.errors()
            told = without_base(found) or lines_of(cls, found, place_of)
            raise ConfigError.of(told) from None
        except ConfigError:
            raise
        except ValueError as error:
            raise ConfigError(line_of(str(error), place_of)) from None

    def fit(self, facts):
        """The `Facts` of the images, which `facts` finds of the block `dataset`; raises
        `ConfigError` unless what jobs will need fits them."""
        with self.placed():
            found = facts(self.dataset)
            fits.check(self, found)
            return found

    @contextmanager
    def placed(self):
        """Raises a `ValueError` of a check as a `ConfigError`, with the place of its key."""
        try:
            yield
        except ValueError as error:
            raise ConfigError(line_of(str(error), self._place_of or (lambda path: None))) from None

    @classmethod
    def _checked(cls, mapping, parts):
        """The config as it is written, then with its budget."""
        study = cls.model_validate(mapping, context=parts)
        if study.budget is None:
            return study
        scale = scale_of(mapping, study.budget)
        study = cls.model_validate(scaled(mapping, scale), context=parts)
        study._scale = scale
        return study

    @model_serializer(mode="wrap")
    def _without_unset(self, handler):
        """Without `budget` where it is not set: as before there was such a key."""
        return {k: v for k, v in handler(self).items() if (k, v) != ("budget", None)}

    @model_validator(mode="after")
    def _parts_fit(self, info):
        self._plugin_parts = info.context or {}
        fits.require_bounded(self)
        averages.check(self)
        tuned.check(self)
        checks.check(self)
        augment.check(self)
        unused.check(self)
        compared.check(self)
        trajectories.check(self)
        fits.check(self, self.dataset.facts)
        gaps.check(self)
        rates.check(self)
        self._require_results_apart()
        return self

    def _require_results_apart(self):
        """The images of a folder are not those that the study itself draws into it."""
        folder = self.dataset.folder if self.dataset.source not in SHARDS else None
        if folder is not None and Path(self.root).resolve().is_relative_to(Path(folder).resolve()):
            raise ValueError(
                f"dataset.path: found {base.short(self.dataset.path)}, which holds the study's own"
                f" figures in {self.root}; allowed: a folder of images alone"
            )

    @property
    def scale(self):
        """The `Scale` that `budget` set; None without the key."""
        return self._scale
