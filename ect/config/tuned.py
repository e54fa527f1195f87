"""The block of a config that names a tuned model as the start of further tuning. Loads no torch."""

from ect.config.base import names
from ect.config.experiments import Cut


class First(Cut):
    """A tuned model of this study as a start: the first of two stages of tuning. It is one model,
    the same in all replicates."""


def check(config):
    """Raise `ValueError` unless every first stage is of a start that is no first stage itself."""
    taken = {*config.pretrain, *config.init, *config.averages}
    for name in config.tuned:
        if name in taken:
            raise ValueError(f"tuned.{name}: also a name of another start; allowed: another name")
    for name, block in config.tuned.items():
        if block.pretrain in config.tuned:
            allowed = names(sorted(taken)) or "none"
            found = f"tuned.{name}.pretrain: found '{block.pretrain}', a tuned model"
            raise ValueError(f"{found}; allowed: {allowed}")
