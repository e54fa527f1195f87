"""The block of a recipe that says how images are augmented, and which networks can be told. Loads
no torch."""

from typing import Annotated, Literal

from pydantic import Field

from ect import registry
from ect.config.base import Block


class Augment(Block):
    """EDM's augmentation: mirrored at random, and with probability `p` each scaled, turned,
    stretched and moved. The network is told how, and nothing when it draws images."""

    kind: Literal[tuple(registry.AUGMENTATIONS)] = "edm"
    """`edm`: mirrored left to right, and with probability p each top to bottom, scaled, turned,
    stretched and moved (9 labels); `edm6`: neither top to bottom nor turned (6 labels)."""
    p: Annotated[float, Field(gt=0, le=1)]
    """The probability of each but the first, which half of all images have. EDM's is 0.12 for
    CIFAR-10, 0.15 for FFHQ and AFHQ."""

    @property
    def labels(self):
        """How many numbers the network is told of each image."""
        return registry.AUGMENTATIONS[self.kind]


def check(config):
    """Raise `ValueError` unless every network is told of its augmentation what it can read."""
    for name, block in config.networks.items():
        if block.augment_labels and block.architecture == "edm2":
            raise ValueError(
                f"networks.{name}.augment_labels: found {block.augment_labels} with architecture"
                " 'edm2'; allowed: no such key"
            )
    for name, chain in config.pretrain.items():
        if chain.augment is not None:
            _check_chain(config, f"pretrain.{name}", chain)
    tuned = [(model.start.pretrain, model.recipe) for model in config.all_tuned()]
    for start, recipe in dict.fromkeys(tuned):
        block = config.tune[recipe]
        if block.augment is not None:
            _check_tuning(config, f"tune.{recipe}", block.augment, start)


def _check_chain(config, key, chain):
    network, labels = config.networks[chain.network], chain.augment.labels
    if network.architecture == "edm2":
        raise ValueError(
            f"{key}.augment: found one with the network '{chain.network}' of architecture 'edm2';"
            " allowed: ddpmpp, ncsnpp, adm"
        )
    if network.augment_labels not in (0, labels):
        raise ValueError(
            f"{key}.augment: found '{chain.augment.kind}' with the network '{chain.network}', which"
            f" reads {network.augment_labels} labels; allowed: {labels}, or no such key there"
        )


def _check_tuning(config, key, augment, start):
    """Tuning tells a network what its start was told; of an import only its job knows that."""
    chain, imported = config.pretrain.get(config.chain_of(start)), config.block_of(start)
    if chain is not None:
        found = chain.augment.labels if chain.augment else 0
    elif imported.network is not None:
        found = config.networks[imported.network].augment_labels
    elif imported.format == "diffusers":
        found = 0
    else:
        return
    if found != augment.labels:
        raise ValueError(
            f"{key}.augment: found '{augment.kind}', {augment.labels} labels, from the start"
            f" '{start}', which was told {found}; allowed: a start pretrained with it"
        )


def chain_labels(config, chain):
    """How many labels the network of a pretraining run reads."""
    own = chain.augment.labels if chain.augment else 0
    return own or config.networks[chain.network].augment_labels
