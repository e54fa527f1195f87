"""The block of a config that names solved trajectories, and what training on them needs. Loads no
torch."""

from ect.config.base import Block, Name, Seed, names, whole
from ect.config.checks import check_milestone, known


class Solution(Block):
    """How trajectories of a model's ODE are solved: by DPM-Solver++(2M), from s = 80 to 0.002 and
    to 0."""

    steps: whole(1000, 2) = 16
    """Points of a trajectory before its end, evenly spaced in ln s; the solver's evaluations."""
    count: whole(10**7)
    """How many trajectories."""
    batch: whole(10**5) = 250
    """Trajectories computed at a time."""
    seed: Seed = 0
    """Seed of their noise and classes."""


class Trajectories(Solution):
    """Trajectories of a pretrained model, solved once and kept, for mid-training (CMT)."""

    pretrain: Name
    """A name in `pretrain`, `init` or `averages`: the model whose ODE is solved."""
    kimg: whole(10**9, 0)
    """Thousand images of its pretraining."""


def check(config):
    """Raise `ValueError` unless all trajectories are of a pretrained model, and every recipe that
    names some has them, and a start that is told of classes as their model is."""
    for name, block in config.trajectories.items():
        key, starts = f"trajectories.{name}", config.pretrain | config.init | config.averages
        known(f"{key}.pretrain", block.pretrain, starts)
        check_milestone(config, f"{key}.kimg", block.pretrain, block.kimg)
        if block.kimg == 0 and block.pretrain not in config.given:
            found = f"{key}.kimg: found 0, a random start"
            raise ValueError(f"{found}; allowed: a start with pretraining")
    for name, recipe in config.tune.items():
        if recipe.trajectories is not None:
            known(f"tune.{name}.trajectories", recipe.trajectories, config.trajectories)
    for model in config.all_tuned():
        if config.tune[model.recipe].trajectories is not None:
            _check_classes(config, model)
    shown = config.figures.loss
    if shown is not None and config.tune[shown.tune].trajectories is not None:
        allowed = [name for name, recipe in config.tune.items() if recipe.trajectories is None]
        raise ValueError(
            f"figures.loss.tune: found '{shown.tune}', a recipe on trajectories; allowed:"
            f" {names(allowed) or 'none'}, or figures.loss: null"
        )


def _check_classes(config, model):
    """Whether networks are conditioned is known of the config's own, before their files are."""
    name = config.tune[model.recipe].trajectories
    starts = config.trajectories[name].pretrain, model.start.pretrain
    blocks = [config.networks.get(config.block_of(start).network) for start in starts]
    if None in blocks or blocks[0].classes == blocks[1].classes:
        return
    raise ValueError(
        f"tune.{model.recipe}.trajectories: found '{name}', of a network with"
        f" {blocks[0].classes} classes, for the start '{starts[1]}', whose network has"
        f" {blocks[1].classes}; allowed: trajectories of as many"
    )
