"""Whether the seeds of a study's runs and images are apart, and none too large. Loads no torch."""

from ect.config.base import LAST_SEED
from ect.config.evaluation import SEEDS


def check(config):
    """No two replicates share the seed of an image, nor does a search with any of them."""
    search, test = config.search, config.evaluation
    images, replicates = test.repeats * test.images, {c.replicate for c in config.all_cells()}
    if images > SEEDS and len(replicates) > 1:
        raise ValueError(
            f"evaluation.images: found {test.images}, drawn {test.repeats} times, with replicates;"
            f" allowed: at most {SEEDS} images of each replicate"
        )
    _check_last_seeds(config, max(replicates, default=0))
    for first in sorted(test.first_seed(0, replicate) for replicate in replicates):
        last = first + images - 1
        if search and search.seed <= last and first < search.seed + search.images:
            raise ValueError(
                f"search.seed: found {search.seed} with {search.images} images, which meets the"
                f" evaluation's seeds {first} to {last}; allowed: seeds apart from them"
            )


def _check_last_seeds(config, replicate):
    """The seeds that follow a config's are such as a config may have."""
    last = {"evaluation": config.evaluation.first_seed(config.evaluation.repeats - 1, replicate)}
    last |= {f"pretrain.{name}": block.seed + replicate for name, block in config.pretrain.items()}
    for key, seed in last.items():
        if seed > LAST_SEED:
            raise ValueError(f"{key}.seed: leads to seeds up to {seed}; allowed: to {LAST_SEED}")
