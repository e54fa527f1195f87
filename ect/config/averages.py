"""The block of a config that names an average of another length. Loads no torch."""

from ect.config.base import Block, Count, Name, names, nearest
from ect.config.lengths import Length


class Average(Block):
    """A start whose weights are averaged over another length: reconstructed from the averages of a
    pretraining run's milestones, which must have `ema_std` (EDM2, sec. 3.2)."""

    pretrain: Name
    """A name in `pretrain`."""
    kimg: Count
    """The last milestone of the average, in thousand images."""
    ema_std: Length
    """Its length, as a share of these images. The job says how near the milestones come to it, and
    refuses one that they miss by more than a fifth."""


def check(config):
    """Raise `ValueError` unless every average is one that its chain's milestones can give."""
    for name, block in config.averages.items():
        key = f"averages.{name}"
        if name in config.pretrain or name in config.init:
            raise ValueError(f"{key}: also a name in pretrain or init; allowed: another name")
        if block.pretrain not in config.pretrain:
            near = nearest(block.pretrain, config.pretrain)
            allowed = names(config.pretrain) or "none"
            raise ValueError(f"{key}.pretrain: found '{block.pretrain}'; allowed: {allowed}{near}")
        chain = config.pretrain[block.pretrain]
        if chain.ema_std is None:
            raise ValueError(
                f"{key}.pretrain: found '{block.pretrain}', whose average has a half-life; allowed:"
                " a pretraining run with ema_std"
            )
        milestones = chain.milestones_to(chain.kimg)[1:]
        if block.kimg not in milestones:
            grid = names(map(str, milestones[:2])) + f", ..., {chain.kimg}"
            raise ValueError(f"{key}.kimg: found {block.kimg}; allowed: its milestones {grid}")
